"""`Optim` and `OptimTree` against bare optax."""

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

OPTIMISERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "schedule": lambda: optax.adam(optax.exponential_decay(0.1, 1, 0.5)),
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
    "multi_steps": lambda: optax.MultiSteps(optax.sgd(0.1), 2),
    "injected": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.3),
}


class Net(pxc.EnergyModule):
    def __init__(self):
        rkg = px.RandomKeyGenerator(0)
        self.layers = [pxnn.Linear(2, 3, rkg=rkg), pxnn.Linear(3, 2, rkg=rkg)]
        self.act = jax.nn.tanh
        self.n = 3
        self.vodes = [pxc.Vode((3,)), pxc.Vode((2,))]

    def __call__(self, x):
        for layer, vode in zip(self.layers, self.vodes, strict=True):
            x = vode(self.act(layer(x)))
        return x


def weights(net):
    return {
        name: p.get() for name, p in px.core.named_params(net) if pxu.M(pxnn.LayerParam).select(p)
    }


def gradients(net, k=0):
    """Some gradients, in a tree like the model, and the same by path."""
    rng = np.random.default_rng(k)
    tree = pxu.M(pxnn.LayerParam)(net)
    leaves, treedef = jax.tree_util.tree_flatten(tree, is_leaf=lambda x: isinstance(x, px.Param))
    new = [
        pxnn.LayerParam(jnp.asarray(rng.normal(size=p.shape), jnp.float32))
        if isinstance(p, px.Param)
        else p
        for p in leaves
    ]
    grads = jax.tree_util.tree_unflatten(treedef, new)
    return grads, weights(grads)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_steps_are_those_of_bare_optax(name, jitted):
    net = Net()
    make = OPTIMISERS[name]
    optim = pxu.Optim(make(), pxu.M(pxnn.LayerParam)(net))
    bare, want = make(), weights(net)
    state = bare.init(want)

    def step(*, grads, net, optim):
        optim.step(net, grads)

    run = pxf.jit()(step) if jitted else step
    for k in range(4):
        grads, by_path = gradients(net, k)
        run(grads=grads, net=net, optim=optim)
        updates, state = bare.update(by_path, state, want)
        want = optax.apply_updates(want, updates)
    assert_same(weights(net), want)


def test_params_are_known_by_their_paths():
    _, by_path = gradients(Net())
    assert set(by_path) == {f"layers[{i}].nn.{n}" for i in (0, 1) for n in ("weight", "bias")}


def test_a_factory_and_the_transformation_itself_are_the_same():
    nets = [Net(), Net()]
    optims = [
        pxu.Optim(optax.adam(0.1), pxu.M(pxnn.LayerParam)(nets[0])),
        pxu.Optim(lambda: optax.adam(0.1), pxu.M(pxnn.LayerParam)(nets[1])),
    ]
    for net, optim in zip(nets, optims, strict=True):
        optim.step(net, gradients(net)[0])
    assert_same(weights(nets[0]), weights(nets[1]))


OPTIMS = [pxu.Optim, lambda o, *params: pxu.OptimTree(o, lambda x: False, *params)]


@pytest.mark.parametrize("bad", [3, "sgd", None])
@pytest.mark.parametrize("cls", OPTIMS)
def test_something_else_than_an_optax_transformation_is_refused(bad, cls):
    with pytest.raises(
        TypeError, match=r"takes an optax transformation such as `optax\.sgd\(1e-2\)`.*got"
    ):
        cls(bad)


@pytest.mark.parametrize("cls", OPTIMS)
def test_a_factory_of_something_else_is_refused_when_it_is_called(cls):
    with pytest.raises(TypeError, match=r"takes an optax transformation.*lambda.*returned 3"):
        cls(lambda: 3, [px.Param(jnp.ones(1))])


@pytest.mark.parametrize("cls", OPTIMS)
def test_a_factory_is_called_by_each_init_and_not_before(cls):
    rates = iter([1.0, 0.25])
    param = px.Param(jnp.zeros(()))
    optim = cls(lambda: optax.sgd(next(rates)))
    for want in (-1.0, -1.25):
        optim.init([param])
        optim.step([param], [jnp.ones(())], apply_updates=False)
        optim.step([param], [jnp.ones(())])
        assert float(param) == want


