"""Closed forms: linear networks, Langevin stationary laws, solver orders, µPC's variance."""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np
import pytest

from . import langevin, linear, mupc, ode, pc
from .energy import SE
from .numerical import assert_close, data, gradient, linear_skip, net_of
from .optim import SGD


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def linear_net(kind, rng):
    return linear_skip(rng) if kind == "skip" else net_of(kind, rng)


@pytest.mark.parametrize("precision", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["linear", "linear_no_bias", "skip"])
def test_equilibrium_against_brute_force_and_against_pc(kind, precision, rng):
    net = linear_net(kind, rng)
    x, y = data(rng, net)
    star = linear.equilibrium_states(net, x, y, precision)
    g = pc.state_gradient(net, star, SE(precision))
    assert (
        max(np.abs(g[l]).max() for l in pc.hidden(net)) < 1e-12
    )  # stationary, by pc.py's own gradient
    F = pc.energy(net, star, SE(precision))
    np.testing.assert_allclose(linear.equilibrium_energy(net, x, y, precision), F, rtol=1e-12)

    # Brute force: F = ½‖A h + c‖² in the free states, A measured column by column.
    def residuals(flat):
        cuts = np.cumsum([s.shape[1] for s in star[1:-1]])[:-1]
        h = [x[:1], *np.split(flat[None], cuts, axis=-1), y[:1]]
        u = net.predictions(h)
        return np.concatenate(
            [
                ((precision**0.5 if l == net.L else 1) * (h[l] - u[l]))[0]
                for l in range(1, net.L + 1)
            ]
        )

    n = sum(s.shape[1] for s in star[1:-1])
    c = residuals(np.zeros(n))
    A = np.stack([residuals(e) - c for e in np.eye(n)], axis=1)
    best, (cost,), _, _ = np.linalg.lstsq(A, -c, rcond=None)
    np.testing.assert_allclose(np.concatenate([s[0] for s in star[1:-1]]), best, atol=1e-10)
    np.testing.assert_allclose(F[0], cost / 2, rtol=1e-10)
    np.testing.assert_allclose(linear.hessian(net, precision), A.T @ A, atol=1e-12)

    inferred = pc.pc(net, x, y, T=1000, optim=SGD(0.02, 0.9), output=SE(precision))
    assert_close(inferred.h, star, atol=1e-8)


def test_the_skip_blocks_are_those_written_in_the_docs(rng):
    net = linear_skip(rng)
    H, W, a = linear.hessian(net, 2.0), net[3].W, net[3].a
    np.testing.assert_allclose(
        H[4:8, 4:8], 2 * np.eye(4) + a**2 * W.T @ W + a * (W + W.T), atol=1e-14
    )
    np.testing.assert_allclose(H[4:8, 8:], -a * W.T - np.eye(4), atol=1e-14)
    W, a = net[4].W, net[4].a
    np.testing.assert_allclose(H[8:, 8:], np.eye(4) + 2.0 * a**2 * W.T @ W, atol=1e-14)


def test_the_quadratic_form_is_the_energy(rng):
    net, prior = linear_skip(rng), rng.standard_normal(3)
    K, k = linear.quadratic(net, 3.0, prior)
    at = linear.slices(net)

    def F(v):
        return pc.energy(net, [v[None, at[l]] for l in range(net.L + 1)], SE(3.0), prior)[0]

    v = rng.standard_normal(len(K))
    np.testing.assert_allclose(K @ v - k, gradient(F, v), atol=1e-7)
    mean, K_free = linear.posterior(net, clamped={0: v[at[0]], net.L: v[at[net.L]]}, precision=3.0)
    star = linear.equilibrium_states(net, v[None, at[0]], v[None, at[net.L]], 3.0)
    np.testing.assert_allclose(mean, np.concatenate([s[0] for s in star[1:-1]]), atol=1e-12)
    np.testing.assert_allclose(K_free, linear.hessian(net, 3.0), atol=1e-12)


