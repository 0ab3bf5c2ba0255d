"""`Layer`, `StatefulLayer`, `Sequential`, `shared`: any equinox module becomes a pcx one."""

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


class Affine(eqx.Module):
    """A user's own module, with a nested one, a static field and a plain number."""

    inner: eqx.nn.Linear
    gain: jax.Array
    power: int = eqx.field(static=True)
    offset: float

    def __init__(self, n, power=2, *, key):
        self.inner = eqx.nn.Linear(n, n, key=key)
        self.gain, self.power, self.offset = jnp.full(n, 2.0), power, 0.5

    def __call__(self, x):
        return self.gain * self.inner(x) ** self.power + self.offset


class Nested(eqx.Module):
    blocks: list[Affine]

    def __init__(self, key):
        self.blocks = [Affine(3, key=k) for k in jax.random.split(key)]

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Noisy(eqx.Module):
    """Must be given a key."""

    scale: jax.Array

    def __init__(self):
        self.scale = jnp.array(0.5)

    def __call__(self, x, key):
        return x + self.scale * jax.random.normal(key, x.shape)


class MaybeNoisy(eqx.Module):
    """May be given a key."""

    def __call__(self, x, *, key=None):
        return x if key is None else x + jax.random.normal(key, x.shape)


class Counter(eqx.Module):
    """A user's own stateful module."""

    index: eqx.nn.StateIndex
    weight: jax.Array

    def __init__(self):
        self.index = eqx.nn.StateIndex(jnp.array(0))
        self.weight = jnp.array(3.0)

    def __call__(self, x, state):
        n = state.get(self.index)
        return x * self.weight + n, state.set(self.index, n + 1)


def key_of(seed):
    return px.RandomKeyGenerator(seed)()


def test_a_user_s_own_module_computes_as_it_does_bare():
    ours = pxnn.Layer(Affine, 3, power=3, rkg=px.RandomKeyGenerator(1))
    bare = Affine(3, power=3, key=key_of(1))
    x = jnp.array([0.1, -0.2, 0.3])
    np.testing.assert_array_equal(ours(x), bare(x))
    assert isinstance(ours.nn.inner.weight, pxnn.LayerParam)
    assert isinstance(ours.nn.gain, pxnn.LayerParam)
    assert ours.nn.offset == 0.5
    assert ours.nn.power == 3


def test_nested_modules_have_the_gradients_that_they_have_bare():
    ours = pxnn.Layer(Nested, rkg=px.RandomKeyGenerator(1))
    bare = Nested(key_of(1))
    x = jnp.array([0.1, -0.2, 0.3])
    _, grads = pxf.value_and_grad(pxu.M(pxnn.LayerParam))(lambda *, m: jnp.sum(m(x)))(m=ours)
    want = jax.tree_util.tree_leaves(eqx.filter_grad(lambda m: jnp.sum(m(x)))(bare))
    got = [
        p.get() for p in jax.tree_util.tree_leaves(grads, is_leaf=lambda p: isinstance(p, px.Param))
    ]
    # equinox differentiates the plain number too, which is no param here
    want = [w for w in want if w.ndim]
    assert len(got) == len(want) == 6
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_filter_chooses_what_becomes_a_param():
    layer = pxnn.Layer(eqx.nn.Linear, 3, 2, filter=lambda x: eqx.is_array(x) and x.ndim == 2)
    assert isinstance(layer.nn.weight, pxnn.LayerParam)
    assert isinstance(layer.nn.bias, jax.Array)
    assert len(px.tree_extract(layer)) == 1
    assert layer(jnp.ones(3)).shape == (2,)
    named = pxnn.Linear(3, 2, filter=lambda x: False)
    assert px.tree_extract(named) == ()


def test_a_module_whose_call_needs_a_key_gets_a_fresh_one_each_time_in_every_mode():
    layer = pxnn.Layer(Noisy)
    x = jnp.zeros(3)
    for mode in (layer, layer.train(), layer.eval()):
        px.RKG.seed(11)
        a, b = mode(x), mode(x)
        px.RKG.seed(11)
        for got in (a, b):
            np.testing.assert_array_equal(got, 0.5 * jax.random.normal(px.RKG(), (3,)))
        assert not bool((a == b).any())


