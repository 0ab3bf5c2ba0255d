"""Equilibrium solvers: against block-tridiagonal Newton in NumPy, closed forms, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.predictive_coding as pxc
from tests.algorithms.networks import float64, states, weights
from tests.algorithms.problems import CE, SQUARED, Conv, Small, model_of, problem
from tests.oracles import equilibrium, linear, pc
from tests.oracles.mlp import flatten, make_mlp
from tests.oracles.numerical import assert_close, data, net_of, random_states


@pytest.fixture(autouse=True)
def _float64():
    px.RKG.seed(0)
    with float64():
        yield


def inferred(net, x, y, solver, output=SQUARED, T=100, cls=pxa.PC, **options):
    algorithm = cls(model_of(net, output), T, solver, **options)
    _, record = algorithm.infer(x, y, energies=False)
    return algorithm, record


def relative(actual, expected):
    norm = lambda parts: np.sqrt(sum(np.sum(np.square(a)) for a in parts))
    return norm([a - b for a, b in zip(actual, expected, strict=True)]) / norm(expected)


# --- the oracle ------------------------------------------------------------------------------------------


def test_block_tridiagonal_newton_is_exact_on_linear_networks():
    net, x, y = problem("linear")
    h = equilibrium.newton(net, x, y, steps=1)
    assert_close(h, linear.equilibrium_states(net, x, y), atol=1e-11)


@pytest.mark.parametrize("kind", ["after", "before", "skip"])
@pytest.mark.parametrize("beta", [None, 0.3])
def test_the_blocks_are_the_hessian(kind, beta):
    rng = np.random.default_rng(4)
    net = net_of(kind, rng)
    x, y = data(rng, net, 1, one_hot=True)
    h = random_states(rng, net, x, y)
    if beta is not None:
        h[-1] = rng.standard_normal(y.shape)
    diagonal, above = equilibrium.blocks(net, h, y, beta, CE())
    for k, block in enumerate(diagonal):

        def slopes(value, k=k):
            moved = [value if j == k + 1 else a for j, a in enumerate(h)]
            return equilibrium.gradient(net, moved, y, beta, CE())[0]

        columns = []
        for unit in np.eye(len(block)):
            up, down = (slopes(h[k + 1] + s * 1e-6 * unit) for s in (1, -1))
            columns.append([(a - b)[0] / 2e-6 for a, b in zip(up[1:], down[1:], strict=True)])
        np.testing.assert_allclose(np.stack([c[k] for c in columns]), block, atol=1e-7)
        if k > 0:
            np.testing.assert_allclose(
                np.stack([c[k - 1] for c in columns], 1), above[k - 1], atol=1e-7
            )


# --- all solvers, one equilibrium ------------------------------------------------------------------------

SOLVERS = {
    "direct": (pxa.PC, pxa.GaussNewton(1e-8, linear="direct")),
    "cg": (pxa.PC, pxa.GaussNewton(1e-8, linear="cg")),
    "Anderson": (pxa.PC, pxa.Anderson(1e-8, rate=0.2)),
    # passes a saddle point on its way, which is another zero of the gradient
    "Anderson, small steps": (pxa.PC, pxa.Anderson(1e-8, rate=0.05)),
    "EPC, Anderson": (pxa.EPC, pxa.Anderson(1e-8, rate=0.1)),
    "sweeps": (pxa.PC, pxa.RedBlack(damping=0.4)),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_they_agree_on_states_and_weight_gradients(name):
    cls, solver = SOLVERS[name]
    # every kind of layer, or cross-entropy
    output = SQUARED if name == "cg" or name.startswith("Anderson") else CE()
    net, x, y = problem("skip" if output is SQUARED else "after", output)
    algorithm, _ = inferred(net, x, y, solver, output, T=1000, cls=cls)
    h = equilibrium.newton(net, x, y, None, output)
    assert relative(states(algorithm.model)[:-1], h[1:-1]) < 1e-6
    wanted = flatten(pc.weight_gradient(net, h, output))
    before = weights(algorithm.model)
    algorithm.weight_optim = type(algorithm.weight_optim)(optax.sgd(1.0))
    algorithm.step_weights(x, y)
    ours = [a - b for a, b in zip(before, weights(algorithm.model), strict=True)]
    assert relative(ours, wanted) < 1e-5


def test_a_nudged_output_has_its_equilibrium_too():
    net, x, y = problem("after", CE())
    solver = pxa.GaussNewton(1e-9, linear="direct")
    algorithm, record = inferred(
        net, x, y, solver, CE(), 20, pxa.EquilibriumProp, beta=0.3, mode="negative"
    )
    h = equilibrium.newton(net, x, y, -0.3, CE())
    assert_close(states(algorithm.model), h[1:], atol=1e-8)
    assert record.info["met"] == len(x)


@pytest.mark.parametrize("linear_solver", ["direct", "cg"])
def test_one_gauss_newton_step_is_exact_on_a_linear_network(linear_solver):
    rng = np.random.default_rng(0)
    net = make_mlp(rng, [4, *[8] * 4, 3], "identity")
    x, y = data(rng, net)
    # conjugate gradients end in as many iterations as there are outputs
    algorithm, record = inferred(
        net, x, y, pxa.GaussNewton(1e-9, linear=linear_solver, cg_steps=3), T=1
    )
    wanted = linear.equilibrium_states(net, x, y)
    assert_close(states(algorithm.model), wanted[1:], atol=1e-9)
    assert record.info["met"] == len(x)


@pytest.mark.parametrize(("linear_solver", "exact"), [("direct", 1), ("auto", 1), ("cg", 0)])
def test_few_outputs_are_solved_directly_unless_iterations_are_asked_for(linear_solver, exact):
    rng = np.random.default_rng(0)
    net = make_mlp(rng, [4, 8, 8, 3], "identity")
    x, y = data(rng, net)
    # one iteration of conjugate gradients is too few for three outputs
    solver = pxa.GaussNewton(1e-9, linear=linear_solver, cg_steps=1)
    _, record = inferred(net, x, y, solver, T=1)
    assert record.info["met"] == exact * len(x)


def test_anderson_with_a_full_window_solves_n_unknowns_in_n_and_one_evaluations():
    rng = np.random.default_rng(0)
    net = make_mlp(rng, [3, 5, 3, 2], "identity")
    x, y = data(rng, net)
    algorithm, _ = inferred(net, x, y, pxa.Anderson(1e-10, rate=0.2, window=8), T=9)
    wanted = linear.equilibrium_states(net, x, y)
    assert_close(states(algorithm.model), wanted[1:], atol=1e-5)
    plain, _ = inferred(net, x, y, optax.sgd(0.2), T=9)
    assert relative(states(plain.model), wanted[1:]) > 1e-3


def test_anderson_learns_nothing_from_a_first_slope_that_is_computed_again():
    anderson = pxa.Anderson(rate=0.25)
    h, noise = jnp.zeros((1, 4)), jnp.array([[1.0, -1.0, 1.0, -1.0]])
    slope = jnp.array([[2.0, 1.0, 0.5, 3.0]])
    again = slope + 4 * float(jnp.finfo(h.dtype).eps) * noise
    assert not np.array_equal(again, slope)
    moved, past = anderson.advance(None, h, again, anderson.start(None, h, slope))
    # the plain step: a difference that is rounding has a direction, and it means nothing
    np.testing.assert_allclose(moved, -0.25 * slope, rtol=1e-5)
    assert not np.any(past.df)


@pytest.mark.parametrize("solver", [pxa.GaussNewton(1e-3, "cg"), pxa.Anderson(1e-3, 0.2)])
def test_a_sample_ends_as_it_does_alone_and_those_that_met_the_tolerance_are_counted(solver):
    net, x, y = problem("after", batch=4)
    x[1] *= 3
    y[2] = net.forward(x)[-1][2] + 1e-3
    y[3] = net.forward(x)[-1][3]  # no error at all
    together, record = inferred(net, x, y, solver)
    alone, _ = inferred(net, x[:1], y[:1], solver)
    assert_close([h[:1] for h in states(together.model)], states(alone.model), atol=1e-12)
    assert record.info["met"] == 4
    assert 0 < record.steps < 100
    slopes = equilibrium.gradient(net, [x, *states(together.model)], y)[0][1:]
    first = equilibrium.gradient(net, [*net.forward(x)[:-1], y], y)[0][1:]
    size = lambda parts: np.sqrt(sum(np.square(a).sum(-1) for a in parts))
    assert np.all(size(slopes) <= 1e-3 * size(first) + 1e-14)


def test_samples_that_did_not_meet_the_tolerance_are_not_counted():
    net, x, y = problem("after", batch=4)
    y[3] = net.forward(x)[-1][3]
    for algorithm in (pxa.PC, pxa.EquilibriumProp):
        metrics = algorithm(model_of(net), 1, pxa.Anderson()).train_step(x, y)
        assert metrics["met"] == 1
        assert metrics["steps"] == 1


def test_a_record_of_every_iteration():
    net, x, y = problem("after")
    solver = pxa.Anderson(1e-6, rate=0.2)
    algorithm = pxa.PC(model_of(net), 12, solver)
    _, record = algorithm.infer(x, y, trajectory=True)
    assert record.energies.shape == (13, 3)
    for k in range(net.L):
        np.testing.assert_allclose(record.states[k][-1], states(algorithm.model)[k], atol=1e-14)
    for t in (0, 1, 12):
        h = [x, *(s[t] for s in record.states)]
        want = pc.node_energies(net, h)[1:].mean(-1)
        np.testing.assert_allclose(record.energies[t], want, atol=1e-12)


def test_a_convolutional_network_with_labels_that_are_integers():
    x = jax.random.normal(jax.random.key(0), (3, 1, 6, 6))
    y = jnp.eye(2, dtype=int)[jnp.array([0, 1, 1])]
    algorithm = pxa.PC(Conv(), 10, pxa.GaussNewton(1e-8))
    algorithm.infer(x, y, energies=False)
    h = algorithm.model.vodes[0].h
    slope = pxa.gradient(algorithm.inference_energy, x, y, algorithm.model, [h])[1]
    # by hand: h - u - J' (y - softmax)
    kernel, bias = (getattr(algorithm.model.conv.nn, k).get() for k in ("weight", "bias"))
    W, b = (getattr(algorithm.model.head.nn, k).get() for k in ("weight", "bias"))
    u = jnp.tanh(jax.lax.conv(x, kernel, (1, 1), "VALID") + bias)
    pooled = h.get().reshape(3, 2, 2, 2, 2, 2).mean((3, 5)).reshape(3, -1)
    back = (y - jax.nn.softmax(pooled @ W.T + b)) @ W / 4
    back = jnp.repeat(jnp.repeat(back.reshape(3, 2, 2, 2), 2, 2), 2, 3)
    np.testing.assert_allclose(h.get(), u + back, atol=1e-8)
    np.testing.assert_allclose(slope.vodes[0].h.get(), 0.0, atol=1e-8)


# --- what is refused -------------------------------------------------------------------------------------


class Lateral(Small):
    """The first layer reads the state of the second from before it was predicted."""

    def __call__(self, x, y=None):
        above = self.vodes[1].h.get()
        a = self.vodes[0](self.layers[0](x) + (0.0 if above is None else jnp.sum(above)))
        self.vodes[1](self.layers[1](jnp.tanh(a)))
        u = self.layers[2](jnp.tanh(self.vodes[1].get("h")))
        self.vodes[2](u)
        if y is not None:
            self.vodes[2].set("h", y)
        return u


class Own(pxa.PC):
    def sample_energies(self, x, y, *, model):
        return 2 * super().sample_energies(x, y, model=model)


class Logistic(Small):
    def __init__(self):
        super().__init__()
        self.vodes[0].energy_fn = pxc.bernoulli_energy


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pxa.PC(Lateral(), 5, pxa.GaussNewton()),
            r"GaussNewton: `vodes\[0\]` depends on the state of `vodes\[1\]` from before",
        ),
        (lambda: Own(Small(), 5, pxa.GaussNewton()), "Own has a `sample_energies` of its own"),
        (lambda: pxa.EPC(Small(), 5, pxa.GaussNewton()), "EPC has a `inference_energy` of its own"),
        (
            lambda: pxa.PC(Logistic(), 5, pxa.GaussNewton(linear="direct")),
            r"that of `vodes\[0\]` is another",
        ),
        (lambda: pxa.GaussNewton(linear="lu"), "linear must be"),
        (lambda: pxa.GaussNewton(rtol=0.0), "rtol must be positive"),
        (lambda: pxa.GaussNewton(cg_steps=0), "cg_steps must be at least 1"),
        (lambda: pxa.Anderson(window=0), "window at least 1"),
    ],
)
@pytest.mark.wrong_types
def test_what_they_are_not_for_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make().infer(jnp.ones((2, 3)), jnp.zeros((2, 2)))


def test_without_iterations_or_free_states_nothing_moves():
    x, y = jnp.ones((2, 3)), jnp.zeros((2, 2))
    for model, T in ((Small(), 0), (Small((3, 2)), 5)):
        _, record = pxa.PC(model, T, pxa.Anderson()).infer(x, y)
        assert record.steps == 0
        assert record.energies.shape == (1, len(model.vodes))