def test_marginals_by_ancestral_recursion_and_by_inverting_the_joint_precision(rng):
    net, prior = linear_skip(rng), rng.standard_normal(3)
    K, k = linear.quadratic(net, 3.0, prior)
    mean, cov, at = np.linalg.solve(K, k), np.linalg.inv(K), linear.slices(net)
    for l, (m, c) in enumerate(linear.marginals(net, precision=3.0, prior=prior)):
        np.testing.assert_allclose(m, mean[at[l]], atol=1e-11)
        np.testing.assert_allclose(c, cov[at[l], at[l]], atol=1e-11)
    x = prior
    free_mean, K_free = linear.posterior(net, clamped={0: x}, precision=3.0)
    m, c = linear.marginals(net, precision=3.0, x=x, sigma2=0.5)[-1]
    np.testing.assert_allclose(m, free_mean[-2:], atol=1e-11)
    np.testing.assert_allclose(c, 0.5 * np.linalg.inv(K_free)[-2:, -2:], atol=1e-11)


# Langevin


@pytest.mark.parametrize("sigma2", [1.0, 0.3])
def test_stationary_covariances_and_their_limit(sigma2, rng):
    K = linear.hessian(linear_skip(rng))
    first = langevin.stationary_covariance(*langevin.transition_first_order(K, 0.05, sigma2))
    np.testing.assert_allclose(
        first, langevin.stationary_covariance_first_order(K, 0.05, sigma2), atol=1e-10
    )
    K = K[:4, :4]  # smaller, as the Lyapunov solve is (2n)²
    limit = sigma2 * np.linalg.inv(K)
    gap = {"first": [], "second": [], "explicit": [], "heavy": []}
    for gamma in (0.02, 0.01):
        chains = {
            "first": langevin.transition_first_order(K, gamma, sigma2),
            "second": langevin.transition_second_order(K, gamma, 0.5, sigma2),
            "explicit": langevin.transition_second_order(K, gamma, 0.5, sigma2, order="explicit"),
            "heavy": langevin.transition_heavy_ball(K, gamma, 0.5, sigma2),
        }
        for name, chain in chains.items():
            covariance = langevin.stationary_covariance(*chain)[:4, :4]
            gap[name].append(np.abs(covariance - limit).max() / np.abs(limit).max())
    for name, (coarse, fine) in gap.items():  # all sample exp(-F/σ²) as γ → 0
        order = 2 if name == "second" else 1
        assert fine < 0.15, name
        assert np.log2(coarse / fine) == pytest.approx(order, abs=0.3), name


def test_heavy_ball_variance_in_closed_form_and_eqs_5_6_as_a_heavy_ball():
    K, gamma, m = np.diag([1.0, 4.0, 30.0]), 0.02, 0.7
    eye = np.eye(3)
    heavy = langevin.stationary_covariance(*langevin.transition_heavy_ball(K, gamma, m, 0.5))[
        :3, :3
    ]
    np.testing.assert_allclose(
        heavy, 0.5 * np.linalg.inv(K @ (eye - gamma * K / (2 * (1 + m)))), atol=1e-9
    )
    # Semi-implicit eqs 5-6 with (γ, m) are the heavy ball with (γ², 1 - γ(1-m)), r = γ v.
    A, Q = langevin.transition_second_order(K, gamma, m, 0.5)
    B, R = langevin.transition_heavy_ball(K, gamma**2, 1 - gamma * (1 - m), 0.5)
    change = np.block([[eye, 0 * eye], [0 * eye, gamma * eye]])
    np.testing.assert_allclose(A, change @ B @ np.linalg.inv(change), atol=1e-12)
    np.testing.assert_allclose(Q, change @ R @ change.T, atol=1e-12)


def test_equation_six_as_printed_explodes_and_the_descending_form_settles():
    K = np.diag([1.0, 4.0])
    for order in ("explicit", "semi_implicit"):
        printed, _ = langevin.transition_second_order(K, 0.05, 0.5, order=order, sign=+1)
        mine, _ = langevin.transition_second_order(K, 0.05, 0.5, order=order)
        assert np.abs(np.linalg.eigvals(printed)).max() > 1
        assert np.abs(np.linalg.eigvals(mine)).max() < 1


