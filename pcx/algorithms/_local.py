"""The local learning rule: what a layer's weights learn from its own input and error alone."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..core import get
from ..nn import Layer

KIND = """hebbian knows linear and convolutional layers (pxnn.Linear, pxnn.Conv2d ... with padding \
by zeros); got {got}. For any other layer take the gradient: `pxf.value_and_grad` with \
`pxu.M(pxnn.LayerParam)`."""

SHAPES = """hebbian: the layer maps inputs of shape {inputs} to outputs of shape {outputs} (batch \
first), but the error given has shape {error}. It belongs to the layer's own output."""


class LocalUpdate(NamedTuple):
    """Weight changes of one layer, summed over the batch; the negative gradients of the energy.

    Attributes:
        weight: of the shape of the layer's weight.
        bias: of the shape of its bias; None without one.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.nn as pxnn
        >>> layer = pxnn.Linear(2, 1, bias=False)
        >>> update = pxa.hebbian(layer, pre=jnp.array([[1.0, 2.0]]), error=jnp.array([[3.0]]))
        >>> update.weight.tolist(), update.bias
        ([[3.0, 6.0]], None)
        >>> _ = layer.nn.weight.set(layer.nn.weight + 0.1 * update.weight)  # one step of learning
    """

    weight: jax.Array
    bias: jax.Array | None


def hebbian(layer: Layer, pre: Any, error: Any) -> LocalUpdate:
    """The Hebbian form of predictive coding's learning: error times presynaptic activity.

        u = W pre + b,   F = 1/2 |h - u|^2:    dW = e pre',   db = e,   with e = h - u

    summed over the batch, and for convolutions over all places that share a weight. Both factors
    are at hand where the weight is, so nothing has to travel through the network; and it equals
    the negative gradient of the energy. With the activation before the weights, `pre = f(h)`; with
    the activation after them, `u = f(a)` and `a = W h + b`, the error at the layer's own output is
    `e * f'(a)`.

    Args:
        layer: a `pxnn.Linear` or `pxnn.Conv*`.
        pre: its input, (batch, *event).
        error: h - u at its output, (batch, *event).

    Raises:
        TypeError: another kind of layer.
        ValueError: an error that is not of the shape of the layer's output.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.nn as pxnn
        >>> update = pxa.hebbian(pxnn.Linear(3, 2), jnp.ones((5, 3)), jnp.ones((5, 2)))
        >>> update.weight.tolist(), update.bias.tolist()
        ([[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]], [5.0, 5.0])

    References:
        Whittington & Bogacz, 2017, eq. 2.18; Stenlund, 2025, arXiv:2506.06332.
    """
    nn = getattr(layer, "nn", None)
    pre, error = jnp.asarray(pre), jnp.asarray(error)
    if isinstance(nn, eqx.nn.Linear):
        expected = (*pre.shape[:1], *get(nn.weight).shape[:1])
        _check(pre, error, expected)
        weight = jnp.einsum("bo,bi->oi", error, pre)
    elif isinstance(nn, eqx.nn.Conv) and not isinstance(nn, eqx.nn.ConvTranspose):
        if nn.padding_mode.upper() != "ZEROS":
            raise TypeError(KIND.format(got=f"one with padding_mode={nn.padding_mode!r}"))
        weight = _convolutional(nn, pre, error)
    else:
        raise TypeError(KIND.format(got=type(layer).__name__))
    if nn.bias is None:
        return LocalUpdate(weight, None)
    places = (0, *range(2, error.ndim))
    return LocalUpdate(weight, jnp.sum(error, axis=places).reshape(get(nn.bias).shape))


def _convolutional(nn: Any, pre: jax.Array, error: jax.Array) -> jax.Array:
    """dW[o, i, k] = sum over samples and places p of e[o, p] pre[i, place that k reads for p]."""
    shape = get(nn.weight).shape
    patches = jax.lax.conv_general_dilated_patches(
        pre, nn.kernel_size, nn.stride, nn.padding, rhs_dilation=nn.dilation
    )
    batch, _, *places = patches.shape
    _check(pre, error, (batch, shape[0], *places))
    # a group of output channels reads its own group of input channels only
    patches = patches.reshape(batch, nn.groups, -1, math.prod(places))
    errors = error.reshape(batch, nn.groups, -1, math.prod(places))
    return jnp.einsum("bgop,bgip->goi", errors, patches).reshape(shape)


def _check(pre: jax.Array, error: jax.Array, expected: tuple[int, ...]) -> None:
    if error.shape != expected:
        raise ValueError(SHAPES.format(inputs=pre.shape, outputs=expected, error=error.shape))