def test_the_transformation_in_use_can_be_read():
    given = optax.sgd(0.1)
    assert pxu.Optim(given).optax is given
    made = []
    optim = pxu.Optim(lambda: made.append(optax.sgd(0.1)) or made[-1])
    assert made == []
    assert optim.optax is optim.optax is made[0]
    optim.init([px.Param(jnp.ones(1))])
    assert optim.optax is made[1]
    assert len(made) == 2


def test_making_an_optimiser_draws_no_key_and_each_init_draws_one():
    rkg, want = px.RandomKeyGenerator(3), px.RandomKeyGenerator(3)
    param = px.Param(jnp.zeros(4))
    optim = pxu.Optim(lambda: optax.add_noise(1.0, 0.0, jax.random.wrap_key_data(rkg())))
    np.testing.assert_array_equal(rkg.key.get(), want.key.get())
    for _ in range(2):
        key = jax.random.wrap_key_data(want())
        optim.init([param])
        noise = optim.step([param], [jnp.zeros(4)], apply_updates=False)["[0]"]
        bare = optax.add_noise(1.0, 0.0, key)
        np.testing.assert_array_equal(noise, bare.update(jnp.zeros(4), bare.init(jnp.zeros(4)))[0])
    np.testing.assert_array_equal(rkg.key.get(), want.key.get())


def sgd_step(scale, **kwargs):
    net = Net()
    before = weights(net)
    grads, by_path = gradients(net)
    copy = {k: np.asarray(v) for k, v in by_path.items()}
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxnn.LayerParam)(net))
    updates = optim.step(net, grads, **kwargs)
    assert_same(weights(net), {k: before[k] - scale * copy[k] for k in before})
    assert_same(updates, {k: -scale * copy[k] for k in before})
    # the gradients themselves are never changed
    assert_same(weights(grads), copy)


def test_scale_by_multiplies_the_gradients_and_does_not_change_them():
    sgd_step(0.25, scale_by=0.25)
    sgd_step(0.25, scale_by=jnp.array(0.25))


def test_mul_is_the_paper_s_name_of_scale_by():
    sgd_step(3.0, mul=3.0)


@pytest.mark.parametrize(
    "nothing", [{"scale_by": False}, {"scale_by_batch_size": False}, {"scale_by_batch_size": None}]
)
def test_false_and_none_do_not_scale(nothing):
    sgd_step(1.0, **nothing)


def test_two_names_of_the_scale_at_once_are_refused():
    match = r"three names of one factor; got more than one of them: scale_by=2\.0, mul=3\.0"
    with pytest.raises(ValueError, match=match):
        sgd_step(1.0, scale_by=2.0, mul=3.0)


def test_updates_can_be_had_without_being_applied_and_applied_later():
    net = Net()
    before = weights(net)
    optim = pxu.Optim(optax.sgd(1.0, momentum=0.9), pxu.M(pxnn.LayerParam)(net))
    grads, by_path = gradients(net)
    updates = optim.step(net, grads, apply_updates=False)
    assert_same(weights(net), before)
    optim.apply_updates(net, updates)
    assert_same(weights(net), {k: before[k] - by_path[k] for k in before})
    # the momentum has advanced: the next update is g + 0.9 g
    assert_same(optim.step(net, grads), {k: -1.9 * by_path[k] for k in before})