def test_the_explicit_order_is_unstable_at_the_papers_iris_setting():
    K = np.array([[100.0]])  # output variance 0.01
    explicit, _ = langevin.transition_second_order(K, 0.01, 0.9, order="explicit")
    semi, _ = langevin.transition_second_order(K, 0.01, 0.9)
    assert np.abs(np.linalg.eigvals(explicit)).max() > 1
    assert np.abs(np.linalg.eigvals(semi)).max() < 1
    for gamma_kappa, stable in [(0.09, True), (0.11, False)]:  # γκ < 1 - m
        A, _ = langevin.transition_second_order(
            np.array([[gamma_kappa / 0.01]]), 0.01, 0.9, order="explicit"
        )
        assert (np.abs(np.linalg.eigvals(A)).max() < 1) == stable


def test_heavy_ball_without_momentum_is_the_first_order_chain(rng):
    h, v, g, xi = rng.standard_normal((4, 5))
    assert_close(
        [langevin.heavy_ball(h, v, g, xi, 0.02, 0.0)[0]],
        [langevin.first_order(h, g, xi, 0.02)],
        atol=1e-14,
    )


@pytest.mark.parametrize("kind", ["first_order", "second_order", "heavy_ball"])
def test_mcpc_follows_its_transition_matrix(kind, rng):
    net = linear_skip(rng)
    x, y = data(rng, net, batch=1)
    mean, K = linear.posterior(net, clamped={0: x[0], net.L: y[0]})
    free = list(pc.hidden(net))
    noise = [{l: 0.0 * x[:, :1] + rng.standard_normal((1, 4)) for l in free} for _ in range(3)]
    silent = [{l: np.zeros((1, 4)) for l in free} for _ in range(3)]
    start = pc.initial_states(net, x, y)
    a, b = (
        langevin.mcpc(net, start, noise=n, gamma=0.03, m=0.6, free=free, kind=kind)[-1]
        for n in (noise, silent)
    )
    chains = {
        "first_order": langevin.transition_first_order(K, 0.03),
        "second_order": langevin.transition_second_order(K, 0.03, 0.6),
        "heavy_ball": langevin.transition_heavy_ball(K, 0.03, 0.6),
    }
    A, Q = chains[kind]
    z = np.zeros(len(A))
    z[:12] = np.concatenate([h[0] for h in start[1:-1]]) - mean
    for _ in range(3):
        z = A @ z
    np.testing.assert_allclose(np.concatenate([h[0] for h in b[1:-1]]), mean + z[:12], atol=1e-12)
    assert np.abs(a[1] - b[1]).max() > 1e-3
    if kind == "first_order":  # σ = 0 is PC
        assert_close(b, pc.pc(net, x, y, T=3, optim=SGD(0.03)).h, atol=1e-14)
        np.testing.assert_allclose(Q, 2 * 0.03 * np.eye(12))


@pytest.mark.parametrize("kind", ["first_order", "second_order", "heavy_ball"])
def test_long_chains_have_the_predicted_covariance(kind, rng):
    """2000 independent chains, 60 steps from rest: sample covariance within 5 standard errors."""
    net = net_of("linear", rng)
    B, gamma, m, T = 2000, 0.05, 0.4, 60
    x, y = np.tile(rng.standard_normal(3), (B, 1)), np.tile(rng.standard_normal(2), (B, 1))
    start = [np.tile(s[:1], (B, 1)) for s in linear.equilibrium_states(net, x[:1], y[:1])]
    noise = ({l: rng.standard_normal(start[l].shape) for l in (1, 2)} for _ in range(T))
    h = langevin.mcpc(net, start, noise=noise, gamma=gamma, m=m, free=[1, 2], kind=kind)[-1]
    z = np.concatenate([h[l] - start[l] for l in (1, 2)], axis=-1)
    K = linear.hessian(net)
    chains = {
        "first_order": langevin.transition_first_order(K, gamma),
        "second_order": langevin.transition_second_order(K, gamma, m),
        "heavy_ball": langevin.transition_heavy_ball(K, gamma, m),
    }
    A, Q = chains[kind]
    expected = langevin.covariance_at(A, Q, np.zeros_like(A), T)[:9, :9]
    variance = np.diag(expected)
    standard_error = np.sqrt((np.outer(variance, variance) + expected**2) / B)
    assert np.abs((z.T @ z / B - expected) / standard_error).max() < 5
    assert np.abs(z.mean(0) / np.sqrt(variance / B)).max() < 5