@pytest.mark.parametrize("keyword", [True, False])
def test_a_key_given_in_the_call_is_used_and_none_is_drawn(keyword):
    layer = pxnn.Layer(Noisy)
    key, before = jax.random.PRNGKey(3), px.RKG.key.get()
    got = layer(jnp.zeros(3), key=key) if keyword else layer(jnp.zeros(3), key)
    np.testing.assert_array_equal(got, 0.5 * jax.random.normal(key, (3,)))
    np.testing.assert_array_equal(px.RKG.key.get(), before)


def test_a_module_that_may_take_a_key_gets_one_except_in_eval_mode():
    layer = pxnn.Layer(MaybeNoisy)
    x = jnp.zeros(3)
    assert bool((layer(x) != 0).any())
    assert bool((layer.train()(x) != 0).any())
    assert bool((layer.eval()(x) == 0).all())


def test_layers_that_ignore_their_key_draw_none():
    before = px.RKG.key.get()
    layer = pxnn.Layer(eqx.nn.MLP, 3, 2, 4, 1, key=jax.random.PRNGKey(0))
    attention = pxnn.Layer(
        eqx.nn.Sequential,
        [eqx.nn.Linear(3, 2, key=jax.random.PRNGKey(0)), eqx.nn.Lambda(jnp.tanh)],
    )
    layer(jnp.ones(3)), attention(jnp.ones(3))
    np.testing.assert_array_equal(px.RKG.key.get(), before)


def test_dropout_inside_a_sequential_of_equinox_draws_a_key():
    layer = pxnn.Layer(eqx.nn.Sequential, [eqx.nn.Lambda(jnp.tanh), eqx.nn.Dropout(0.5)])
    px.RKG.seed(2)
    got = layer(jnp.ones(100))
    px.RKG.seed(2)
    bare = eqx.nn.Sequential([eqx.nn.Lambda(jnp.tanh), eqx.nn.Dropout(0.5)])
    np.testing.assert_array_equal(got, bare(jnp.ones(100), key=px.RKG()))


def test_wrapping_something_that_cannot_be_called_says_so():
    class Data(eqx.Module):
        x: jax.Array

    with pytest.raises(TypeError, match=r"Layer wraps callable modules; Data is not callable"):
        pxnn.Layer(Data, jnp.ones(2))


def test_wrapping_a_stateful_module_in_layer_points_to_stateful_layer():
    with pytest.raises(TypeError, match=r"(?s)Layer\(Counter\).*pxnn\.StatefulLayer\(Counter"):
        pxnn.Layer(Counter)


def test_dropout_drops_in_train_mode_and_in_neither_and_passes_in_eval_mode():
    layer = pxnn.Dropout(0.5)
    x = jnp.ones(1000)
    for mode in (layer, layer.train()):
        px.RKG.seed(4)
        y = mode(x)
        px.RKG.seed(4)
        np.testing.assert_array_equal(y, eqx.nn.Dropout(0.5)(x, key=px.RKG()))
        assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(layer.eval()(x), x)
    assert bool((layer.train()(x) == 0).any())


def test_each_element_of_a_batch_drops_its_own_units():
    layer = pxnn.Dropout(0.5)
    f = pxf.vmap({}, in_axes=(0,))(lambda x, *, layer: layer(x))
    y = f(jnp.ones((4, 64)), layer=layer)
    assert len({tuple(row.tolist()) for row in y}) == 4


def test_the_mode_of_a_model_reaches_layers_in_lists_and_nested_equinox_modules():
    class Block(eqx.Module):
        drop: eqx.nn.Dropout

        def __init__(self):
            self.drop = eqx.nn.Dropout(0.5)

        def __call__(self, x, *, key=None):
            return self.drop(x, key=key)

    class Net(pxc.EnergyModule):
        def __init__(self):
            self.layers = [pxnn.Layer(Block), pxnn.Sequential(pxnn.Dropout(0.9))]

    net = Net().eval()
    x = jnp.ones(100)
    for layer in net.layers:
        np.testing.assert_array_equal(layer(x), x)
    net.train()
    for layer in net.layers:
        assert bool((layer(x) == 0).any())


def test_attention_with_dropout_is_random_in_train_mode_only():
    layer = pxnn.MultiheadAttention(2, 6, dropout_p=0.5)
    x = jax.random.normal(jax.random.PRNGKey(0), (4, 6))
    layer.eval()
    np.testing.assert_array_equal(layer(x, x, x), layer(x, x, x))
    layer.train()
    assert bool((layer(x, x, x) != layer(x, x, x)).any())


