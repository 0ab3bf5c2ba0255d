"""PCALM: predictive coding with an augmented Lagrangian (Seely & Gould 2026).

A multiplier λ_l per hidden node, zero at first:

    A = E_out(y, u_L) + Σ_{l<L} ρ/2 ‖h_l - u_l + λ_l/ρ‖²
    each step:  h ← h - lr ∇_h A;   then  λ_l ← λ_l + α (h_l - u_l),  h and u the new ones
    weights:    ∇_θ A at the last h, with the λ **before** the last update (at T = 0: λ = 0)

The effective error is ρ e_l + λ_l. With α = ρ it is also the λ after the last update. Where
inference settles e = 0 and λ_l = -∂E_out/∂h_l, so the weight gradient is back-propagation's. α =
0, ρ = 1 is PC.

On a linear net it settles (plain gradient steps, ρ = 1) iff lr < 4 / ‖2H + α DᵀD‖, H the
Hessian of F in the hidden states and DᵀD that of its hidden terms alone: about 2/3 of PC's own
bound 2/‖H‖ at α = 1.
"""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np

from .energy import SQUARED
from .pc import Result, StateStepper, hidden, initial_states, local_weight_gradient


def energy(net, h, lam, rho, output=SQUARED):
    """A per sample, (batch,)."""
    u = net.predictions(h)
    A = output.value(h[-1], u[-1])
    return A + sum(rho / 2 * ((h[l] - u[l] + lam[l] / rho) ** 2).sum(-1) for l in hidden(net))


def effective_errors(net, h, lam, rho, output=SQUARED):
    """[None, ê_1, …, ê_L]: ê_l = ρ e_l + λ_l = -∂A/∂u_l."""
    u = net.predictions(h)
    return [None] + [rho * (h[l] - u[l]) + lam[l] for l in hidden(net)] + [-output.du(h[-1], u[-1])]


def state_gradient(net, h, lam, rho, output=SQUARED):
    """{l: ∂A/∂h_l = ê_l - J_{l+1}ᵀ ê_{l+1}} of the hidden nodes."""
    e = effective_errors(net, h, lam, rho, output)
    return {l: e[l] - net[l + 1].vjp(h[l], e[l + 1]) for l in hidden(net)}


def pcalm(net, x, y, *, T, optim, alpha=1.0, rho=1.0, output=SQUARED, init="forward"):
    h = initial_states(net, x, y, init)
    lam = {l: np.zeros_like(h[l]) for l in hidden(net)}
    before, states, multipliers = lam, [h], [lam]
    stepper = StateStepper(optim, h, hidden(net))
    for _ in range(T):
        h = stepper(h, state_gradient(net, h, lam, rho, output))
        u, before = net.predictions(h), lam
        lam = {l: lam[l] + alpha * (h[l] - u[l]) for l in hidden(net)}
        states.append(h)
        multipliers.append(lam)
    d = [None] + [-e for e in effective_errors(net, h, before, rho, output)[1:]]
    energies = np.stack(
        [energy(net, s, m, rho, output) for s, m in zip(states, multipliers, strict=True)]
    )
    return Result(
        states, energies, local_weight_gradient(net, h, d), net, {"multipliers": multipliers}
    )