def test_free_generation_samples_the_marginal(rng):
    """The stationary law with every node free is the ancestral one (γ → 0, h_0 with its prior)."""
    net, prior = net_of("linear", rng), np.zeros(3)
    K, _ = linear.quadratic(net, 2.0, prior)
    at, (_, c) = linear.slices(net), linear.marginals(net, precision=2.0, prior=prior)[-1]
    covariance = langevin.stationary_covariance_first_order(K, 1e-4)
    np.testing.assert_allclose(covariance[at[3], at[3]], c, rtol=1e-2, atol=1e-3)


def test_an_unstable_chain_is_refused():
    with pytest.raises(ValueError, match="unstable"):
        langevin.stationary_covariance(*langevin.transition_first_order(np.diag([1.0, 50.0]), 0.05))


# ODE


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_solver_order_on_a_linear_net(method, order, rng):
    net = linear_skip(rng)
    x, y = data(rng, net)
    h0 = pc.initial_states(net, x, y)
    exact = linear.gradient_flow(net, x, y, h0, 1.0, 1.0)

    def error(steps):
        h = ode.integrate(net, h0, dt=1.0 / steps, steps=steps, method=method)[-1]
        return max(np.abs(a - b).max() for a, b in zip(h, exact, strict=True))

    measured = np.log2(error(80) / error(160))
    assert measured == pytest.approx(order, abs=0.12)


def test_the_flow_settles_at_equilibrium_where_its_speed_vanishes(rng):
    net = net_of("linear", rng)
    x, y = data(rng, net)
    h = ode.integrate(net, pc.initial_states(net, x, y), dt=0.2, steps=600)[-1]
    assert_close(h, linear.equilibrium_states(net, x, y), atol=1e-9)
    assert ode.speed(net, h).max() < 1e-8
    assert_close(linear.gradient_flow(net, x, y, pc.initial_states(net, x, y), 1e3), h, atol=1e-9)


# µPC


def test_mupc_multipliers_written_out():
    assert mupc.multipliers(4, 16, 9) == [1 / 3, 1 / 8, 1 / 8, 1 / 16]
    assert mupc.multipliers(4, 16, 9, skips=False) == [1 / 3, 1 / 4, 1 / 4, 1 / 16]
    assert mupc.multipliers(4, 16, 9, parameterisation="ntp") == [1 / 3, 1 / 8, 1 / 8, 1 / 4]


@pytest.mark.parametrize("activation", ["identity", "tanh", "relu"])
def test_mupc_forward_variance_does_not_depend_on_depth(activation, rng):
    for L in (8, 32, 128):
        net = mupc.mupc_mlp(rng, L, 64, 20, 3, activation)
        u = net.forward(rng.standard_normal((32, 20)))
        assert 0.7 < u[1].var() < 1.4
        assert 0.7 < u[-2].var() < 5  # linear: (1 + 1/L)^(L-2) → e
        assert (u[-1] ** 2).mean() < 0.5  # a_L = 1/N: the output starts at O(1/√N)


def test_without_skips_relu_mupc_vanishes_with_depth(rng):
    deep = mupc.mupc_mlp(rng, 64, 64, 20, 3, "relu", skips=False)
    assert deep.forward(rng.standard_normal((32, 20)))[-2].var() < 1e-6
