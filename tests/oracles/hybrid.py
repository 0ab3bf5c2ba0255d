"""Hybrid predictive coding (Tschantz et al. 2023): an amortiser guesses, inference refines.

Generator: a PC network h_0 → h_L, data at h_L = y. Amortiser: `q[l]`, the Layer that predicts h_l
from h_{l+1}, l = 0…L-1, run from the data (bottom-up in the generator's sense):

    ĥ_L = y,  ĥ_l = q_l(ĥ_{l+1})
    inference starts at h_l = ĥ_l for every free node (h_0 := x if it is clamped)
    generator:  PC's weight gradient at h*
    amortiser:  A = Σ_{l<L} ½‖h*_l - q_l(ĥ_{l+1})‖²,  h* and ĥ constants: a local rule per layer

Two readings are fixed here: the factor ½ (algorithms.md writes Σ‖·‖²; with it every node has the
same energy), and the input of q_l, its own feed-forward ĥ ("amortised"); inputs="inferred" uses
h*_{l+1}. The term l = 0 stays when h_0 = x is clamped: there it is what teaches the amortiser the
label.
"""
# ruff: noqa: E741 - l is the layer index of the equations

import numpy as np

from .energy import SQUARED
from .pc import Result, energy, infer, weight_gradient


def amortise(q, y):
    """[ĥ_0, …, ĥ_L]."""
    h = [y]
    for layer in reversed(q):
        h.append(layer(h[-1]))
    return h[::-1]


def amortiser_errors(q, h_star, inputs):
    """[h*_l - q_l(input_{l+1})], l = 0…L-1."""
    return [h_star[l] - q[l](inputs[l + 1]) for l in range(len(q))]


def amortiser_loss(q, h_star, inputs):
    """A per sample, (batch,)."""
    return sum(0.5 * (e**2).sum(-1) for e in amortiser_errors(q, h_star, inputs))


def amortiser_gradient(q, h_star, inputs):
    """[(dW_l, db_l)] for l = 0…L-1, averaged over the batch."""
    B, e = len(h_star[-1]), amortiser_errors(q, h_star, inputs)
    pairs = [q[l].weight_vjp(inputs[l + 1], -e[l]) for l in range(len(q))]
    return [(dW / B, None if db is None else db / B) for dW, db in pairs]


def hybrid(net, q, y, x=None, *, T, optim, output=SQUARED, prior=None, inputs="amortised"):
    """x=None leaves h_0 free. `grads`: the generator's; `extra`: amortised, q_grads, q_loss."""
    guess = amortise(q, y)
    h = guess if x is None else [x, *guess[1:]]
    free = range(0 if x is None else 1, net.L)
    states = infer(net, h, free=free, T=T, optim=optim, output=output, prior=prior)
    at = guess if inputs == "amortised" else states[-1]
    extra = {
        "amortised": guess,
        "q_grads": amortiser_gradient(q, states[-1], at),
        "q_loss": amortiser_loss(q, states[-1], at),
    }
    energies = np.stack([energy(net, h, output, prior) for h in states])
    return Result(states, energies, weight_gradient(net, states[-1], output), net, extra)