@pytest.mark.parametrize("keyword", ["scale_by", "mul", "scale_by_batch_size", None])
@pytest.mark.parametrize("declared", [True, False])
def test_true_multiplies_by_the_batch_size(declared, keyword):
    vodes = [pxc.Vode((3,)) if declared else pxc.Vode(), pxc.Vode((2,))]
    mask = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))

    @pxf.vmap(mask, in_axes=(0, 0))
    def init(a, b, *, vodes):
        with pxu.step(vodes, pxc.STATUS.INIT):
            vodes[0](a), vodes[1](b)

    init(jnp.zeros((5, 3)), jnp.zeros((5, 2)), vodes=vodes)
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxc.VodeParam)(vodes))
    grads = pxu.M(pxc.VodeParam)([v_like(v) for v in vodes])
    if keyword is None:  # the third place is that of `scale_by`
        optim.step(vodes, grads, True)
    else:
        optim.step(vodes, grads, **{keyword: True})
    np.testing.assert_allclose(vodes[0].h, -5.0)
    np.testing.assert_allclose(vodes[1].h, -5.0)


def v_like(vode):
    return pxc.Vode(vode.shape).set("h", jnp.ones_like(vode.h.get()))


def test_true_for_one_sample_multiplies_by_one():
    vodes = [pxc.Vode((3,)).set("h", jnp.zeros(3))]
    pxu.Optim(optax.sgd(1.0), pxu.M(pxc.VodeParam)(vodes)).step(vodes, [v_like(vodes[0])], True)
    np.testing.assert_allclose(vodes[0].h, -1.0)


def test_true_for_weights_takes_the_batch_size_of_the_states():
    net = Net()
    net.vodes[0].set("h", jnp.zeros((4, 3)))
    net.vodes[1].set("h", jnp.zeros((4, 2)))
    before = weights(net)
    grads, by_path = gradients(net)
    pxu.Optim(optax.sgd(1.0), pxu.M(pxnn.LayerParam)(net)).step(net, grads, mul=True)
    assert_same(weights(net), {k: before[k] - 4 * by_path[k] for k in before})


@pytest.mark.parametrize(
    ("states", "match"),
    [
        ((None, None), "the model has no vode with a state"),
        (((4, 3), (5, 2)), r"the states are batches of sizes \[4, 5\]"),
    ],
)
def test_true_without_a_known_batch_size_is_refused(states, match):
    net = Net()
    for vode, shape in zip(net.vodes, states, strict=True):
        if shape is not None:
            vode.set("h", jnp.zeros(shape))
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxnn.LayerParam)(net))
    with pytest.raises(ValueError, match=rf"(?s)batch size.*{match}.*scale_by=x\.shape\[0\]"):
        optim.step(net, gradients(net)[0], True)


def test_true_with_an_undeclared_vode_that_was_never_called_is_refused():
    vode = pxc.Vode()
    vode.h.set(jnp.zeros((4, 3)))
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxc.VodeParam)(vode))
    with pytest.raises(ValueError, match="no declared shape and was never called"):
        optim.step(vode, pxc.Vode().set("h", jnp.ones((4, 3))), True)


def test_gradients_of_other_params_are_ignored():
    net = Net()
    before = weights(net)
    grads, by_path = gradients(net)
    first = pxu.M(pxnn.LayerParam)(net)
    first.layers[1] = None
    optim = pxu.Optim(optax.sgd(1.0), first)
    assert repr(optim) == "Optim(2 params)"
    optim.step(net, grads)
    want = {k: before[k] - (by_path[k] if "[0]" in k else 0) for k in before}
    assert_same(weights(net), want)


def test_a_model_without_the_optimiser_s_params_is_refused_by_name():
    net = Net()
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxnn.LayerParam)(net))
    with pytest.raises(
        ValueError, match=r"initialised with `layers\[0\]\.nn\.weight`.*does not have"
    ):
        optim.step(net.layers, gradients(net)[0])


def test_without_params_the_first_step_takes_those_that_have_gradients():
    net = Net()
    optim = pxu.Optim(optax.sgd(1.0))
    grads, _ = gradients(net)
    grads.layers[1].nn.weight.set(None)
    assert repr(optim) == "Optim(0 params)"
    optim.step(net, grads)
    assert repr(optim) == "Optim(3 params)"


def test_without_params_and_without_any_gradient_it_says_so():
    net = Net()
    grads = pxu.M(pxc.VodeParam)(net)
    with pytest.raises(ValueError, match=r"none of the params .* has a gradient.*given for: none"):
        pxu.Optim(optax.sgd(1.0)).step(net, grads)
    optim = pxu.Optim(optax.sgd(1.0))
    assert optim.step(net, grads, allow_none=True) == {}
    assert optim.state.get() is None


