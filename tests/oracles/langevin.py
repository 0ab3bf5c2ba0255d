"""Monte Carlo predictive coding: Langevin dynamics with the noise given explicitly.

ξ ~ N(0, σ²) elementwise, σ included in the arrays passed in. The invariant density (γ → 0) is
exp(-F/σ²).

    first order (eq. 4)      h ← h - γ ∇F + √(2γ) ξ
    second order (eqs 5–6)   r ← r - γ ∇F - γ (1-m) r + √(2(1-m)γ) ξ;     h ← h + γ r
    heavy ball               v ← m v - ∇F + √(2(1-m)/γ) ξ;                h ← h + γ v

Sign. The paper prints Δr = **+**γ∇F: then h accelerates uphill and the chain explodes
(`transition_second_order(sign=+1)` has spectral radius > 1). r must descend.

Order. Eqs 5–6 do not say which r moves h. order="semi_implicit" (default) moves h by the **new**
r; "explicit" by the old one. In a mode of curvature κ the explicit map has determinant 1 - γ(1-m)
+ γ²κ, so it is unstable as soon as γκ > 1 - m; semi-implicit has 1 - γ(1-m) and is stable for γ²κ
< 2(2 - γ(1-m)). The paper's iris setting (γ = 0.01, m = 0.9, output variance 0.01, hence κ ≥ 100
when the output is free) is unstable in the explicit order.

Heavy ball is SGD with momentum and noise on the gradient ("a noisy SGD optimiser", Appendix C.2).
At m = 0 it is eq. 4 exactly; eqs 5–6 at m = 0 are not. Semi-implicit eqs 5–6 **are** a heavy ball,
with step γ² and momentum 1 - γ(1-m), r = γ v: far slower per step at the same (γ, m).

Bias of the stationary variance σ²/κ in a mode of curvature κ, a factor 1/(1 - b): first order
b = γκ/2; heavy ball b = γκ/(2(1+m)); semi-implicit eqs 5–6 b = γ²κ/(2(2 - γ(1-m))).
"""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np

from .energy import SQUARED
from .pc import state_gradient


def first_order(h, g, xi, gamma):
    return h - gamma * g + np.sqrt(2 * gamma) * xi


def second_order(h, r, g, xi, gamma, m, order="semi_implicit"):
    new_r = r - gamma * g - gamma * (1 - m) * r + np.sqrt(2 * (1 - m) * gamma) * xi
    return h + gamma * (new_r if order == "semi_implicit" else r), new_r


def heavy_ball(h, v, g, xi, gamma, m):
    v = m * v - g + np.sqrt(2 * (1 - m) / gamma) * xi
    return h + gamma * v, v


def mcpc(
    net,
    h,
    *,
    noise,
    gamma,
    free,
    m=None,
    kind="first_order",
    output=SQUARED,
    prior=None,
    order="semi_implicit",
):
    """The trajectory from states h: noise[t][l] is ξ of free node l at step t.

    Posterior: free = hidden nodes, h_L the data. Generation: free = 0…L, or 1…L.
    """
    states, velocity = [h], {l: np.zeros_like(h[l]) for l in free}
    for xi in noise:
        h = list(states[-1])
        g = state_gradient(net, h, output, prior)
        for l in free:
            if kind == "first_order":
                h[l] = first_order(h[l], g[l], xi[l], gamma)
            elif kind == "second_order":
                h[l], velocity[l] = second_order(h[l], velocity[l], g[l], xi[l], gamma, m, order)
            else:
                h[l], velocity[l] = heavy_ball(h[l], velocity[l], g[l], xi[l], gamma, m)
        states.append(h)
    return states


# Closed forms for F = ½ (h - μ)ᵀ K (h - μ); K and μ come from `linear.posterior`.
# Every chain above is then z' = A z + noise of covariance Q, with z = h - μ or (h - μ, velocity).


def transition_first_order(K, gamma, sigma2=1.0):
    """(A, Q) of the first-order chain."""
    eye = np.eye(len(K))
    return eye - gamma * K, 2 * gamma * sigma2 * eye


def transition_second_order(K, gamma, m, sigma2=1.0, order="semi_implicit", sign=-1):
    """(A, Q) of (h - μ, r). sign = +1 is eq. 6 as printed."""
    eye, zero = np.eye(len(K)), np.zeros_like(K)
    kick = np.block([[eye, zero], [sign * gamma * K, (1 - gamma * (1 - m)) * eye]])
    drift = np.block([[eye, gamma * eye], [zero, eye]])
    q = 2 * (1 - m) * gamma * sigma2 * np.block([[zero, zero], [zero, eye]])
    if order == "semi_implicit":
        return drift @ kick, drift @ q @ drift.T
    return kick + drift - np.eye(2 * len(K)), q


def transition_heavy_ball(K, gamma, m, sigma2=1.0):
    """(A, Q) of (h - μ, v)."""
    eye = np.eye(len(K))
    A = np.block([[eye - gamma * K, gamma * m * eye], [-K, m * eye]])
    G = np.vstack([gamma * eye, eye])
    return A, 2 * (1 - m) / gamma * sigma2 * G @ G.T


def stationary_covariance(A, Q):
    """Σ = A Σ Aᵀ + Q, exact for the discretised chain; ValueError where it does not settle."""
    n = len(A)
    if np.abs(np.linalg.eigvals(A)).max() >= 1:
        raise ValueError("the chain is unstable: spectral radius >= 1")
    return np.linalg.solve(np.eye(n * n) - np.kron(A, A), Q.ravel()).reshape(n, n)


def stationary_covariance_first_order(K, gamma, sigma2=1.0):
    """σ² K⁻¹ (I - γK/2)⁻¹: inflated by 1/(1 - γκ/2) in a mode of curvature κ."""
    return sigma2 * np.linalg.inv(K @ (np.eye(len(K)) - gamma * K / 2))


def covariance_at(A, Q, start, t):
    """Covariance after t steps from covariance `start`: the law of a finite run."""
    for _ in range(t):
        start = A @ start @ A.T + Q
    return start