def normalise(x, *, layer):
    return layer(x)


def batch_norm(x, layer):
    return pxf.vmap({}, in_axes=(0,), axis_name="batch")(normalise)(x, layer=layer)


@pytest.mark.parametrize("jitted", [False, True])
def test_batch_norm_is_equinox_s_and_updates_its_statistics_in_train_mode(jitted):
    x = 3 + 2 * jax.random.normal(jax.random.PRNGKey(0), (32, 4))
    layer = pxnn.BatchNorm(4, "batch", momentum=0.9).train()
    bare, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", momentum=0.9, mode="batch")
    apply = jax.vmap(bare, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    run = pxf.jit()(lambda x, *, layer: batch_norm(x, layer)) if jitted else None
    for _ in range(3):
        got = batch_norm(x, layer) if run is None else run(x, layer=layer)
        want, state = apply(x, state)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    ours = jax.tree_util.tree_leaves(layer.state)
    for a, b in zip(ours, jax.tree_util.tree_leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    # the exponential average has begun to move towards mean 3 and variance 4
    mean = next(a for a in ours if a.shape == (4,))
    assert bool((mean > 0).all())
    assert isinstance(layer.state, pxnn.StateParam)


def test_batch_norm_in_eval_mode_uses_the_running_statistics_and_leaves_them_alone():
    x = 3 + 2 * jax.random.normal(jax.random.PRNGKey(0), (32, 4))
    layer = pxnn.BatchNorm(4, "batch", momentum=0.5).train()
    for _ in range(30):
        batch_norm(x, layer)
    before = jax.tree_util.tree_leaves(layer.state)
    y = batch_norm(x[:2] + 100, layer.eval())
    for a, b in zip(before, jax.tree_util.tree_leaves(layer.state), strict=True):
        np.testing.assert_array_equal(a, b)
    # by hand, with the statistics to which the average has converged
    mean, var = x.mean(0), x.var(0)
    np.testing.assert_allclose(y, (x[:2] + 100 - mean) / jnp.sqrt(var + 1e-5), rtol=2e-2)


def test_a_fresh_batch_norm_in_neither_mode_normalises_the_batch():
    x = 3 + 2 * jax.random.normal(jax.random.PRNGKey(0), (32, 4))
    y = batch_norm(x, pxnn.BatchNorm(4, axis_name="batch"))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(0), 1, rtol=1e-4)


def test_the_mode_of_batch_norm_can_be_given_by_position_or_keyword():
    by_position = pxnn.BatchNorm(4, "batch", 1e-5, True, 0.99, False, None, "ema")
    by_keyword = pxnn.BatchNorm(4, "batch", mode="ema")
    assert by_position.nn.mode == by_keyword.nn.mode == "ema"
    assert pxnn.BatchNorm(4, "batch").nn.mode == "batch"


def test_a_user_s_own_stateful_module_keeps_its_state_in_a_param():
    layer = pxnn.StatefulLayer(Counter)
    assert [float(layer(jnp.array(1.0))) for _ in range(3)] == [3.0, 4.0, 5.0]
    layer.eval()
    assert [float(layer(jnp.array(1.0))) for _ in range(2)] == [6.0, 6.0]
    step = pxf.jit()(lambda x, *, layer: layer(x))
    layer.train()
    assert [float(step(jnp.array(1.0), layer=layer)) for _ in range(2)] == [6.0, 7.0]
    assert pxu.M(pxnn.LayerParam).select(layer.nn.weight)
    assert not pxu.M(pxnn.LayerParam).select(layer.state)


def test_a_failed_call_leaves_the_state_alive():
    layer = pxnn.StatefulLayer(Counter)
    with pytest.raises(TypeError):
        layer("no number")
    assert float(layer(jnp.array(1.0))) == 3.0


def test_sequential_calls_its_layers_in_order():
    a, b = pxnn.Linear(3, 4), pxnn.Linear(4, 2)
    for net in (pxnn.Sequential(a, jax.nn.relu, b), pxnn.Sequential([a, jax.nn.relu, b])):
        x = jnp.array([1.0, -2.0, 3.0])
        np.testing.assert_array_equal(net(x), b(jax.nn.relu(a(x))))
        assert net[0] is a
        assert list(net)[2] is b
        assert len(net[1:]) == 2
        assert isinstance(net[1:], pxnn.Sequential)


def test_sequential_of_vodes_stores_their_predictions():
    net = pxnn.Sequential(pxnn.Linear(2, 3), pxc.Vode((3,)))
    with pxu.step(net, pxc.STATUS.INIT):
        y = net(jnp.ones(2))
    np.testing.assert_array_equal(net[1].h, y)


def test_sequential_refuses_what_cannot_be_called():
    with pytest.raises(TypeError, match=r"Sequential takes callables.*layer 1 is 3 of type int"):
        pxnn.Sequential(jnp.tanh, 3)


def test_shared_is_another_module_with_the_same_params():
    a = pxnn.Linear(2, 2)
    b = pxnn.shared(a)
    assert b is not a
    assert b.nn.weight is a.nn.weight
    assert b.nn.bias is a.nn.bias
    a.nn.weight.set(jnp.zeros((2, 2)))
    np.testing.assert_array_equal(b(jnp.ones(2)), a.nn.bias)


def test_shared_with_a_filter_copies_what_the_filter_rejects():
    a = pxnn.Linear(2, 2)
    a.nn.bias.frozen = True
    b = pxnn.shared(a, filter=lambda p: p.ndim == 2)
    assert b.nn.weight is a.nn.weight
    assert b.nn.bias is not a.nn.bias
    assert b.nn.bias.frozen is True
    b.nn.bias.set(jnp.full(2, 9.0))
    assert bool((a.nn.bias != 9).all())
    by_type = pxnn.shared(pxc.Vode().set("h", jnp.ones(2)), filter=pxnn.LayerParam)
    np.testing.assert_array_equal(by_type.h, 1)


def test_a_param_that_the_original_uses_twice_is_one_param_in_the_copy():
    a = pxnn.Linear(2, 2)
    twice = pxnn.Sequential(a, a)
    copy = pxnn.shared(twice, filter=lambda p: False)
    assert copy[0].nn.weight is copy[1].nn.weight
    assert copy[0].nn.weight is not a.nn.weight


def test_shared_params_get_one_summed_gradient_inside_and_outside_jit():
    a = pxnn.Linear(2, 2, bias=False)
    net = pxnn.Sequential(a, pxnn.shared(a))
    w, x = a.nn.weight.get(), jnp.array([1.0, 2.0])
    want = jax.grad(lambda w: jnp.sum(w @ (w @ x)))(w)

    def grads(*, net):
        return pxf.value_and_grad(pxu.M(pxnn.LayerParam))(lambda *, net: jnp.sum(net(x)))(net=net)[
            1
        ]

    for run in (grads, pxf.jit()(grads)):
        g = run(net=net)["net"]
        np.testing.assert_allclose(g[0].nn.weight, want, rtol=1e-6)
        np.testing.assert_allclose(g[1].nn.weight, want, rtol=1e-6)


def test_in_place_operators_on_a_weight_keep_the_param_that_optimisers_know():
    layer = pxnn.Linear(2, 2)
    weight, before = layer.nn.weight, layer.nn.weight.get()
    weight *= 0.5
    assert layer.nn.weight is weight
    np.testing.assert_allclose(layer.nn.weight, 0.5 * before)
    np.testing.assert_allclose(
        layer(jnp.ones(2)), 0.5 * before.sum(1) + layer.nn.bias.get(), rtol=1e-6
    )


def test_the_repr_of_a_layer_names_its_class_and_its_params():
    assert "LayerParam(f32[2,3])" in repr(pxnn.Linear(3, 2))
    assert repr(pxnn.Linear(3, 2)).startswith("Linear(")


def test_flatten_gives_a_vector():
    np.testing.assert_array_equal(pxnn.Flatten()(jnp.arange(6.0).reshape(2, 3)), jnp.arange(6.0))


def test_an_input_of_the_wrong_size_names_the_layer_and_what_it_got():
    class Net(px.Module):
        def __init__(self):
            self.layers = [pxnn.Linear(2, 3), pxnn.Linear(4, 1)]

    net = Net()
    with pytest.raises(TypeError) as caught:
        net.layers[1](net.layers[0](jnp.ones(2)))
    assert caught.value.__notes__[-1:] == [
        "This happened in the Linear at `net.layers[1]`, called with f32[3]."
    ]


def test_the_module_of_a_layer_is_true_and_equals_itself():
    layer = pxnn.Linear(2, 2)
    assert bool(layer.nn) is True
    assert layer.nn == layer.nn
