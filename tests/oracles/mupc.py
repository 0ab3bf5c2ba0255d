"""µPC (Innocenti et al. 2025): a parameterisation of depth, not an inference rule.

W ~ N(0, 1), no biases; u_l = a_l W_l f(h_{l-1}) (+ h_{l-1} on hidden layers with skips); layer 1
acts on x itself (no f).

    a_1 = 1/√D_in
    hidden (l = 2…L-1): 1/√(N L) with unit skips, 1/√N without
    a_L = 1/N ("mupc"), 1/√N ("ntp")

L counts weight matrices, as everywhere here; N is the hidden width. Layers 1 and L never have a
skip.
"""
# ruff: noqa: E741 - l is the layer index of the equations

import math

from .mlp import MLP, Layer


def multipliers(L, width, d_in, skips=True, parameterisation="mupc"):
    """[a_1, …, a_L]."""
    hidden = 1 / math.sqrt(width * L) if skips else 1 / math.sqrt(width)
    last = {"mupc": 1 / width, "ntp": 1 / math.sqrt(width)}[parameterisation]
    return [1 / math.sqrt(d_in)] + [hidden] * (L - 2) + [last]


def mupc_mlp(rng, L, width, d_in, d_out, activation="tanh", skips=True, parameterisation="mupc"):
    dims = [d_in] + [width] * (L - 1) + [d_out]
    a = multipliers(L, width, d_in, skips, parameterisation)
    return MLP(
        Layer(
            W=rng.standard_normal((dims[l], dims[l - 1])),
            activation="identity" if l == 1 else activation,
            a=a[l - 1],
            skip=skips and 1 < l < L,
        )
        for l in range(1, L + 1)
    )
