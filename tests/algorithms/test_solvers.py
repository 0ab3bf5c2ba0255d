"""Diffrax solvers and early stopping: against gradient descent, closed forms, measured order."""

import sys

import diffrax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
from tests.algorithms.networks import Network, float64, states
from tests.oracles import linear, ode, pc
from tests.oracles.numerical import assert_close, data, net_of
from tests.oracles.optim import SGD


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def problem(rng, kind="after"):
    net = net_of(kind, rng)
    return net, *data(rng, net, batch=4)


def inferred(net, x, y, solver, cls=pxa.PC, T=8, **options):
    model = Network(net)
    _, record = cls(model, T, solver, **options).infer(x, y, energies=False)
    return states(model), record


def flow_end(net, x, y, t):
    """The exact solution, from forward initialisation."""
    return linear.gradient_flow(net, x, y, [*net.forward(x)[:-1], y], t)[1:]


@pytest.mark.parametrize("kind", ["after", "skip"])
def test_euler_is_gradient_descent_step_by_step(kind, rng):
    net, x, y = problem(rng, kind)
    solver = pxa.Diffrax(diffrax.Euler(), dt0=0.05)
    h, record = inferred(net, x, y, solver)
    assert_close(h, pc.pc(net, x, y, T=8, optim=SGD(0.05)).h[1:], atol=1e-14)
    assert record.steps == 8


def test_no_time_is_no_step(rng):
    net, x, y = problem(rng)
    model = Network(net)
    algorithm = pxa.PC(model, 0, pxa.Diffrax("Heun", dt0=0.1))
    _, record = algorithm.infer(x, y)
    assert record.steps == 0
    start = [*net.forward(x)[:-1], y]
    assert_close(states(model), start[1:], atol=1e-14)
    np.testing.assert_allclose(
        record.energies[0], pc.node_energies(net, start)[1:].mean(1), atol=1e-14
    )


def test_heun_is_that_of_the_oracle(rng):
    net, x, y = problem(rng)
    start = [*net.forward(x)[:-1], y]
    expected = ode.integrate(net, start, dt=0.1, steps=12)[-1]
    h, record = inferred(net, x, y, pxa.Diffrax("Heun", T=1.2, dt0=0.1))
    assert_close(h, expected[1:], atol=1e-14)
    assert record.steps == 12


@pytest.mark.parametrize(("solver", "order"), [("Euler", 1), ("Heun", 2), ("Tsit5", 5)])
def test_solvers_reach_the_closed_form_with_their_order(solver, order, rng):
    net, x, y = problem(rng, "linear")
    expected = flow_end(net, x, y, 1.0)

    def error(dt):
        h, _ = inferred(net, x, y, pxa.Diffrax(solver, T=1.0, dt0=dt))
        return max(np.abs(a - b).max() for a, b in zip(h, expected, strict=True))

    coarse, fine = error(1 / 8), error(1 / 16)
    measured = np.log2(coarse / fine)
    # on linear systems Tsit5's leading error term is small, so it looks better than it is
    assert order - 0.3 < measured < order + (1 if solver == "Tsit5" else 0.3)


def test_step_control_reaches_its_tolerance_in_few_steps(rng):
    net, x, y = problem(rng, "linear")
    control = diffrax.PIDController(rtol=1e-8, atol=1e-8)
    h, record = inferred(net, x, y, pxa.Diffrax(diffrax.Tsit5, T=3.0, dt0=None, controller=control))
    assert_close(h, flow_end(net, x, y, 3.0), atol=1e-6)
    assert record.steps < 200


def test_integration_ends_where_the_rate_vanishes_whatever_the_size_of_the_states(rng):
    net, x, y = problem(rng, "linear")
    for size in (1.0, 1e6):
        solver = pxa.Diffrax("Heun", T=1e4, dt0=0.1, steady_state=1e-5, max_steps=10**5)
        h, record = inferred(net, size * x, size * y, solver)
        speed = ode.speed(net, [size * x, *h])
        assert speed.max() < 1e-5
        assert 10 < record.steps < 5000
        # one step before the end it was not yet steady
        shorter = pxa.Diffrax("Heun", T=0.1 * (int(record.steps) - 1), dt0=0.1)
        before, _ = inferred(net, size * x, size * y, shorter)
        assert ode.speed(net, [size * x, *before]).max() >= 1e-5


