"""`regime` against dense Hessians, closed forms of linear networks, and NumPy by hand."""
# ruff: noqa: E741 - l is the layer index of the equations

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.analysis as pxan
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from pcx.algorithms._curvature import lanczos
from pcx.core import named_params
from tests.algorithms.networks import Network, float64
from tests.oracles import epc as epc_oracle
from tests.oracles import linear, pc
from tests.oracles.backprop import backprop
from tests.oracles.energy import CE
from tests.oracles.mlp import flatten
from tests.oracles.numerical import data, net_of
from tests.oracles.optim import SGD

LAYERS = [f"blocks[{k}].linear" for k in range(3)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64():
    px.RKG.seed(0)
    with float64():
        yield


def problem(kind, rng, batch=3, one_hot=False):
    net = net_of(kind, rng)
    return net, *data(rng, net, batch, one_hot)


def norms(arrays):
    """By sample, over lists of (batch, n)."""
    return np.sqrt(sum((a**2).sum(-1) for a in arrays))


def cosine(a, b):
    a, b = (np.concatenate([np.ravel(v) for v in w]) for w in (a, b))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def largest_eigenvalue(gradient, h):
    """Of the Hessians of all samples, by differences of their gradients."""
    cuts = np.cumsum([0, *(a.shape[1] for a in h)])
    columns = []
    for d in 1e-6 * np.eye(cuts[-1]):
        parts = np.split(d, cuts[1:-1])
        ends = [gradient([a + s * p for a, p in zip(h, parts, strict=True)]) for s in (1, -1)]
        columns.append((np.concatenate(ends[0], -1) - np.concatenate(ends[1], -1)) / 2e-6)
    H = np.stack(columns, axis=1)
    return np.linalg.eigvalsh((H + H.transpose(0, 2, 1)) / 2).max()


def test_lanczos_finds_both_ends_of_a_spectrum(rng):
    A = rng.standard_normal((2, 60, 60))
    A = A + A.transpose(0, 2, 1)
    got = lanczos(lambda v: jnp.einsum("rij,rj->ri", A, v), jnp.ones((2, 60)), 40)
    values = np.linalg.eigvalsh(A)
    np.testing.assert_allclose(got[:, [0, -1]], values[:, [0, -1]], rtol=1e-6)


def test_lanczos_ends_where_the_vectors_it_can_reach_do():
    diagonal = jnp.array([[3.0, 3.0, 3.0, 5.0]])
    got = lanczos(lambda v: diagonal * v, jnp.ones((1, 4)), 4)
    np.testing.assert_allclose(got, [[0, 0, 3, 5]], atol=1e-12)
    np.testing.assert_array_equal(lanczos(lambda v: 0 * v, jnp.ones((1, 4)), 4), np.zeros((1, 4)))


def test_the_curvature_of_errors_is_that_of_the_errors(rng):
    net, x, y = problem("after", rng)
    rate = pxa.EPC(Network(net)).largest_state_rate(x, y)
    zero = [np.zeros_like(u) for u in net.forward(x)[1:-1]]
    slope = lambda eps: [*epc_oracle.error_gradient(net, x, y, dict(enumerate(eps, 1))).values()]
    top = largest_eigenvalue(slope, zero)
    np.testing.assert_allclose(rate, 2 / top, rtol=1e-7)


def test_error_steps_on_a_linear_network_follow_the_closed_form(rng):
    net, x, y = problem("linear", rng)
    T, eta = 3, 0.05
    found = pxan.regime(pxa.EPC(Network(net), T, optax.sgd(eta)), x, y, samples=0)
    P = linear.products(net)
    J = np.concatenate([P[l] for l in range(2, net.L + 1)], axis=1)  # du_L / d(errors)
    values, vectors = np.linalg.eigh(np.eye(J.shape[1]) + J.T @ J)
    g = -(y - net.forward(x)[-1]) @ J @ vectors
    shares = g**2 / (g**2).sum(-1, keepdims=True)
    left = (1 - eta * values) ** T
    np.testing.assert_allclose(found.lambda_max, 1 + np.linalg.norm(J, 2) ** 2, rtol=1e-10)
    np.testing.assert_allclose(
        found.relaxed_fraction, np.median((shares * (1 - left)).sum(-1)), rtol=1e-10
    )
    ratios = np.sqrt((shares * left**2).sum(-1))
    np.testing.assert_allclose(found.gradient_ratio, np.median(ratios), rtol=1e-10)
    np.testing.assert_allclose(found.worst_gradient_ratio, ratios.max(), rtol=1e-10)


def test_one_small_error_step_is_back_propagation(rng):
    net, x, y = problem("after", rng, one_hot=True)
    model, eta = Network(net, pxc.ce_energy), 1e-5
    found = pxan.regime(pxa.EPC(model, 1, optax.sgd(eta)), x, y, samples=0)
    np.testing.assert_allclose([*found.cosine.values()], 1, atol=1e-8)
    np.testing.assert_allclose([*found.norm_ratio.values()], [eta, eta, 1], rtol=1e-3)
    assert found.reach == dict(zip(LAYERS, (1, 1, 0), strict=True))
    # to first order, sum_k w_k eta lambda_k = eta g'Hg / g'g
    zero = {l: np.zeros_like(u) for l, u in enumerate(net.forward(x)) if 0 < l < net.L}
    slope = lambda s: epc_oracle.error_gradient(
        net, x, y, {l: zero[l] + s * g[l] for l in zero}, CE()
    )
    g = epc_oracle.error_gradient(net, x, y, zero, CE())
    after, before = slope(1e-5), slope(-1e-5)
    curved = sum((g[l] * (after[l] - before[l]) / 2e-5).sum(-1) for l in g)
    expected = np.median(eta * curved / sum((g[l] ** 2).sum(-1) for l in g))
    np.testing.assert_allclose(found.relaxed_fraction, expected, rtol=1e-3)
    assert found.effective_depth == 1


def test_layers_are_compared_by_their_gradients(rng):
    net, x, y = problem("after", rng, one_hot=True)
    run = pc.pc(net, x, y, T=4, optim=SGD(0.1), output=CE())
    model = Network(net, pxc.ce_energy)
    found = pxan.regime(pxa.PC(model, 4, optax.sgd(0.1), unroll=False), x, y, samples=0)
    _, bp, _ = backprop(net, x, y, CE())
    size = lambda pair: np.sqrt(sum((a**2).sum() for a in flatten([pair])))
    weight = [size((layer.W, layer.b)) for layer in net.layers]
    for l, name in enumerate(LAYERS):
        expected = cosine(flatten([run.grads[l]]), flatten([bp[l]]))
        np.testing.assert_allclose(found.cosine[name], expected, rtol=1e-10)
        expected = size(run.grads[l]) / size(bp[l])
        np.testing.assert_allclose(found.norm_ratio[name], expected, rtol=1e-10)
    np.testing.assert_allclose(found.total_cosine, cosine(flatten(run.grads), flatten(bp)))
    e = pc.prediction_gradient(net, run.h, CE())[1:]
    expected = [np.linalg.norm(a) / np.linalg.norm(e[-1]) for a in e]
    np.testing.assert_allclose([*found.error_ratio.values()], expected, rtol=1e-10)
    assert found.reach == dict(zip(LAYERS, (2, 1, 0), strict=True))
    share = np.array([size(g) / w for g, w in zip(run.grads, weight, strict=True)]) ** 2
    least = min(k for k in (1, 2, 3) if share[-k:].sum() >= 0.99 * share.sum())
    assert found.effective_depth == least
    slopes = [pc.state_gradient(net, h, CE())[1:-1] for h in (run.states[0], run.h)]
    ratios = norms(slopes[1]) / norms(slopes[0])
    np.testing.assert_allclose(found.gradient_ratio, np.median(ratios), rtol=1e-10)
    top = largest_eigenvalue(
        lambda h: pc.state_gradient(net, [x, *h, y], CE())[1:-1], net.forward(x)[1:-1]
    )
    np.testing.assert_allclose(found.lambda_max, top, rtol=1e-7)
    np.testing.assert_allclose(found.largest_state_rate, 2 / top, rtol=1e-7)
    assert math.isnan(found.alignment)
    assert math.isnan(found.interference)


def test_alignment_of_linear_networks_is_the_closed_form(rng):
    net, x, y = problem("linear_no_bias", rng)
    h0, r = net.forward(x), y - net.forward(x)[-1]
    P = [*linear.products(net), np.eye(2)]
    star = linear.equilibrium_states(net, x, y)
    equilibrium, propagated = [], []
    for k in range(len(x)):
        above = [P[l + 1] @ P[l + 1].T for l in range(1, net.L + 1)]
        rescaled = np.linalg.solve(linear.rescaling(net), r[k])
        moved = sum(
            A @ rescaled * (s[k] @ h[k]) for A, s, h in zip(above, star[:-1], h0[:-1], strict=True)
        )
        equilibrium.append(cosine([moved], [r[k]]))
        moved = sum(A @ r[k] * (h[k] @ h[k]) for A, h in zip(above, h0[:-1], strict=True))
        propagated.append(cosine([moved], [r[k]]))
    settled = pxa.PC(Network(net), 400, optax.sgd(0.3), unroll=False)
    np.testing.assert_allclose(
        pxan.regime(settled, x, y).alignment, np.mean(equilibrium), rtol=1e-8
    )
    bp = pxan.regime(pxa.Backprop(Network(net)), x, y)
    np.testing.assert_allclose(bp.alignment, np.mean(propagated), rtol=1e-10)
    assert bp.reach == dict.fromkeys(LAYERS, 0)
    assert bp.stable is None
    # a sample that is predicted exactly has no direction to be aligned with
    algorithm = pxa.Backprop(Network(net))
    exact = np.concatenate([np.asarray(algorithm.predict(x))[:1], y[1:]])
    found = pxan.regime(algorithm, x, exact).alignment
    np.testing.assert_allclose(found, np.mean(propagated[1:]), rtol=1e-10)
    # by a small step with each sample's own gradient
    loss = lambda net: 0.5 * ((y - net.forward(x)[-1]) ** 2).sum(-1)
    expected = []
    for k in range(len(x)):
        g = flatten(backprop(net, x[k : k + 1], y[k : k + 1])[1])
        after, before = (
            loss(net.with_params([p - s * q for p, q in zip(net.params, g, strict=True)]))
            for s in (1e-6, -1e-6)
        )
        change = after - before
        expected.append(np.delete(change, k).mean() / -change[k])
    np.testing.assert_allclose(bp.interference, np.mean(expected), rtol=1e-7)


def test_the_label_that_hybrid_inference_clamps_at_the_input_is_no_output(rng):
    """Alignment: how a small step on a sample moves what its label generates, and the data themselves."""
    x, y = rng.standard_normal((3, 4)), np.eye(2)[[0, 1, 0]]

    def make(rate):
        px.RKG.seed(1)
        amortiser = [pxnn.Linear(3, 2), pxnn.Linear(4, 3)]
        weights = optax.sgd(rate)
        return pxa.HybridPC(pxm.MLP([2, 3, 4]), 5, optax.sgd(0.1), weights, amortiser=amortiser)

    before, expected = np.asarray(make(0.0).generate(y)), []
    for k in range(len(x)):
        stepped = make(1e-6)
        stepped.train_step(x[k : k + 1], y[k : k + 1])
        moved = np.asarray(stepped.generate(y))[k] - before[k]
        expected.append(cosine([moved], [x[k] - before[k]]))
    found = pxan.regime(make(0.0), x, y)
    np.testing.assert_allclose(found.alignment, np.mean(expected), rtol=1e-6)
    assert found.error_ratio["generator.layers[1]"] == 1


def test_what_is_learned_during_inference_is_added_up(rng):
    net, x, y = problem("after", rng)
    zil = pxan.regime(pxa.ZIL(Network(net)), x, y, samples=0)
    np.testing.assert_allclose([*zil.cosine.values(), *zil.norm_ratio.values()], 1, rtol=1e-10)
    states = pc.pc(net, x, y, T=3, optim=SGD(0.1)).states[:3]
    steps = [flatten(pc.weight_gradient(net, h)) for h in states]
    found = pxan.regime(pxa.IPC(Network(net), 3, optax.sgd(0.1)), x, y, samples=0)
    expected = cosine([sum(g) for g in zip(*steps, strict=True)], flatten(backprop(net, x, y)[1]))
    np.testing.assert_allclose(found.total_cosine, expected, rtol=1e-10)


class Feedback(pxc.EnergyModule):
    """The first prediction reads the state of the second node: states do not follow from errors."""

    def __init__(self):
        self.layers = [pxnn.Linear(4, 3), pxnn.Linear(3, 3), pxnn.Linear(3, 2)]
        self.vodes = [pxc.Vode((3,)), pxc.Vode((3,)), pxc.Vode((2,))]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        above = self.vodes[1].h.get()
        h = self.vodes[0](self.layers[0](x) + (0.0 if above is None else 0.1 * above))
        u = self.layers[2](self.vodes[1](jnp.tanh(self.layers[1](h))))
        self.vodes[2](u)
        if y is not None:
            self.vodes[2].set("h", y)
        return u


def test_where_states_do_not_follow_from_errors_only_the_relaxed_fraction_is_unknown(rng):
    x, y = rng.normal(size=(5, 4)), np.eye(2)[[0, 1, 1, 0, 1]]
    found = pxan.regime(pxa.PC(Feedback(), 4, optax.sgd(0.1)), x, y, samples=0)
    assert math.isnan(found.relaxed_fraction)
    assert 0 < found.gradient_ratio < 1
    assert found.stable


def test_the_steps_of_a_solver_are_not_counted(rng):
    net, x, y = problem("after", rng)
    algorithm = pxa.PC(Network(net), state_optim=pxa.Diffrax("Heun", T=1.0, dt0=0.1))
    reach = pxan.regime(algorithm, x, y, samples=0).reach
    assert [math.isnan(reach[name]) for name in LAYERS] == [True, True, False]
    assert reach[LAYERS[-1]] == 0


def test_nothing_is_changed(rng):
    net, x, y = problem("after", rng)
    algorithm = pxa.NudgedPC(Network(net), 1, alternate="batch", init="persistent")
    algorithm.train_step(x, y)
    before = {path: p.get() for path, p in named_params(algorithm)}
    key, status, names = px.RKG.key.get(), algorithm.model.status, [*vars(algorithm)]
    pxan.regime(algorithm, x, y, samples=0)
    after = {path: p.get() for path, p in named_params(algorithm)}
    assert before.keys() == after.keys()
    assert all(before[path] is after[path] for path in before)
    assert px.RKG.key.get() is key
    assert algorithm.model.status == status
    assert [*vars(algorithm)] == names


# 1 - eta lambda has modulus 1 at 2; heavy ball and Nesterov have their limits elsewhere
@pytest.mark.parametrize(
    ("optim", "limit"),
    [
        (optax.sgd, 2),
        (lambda rate: optax.sgd(rate, 0.5), 2 * 1.5),
        (lambda rate: optax.sgd(rate, 0.5, nesterov=True), 2 * 1.5 / 2),
    ],
    ids=["sgd", "momentum", "nesterov"],
)
def test_stable_is_decided_for_the_optimiser_in_use(optim, limit, rng):
    from pcx.analysis._regime import _is_stable

    model = Network(net_of("linear", rng))
    assert _is_stable(pxa.PC(model, 2, optim(0.97 * limit / 7)), 7.0)
    assert not _is_stable(pxa.PC(model, 2, optim(1.03 * limit / 7)), 7.0)
    assert _is_stable(pxa.EPC(model, 2, step="scaled"), 7.0) is None


def test_the_table_fits_in_eighty_columns():
    row = {"a" * 60: 1.0, "a_module.of_some_kind.layers[12]": math.nan}
    found = pxan.Regime(
        *(0.123456, 1.0, math.nan, 1234567.0, 1e-6, False), row, row, 1.0, row, row, 1, 1.0, 1.0
    )
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert "NOT STABLE" in str(found)
    assert lines[-2].startswith("..." + "a" * 29)
    assert len({*map(len, lines[-3:])}) == 1  # columns below their heads


def test_a_model_with_batch_statistics_has_no_sample_alone(rng):
    class Net(pxc.EnergyModule):
        def __init__(self):
            self.norm = pxnn.BatchNorm(3, axis_name="batch", mode="batch")
            self.layers = [pxnn.Linear(3, 4), pxnn.Linear(4, 2)]
            self.vodes = [pxc.Vode((4,)), pxc.Vode((2,))]
            self.vodes[-1].h.frozen = True

        def __call__(self, x, y=None):
            u = self.vodes[0](self.layers[0](self.norm(x)))
            u = self.vodes[1](self.layers[1](u))
            if y is not None:
                self.vodes[1].set("h", y)
            return u

    x, y = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    net = Net()
    net.train()
    found = pxan.regime(pxa.PC(net, 1), x, y)
    assert math.isnan(found.alignment)
    W = np.asarray(net.layers[1].nn.weight.get())
    np.testing.assert_allclose(found.lambda_max, 1 + np.linalg.norm(W, 2) ** 2, rtol=1e-6)


@pytest.mark.wrong_types
def test_what_cannot_be_measured_is_refused():
    with pytest.raises(TypeError, match=r"takes an algorithm of pcx.algorithms.*got MLP"):
        pxan.regime(pxm.MLP([2, 2]), np.ones((1, 2)))
    stopping = pxa.IPC(pxm.MLP([2, 2, 2]), stop=pxa.Stop(gradient_tol=1e-3))
    with pytest.raises(ValueError, match="IPC with `stop=`"):
        pxan.regime(stopping, np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="samples is how many to take, 0 or more; got -1"):
        pxan.regime(pxa.PC(pxm.MLP([2, 2, 2])), np.ones((1, 2)), np.ones((1, 2)), samples=-1)
