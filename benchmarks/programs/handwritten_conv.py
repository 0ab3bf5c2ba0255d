"""The convolutional layers of the hand-written programs.

A `lax.scan` around convolutions is 8-10 times slower on a CPU than the same steps unrolled (XLA
runs a loop's body without the threaded convolution), so the convolutional cases have no "scan"
program.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.cases import Case, Layer
from benchmarks.programs import handwritten


def conv(layer: Layer, act: Callable | None) -> Callable:
    def predict(weights, x):
        weight, bias = weights
        u = lax.conv_general_dilated(
            x,
            weight,
            window_strides=(layer.stride, layer.stride),
            padding=[(layer.padding, layer.padding)] * 2,
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        )
        u = u + bias[None]
        return max_pool(u if act is None else act(u), layer.pool)

    return predict


def max_pool(x: jax.Array, side: int) -> jax.Array:
    if side == 1:
        return x
    window = (1, 1, side, side)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def network(case: Case) -> handwritten.Network:
    """One prediction function per layer."""
    acts = [getattr(jax.nn, case.act)] * (len(case.layers) - 1) + [None]
    return [
        conv(layer, act) if layer.kind == "conv" else handwritten.dense(act)
        for layer, act in zip(case.layers, acts, strict=True)
    ]
