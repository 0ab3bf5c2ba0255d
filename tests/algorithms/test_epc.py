"""EPC against its NumPy oracle, its limits, and models that are no chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from pcx.algorithms import conformance
from pcx.core import named_params, static
from tests.algorithms.networks import Block, Network, float64, states, weights
from tests.oracles import backprop, epc, linear, pc
from tests.oracles.energy import CE, SQUARED
from tests.oracles.mlp import MLP, Layer, flatten
from tests.oracles.numerical import assert_close, data, net_of
from tests.oracles.optim import SGD, Adam

OUTPUTS = {"se": (SQUARED, pxc.se_energy), "ce": (CE(), pxc.ce_energy)}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def problem(rng, kind="after", output="se"):
    net = net_of(kind, rng)
    return net, *data(rng, net, batch=4, one_hot=output == "ce")


def learned(model, algorithm, x, y):
    """The weight gradients, batch averages: a step of size 1."""
    before = weights(model)
    metrics = algorithm.train_step(x, y)
    return [a - b for a, b in zip(before, weights(model), strict=True)], metrics


def sgd(T, lr=0.1, momentum=0.0, **options):
    return lambda model: pxa.EPC(model, T, optax.sgd(lr, momentum), optax.sgd(1.0), **options)


@pytest.mark.parametrize(
    ("kind", "output", "T"),
    [
        ("before", "se", 5),
        ("after", "ce", 5),
        ("skip", "se", 20),
        ("skip", "ce", 1),
        ("after", "se", 0),
    ],
)
def test_a_training_step_is_that_of_the_oracle(kind, output, T, rng):
    net, x, y = problem(rng, kind, output)
    energy, energy_fn = OUTPUTS[output]
    expected = epc.epc(net, x, y, T=T, optim=SGD(0.1, 0.5), output=energy)
    model = Network(net, energy_fn)
    algorithm = sgd(T, momentum=0.5, record=True)(model)
    _, record = algorithm.infer(x, y, trajectory=True)
    assert_close(states(model), expected.h[1:], atol=1e-12)
    assert_close(
        [np.asarray(s[t]) for t in range(T + 1) for s in record.states],
        [h for t in range(T + 1) for h in expected.states[t][1:]],
        atol=1e-12,
    )
    grads, metrics = learned(model, algorithm, x, y)
    assert_close(grads, flatten(expected.grads), atol=1e-12)
    np.testing.assert_allclose(metrics["energy"], expected.energies[-1].mean(), atol=1e-12)
    totals = np.asarray(metrics["energies"]).sum(1)
    np.testing.assert_allclose(totals, expected.energies.mean(1), atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "output", "damping"),
    [("before", "se", 1.0), ("skip", "se", 0.1), ("after", "ce", 1.0)],
)
def test_scaled_steps_are_those_of_the_oracle(kind, output, damping, rng):
    net, x, y = problem(rng, kind, output)
    energy, energy_fn = OUTPUTS[output]
    expected = epc.epc(net, x, y, T=3, scaled=damping, output=energy)
    model = Network(net, energy_fn)
    algorithm = pxa.EPC(model, 3, None, optax.sgd(1.0), step="scaled", damping=damping)
    algorithm.infer(x, y)
    assert_close(states(model), expected.h[1:], atol=1e-12)
    grads, _ = learned(model, algorithm, x, y)
    assert_close(grads, flatten(expected.grads), atol=1e-12)


def test_one_undamped_scaled_step_on_a_linear_net_is_an_exact_line_search(rng):
    net, x, y = problem(rng, "linear")
    model = Network(net)
    algorithm = pxa.EPC(model, 1, step="scaled")
    _, record = algorithm.infer(x, y, trajectory=True)
    h0, h1 = ([np.asarray(s[t]) for s in record.states] for t in (0, 1))

    def energy(s):
        h = [x, *(a + s * (b - a) for a, b in zip(h0, h1, strict=True))]
        return pc.energy(net, [*h[:-1], y])

    np.testing.assert_array_less(energy(1.0), energy(0.98))
    np.testing.assert_array_less(energy(1.0), energy(1.02))


@pytest.mark.parametrize("kind", ["before", "skip"])
def test_at_convergence_states_and_weight_gradients_are_those_of_pc(kind, rng):
    net, x, y = problem(rng, kind)
    by_states = pc.pc(net, x, y, T=20000, optim=SGD(0.05))
    model = Network(net)
    algorithm = sgd(3000, 0.05, unroll=False, distance=True)(model)
    algorithm.infer(x, y)
    assert_close(states(model), by_states.h[1:], atol=1e-9)
    grads, metrics = learned(model, algorithm, x, y)
    assert_close(grads, flatten(by_states.grads), atol=1e-9)
    assert metrics["distance"] < 1e-9


def test_at_convergence_a_linear_net_reaches_the_closed_form(rng):
    net, x, y = problem(rng, "linear")
    model = Network(net)
    pxa.EPC(model, 200, step="scaled", unroll=False).infer(x, y)
    assert_close(states(model), linear.equilibrium_states(net, x, y)[1:], atol=1e-9)


def test_after_one_small_step_hidden_gradients_are_eta_times_backpropagation(rng):
    net, x, y = problem(rng)
    eta = 1e-5
    grads, metrics = learned(*(lambda m: (m, sgd(1, eta)(m)))(Network(net)), x, y)
    _, expected, _ = backprop.backprop(net, x, y)
    hidden, last = flatten(expected[:-1]), flatten(expected[-1:])
    assert_close(grads[: len(hidden)], [eta * g for g in hidden], atol=0, rtol=1e-3)
    # the output's error is no free variable: its layer learns at once, not eta times as slowly
    assert_close(grads[len(hidden) :], last, atol=1e-3)
    assert "distance" not in metrics


@pytest.mark.parametrize(("rate", "divisor"), [(0.02, 0.1), (0.5, 1.0), (None, 1.0)])
def test_weight_gradients_are_divided_by_the_rate_times_the_steps(rate, divisor, rng):
    net, x, y = problem(rng)
    expected = epc.epc(net, x, y, T=5, optim=SGD(0.02))
    model = Network(net, pxc.se_energy)
    grads, _ = learned(model, sgd(5, lr=0.02, rate=rate)(model), x, y)
    assert_close(grads, [g / divisor for g in flatten(expected.grads)], atol=1e-12)


def test_without_steps_the_distance_is_one_and_only_the_output_layer_learns(rng):
    net, x, y = problem(rng)
    model = Network(net)
    grads, metrics = learned(model, sgd(0, distance=True)(model), x, y)
    assert metrics["distance"] == 1.0
    assert all(np.all(g == 0) for g in grads[:-2])
    assert_close(grads[-2:], flatten(backprop.backprop(net, x, y)[1])[-2:], atol=1e-12)


def test_the_distance_is_the_relative_norm_of_the_error_gradient(rng):
    net, x, y = problem(rng)
    eps = epc.epc(net, x, y, T=4, optim=SGD(0.1)).extra["eps"]

    def norm(e):
        return sum((g**2).sum(-1) for g in epc.error_gradient(net, x, y, e).values()) ** 0.5

    metrics = sgd(4, distance=True)(Network(net)).train_step(x, y)
    np.testing.assert_allclose(metrics["distance"], (norm(eps[-1]) / norm(eps[0])).mean())


def test_adam_moves_the_errors_as_the_oracle_does(rng):
    net, x, y = problem(rng)
    expected = epc.epc(net, x, y, T=6, optim=Adam(0.05))
    model = Network(net)
    pxa.EPC(model, 6, optax.adam(0.05)).infer(x, y)
    assert_close(states(model), expected.h[1:], atol=1e-9)


def test_a_scanned_loop_gives_the_same(rng):
    net, x, y = problem(rng)
    a, b = Network(net), Network(net)
    sgd(20, unroll=True)(a).infer(x, y)
    sgd(20, unroll=False)(b).infer(x, y)
    assert_close(states(a), states(b), atol=1e-14)


def test_inference_stops_early_when_the_error_gradient_is_small(rng):
    net, x, y = problem(rng)
    model = Network(net)
    algorithm = sgd(5000, 0.05, stop=pxa.Stop(gradient_tol=1e-6))(model)
    _, record = algorithm.infer(x, y, energies=False)
    assert 10 < record.steps < 4000
    eps = {
        k + 1: h - u
        for k, (h, u) in enumerate(zip(states(model)[:-1], predicted(net, x, model), strict=True))
    }
    assert max(np.abs(g).max() for g in epc.error_gradient(net, x, y, eps).values()) < 1e-6


def predicted(net, x, model):
    return net.predictions([x, *states(model)])[1:-1]


class Branches(pxc.EnergyModule):
    """Branches that meet, a skip around them, a convolution, a hidden node with its own energy."""

    def __init__(self, precision=2.0):
        self.conv = pxnn.Conv1d(1, 2, 3, padding=1)
        self.left, self.right = pxnn.Linear(8, 3), pxnn.Linear(8, 3)
        self.last = pxnn.Linear(3, 2)
        self.vodes = [
            pxc.Vode((2, 4)),
            pxc.Vode((3,), lambda vode, rkg: precision * pxc.se_energy(vode)),
            pxc.Vode((3,)),
            pxc.Vode((2,)),
        ]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        h = jnp.ravel(self.vodes[0](jax.nn.tanh(self.conv(x[None]))))
        a, b = self.vodes[1](self.left(h)), self.vodes[2](jax.nn.tanh(self.right(h)))
        u = self.last(a * b + x[:3])
        self.vodes[-1](u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


@pytest.mark.parametrize("step", ["fixed", "scaled"])
def test_any_model_branches_skips_convolutions_reaches_pcs_equilibrium(step, rng):
    x, y = rng.standard_normal((3, 4)), rng.standard_normal((3, 2))
    model = in_float64(Branches())
    pxa.PC(model, 20000, optax.sgd(0.05), unroll=False, lazy=False).infer(x, y, energies=False)
    expected = states(model)
    model.clear_params(pxc.VodeParam)
    algorithm = pxa.EPC(model, 4000, optax.sgd(0.1), step=step, unroll=False)
    algorithm.infer(x, y, energies=False)
    assert_close(states(model), expected, atol=1e-8)


def in_float64(model):
    for _, param in named_params(model):
        if isinstance(param, pxnn.LayerParam):
            param.set(jnp.asarray(param.get(), jnp.float64))
    return model


class Latent(pxc.EnergyModule):
    """A generative model: a free latent without prediction or energy, and data clamped below."""

    def __init__(self, W):
        self.layer = pxnn.Linear(*W.shape[::-1], bias=False)
        self.layer.nn.weight.set(jnp.asarray(W))
        self.latent, self.data = pxc.Vode(energy_fn=None), pxc.Vode((len(W),))
        self.data.h.frozen = True

    def __call__(self, x, y=None):
        if self.status == pxc.STATUS.INIT:
            self.latent.set("h", jnp.ones(self.layer.nn.weight.shape[1]))
        u = self.layer(self.latent.get("h"))
        self.data(u)
        if y is not None:
            self.data.set("h", y)
        return u


def test_a_node_without_a_prediction_is_inferred_too(rng):
    W, y = rng.standard_normal((5, 2)), rng.standard_normal((3, 5))
    model = Latent(W)
    pxa.EPC(model, 2000, optax.sgd(0.05), unroll=False).infer(None, y, energies=False)
    # least squares: without an energy of its own the latent explains the data as well as it can
    expected = np.linalg.lstsq(W, y.T, rcond=None)[0].T
    np.testing.assert_allclose(model.latent.h.get(), expected, atol=1e-9)


def test_the_user_s_own_rules_for_the_prediction_still_apply(rng):
    net, x, y = problem(rng)
    model = Network(net)
    rules = {None: "u <- u:shift"}
    model.vodes[0] = pxc.Vode((5,), ruleset=rules, tforms={"shift": lambda v, k, u, r: u + 0.3})
    pxa.PC(model, 8000, optax.sgd(0.05), unroll=False, lazy=False).infer(x, y, energies=False)
    expected = states(model)
    model.clear_params(pxc.VodeParam)
    sgd(2000, unroll=False)(model).infer(x, y, energies=False)
    assert_close(states(model), expected, atol=1e-9)


class Deep(pxc.EnergyModule):
    """Four equal layers and an output, with the equal ones in a stack or apart."""

    def __init__(self, blocks, last, stacked):
        self.last, self.output = last, pxc.Vode((2,))
        self.output.h.frozen = True
        if stacked:
            rest = iter(blocks)
            self.hidden = pxc.Stack(lambda: next(rest), len(blocks), shape=(3,))
        else:
            vodes = [pxc.Vode((3,)) for _ in blocks]
            self.hidden = [f for pair in zip(blocks, vodes, strict=True) for f in pair]

    def __call__(self, x, y=None):
        for f in [self.hidden] if isinstance(self.hidden, pxc.Stack) else self.hidden:
            x = f(x)
        u = self.last(x)
        self.output(u)
        if y is not None:
            self.output.set("h", y)
        return u


@pytest.mark.parametrize("step", ["fixed", "scaled"])
def test_a_stack_is_the_separate_layers(step, rng):
    net = MLP(Layer(rng.standard_normal((n, 3)) / 2, None, "tanh") for n in (3, 3, 3, 3, 2))
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    grads = []
    for stacked in (False, True):
        blocks = [Block(layer) for layer in net.layers]
        model = Deep(blocks[:-1], blocks[-1], stacked)
        algorithm = pxa.EPC(model, 3, optax.sgd(0.1), optax.sgd(1.0), step=step)
        _, record = algorithm.infer(x, y)
        totals = np.asarray(record.energies).sum(1)
        algorithm.train_step(x, y)
        parts = [model.hidden.block] if stacked else [b for b in model.hidden if b in blocks]
        found = np.concatenate([np.atleast_3d(b.linear.nn.weight.get()).ravel() for b in parts])
        grads.append([totals, found, np.asarray(model.last.linear.nn.weight.get())])
    assert_close(grads[1], grads[0], atol=1e-12)


def test_it_passes_the_conformance_suite_with_scaled_steps(rng):
    _, x, y = problem(rng)
    optim = optax.sgd(0.05)
    conformance.check_algorithm(
        lambda model: pxa.EPC(model, 3, None, optim, step="scaled", distance=True),
        lambda: pxm.MLP([3, 4, 4, 2]),
        x.astype("float32"),
        y.astype("float32"),
    )


@pytest.mark.parametrize("init", ["zero", "persistent"])
def test_inference_starts_from_the_errors_of_any_initial_state(init, rng):
    net, x, y = problem(rng)
    model = Network(net)
    algorithm = sgd(1, 1e-9, init=init)(model)
    h = [np.full_like(s, 0.5) for s in epc.unroll(net, x, {1: 0.0, 2: 0.0})[1:]]
    for vode, value in zip(model.vodes, h, strict=True):
        vode.h.set(jnp.asarray(value))
    algorithm.infer(x, y)
    expected = [0.0 * s if init == "zero" else s for s in h[:-1]]
    assert_close(states(model)[:-1], expected, atol=1e-6)


def test_training_twice_compiles_once_and_leaves_no_trace_in_the_model(rng):
    net, x, y = problem(rng)
    model = Network(net)
    algorithm = sgd(2)(model)
    rules = [v.ruleset for v in model.vodes]
    algorithm.train_step(x, y)
    compiled = pxa.PC.train_step.jitted._donating._cache_size()
    algorithm.train_step(x, y)
    assert pxa.PC.train_step.jitted._donating._cache_size() == compiled
    assert [v.ruleset for v in model.vodes] == rules
    assert all(v.h.get() is None for v in model.vodes)


@pytest.mark.wrong_types
def test_bad_arguments_are_refused():
    net = net_of("after", np.random.default_rng(0))
    with pytest.raises(ValueError, match='step must be "fixed" or "scaled"; got \'best\''):
        pxa.EPC(Network(net), step="best")
    with pytest.raises(ValueError, match="rate is that of the steps on the errors, above 0; got 0"):
        pxa.EPC(Network(net), rate=0.0)
    for options in ({"step": "scaled"}, {"state_optim": pxa.Anderson()}):
        with pytest.raises(ValueError, match="which scaled steps and solvers have not"):
            pxa.EPC(Network(net), rate=0.1, **options)
    with pytest.raises(ValueError, match="damping must be positive; got 0"):
        pxa.EPC(Network(net), damping=0.0)

    class Own(Network):
        def energy(self):
            return 2 * super().energy()

    with pytest.raises(ValueError, match="Own has an `energy` of its own"):
        pxa.EPC(Own(net), step="scaled")


class Connected(pxc.EnergyModule):
    """Two hidden nodes; a state is read before the pass predicts it: a node's own, or a later one's."""

    def __init__(self, read):
        self.layers = [pxnn.Linear(3, 3) for _ in range(2)] + [pxnn.Linear(3, 2)]
        self.nodes = [pxc.Vode((3,)), pxc.Vode((3,)), pxc.Vode((2,))]
        self.nodes[-1].h.frozen = True
        self.read = static(read)

    def __call__(self, x, y=None):
        a, b, out = self.nodes
        early = {"own": a, "later": b, "kept": a}.get(self.read.get())
        early = None if early is None else early.get("h")
        early = jnp.zeros(3) if early is None else early
        kept = self.read.get() == "kept"
        h = a(self.layers[0](x) + (0.0 if kept else 0.3 * early))
        # the state of the step before, used after the node was predicted
        h = b(self.layers[1](h) + (0.3 * early if kept else 0.0))
        u = self.layers[2](h)
        out(u)
        if y is not None:
            out.set("h", y)
        return u


@pytest.mark.parametrize(
    ("read", "who", "node"),
    [
        ("own", r"nodes\[0\]", r"nodes\[0\]"),
        ("later", r"nodes\[0\]", r"nodes\[1\]"),
        ("kept", r"nodes\[1\]", r"nodes\[0\]"),
    ],
)
def test_a_state_read_before_it_is_predicted_is_refused_by_name(read, who, node):
    x, y = jnp.ones((4, 3)), jnp.eye(2)[jnp.arange(4) % 2]
    with pytest.raises(ValueError, match=f"`{who}` depends on the state of `{node}`.*Use PC"):
        pxa.EPC(Connected(read), 2, optax.sgd(0.1)).train_step(x, y)
    # the same model without the connection is fine
    assert pxa.EPC(Connected(None), 2, optax.sgd(0.1)).train_step(x, y)["energy"] > 0
