"""What PCX programs rely on in `pxu`: masks, optimisers, `step`. Expectations in raw JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

CACHE = pxc.VodeParam.Cache


class Net(pxc.EnergyModule):
    def __init__(self):
        rkg = px.RandomKeyGenerator(0)
        self.layers = [pxnn.Linear(3, 4, rkg=rkg), pxnn.Linear(4, 2, rkg=rkg)]
        self.vodes = [pxc.Vode((4,)), pxc.Vode((2,))]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        for layer, vode in zip(self.layers, self.vodes, strict=True):
            u = layer(x)
            x = vode(u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


X, Y = jnp.array([1.0, 0.5, -1.0]), jnp.array([1.0, -1.0])


def energy(x, y, *, model):
    model(x, y)
    return model.energy()


def initialised():
    net = Net()
    with pxu.step(net, pxc.STATUS.INIT, clear_params=CACHE):
        net(X)
    net(X, Y)
    return net


def raw_energy(h, weights):
    (W1, b1), (W2, b2) = weights
    return 0.5 * jnp.sum((h - W1 @ X - b1) ** 2) + 0.5 * jnp.sum((Y - W2 @ h - b2) ** 2)


def raw(net):
    return [(k.nn.weight.get(), k.nn.bias.get()) for k in net.layers]


@pytest.mark.parametrize("keywords", [{}, {"scale_by_batch_size": False}])
@pytest.mark.parametrize("jitted", [False, True])
def test_a_clamped_output_in_the_optimiser_of_all_states_stays_and_the_others_move(
    jitted, keywords
):
    net = initialised()
    optim = pxu.Optim(lambda: optax.sgd(0.1, momentum=0.9), pxu.M(pxc.VodeParam)(net))
    free = pxu.M_hasnot(pxc.VodeParam, frozen=True).to((False, True))

    def infer(x, y, *, model, optim):
        with pxu.step(model, clear_params=CACHE):
            _, g = pxf.value_and_grad(free)(energy)(x, y, model=model)
        optim.step(model, g["model"], **keywords)

    h, bare = net.vodes[0].h.get(), optax.sgd(0.1, momentum=0.9)
    state = bare.init(h)
    run = pxf.jit()(infer) if jitted else infer
    for _ in range(3):
        run(X, Y, model=net, optim=optim)
        update, state = bare.update(jax.grad(raw_energy)(h, raw(net)), state)
        h = h + update
    np.testing.assert_allclose(net.vodes[0].h, h, rtol=1e-5)
    np.testing.assert_array_equal(net.vodes[1].h, Y)


def test_layers_that_a_gradient_mask_leaves_out_stay_and_a_warning_names_them():
    net = initialised()
    optim = pxu.Optim(optax.adam(0.1), pxu.M(pxnn.LayerParam)(net))
    mask = pxu.M(pxnn.LayerParam).to((False, True))(net)
    mask.layers[0] = False
    _, g = pxf.value_and_grad({"model": mask})(energy)(X, Y, model=net)
    h, (first, second) = net.vodes[0].h.get(), raw(net)
    with pytest.warns(UserWarning, match=r"`layers\[0\]\.nn\.\w+`, `layers\[0\]\.nn\.\w+`\."):
        optim.step(net, g["model"])
    bare, gradient = optax.adam(0.1), jax.grad(lambda w: raw_energy(h, [first, w]))(second)
    updates, _ = bare.update(gradient, bare.init(second))
    for got, want in zip(raw(net), [first, optax.apply_updates(second, updates)], strict=True):
        np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
        np.testing.assert_allclose(got[1], want[1], rtol=1e-5)


def test_a_step_without_any_gradient_leaves_the_optimiser_as_it_was():
    net = initialised()
    optim = pxu.Optim(optax.adam(0.1), pxu.M(pxnn.LayerParam)(net))
    _, g = pxf.value_and_grad(pxu.M(pxnn.LayerParam))(energy)(X, Y, model=net)
    optim.step(net, g["model"])
    before = jax.tree_util.tree_leaves((optim.state.get(), raw(net)))
    optim.step(net, pxu.M(pxc.VodeParam)(net), allow_none=True)
    after = jax.tree_util.tree_leaves((optim.state.get(), raw(net)))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masks_of_everything_of_several_filters_and_edited_by_hand():
    net = initialised()
    params = jax.tree_util.tree_leaves(net, is_leaf=lambda x: isinstance(x, px.DynamicParam))
    params = [p for p in params if isinstance(p, px.DynamicParam)]
    assert len(params) == 8
    is_weight = [isinstance(p, pxnn.LayerParam) for p in params]
    assert all(pxu.M(None).apply(p) for p in params)
    assert [pxu.M_is(px.Param, pxnn.LayerParam).apply(p) for p in params] == is_weight
    assert [pxu.M_hasnot(pxnn.LayerParam).apply(p) for p in params] == is_weight
    assert [p for p in params if pxu.M_has(None, frozen=True).apply(p)] == [net.vodes[1].h]

    mask = pxu.M(None).to([False, False])(net, is_pytree=True)
    mask.vodes[0].h = True
    _, g = pxf.value_and_grad({"model": mask})(energy)(X, Y, model=net)
    want = jax.grad(raw_energy)(net.vodes[0].h.get(), raw(net))
    np.testing.assert_allclose(g["model"].vodes[0].h, want, rtol=1e-5)
    assert g["model"].layers[0].nn.weight is None


def test_a_single_clear_params_clears_when_the_block_ends():
    net = initialised()
    want = raw_energy(net.vodes[0].h.get(), raw(net))
    with pxu.step(net, clear_params=CACHE):
        # the prediction made before the block is still there
        np.testing.assert_allclose(net.energy(), want, rtol=1e-6)
    assert all(v.get("u") is None for v in net.vodes)


def test_a_factory_that_draws_noise_draws_a_key_for_each_init_and_none_before():
    rkg, copy = px.RandomKeyGenerator(1), px.RandomKeyGenerator(1)
    net = initialised()
    optim = pxu.Optim(lambda: optax.add_noise(1.0, 0.0, jax.random.wrap_key_data(rkg())))
    for _ in range(2):
        bare = optax.add_noise(1.0, 0.0, jax.random.wrap_key_data(copy()))
        optim.init(pxu.M_hasnot(pxc.VodeParam, frozen=True)(net))
        updates = optim.step(net, zeros(net))
        noise, _ = bare.update(
            {"vodes[0].h": jnp.zeros(4)}, bare.init({"vodes[0].h": jnp.zeros(4)})
        )
        np.testing.assert_array_equal(updates["vodes[0].h"], noise["vodes[0].h"])
        optim.clear()


def zeros(net):
    return jax.tree_util.tree_map(
        lambda p: pxc.VodeParam(jnp.zeros(p.shape)) if isinstance(p, pxc.VodeParam) else None,
        net,
        is_leaf=lambda x: isinstance(x, px.DynamicParam),
    )


def test_a_file_that_pcx_wrote_loads_and_the_model_computes_with_it(tmp_path):
    rng = np.random.default_rng(0)
    W1, b1, W2, b2 = (rng.normal(size=s).astype("f4") for s in ((4, 3), 4, (2, 4), 2))
    names = [f".layers[{i}].nn.{k}" for i in (0, 1) for k in ("weight", "bias")]
    np.savez(tmp_path / "old.npz", **dict(zip(names, (W1, b1, W2, b2), strict=True)))
    net = Net()
    pxu.load_params(net, tmp_path / "old")
    with pxu.step(net, pxc.STATUS.INIT, clear_params=CACHE):
        np.testing.assert_allclose(net(X), W2 @ (W1 @ X + b1) + b2, rtol=1e-5)