def test_states_that_are_still_empty_are_decided_by_the_first_step():
    vode = pxc.Vode((2,))
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxc.VodeParam)(vode))
    vode.set("h", jnp.zeros(2))
    optim.step(vode, pxc.Vode().set("h", jnp.ones(2)))
    np.testing.assert_allclose(vode.h, -1.0)


def test_clear_forgets_the_momentum():
    net = Net()
    optim = pxu.Optim(optax.sgd(1.0, momentum=0.9), pxu.M(pxnn.LayerParam)(net))
    grads, by_path = gradients(net)
    optim.step(net, grads)
    optim.clear()
    assert optim.state.get() is None
    assert_same(optim.step(net, grads), {k: -g for k, g in by_path.items()})


def test_init_starts_afresh():
    net = Net()
    optim = pxu.Optim(optax.sgd(1.0, momentum=0.9), pxu.M(pxnn.LayerParam)(net))
    grads, by_path = gradients(net)
    optim.step(net, grads)
    assert optim.init(pxu.M(pxnn.LayerParam)(net)) is optim
    assert_same(optim.step(net, grads), {k: -g for k, g in by_path.items()})


def test_init_inside_jit_works_and_momentum_survives_across_jitted_calls():
    param, optim = px.Param(jnp.zeros(())), pxu.Optim(optax.sgd(1.0, momentum=0.5))

    @pxf.jit()
    def init(*, param, optim):
        optim.init([param])

    traces = 0

    @pxf.jit()
    def step(grad, *, param, optim):
        nonlocal traces
        traces += 1
        optim.step([param], [grad])

    init(param=param, optim=optim)
    values = []
    for _ in range(3):
        step(jnp.ones(()), param=param, optim=optim)
        values.append(float(param))
    # velocities 1, 1.5, 1.75
    assert values == [-1.0, -2.5, -4.25]
    assert traces == 1


def test_an_optimiser_that_is_initialised_and_cleared_in_every_call_is_traced_once():
    param, optim, traces = px.Param(jnp.zeros(())), pxu.Optim(optax.adam(0.1)), 0

    @pxf.jit()
    def step(*, param, optim):
        nonlocal traces
        traces += 1
        optim.init([param])
        optim.step([param], [jnp.ones(())])
        optim.clear()

    for _ in range(4):
        step(param=param, optim=optim)
    assert traces == 1


def test_optimisers_work_under_scan():
    param, optim = px.Param(jnp.array(1.0)), pxu.Optim(optax.sgd(0.1, momentum=0.9))
    optim.init([param])

    def body(_, *, param, optim):
        value, grads = pxf.value_and_grad(pxu.M(px.Param))(lambda *, p: p**2)(p=param)
        optim.step([param], [grads["p"]])
        return (), value

    _, values = pxf.scan(body, length=5)(param=param, optim=optim)
    x, v, want = 1.0, 0.0, []
    for _ in range(5):
        want.append(x**2)
        v = 0.9 * v + 2 * x
        x -= 0.1 * v
    np.testing.assert_allclose(values, want, rtol=1e-5)
    np.testing.assert_allclose(param, x, rtol=1e-5)


def test_multi_transform_chooses_by_path():
    net = Net()
    before = weights(net)
    label = lambda params: {path: "fast" if path.endswith("bias") else "slow" for path in params}
    optim = pxu.Optim(
        optax.multi_transform({"fast": optax.sgd(1.0), "slow": optax.sgd(0.1)}, label),
        pxu.M(pxnn.LayerParam)(net),
    )
    grads, by_path = gradients(net)
    optim.step(net, grads)
    rate = lambda path: 1.0 if path.endswith("bias") else 0.1
    assert_same(weights(net), {k: before[k] - rate(k) * by_path[k] for k in before})


