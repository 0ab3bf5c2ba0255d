"""PCALM against the NumPy oracle, and its limits."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.models as pxm
from tests.algorithms.problems import (
    CE,
    OPTIMISERS,
    SQUARED,
    assert_inferred,
    float64,
    learned,
    model_of,
    problem,
)
from tests.oracles import linear, pc, pcalm
from tests.oracles.backprop import backprop
from tests.oracles.mlp import flatten
from tests.oracles.numerical import assert_close


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def make(net, output=SQUARED, T=6, optim="sgd", **options):
    return pxa.PCALM(model_of(net, output), T, OPTIMISERS[optim][0], optax.sgd(1.0), **options)


@pytest.mark.parametrize(
    ("kind", "output", "optim", "alpha", "rho", "options"),
    [
        ("after", SQUARED, "momentum", 1.0, 1.0, {}),
        ("skip", CE(), "adam", 0.3, 2.0, {"unroll": False}),
        ("before", SQUARED, "sgd", 0.7, 0.5, {"lazy": False, "unroll": True}),
    ],
)
def test_states_multipliers_and_gradients(kind, output, optim, alpha, rho, options):
    net, x, y = problem(kind, output)
    expected = pcalm.pcalm(
        net, x, y, T=6, optim=OPTIMISERS[optim][1], alpha=alpha, rho=rho, output=output
    )
    algorithm = make(net, output, optim=optim, alpha=alpha, rho=rho, **options)
    assert_inferred(algorithm, x, y, expected.states)
    # after inference they are those before the last update, which learning uses
    lams = [lam.get() for lam in algorithm.multipliers]
    before = expected.extra["multipliers"][5]
    assert_close(lams, [before.get(k + 1) for k in range(net.L)], atol=1e-12)
    grads, metrics = learned(algorithm, x, y)
    assert_close(grads, flatten(expected.grads), atol=1e-12)
    A = pcalm.energy(net, expected.h, before, rho, output)
    np.testing.assert_allclose(metrics["energy"], A.mean(), atol=1e-12)


@pytest.mark.parametrize("init", ["forward", "zero"])
def test_without_updates_of_the_multipliers_it_is_pc(init):
    net, x, y = problem("skip")
    ours, _ = learned(make(net, alpha=0.0, init=init), x, y)
    plain = pxa.PC(model_of(net), 6, OPTIMISERS["sgd"][0], optax.sgd(1.0), init=init)
    assert_close(ours, learned(plain, x, y)[0], atol=1e-14)
    start = "zeros" if init == "zero" else init
    assert_close(
        ours,
        flatten(pc.pc(net, x, y, T=6, optim=OPTIMISERS["sgd"][1], init=start).grads),
        atol=1e-12,
    )


def test_other_initial_states_have_errors_but_no_multipliers_at_first():
    net, x, y = problem()
    expected = pcalm.pcalm(net, x, y, T=6, optim=OPTIMISERS["sgd"][1], init="zeros")
    algorithm = make(net, init="zero")
    assert_inferred(algorithm, x, y, expected.states)


def test_a_linear_network_that_settles_has_the_gradients_of_backpropagation():
    net, x, y = problem("linear")
    H = linear.hessian(net)
    lr = 2.0 / np.linalg.norm(2 * H + np.eye(len(H)) * np.linalg.norm(H), 2)
    algorithm = pxa.PCALM(model_of(net), 3000, optax.sgd(lr), optax.sgd(1.0))
    grads, metrics = learned(algorithm, x, y)
    _, bp, _ = backprop(net, x, y)
    assert_close(grads, flatten(bp), atol=1e-9)
    assert not np.allclose(metrics["energy"], linear.equilibrium_energy(net, x, y).mean())


@pytest.mark.parametrize(("alpha", "rho"), [(1.0, 1.0), (1.0, 0.1), (5.0, 1.0)])
def test_on_a_linear_network_the_bound_of_the_rate_is_sharp_for_any_rho_and_alpha(alpha, rho):
    net, x, y = problem("linear")
    hidden = linear.hessian(net, 0.0)
    H = linear.hessian(net) - hidden + rho * hidden
    bound = 4 / np.linalg.norm(2 * H + alpha * hidden, 2)
    _, bp, _ = backprop(net, x, y)

    def make_at(lr):
        optims = optax.sgd(lr), optax.sgd(1.0)
        return pxa.PCALM(model_of(net), 10000, *optims, alpha=alpha, rho=rho)

    grads, _ = learned(make_at(0.95 * bound), x, y)
    assert_close(grads, flatten(bp), atol=1e-9)
    _, record = make_at(1.05 * bound).infer(x, y, trajectory=True)
    assert not np.all(np.abs(record.states[0][-1]) < 1e6)


@pytest.mark.parametrize(("factor", "settles"), [(0.9, False), (1.1, True)])
def test_rho_must_exceed_the_negative_curvature_of_the_loss_in_the_errors(factor, settles):
    # u_1 = x, u_2 = tanh(h_1): the loss is 1/2 (y - tanh(1 + error))²
    x, y = np.array([[1.0]]), np.array([[-3.0]])
    t = np.tanh(1.0)
    slope, curve = 1 - t**2, -2 * t * (1 - t**2)
    curvature = slope**2 - (y.item() - t) * curve
    assert curvature < 0
    model = pxm.MLP([1, 1, 1], jnp.tanh, bias=False, order="pre")
    for layer in model.layers:
        layer.nn.weight.set(jnp.ones((1, 1)))
    options = {"alpha": 0.1, "rho": -factor * curvature}
    algorithm = pxa.PCALM(model, 20000, optax.sgd(0.02), optax.sgd(1.0), **options)
    algorithm.train_step(x, y)
    steps = [1.0 - layer.nn.weight.get().item() for layer in model.layers]
    bp = [-(y.item() - t) * slope, -(y.item() - t) * t]
    assert np.allclose(steps, bp, atol=1e-8) == settles


def test_multipliers_are_forgotten_between_batches():
    net, x, y = problem()
    algorithm = make(net)
    first = algorithm.infer(x, y, trajectory=True)[1].states[0]
    np.testing.assert_allclose(
        algorithm.eval_step(x[:1], y[:1])["energy"],
        SQUARED.value(y[:1], net.forward(x[:1])[-1]).mean(),
        atol=1e-12,
    )
    assert all(lam.get() is None for lam in algorithm.multipliers)
    again = algorithm.infer(x, y, trajectory=True)[1].states[0]
    np.testing.assert_array_equal(first, again)


def test_mistakes_are_explained():
    net, _, _ = problem()
    with pytest.raises(ValueError, match=r"alpha >= 0 and rho > 0; got alpha=-1.0, rho=1.0"):
        make(net, alpha=-1.0)
    with pytest.raises(ValueError, match=r"got alpha=1.0, rho=0"):
        make(net, rho=0)

    class Solver:
        def solve(self, *args, **kwargs):
            return jnp.zeros(())

    with pytest.raises(
        ValueError, match="PCALM cannot use the solver Solver: it steps its multipliers"
    ):
        pxa.PCALM(model_of(net), 3, Solver())