def test_energies_and_states_are_recorded_at_even_times(rng):
    net, x, y = problem(rng, "linear")
    model = Network(net)
    algorithm = pxa.PC(
        model, state_optim=pxa.Diffrax("Tsit5", T=2.0, dt0=0.01, points=4), record=True
    )
    metrics = algorithm.train_step(x, y)
    start = [*net.forward(x)[:-1], y]
    flow = [linear.gradient_flow(net, x, y, start, t) for t in np.linspace(0, 2, 5)]
    expected = [pc.node_energies(net, h)[1:].mean(1) for h in flow]
    np.testing.assert_allclose(metrics["energies"], expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(metrics["energies"][-1].sum(), metrics["energy"])
    _, record = pxa.PC(Network(net), state_optim=algorithm._solver.get()).infer(x, y)
    np.testing.assert_allclose(record.energies, metrics["energies"])
    assert metrics["steps"] == 200


def test_records_stay_at_the_steady_state(rng):
    net, x, y = problem(rng, "linear")
    solver = pxa.Diffrax("Heun", T=1e4, dt0=0.1, steady_state=1e-6, points=3, max_steps=10**5)
    model = Network(net)
    _, record = pxa.PC(
        model,
        state_optim=solver,
    ).infer(x, y, energies=False, trajectory=True)
    for s, vode in zip(record.states, model.vodes, strict=True):
        np.testing.assert_array_equal(s[-1], vode.h.get())
        np.testing.assert_array_equal(s[1], vode.h.get())


def test_a_number_of_steps_of_the_algorithm_sets_the_time(rng):
    net, x, y = problem(rng, "linear")
    algorithm = pxa.PC(Network(net), 5, pxa.Diffrax("Euler", dt0=0.1))
    for T in (0, 3):
        h = pc.pc(net, x, y, T=T, optim=SGD(0.1)).h
        np.testing.assert_allclose(algorithm.energy(x, y, T=T), pc.energy(net, h))


def test_epc_flows_on_its_errors(rng):
    net, x, y = problem(rng)
    sgd, _ = inferred(net, x, y, optax.sgd(0.05), pxa.EPC, T=10)
    flow, _ = inferred(net, x, y, pxa.Diffrax("Euler", dt0=0.05), pxa.EPC, T=10)
    assert_close(flow, sgd, atol=1e-14)


def test_training_learns_at_the_end_of_the_flow(rng):
    net, x, y = problem(rng)
    a, b = Network(net), Network(net)
    pxa.PC(a, 6, pxa.Diffrax("Euler", dt0=0.1), optax.sgd(1.0)).train_step(x, y)
    pxa.PC(b, 6, optax.sgd(0.1), optax.sgd(1.0)).train_step(x, y)
    np.testing.assert_allclose(
        a.blocks[1].linear.nn.weight.get(), b.blocks[1].linear.nn.weight.get()
    )


@pytest.mark.parametrize("stop", [pxa.Stop(gradient_tol=1e-4), pxa.Stop(energy_rtol=1e-7)])
def test_early_stopping_ends_at_the_first_step_within_tolerance(stop, rng):
    net, x, y = problem(rng)
    h, record = inferred(net, x, y, optax.sgd(0.1), T=2000, stop=stop)
    full = pc.pc(net, x, y, T=2000, optim=SGD(0.1))
    energy = full.energies.sum(1)
    largest = [
        max(np.abs(g).max() for g in pc.state_gradient(net, s)[1:-1]) for s in full.states[:-1]
    ]
    change = np.abs(np.diff(energy)) / energy[1:]
    if stop.gradient_tol:
        steps = 1 + next(t for t, g in enumerate(largest) if g < stop.gradient_tol)
    else:
        # a step is seen to have changed little when the next one starts
        steps = 2 + next(t for t, c in enumerate(change) if c < stop.energy_rtol)
    assert record.steps == steps
    assert_close(h, full.states[steps][1:], atol=1e-12)


def test_early_stopping_makes_at_least_and_at_most_so_many_steps(rng):
    net, x, y = problem(rng)
    at_once = {"gradient_tol": 1e9}
    assert inferred(net, x, y, optax.sgd(0.1), stop=pxa.Stop(**at_once))[1].steps == 1
    assert inferred(net, x, y, optax.sgd(0.1), stop=pxa.Stop(**at_once, min_steps=5))[1].steps == 5
    assert inferred(net, x, y, optax.sgd(0.1), stop=pxa.Stop())[1].steps == 8
    assert inferred(net, x, y, optax.sgd(0.1), T=0, stop=pxa.Stop())[1].steps == 0
    model = Network(net)
    algorithm = pxa.PC(model, 500, optax.sgd(0.1), stop=pxa.Stop(gradient_tol=1e-3))
    assert 1 < algorithm.train_step(x, y)["steps"] < 500
    with pytest.raises(ValueError, match=r"stops early .* cannot record every step"):
        algorithm.infer(x, y, trajectory=True)


def test_mistakes_are_explained(monkeypatch, rng):
    with pytest.raises(ValueError, match=r"takes a diffrax solver such as .*; got 'Hun'"):
        pxa.Diffrax("Hun")
    with pytest.raises(ValueError, match="without `dt0` give both `controller` and `T`"):
        pxa.Diffrax("Heun", dt0=None, T=1.0)
    with pytest.raises(ValueError, match="T must be positive; got -1"):
        pxa.Diffrax("Heun", T=-1.0)
    net, x, y = problem(rng)
    with pytest.raises(Exception, match=r"maximum number of solver steps was reached"):
        inferred(net, x, y, pxa.Diffrax("Heun", T=10.0, dt0=0.1, max_steps=5))[1].steps.item()
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(
        ImportError, match=r'not installed: `pip install "pcx-networks\[diffrax\]"`'
    ):
        pxa.Diffrax("Heun")


def test_a_solver_of_one_s_own_needs_one_method(rng):
    class Newton:
        """Jumps to the minimum of a quadratic energy."""

        def solve(self, algorithm, x, y, **watch):
            for vode, h in zip(algorithm.model.vodes, star[1:-1], strict=False):
                vode.h.set(jnp.asarray(h))
            return pxa.Record(1)

    net, x, y = problem(rng, "linear")
    star = linear.equilibrium_states(net, x, y)
    metrics = pxa.PC(Network(net), state_optim=Newton()).train_step(x, y)
    np.testing.assert_allclose(metrics["energy"], linear.equilibrium_energy(net, x, y).mean())
    assert metrics["steps"] == 1