def test_extra_arguments_reach_transformations_that_take_them():
    param = px.Param(jnp.array([1.0, 1.0]))
    loss = lambda params: jnp.sum(params["[0]"] ** 2)
    optim = pxu.Optim(
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)), [param]
    )
    optim.step([param], [2 * param.get()], value=2.0, grad={"[0]": 2 * param.get()}, value_fn=loss)
    assert float(jnp.sum(param**2)) < 2.0


def test_a_shared_param_is_updated_once_by_its_summed_gradient():
    a = pxnn.Linear(2, 2, bias=False)
    net = pxnn.Sequential(a, pxnn.shared(a))
    x = jnp.array([1.0, 2.0])
    _, g = pxf.value_and_grad(pxu.M(pxnn.LayerParam))(lambda *, net: jnp.sum(net(x)))(net=net)
    before = a.nn.weight.get()
    want = before - jax.grad(lambda w: jnp.sum(w @ (w @ x)))(before)
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxnn.LayerParam)(net))
    assert repr(optim) == "Optim(1 params)"
    optim.step(net, g["net"])
    np.testing.assert_allclose(a.nn.weight, want, rtol=1e-6)


def test_a_shared_param_can_be_optimised_under_its_second_name():
    a = pxnn.Linear(2, 2, bias=False)
    net = pxnn.Sequential(a, pxnn.shared(a))
    picked = pxu.M(pxnn.LayerParam)(net)
    picked.layers[0] = None
    optim = pxu.Optim(optax.sgd(1.0), picked)
    before = a.nn.weight.get()
    grads = pxu.M(pxnn.LayerParam)(net)
    optim.step(net, grads)
    np.testing.assert_allclose(a.nn.weight, before - before, atol=1e-7)


def test_low_precision_params_stay_in_their_precision():
    param = px.Param(jnp.ones(3, jnp.bfloat16))
    optim = pxu.Optim(optax.adam(0.1), [param])
    optim.step([param], [jnp.ones(3, jnp.bfloat16)], scale_by=jnp.float32(0.5))
    assert param.dtype == jnp.bfloat16


def test_named_tuples_and_dicts_as_values_of_a_param_are_optimised_leaf_by_leaf():
    value = {"a": jnp.ones(2), "b": (jnp.zeros(1), jnp.ones(1))}
    param = px.Param(value)
    optim = pxu.Optim(optax.sgd(0.5, momentum=0.1), [param])
    optim.step([param], [px.Param(jax.tree_util.tree_map(jnp.ones_like, value))])
    np.testing.assert_allclose(param.get()["a"], 0.5)
    np.testing.assert_allclose(param.get()["b"][0], -0.5)


IS_LINEAR = lambda node: isinstance(node, pxnn.Linear)


def test_the_groups_of_an_optim_tree_are_independent_optimisers():
    net = Net()
    make = lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0, momentum=0.9))
    optim = pxu.OptimTree(make, IS_LINEAR, pxu.M(pxnn.LayerParam)(net))
    assert repr(optim) == "OptimTree(2 groups)"
    want, bare = weights(net), make()
    groups = [{k: v for k, v in want.items() if f"[{i}]" in k} for i in (0, 1)]
    states = [bare.init(g) for g in groups]
    for k in range(3):
        grads, by_path = gradients(net, k)
        optim.step(net, grads)
        for i in (0, 1):
            # clipping sees the norm of its own group only
            mine = {name: by_path[name] for name in groups[i]}
            updates, states[i] = bare.update(mine, states[i], groups[i])
            groups[i] = optax.apply_updates(groups[i], updates)
    assert_same(weights(net), groups[0] | groups[1])


def test_a_group_without_gradients_is_skipped_and_its_state_unchanged():
    net = Net()
    optim = pxu.OptimTree(optax.adam(0.1), IS_LINEAR, pxu.M(pxnn.LayerParam)(net))
    before = weights(net)
    state = optim.state.get()
    grads, _ = gradients(net)
    grads.layers[0] = None
    optim.step(net, grads)
    after = weights(net)
    for name in before:
        assert bool((after[name] == before[name]).all()) == ("[0]" in name)
    first, second = state
    assert optim.state.get()[first] is state[first]
    assert optim.state.get()[second] is not state[second]
    # adam counts its steps: zero in the skipped group, one in the other
    counts = [optim.state.get()[g].inner[0].count for g in (first, second)]
    assert [int(c) for c in counts] == [0, 1]


