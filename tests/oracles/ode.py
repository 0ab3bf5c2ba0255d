"""Inference as the ODE ḣ = -∂F/∂h of the free nodes, fixed steps dt (JPC).

Euler  h ← h + dt k(h)                              = SGD with lr dt
Heun   k₁ = k(h),  k₂ = k(h + dt k₁),  h ← h + dt (k₁ + k₂)/2    second order
"""
# ruff: noqa: E741 - l is the layer index of the equations

from .energy import SQUARED
from .pc import hidden, state_gradient


def flow(net, h, free, output=SQUARED, prior=None):
    """{l: ḣ_l}."""
    g = state_gradient(net, h, output, prior)
    return {l: -g[l] for l in free}


def moved(h, k, dt):
    return [a + dt * k[l] if l in k else a for l, a in enumerate(h)]


def integrate(net, h, *, dt, steps, method="heun", free=None, output=SQUARED, prior=None):
    """The trajectory from the states h_0…h_L; clamped nodes stay."""
    free, states = hidden(net) if free is None else free, [h]
    for _ in range(steps):
        h = states[-1]
        k = flow(net, h, free, output, prior)
        if method == "heun":
            k2 = flow(net, moved(h, k, dt), free, output, prior)
            k = {l: (k[l] + k2[l]) / 2 for l in free}
        states.append(moved(h, k, dt))
    return states


def speed(net, h, free=None, output=SQUARED):
    """‖ḣ‖ per sample over all free nodes: what a steady-state event must watch."""
    k = flow(net, h, hidden(net) if free is None else free, output)
    return sum((v**2).sum(-1) for v in k.values()) ** 0.5
