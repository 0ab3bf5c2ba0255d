"""Nudged predictive coding: positive (PN), negative (NN), centred (CN). Squared-error output.

After forward initialisation the output is clamped at

    h_L = u_L + β (y - u_L),   u_L of the initial pass,   β > 0 (PN), β < 0 (NN)

inference runs with h_L fixed, and the weight gradient of F is multiplied by 1/β: for NN the sign
flips, and the output layer's gradient at T = 0 is back-propagation's whatever β. (Appendix B of
the PCX paper writes β > 0 with u_L - β (y - u_L) for NN and only *inverts* the update, without the
factor 1/|β|; scale="sign" is that form. Under Adam the two differ only through ε.) β = 1 is
exactly PC-SE.

|β| grows by β_ir at the end of each epoch, up to 1. (The paper's "greater than or equal to -1, set
it to 1" is read as: magnitude capped at 1, sign kept.)
"""

import numpy as np

from .energy import SQUARED
from .pc import Result, energy, hidden, infer, initial_states, weight_gradient


def nudged(net, x, y, *, beta, T, optim, scale="beta"):
    h = initial_states(net, x)
    u_L = h[-1]
    h = [*h[:-1], u_L + beta * (y - u_L)]
    states = infer(net, h, free=hidden(net), T=T, optim=optim, output=SQUARED)
    factor = {"beta": 1 / beta, "sign": np.sign(beta)}[scale]
    grads = [
        tuple(None if g is None else factor * g for g in pair)
        for pair in weight_gradient(net, states[-1])
    ]
    return Result(states, np.stack([energy(net, h) for h in states]), grads, net)


def centred(net, x, y, *, beta, T, optim):
    """The true average of PN and NN at ±|β| (the paper draws one per epoch): gradients only."""
    plus, minus = (nudged(net, x, y, beta=s * abs(beta), T=T, optim=optim).grads for s in (1, -1))
    return [
        tuple(None if p is None else (p + m) / 2 for p, m in zip(a, b, strict=True))
        for a, b in zip(plus, minus, strict=True)
    ]


def beta_at(epoch, beta, increase_rate):
    """β in the given 0-based epoch."""
    return np.sign(beta) * min(abs(beta) + epoch * increase_rate, 1.0)
