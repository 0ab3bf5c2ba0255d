"""Behaviour of vodes and layers that programs written for PCX rely on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu


@pytest.mark.parametrize("shape", [(), (3,), (4, 3)])
def test_the_shape_of_a_vode_is_a_tuple_and_answers_get(shape):
    vode = pxc.Vode(shape)
    assert vode.shape == vode.shape.get() == shape
    assert isinstance(vode.shape, tuple)
    assert type(vode.shape.get()) is tuple
    assert jnp.zeros(vode.shape).shape == jnp.zeros(vode.shape.get()).shape == shape


def test_a_recorded_shape_answers_get_too():
    vode = pxc.Vode()
    assert vode.shape is None
    vode(jnp.ones((2, 5)))
    assert vode.shape.get() == (2, 5)


ZEROS = {
    "ruleset": {pxc.STATUS.INIT: ("h, u <- u:zeros",)},
    "tforms": {"zeros": lambda vode, key, value, rkg: jnp.zeros(vode.shape.get())},
}


class Decoder(pxc.EnergyModule):
    """A latent that is called with a dummy, as the paper's decoders do."""

    def __init__(self, energy_fn, dummy):
        self.dummy = dummy
        self.layer = pxnn.Linear(4, 6)
        self.vodes = [pxc.Vode((4,), energy_fn, **ZEROS), pxc.Vode((6,))]
        self.vodes[1].h.frozen = True

    def __call__(self, y=None):
        u = self.layer(self.vodes[0](self.dummy))
        self.vodes[1](u)
        if y is not None:
            self.vodes[1].set("h", y)
        return u


def prior(vode, rkg):
    return 0.5 * vode.get("h") ** 2


@pytest.mark.parametrize("dummy", [-1, jnp.zeros((1,)), jnp.array(0.0)])
@pytest.mark.parametrize("energy_fn", [None, pxc.zero_energy, prior])
def test_a_latent_whose_energy_does_not_read_u_takes_any_dummy(energy_fn, dummy):
    model = Decoder(energy_fn, dummy)
    y = jnp.linspace(0.0, 1.0, 6)
    with pxu.step(model, pxc.STATUS.INIT):
        model(y)
    rate = 0.1
    w, b = model.layer.nn.weight.get(), model.layer.nn.bias.get()

    def energy(h):
        return 0.5 * jnp.sum((y - w @ h - b) ** 2) + (energy_fn is prior) * 0.5 * jnp.sum(h**2)

    def ours(*, model):
        model(y)
        return jnp.asarray(model.energy())

    h = jnp.zeros(4)
    for _ in range(3):
        value, grads = pxf.value_and_grad(pxu.M(pxc.VodeParam).hasnot(frozen=True))(ours)(
            model=model
        )
        np.testing.assert_allclose(value, energy(h), rtol=1e-5)
        model.vodes[0].h -= rate * grads["model"].vodes[0].h
        h = h - rate * jax.grad(energy)(h)
        np.testing.assert_allclose(model.vodes[0].h, h, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("u", [-1, jnp.zeros((1,)), jnp.ones((5,))])
def test_a_wrong_u_is_refused_where_the_energy_compares_it(u):
    class Net(pxc.EnergyModule):
        def __init__(self, energy_fn):
            self.latent = pxc.Vode((4,), energy_fn).set("h", jnp.zeros(4))

    def own(vode, rkg):
        return (vode.get("h") - vode.get("u")) ** 2

    for energy_fn in (pxc.se_energy, own):
        net = Net(energy_fn)
        with pytest.raises(
            ValueError, match=r"`net\.latent` was declared as Vode\(\(4,\)\), but u is"
        ):
            net.latent(u, output=None).energy()


def test_batch_norm_takes_its_arguments_by_position_and_computes_as_equinox():
    ours = pxnn.BatchNorm(3, "batch", 1e-4, True, 0.9, True, mode="ema")
    module, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        3, "batch", 1e-4, True, 0.9, True, mode="ema"
    )
    x = jax.random.normal(jax.random.PRNGKey(0), (8, 3))
    want, _ = jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)
    call = pxf.vmap({}, in_axes=(0,), axis_name="batch")(lambda x, *, layer: layer(x))
    np.testing.assert_allclose(call(x, layer=ours), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "settings"),
    [
        (
            lambda: pxnn.BatchNorm(3, "batch", 1e-4, True, 0.9, True, mode="ema"),
            {"eps": 1e-4, "momentum": 0.9, "axis_name": "batch", "inference": True, "mode": "ema"},
        ),
        (lambda: pxnn.Linear(3, 2), {"in_features": 3, "out_features": 2, "use_bias": True}),
        (lambda: pxnn.Conv2d(3, 8, 3, stride=2), {"stride": (2, 2), "out_channels": 8}),
        (lambda: pxnn.Dropout(0.25), {"p": 0.25, "inference": False}),
        (lambda: pxnn.LayerNorm((4, 2)), {"shape": (4, 2), "use_bias": True}),
    ],
)
def test_settings_of_a_layer_answer_as_values_and_by_get(layer, settings):
    layer = layer()
    for name, value in settings.items():
        setting = getattr(layer.nn, name)
        assert setting == value
        assert setting.get() == value
        assert type(setting.get()) is type(value)
        if type(value) is not bool:
            assert isinstance(setting, type(value))


def test_settings_compute_as_the_values_that_they_are():
    linear, drop = pxnn.Linear(3, 2).nn, pxnn.Dropout(0.25).nn
    assert jnp.zeros((linear.out_features, linear.in_features)).shape == (2, 3)
    x = jnp.ones(2, jnp.bfloat16) * drop.p
    assert x.dtype == jnp.bfloat16
    assert [1 for _ in range(linear.in_features)] == [1, 1, 1]
    assert not drop.inference
    assert f"{linear.in_features}{drop.p}" == "30.25"


def test_settings_of_parts_answer_too():
    mlp = pxnn.Layer(eqx.nn.MLP, 3, 2, 8, 1).nn
    assert mlp.layers[0].in_features.get() == 3
    assert isinstance(mlp.layers[1].weight, pxnn.LayerParam)
    assert isinstance(mlp, eqx.nn.MLP)
    assert mlp.depth.get() == 1


def test_a_wrapped_module_is_the_same_tree_as_that_of_equinox():
    layer = pxnn.Linear(3, 2)
    bare = eqx.nn.Linear(3, 2, key=jax.random.PRNGKey(0))
    ours, theirs = (jax.tree_util.tree_flatten_with_path(m)[0] for m in (layer.nn, bare))
    assert [jax.tree_util.keystr(p) for p, _ in ours] == [
        jax.tree_util.keystr(p) for p, _ in theirs
    ]
    doubled = jax.tree_util.tree_map(lambda a: 2 * a, layer.nn)
    np.testing.assert_array_equal(doubled.weight, 2 * layer.nn.weight)


def test_modes_have_names_and_a_question():
    layer = pxnn.Sequential(pxnn.Dropout(0.5))
    assert layer.mode(None) is None
    for mode, change in ((px.Module.MODE.TRAIN, layer.train), (px.Module.MODE.EVAL, layer.eval)):
        change()
        assert layer.mode(None) == layer[0].mode() == mode
    assert layer.mode(px.Module.MODE.TRAIN) == px.Module.MODE.TRAIN
    assert layer[0].is_train
    assert layer[0].nn.inference.get() is False
    with pytest.raises(ValueError, match="a mode is 'train' or 'eval'; got 'test'"):
        layer.mode("test")