def test_groups_can_be_single_params_and_params_outside_groups_get_their_own():
    net = Net()
    single = pxu.OptimTree(
        optax.sgd(0.1), lambda x: isinstance(x, pxnn.LayerParam), pxu.M(pxnn.LayerParam)(net)
    )
    outside = pxu.OptimTree(optax.sgd(0.1), lambda x: False, pxu.M(pxnn.LayerParam)(net))
    assert repr(single) == repr(outside) == "OptimTree(4 groups)"
    vodes = pxu.OptimTree(
        optax.sgd(0.1), lambda x: isinstance(x, pxc.Vode), pxu.M(pxc.VodeParam)(initialised())
    )
    assert repr(vodes) == "OptimTree(2 groups)"


def initialised():
    net = Net()
    with pxu.step(net, pxc.STATUS.INIT):
        net(jnp.ones(2))
    return net


def test_an_optim_tree_takes_scale_clear_and_updates_as_optim_does():
    net = Net()
    before = weights(net)
    optim = pxu.OptimTree(optax.sgd(1.0), IS_LINEAR, pxu.M(pxnn.LayerParam)(net))
    grads, by_path = gradients(net)
    updates = optim.step(net, grads, 0.5, apply_updates=False)
    assert_same(weights(net), before)
    assert_same(updates, {k: -0.5 * g for k, g in by_path.items()})
    optim.apply_updates(net, updates)
    assert_same(weights(net), {k: before[k] - 0.5 * by_path[k] for k in before})
    optim.clear()
    with pytest.raises(ValueError, match=r"OptimTree\.step: not initialised"):
        optim.step(net, grads)
    with pytest.raises(ValueError, match=r"OptimTree\.init: there is no param"):
        optim.init(pxu.M(px.ParamCache)([]))


def test_an_optim_tree_works_under_jit_and_scan():
    net = Net()
    optim = pxu.OptimTree(optax.sgd(0.1, momentum=0.5), IS_LINEAR, pxu.M(pxnn.LayerParam)(net))

    def body(_, *, net, optim):
        loss = lambda *, net: sum(jnp.sum(layer.nn.weight**2) for layer in net.layers)
        value, grads = pxf.value_and_grad(pxu.M(pxnn.LayerParam))(loss)(net=net)
        optim.step(net, grads["net"])
        return (), value

    @pxf.jit()
    def train(*, net, optim):
        return pxf.scan(body, length=20)(net=net, optim=optim)[1]

    values = train(net=net, optim=optim)
    assert float(values[-1]) < 0.05 * float(values[0])


def test_true_scales_each_state_by_its_own_batch():
    vodes = [
        pxc.Vode((3,)).set("h", jnp.zeros((4, 3))),
        pxc.Vode((2,)).set("h", jnp.zeros((5, 2))),
    ]
    grads = [v_like(v) for v in vodes]
    pxu.Optim(optax.sgd(1.0), pxu.M(pxc.VodeParam)(vodes)).step(vodes, grads, True)
    np.testing.assert_allclose(vodes[0].h, -4.0)
    np.testing.assert_allclose(vodes[1].h, -5.0)


def test_a_param_that_two_groups_share_belongs_to_the_first():
    a = pxnn.Linear(2, 2, bias=False)
    net = pxnn.Sequential(a, pxnn.shared(a), pxnn.Linear(2, 2))
    optim = pxu.OptimTree(optax.sgd(1.0), IS_LINEAR, pxu.M(pxnn.LayerParam)(net))
    assert repr(optim) == "OptimTree(2 groups)"
    before = a.nn.weight.get()
    optim.step(net, pxu.M(pxnn.LayerParam)(net))
    np.testing.assert_allclose(a.nn.weight, before - before, atol=1e-7)
