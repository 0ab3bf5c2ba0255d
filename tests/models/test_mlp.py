"""MLP against bare JAX, the µPC oracle and hand counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from tests.oracles import mupc


def sizes(model):
    return sum(leaf.size for leaf in jax.tree_util.tree_leaves(pxu.M(pxnn.LayerParam)(model)))


@pxf.jit()
def run(x, *, model):
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam | pxc.VodeParam.Cache):
        return model(x)


def forward(model, x):
    return run(x, model=model)


def weights(model):
    return [np.asarray(layer.nn.weight.get()) for layer in model.layers]


def test_the_papers_network_has_the_parameters_counted_by_hand():
    model = pxm.MLP([784, 128, 128, 128, 10])
    assert sizes(model) == 784 * 128 + 128 + 2 * (128 * 128 + 128) + 128 * 10 + 10
    assert [vode.shape for vode in model.vodes] == [(128,), (128,), (128,), (10,)]


def test_the_activation_follows_the_weights_and_the_output_is_linear():
    model = pxm.MLP([4, 6, 6, 3], act=jax.nn.tanh)
    x = np.linspace(-1, 1, 4)
    h = x
    for index, layer in enumerate(model.layers):
        u = np.asarray(layer.nn.weight.get()) @ h + np.asarray(layer.nn.bias.get())
        h = u if index == 2 else np.tanh(u)
    np.testing.assert_allclose(forward(model, jnp.asarray(x)), h, rtol=1e-4, atol=1e-6)


def test_a_skip_adds_the_state_below_to_hidden_layers_only():
    model = pxm.MLP([4, 6, 6, 3], act=jax.nn.tanh, skips=True, bias=False)
    x = np.linspace(-1, 1, 4)
    w1, w2, w3 = weights(model)
    h1 = np.tanh(w1 @ x)
    h2 = h1 + np.tanh(w2 @ h1)
    np.testing.assert_allclose(forward(model, jnp.asarray(x)), w3 @ h2, rtol=1e-4, atol=1e-6)


def test_an_image_is_taken_as_one_vector():
    model = pxm.MLP([12, 5, 3])
    x = jnp.arange(12.0)
    np.testing.assert_array_equal(forward(model, x.reshape(1, 3, 4)), forward(model, x))


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("parameterisation", ["mupc", "ntp"])
def test_parameterised_networks_equal_the_oracle(skips, parameterisation):
    depth, width = 6, 16
    model = pxm.MLP(
        [8] + [width] * (depth - 1) + [3],
        act=jax.nn.tanh,
        skips=skips,
        parameterisation=parameterisation,
    )
    oracle = mupc.mupc_mlp(
        np.random.default_rng(0), depth, width, 8, 3, "tanh", skips, parameterisation
    )
    for layer, mine in zip(oracle.layers, model.layers, strict=True):
        mine.nn.weight.set(jnp.asarray(layer.W, jnp.float32))
    x = np.linspace(-1, 1, 8)
    np.testing.assert_allclose(model.scales, [layer.a for layer in oracle.layers], rtol=1e-12)
    expected = x
    for position, layer in enumerate(oracle.layers):
        f = np.tanh if position else (lambda h: h)
        expected = layer.a * layer.W @ f(expected) + (expected if layer.skip else 0)
    np.testing.assert_allclose(forward(model, jnp.asarray(x)), expected, rtol=2e-4)


@pytest.mark.parametrize("depth", [8, 32, 128])
def test_the_forward_variance_of_mupc_stays_of_order_one(depth):
    px.RKG.seed(depth)
    width = 64
    model = pxm.MLP([width] * depth + [10], act=lambda h: h, skips=True, parameterisation="mupc")
    x = jax.random.normal(jax.random.PRNGKey(1), (width,))
    forward_states = []
    with pxu.step(model, pxc.STATUS.INIT):
        model(x)
        forward_states = [float(jnp.mean(vode.h.get() ** 2)) for vode in model.vodes[:-1]]
    # linear, with skips: E|h_{l+1}|^2 = (1 + 1/L) E|h_l|^2, at most a factor e over all layers
    assert 0.3 < forward_states[0] < 3
    assert 0.3 < forward_states[-1] / forward_states[0] < 3 * np.e


def test_plain_weights_of_equinox_lose_the_signal_where_mupc_keeps_it():
    px.RKG.seed(0)
    model = pxm.MLP([64] * 32 + [10], act=jax.nn.tanh)
    with pxu.step(model, pxc.STATUS.INIT):
        model(jax.random.normal(jax.random.PRNGKey(1), (64,)))
        assert float(jnp.mean(model.vodes[-2].h.get() ** 2)) < 0.05


def test_parameterised_weights_are_standard_normal_and_have_no_bias():
    px.RKG.seed(0)
    model = pxm.MLP([200, 200, 10], parameterisation="mupc")
    w = weights(model)[0]
    assert model.layers[0].nn.bias is None
    assert abs(w.std() - 1) < 0.02
    assert abs(w.mean()) < 0.02


def test_weight_init_draws_the_weights_and_zeroes_the_biases():
    px.RKG.seed(0)
    he = jax.nn.initializers.he_normal(in_axis=1, out_axis=0)
    model = pxm.MLP([400, 300, 10], weight_init=he)
    assert abs(weights(model)[0].std() - np.sqrt(2 / 400)) < 0.002
    assert all(not np.any(layer.nn.bias.get()) for layer in model.layers)


def test_default_weights_are_equinoxs_uniform_ones():
    px.RKG.seed(0)
    w = weights(pxm.MLP([400, 300, 10]))[0]
    assert np.abs(w).max() <= 1 / 20
    np.testing.assert_allclose(w.std(), 1 / 20 / np.sqrt(3), rtol=0.02)


def test_equal_seeds_give_equal_networks():
    a, b = (pxm.MLP([3, 4, 2], rkg=px.RandomKeyGenerator(5)) for _ in range(2))
    c = pxm.MLP([3, 4, 2], rkg=px.RandomKeyGenerator(6))
    assert all(np.array_equal(v, w) for v, w in zip(weights(a), weights(b), strict=True))
    assert not np.array_equal(weights(a)[0], weights(c)[0])


@pytest.mark.wrong_types
def test_multipliers_need_a_known_name():
    with pytest.raises(ValueError, match='"standard", "mupc" or "ntp"; got \'mup\''):
        pxm.MLP([2, 2], parameterisation="mup")


def test_skips_need_equal_hidden_sizes():
    with pytest.raises(ValueError, match=r"must have one size; got dims=\[2, 3, 4, 2\]"):
        pxm.MLP([2, 3, 4, 2], skips=True)


def test_an_mlp_needs_an_input_and_an_output():
    with pytest.raises(ValueError, match=r"got dims=\[3\]"):
        pxm.MLP([3])


def test_a_bias_of_a_parameterised_network_is_scaled_with_its_weights():
    model = pxm.MLP([4, 9, 2], act=jax.nn.relu, parameterisation="ntp", bias=True)
    for layer in model.layers:
        layer.nn.bias.set(jnp.ones_like(layer.nn.bias.get()))
    x = np.linspace(0, 1, 4)
    w1, w2 = weights(model)
    h = (w1 @ x + 1) / 2
    np.testing.assert_allclose(
        forward(model, jnp.asarray(x)), (w2 @ np.maximum(h, 0) + 1) / 3, rtol=1e-5
    )


def test_layers_follow_dims():
    dims = [7, 6, 5, 4]
    assert [w.shape for w in weights(pxm.MLP(dims))] == [
        (n, m) for m, n in itertools.pairwise(dims)
    ]


@pytest.mark.parametrize("order", ["pre", "post", None])
@pytest.mark.parametrize("parameterisation", ["standard", "mupc"])
@pytest.mark.parametrize("gamma", [1.0, 4.0])
def test_order_and_gamma_are_the_equations_that_the_docstring_says(order, parameterisation, gamma):
    dims = [3, 6, 6, 2]
    net = pxm.MLP(
        dims, jnp.tanh, bias=True, order=order, gamma=gamma, parameterisation=parameterisation
    )
    for layer in net.layers:
        layer.nn.bias.set(jnp.arange(layer.nn.bias.size) / 3)
    (w1, b1), (w2, b2), (w3, b3) = (
        (np.asarray(layer.nn.weight), np.asarray(layer.nn.bias)) for layer in net.layers
    )
    a1, a2, a3 = (1, 1, 1) if parameterisation == "standard" else (3**-0.5, 6**-0.5, 1 / 6)
    a3 = a3 / gamma
    x = np.array([0.3, -1.0, 2.0])
    if order == "pre" or (order is None and parameterisation == "mupc"):
        h1 = a1 * (w1 @ x + b1)
        h2 = a2 * (w2 @ np.tanh(h1) + b2)
        want = a3 * (w3 @ np.tanh(h2) + b3)
    else:
        h1 = np.tanh(a1 * (w1 @ x + b1))
        h2 = np.tanh(a2 * (w2 @ h1 + b2))
        want = a3 * (w3 @ h2 + b3)
    with pxu.step(net, pxc.STATUS.INIT):
        np.testing.assert_allclose(net(jnp.asarray(x)), want, rtol=1e-5)


@pytest.mark.parametrize("precision", [1.0, 2.5])
def test_the_precision_of_the_output_weighs_its_energy(precision):
    net = pxm.MLP([3, 4, 2], precision=precision)
    y = jnp.array([1.0, -2.0])
    with pxu.step(net, pxc.STATUS.INIT):
        u = net(jnp.ones(3), y)
    np.testing.assert_allclose(net.energy(), precision / 2 * jnp.sum((y - u) ** 2), rtol=1e-5)
    assert pxc.traits(net.vodes[-1].energy_fn).precision == precision


@pytest.mark.wrong_types
def test_wrong_orders_gammas_and_precisions_are_refused():
    with pytest.raises(ValueError, match='order must be "post" or "pre"; got \'before\''):
        pxm.MLP([2, 2], order="before")
    with pytest.raises(ValueError, match="gamma divides the output, so it must be positive; got 0"):
        pxm.MLP([2, 2], gamma=0)
    with pytest.raises(ValueError, match="the weight must be positive; got 0"):
        pxm.MLP([2, 2], precision=0)
