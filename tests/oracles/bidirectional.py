"""Bidirectional predictive coding (Oliviers et al. 2025): each node predicted from both sides.

    F = α_f [Σ_{0<l<L} ½‖h_l - f_l(h_{l-1})‖² + E_out(h_L, f_L(h_{L-1}))]
        + α_b Σ_{l=0}^{L-1} ½‖h_l - g_l(h_{l+1})‖²

`back[l]` is g_l, the Layer that predicts h_l from h_{l+1}, for l = 0…L-1 (the input's own
prediction g_0 included: with x clamped it pulls on h_1 and trains g_0). Forward initialisation
uses f alone. α_b = 0, α_f = 1 is PC. Weight gradients are those of F, so they carry α_f, α_b.
"""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np

from . import pc
from .energy import SQUARED
from .pc import Result, StateStepper, hidden, initial_states


def backward_errors(net, back, h):
    """[b_0, …, b_{L-1}], b_l = h_l - g_l(h_{l+1})."""
    return [h[l] - back[l](h[l + 1]) for l in range(net.L)]


def energy(net, back, h, alpha_f, alpha_b, output=SQUARED):
    """(batch,)."""
    b = backward_errors(net, back, h)
    return alpha_f * pc.energy(net, h, output) + alpha_b * sum(0.5 * (b_l**2).sum(-1) for b_l in b)


def state_gradient(net, back, h, alpha_f, alpha_b, output=SQUARED):
    """∂F/∂h_l = α_f (e_l - J_{l+1}ᵀ e_{l+1}) + α_b (b_l - G_{l-1}ᵀ b_{l-1}), G that of g."""
    forward, b = pc.state_gradient(net, h, output), backward_errors(net, back, h)
    grads = []
    for l in range(net.L + 1):
        own = b[l] if l < net.L else 0.0
        pulled = back[l - 1].vjp(h[l], b[l - 1]) if l > 0 else 0.0
        grads.append(alpha_f * forward[l] + alpha_b * (own - pulled))
    return grads


def weight_gradients(net, back, h, alpha_f, alpha_b, output=SQUARED):
    """(forward pairs for l = 1…L, backward pairs for l = 0…L-1), averaged over the batch."""
    B, b = len(h[-1]), backward_errors(net, back, h)
    up = [back[l].weight_vjp(h[l + 1], -b[l]) for l in range(net.L)]

    def scaled(pairs, c):
        return [tuple(None if g is None else c * g for g in pair) for pair in pairs]

    return scaled(pc.weight_gradient(net, h, output), alpha_f), scaled(up, alpha_b / B)


def bidirectional(
    net,
    back,
    x,
    y,
    *,
    T,
    optim,
    alpha_f=1.0,
    alpha_b=1.0,
    output=SQUARED,
    init="forward",
    free=None,
):
    """`grads` of f, `extra["back_grads"]` of g. `free` defaults to the hidden nodes."""
    h = initial_states(net, x, y, init)
    stepper, states = StateStepper(optim, h, hidden(net) if free is None else free), [h]
    for _ in range(T):
        states.append(
            stepper(states[-1], state_gradient(net, back, states[-1], alpha_f, alpha_b, output))
        )
    grads, back_grads = weight_gradients(net, back, states[-1], alpha_f, alpha_b, output)
    energies = np.stack([energy(net, back, h, alpha_f, alpha_b, output) for h in states])
    return Result(states, energies, grads, net, {"back_grads": back_grads})
