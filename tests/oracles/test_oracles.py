"""Every hand-derived gradient against central finite differences of its energy (tolerance 2e-7)."""
# ruff: noqa: E741 - l is the layer index of the equations

from itertools import pairwise

import numpy as np
import pytest

from . import bidirectional, epc, hierarchy, hybrid, pc, pcalm
from .backprop import backprop
from .energy import CE, SE, log_softmax
from .mlp import ACTIVATIONS, Layer, flatten
from .numerical import (
    assert_close,
    data,
    gradient,
    net_of,
    param_gradients,
    random_states,
    replaced,
)
from .optim import SGD, Adam, AdamW
from .torch2pc import ce_mean, mse_mean, sum_of_squares

TOL = 2e-7
KINDS = ["before", "after", "skip"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_has_the_derivative_it_claims(name, rng):
    f, df = ACTIVATIONS[name]
    x = rng.standard_normal(50) * 2
    np.testing.assert_allclose(df(x), (f(x + 1e-6) - f(x - 1e-6)) / 2e-6, atol=1e-8)


def test_the_two_gelus_are_the_known_functions():
    x = np.array([-1.0, 0.0, 0.5, 2.0])
    erf = [
        -0.15865525393145707,
        0.0,
        0.34573123063700656,
        1.9544997361036416,
    ]  # x Φ(x), from tables of Φ
    np.testing.assert_allclose(ACTIVATIONS["gelu_erf"][0](x), erf, atol=1e-12)
    difference = np.abs(ACTIVATIONS["gelu"][0](x) - erf)
    assert difference[1] == 0
    assert 1e-5 < difference.max() < 1e-3


def test_kinks_take_jaxs_derivatives():
    at = {"relu": (0.0, 0.0), "leaky_relu": (0.0, 1.0), "hard_tanh": (1.0, 1.0)}
    for name, (x, slope) in at.items():
        assert ACTIVATIONS[name][1](np.array([x]))[0] == slope


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("place", ["before", "after"])
def test_layer_jacobian_products_and_weight_gradients(place, skip, rng):
    layer = Layer(rng.standard_normal((4, 4)), rng.standard_normal(4), "gelu", place, 0.7, skip)
    h, e, v = rng.standard_normal((3, 2, 4))
    np.testing.assert_allclose(
        layer.vjp(h, e), gradient(lambda h: (layer(h) * e).sum(), h), atol=TOL
    )
    np.testing.assert_allclose(
        layer.jvp(h, v), (layer(h + 1e-6 * v) - layer(h - 1e-6 * v)) / 2e-6, atol=TOL
    )

    def value(W, b):
        return (Layer(W, b, "gelu", place, 0.7, skip)(h) * e).sum()

    dW, db = layer.weight_vjp(h, e)
    np.testing.assert_allclose(dW, gradient(lambda W: value(W, layer.b), layer.W), atol=TOL)
    np.testing.assert_allclose(db, gradient(lambda b: value(layer.W, b), layer.b), atol=TOL)


def test_the_local_rule_is_the_outer_product_of_error_and_presynaptic_activity(rng):
    layer = Layer(rng.standard_normal((2, 3)), None, "tanh", "before", 0.5)
    h, e = rng.standard_normal((1, 3)), rng.standard_normal((1, 2))
    np.testing.assert_allclose(
        layer.weight_vjp(h, e)[0], 0.5 * np.outer(e[0], np.tanh(h[0])), atol=1e-15
    )


@pytest.mark.parametrize("node", [SE(), SE(7.0), CE()])
def test_node_energy_derivatives(node, rng):
    h, u, v = rng.random((3, 2, 4)) + 0.1  # h positive and not normalised: soft targets of any sum
    np.testing.assert_allclose(
        node.du(h, u), gradient(lambda u: node.value(h, u).sum(), u), atol=TOL
    )
    np.testing.assert_allclose(
        node.dh(h, u), gradient(lambda h: node.value(h, u).sum(), h), atol=TOL
    )
    curvature = (node.du(h, u + 1e-6 * v) - node.du(h, u - 1e-6 * v)) / 2e-6
    np.testing.assert_allclose(node.hvp(h, u, v), curvature, atol=TOL)


def test_log_softmax_survives_large_logits():
    np.testing.assert_allclose(log_softmax(np.array([[1000.0, 0.0]])), [[0.0, -1000.0]])


@pytest.mark.parametrize("loss", [mse_mean, sum_of_squares, ce_mean])
def test_loss_gradients(loss, rng):
    u, y = rng.standard_normal((4, 3)), np.eye(3)[[0, 2, 1, 1]]
    np.testing.assert_allclose(loss(u, y)[1], gradient(lambda u: loss(u, y)[0], u), atol=TOL)


@pytest.mark.parametrize("output", [SE(), SE(5.0), CE()])
@pytest.mark.parametrize("kind", KINDS)
def test_pc_gradients(kind, output, rng):
    net = net_of(kind, rng)
    x, y = data(rng, net, one_hot=isinstance(output, CE))
    h, prior = random_states(rng, net, x, y), rng.standard_normal(x.shape[1])
    g = pc.state_gradient(net, h, output, prior)
    for l in range(net.L + 1):
        numeric = gradient(
            lambda a, l=l: pc.energy(net, replaced(h, l, a), output, prior).sum(), h[l]
        )
        np.testing.assert_allclose(g[l], numeric, atol=TOL)
    numeric = param_gradients(lambda n: pc.energy(n, h, output, prior).mean(), net)
    assert_close(flatten(pc.weight_gradient(net, h, output)), numeric, TOL)


@pytest.mark.parametrize("output", [SE(), CE()])
@pytest.mark.parametrize("kind", KINDS)
def test_backpropagation(kind, output, rng):
    net = net_of(kind, rng)
    x, y = data(rng, net, one_hot=isinstance(output, CE))
    loss, grads, _ = backprop(net, x, y, output)
    assert loss == pytest.approx(output.value(y, net.forward(x)[-1]).mean())
    assert_close(
        flatten(grads),
        param_gradients(lambda n: output.value(y, n.forward(x)[-1]).mean(), net),
        TOL,
    )


@pytest.mark.parametrize("output", [SE(), CE()])
@pytest.mark.parametrize("kind", KINDS)
def test_epc_error_gradients(kind, output, rng):
    net = net_of(kind, rng)
    x, y = data(rng, net, one_hot=isinstance(output, CE))
    eps = {l: 0.3 * rng.standard_normal(net.forward(x)[l].shape) for l in pc.hidden(net)}
    g = epc.error_gradient(net, x, y, eps, output)
    for l in eps:
        numeric = gradient(
            lambda a, l=l: epc.energy(net, x, y, {**eps, l: a}, output).sum(), eps[l]
        )
        np.testing.assert_allclose(g[l], numeric, atol=TOL)
    d = {l: rng.standard_normal(eps[l].shape) for l in eps}
    up, down = (epc.unroll(net, x, {l: eps[l] + s * 1e-6 * d[l] for l in eps})[-1] for s in (1, -1))
    np.testing.assert_allclose(
        epc.jvp(net, epc.unroll(net, x, eps), d), (up - down) / 2e-6, atol=TOL
    )


@pytest.mark.parametrize("kind", KINDS)
def test_pcalm_gradients(kind, rng):
    net, rho = net_of(kind, rng), 0.7
    x, y = data(rng, net)
    h = random_states(rng, net, x, y)
    lam = {l: rng.standard_normal(h[l].shape) for l in pc.hidden(net)}
    g = pcalm.state_gradient(net, h, lam, rho)
    for l in lam:
        numeric = gradient(
            lambda a, l=l: pcalm.energy(net, replaced(h, l, a), lam, rho).sum(), h[l]
        )
        np.testing.assert_allclose(g[l], numeric, atol=TOL)
    d = [None] + [-e for e in pcalm.effective_errors(net, h, lam, rho)[1:]]
    numeric = param_gradients(lambda n: pcalm.energy(n, h, lam, rho).mean(), net)
    assert_close(flatten(pc.local_weight_gradient(net, h, d)), numeric, TOL)


def backward_layers(rng, net):
    shapes = [layer.W.shape for layer in net.layers]
    return [
        Layer(rng.standard_normal((i, o)), rng.standard_normal(i), "tanh", "before")
        for o, i in shapes
    ]


@pytest.mark.parametrize("output", [SE(), CE()])
def test_bidirectional_gradients(output, rng):
    net = net_of("before", rng)
    back = backward_layers(rng, net)
    x, y = data(rng, net, one_hot=isinstance(output, CE))
    h, alphas = random_states(rng, net, x, y), (1.3, 0.4)
    g = bidirectional.state_gradient(net, back, h, *alphas, output)
    for l in range(net.L + 1):
        numeric = gradient(
            lambda a, l=l: bidirectional.energy(
                net, back, replaced(h, l, a), *alphas, output
            ).sum(),
            h[l],
        )
        np.testing.assert_allclose(g[l], numeric, atol=TOL)
    forward, backward = bidirectional.weight_gradients(net, back, h, *alphas, output)
    numeric = param_gradients(
        lambda n: bidirectional.energy(n, back, h, *alphas, output).mean(), net
    )
    assert_close(flatten(forward), numeric, TOL)
    for l, (dW, db) in enumerate(backward):

        def mean_energy(W, b, l=l):
            g_l = Layer(W, b, "tanh", "before")
            return bidirectional.energy(net, replaced(back, l, g_l), h, *alphas, output).mean()

        np.testing.assert_allclose(
            dW, gradient(lambda W, l=l: mean_energy(W, back[l].b, l), back[l].W), atol=TOL
        )
        np.testing.assert_allclose(
            db, gradient(lambda b, l=l: mean_energy(back[l].W, b, l), back[l].b), atol=TOL
        )


@pytest.mark.parametrize("inputs", ["amortised", "inferred"])
def test_hybrid_amortiser_gradients(inputs, rng):
    net = net_of("after", rng)
    q = backward_layers(rng, net)
    x, y = data(rng, net)
    result = hybrid.hybrid(net, q, y, x, T=3, optim=SGD(0.05), inputs=inputs)
    at = result.extra["amortised"] if inputs == "amortised" else result.h
    np.testing.assert_allclose(result.extra["q_loss"], hybrid.amortiser_loss(q, result.h, at))
    for l, (dW, _) in enumerate(result.extra["q_grads"]):

        def loss(W, l=l):
            q_l = Layer(W, q[l].b, "tanh", "before")
            return hybrid.amortiser_loss(replaced(q, l, q_l), result.h, at).mean()

        np.testing.assert_allclose(dW, gradient(loss, q[l].W), atol=TOL)


def make_hierarchy(rng, place, prior=False, output=None):
    sizes = [4, 3, 2]
    weights = [rng.standard_normal((a, b)) for a, b in pairwise(sizes)]
    biases = [0.1 * rng.standard_normal(a) for a in sizes[:-1]]
    readout = rng.standard_normal((3, sizes[-1]))
    return hierarchy.Hierarchy(
        weights, biases, readout, rng.standard_normal(3), "tanh", place, prior, output or SE()
    )


@pytest.mark.parametrize("output", [SE(), CE()])
@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("place", ["before", "after"])
def test_hierarchy_gradients(place, prior, output, rng):
    net = make_hierarchy(rng, place, prior, output)
    x = [rng.standard_normal((5, n)) for n in (4, 3, 2)]
    y = np.eye(3)[[0, 1, 2, 1, 0]]
    for label in (None, y):
        g = hierarchy.state_gradient(net, x, label)
        for l in (1, 2):
            numeric = gradient(
                lambda a, l=l, label=label: hierarchy.energy(net, replaced(x, l, a), label).sum(),
                x[l],
            )
            np.testing.assert_allclose(g[l], numeric, atol=TOL)
    pairs, readout = hierarchy.weight_gradient(net, x, y)
    fields = {"activation": "tanh", "place": place, "prior": prior, "output": output}

    def mean_energy(weights=net.weights, biases=net.biases, V=net.readout, c=net.readout_bias):
        return hierarchy.energy(hierarchy.Hierarchy(weights, biases, V, c, **fields), x, y).mean()

    for l in (0, 1):
        numeric = gradient(
            lambda W, l=l: mean_energy(weights=replaced(net.weights, l, W)), net.weights[l]
        )
        np.testing.assert_allclose(pairs[l][0], numeric, atol=TOL)
        numeric = gradient(
            lambda b, l=l: mean_energy(biases=replaced(net.biases, l, b)), net.biases[l]
        )
        np.testing.assert_allclose(pairs[l][1], numeric, atol=TOL)
    np.testing.assert_allclose(
        readout[0], gradient(lambda V: mean_energy(V=V), net.readout), atol=TOL
    )
    np.testing.assert_allclose(
        readout[1], gradient(lambda c: mean_energy(c=c), net.readout_bias), atol=TOL
    )


def test_one_hierarchy_step_is_the_local_rule_written_out(rng):
    net = make_hierarchy(rng, "after")
    x0, y = rng.standard_normal((1, 4)), np.array([[0.0, 1.0, 0.0]])
    x = hierarchy.initial_states(net, x0, "normal", rng)
    new, states = hierarchy.train_step(net, x, y, T=4, lr_infer=0.1, lr_learn=0.01)
    _, x1, x2 = states[-1]
    a1 = net.weights[1] @ x2[0] + net.biases[1]
    post = (1 - np.tanh(a1) ** 2) * (x1[0] - np.tanh(a1))
    np.testing.assert_allclose(
        new.weights[1] - net.weights[1], 0.01 * np.outer(post, x2[0]), atol=1e-14
    )
    label_error = net.readout @ x2[0] + net.readout_bias - y[0]
    np.testing.assert_allclose(
        new.readout - net.readout, -0.01 * np.outer(label_error, x2[0]), atol=1e-14
    )


def test_optimisers_on_one_number_by_hand():
    p, state = [np.array([1.0])], SGD(0.1, 0.5).init([np.array([1.0])])
    for g, expected in [(2.0, 0.8), (1.0, 0.6)]:  # traces 2, 1 + 0.5·2
        p, state = SGD(0.1, 0.5).step(p, [np.array([g])], state)
        np.testing.assert_allclose(p[0], expected, atol=1e-15)
    p, _ = SGD(0.1, 0.5, nesterov=True).step(
        [np.array([1.0])], [np.array([2.0])], [np.array([0.0])]
    )
    np.testing.assert_allclose(p[0], 1 - 0.1 * (2 + 0.5 * 2), atol=1e-15)
    p, state = Adam(0.1, eps=0.0).step(
        [np.array([1.0])], [np.array([-3.0])], Adam(0.1).init([np.array([1.0])])
    )
    np.testing.assert_allclose(p[0], 1.1, atol=1e-15)  # the first step is lr · sign
    p, _ = Adam(0.1, eps=0.0).step(p, [np.array([1.0])], state)
    m_hat, v_hat = (0.1 * 0.9 * -3 + 0.1) / (1 - 0.81), (0.001 * 0.999 * 9 + 0.001) / (1 - 0.999**2)
    np.testing.assert_allclose(p[0], 1.1 - 0.1 * m_hat / np.sqrt(v_hat), atol=1e-12)
    o = AdamW(0.1, eps=0.0, weight_decay=0.2)
    p, _ = o.step([np.array([2.0])], [np.array([5.0])], o.init([np.array([2.0])]))
    np.testing.assert_allclose(p[0], 2 - 0.1 * (1 + 0.2 * 2), atol=1e-15)
