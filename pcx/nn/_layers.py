"""The named layers: equinox's, with params. Constructor arguments are equinox's own."""

import inspect
from typing import Any, ClassVar

import equinox as eqx
import jax

from ..core import Module
from ._wrap import NamedLayer, StatefulLayer, describe_as


class Linear(NamedLayer):
    """Affine map `W x + b`, for one sample of shape `(in_features,)`."""

    wraps = eqx.nn.Linear
    renames: ClassVar[dict[str, str]] = {"bias": "use_bias"}


class Conv(NamedLayer):
    """Convolution over `num_spatial_dims` axes of `(channels, *spatial)`."""

    wraps = eqx.nn.Conv


class Conv1d(NamedLayer):
    """Convolution of `(channels, length)`."""

    wraps = eqx.nn.Conv1d


class Conv2d(NamedLayer):
    """Convolution of `(channels, height, width)`."""

    wraps = eqx.nn.Conv2d


class Conv3d(NamedLayer):
    """Convolution of `(channels, depth, height, width)`."""

    wraps = eqx.nn.Conv3d


class ConvTranspose(NamedLayer):
    """Transposed convolution over `num_spatial_dims` axes."""

    wraps = eqx.nn.ConvTranspose


class ConvTranspose1d(NamedLayer):
    """Transposed convolution of `(channels, length)`."""

    wraps = eqx.nn.ConvTranspose1d


class ConvTranspose2d(NamedLayer):
    """Transposed convolution of `(channels, height, width)`."""

    wraps = eqx.nn.ConvTranspose2d


class ConvTranspose3d(NamedLayer):
    """Transposed convolution of `(channels, depth, height, width)`."""

    wraps = eqx.nn.ConvTranspose3d


class Pool(NamedLayer):
    """General pooling with any reduction."""

    wraps = eqx.nn.Pool


class MaxPool1d(NamedLayer):
    """Maximum over windows of `(channels, length)`."""

    wraps = eqx.nn.MaxPool1d


class MaxPool2d(NamedLayer):
    """Maximum over windows of `(channels, height, width)`."""

    wraps = eqx.nn.MaxPool2d


class MaxPool3d(NamedLayer):
    """Maximum over windows of `(channels, depth, height, width)`."""

    wraps = eqx.nn.MaxPool3d


class AvgPool1d(NamedLayer):
    """Mean over windows of `(channels, length)`."""

    wraps = eqx.nn.AvgPool1d


class AvgPool2d(NamedLayer):
    """Mean over windows of `(channels, height, width)`."""

    wraps = eqx.nn.AvgPool2d


class AvgPool3d(NamedLayer):
    """Mean over windows of `(channels, depth, height, width)`."""

    wraps = eqx.nn.AvgPool3d


class AdaptivePool(NamedLayer):
    """Pooling to a given output size with any reduction."""

    wraps = eqx.nn.AdaptivePool


class AdaptiveAvgPool2d(NamedLayer):
    """Mean pooling of `(channels, height, width)` to a given size."""

    wraps = eqx.nn.AdaptiveAvgPool2d


class AdaptiveMaxPool2d(NamedLayer):
    """Maximum pooling of `(channels, height, width)` to a given size."""

    wraps = eqx.nn.AdaptiveMaxPool2d


class Dropout(NamedLayer):
    """Sets a random share `p` of the entries to zero, except in eval mode."""

    wraps = eqx.nn.Dropout


class LayerNorm(NamedLayer):
    """Normalises a sample to mean 0 and variance 1, with learned scale and shift."""

    wraps = eqx.nn.LayerNorm


class GroupNorm(NamedLayer):
    """Normalises groups of channels."""

    wraps = eqx.nn.GroupNorm


class RMSNorm(NamedLayer):
    """Divides a sample by its root mean square."""

    wraps = eqx.nn.RMSNorm


class Embedding(NamedLayer):
    """Looks up a learned vector for an integer."""

    wraps = eqx.nn.Embedding


class MultiheadAttention(NamedLayer):
    """Scaled dot-product attention with several heads."""

    wraps = eqx.nn.MultiheadAttention


class GRUCell(NamedLayer):
    """One step of a gated recurrent unit."""

    wraps = eqx.nn.GRUCell


class LSTMCell(NamedLayer):
    """One step of a long short-term memory unit."""

    wraps = eqx.nn.LSTMCell


class Identity(NamedLayer):
    """Gives its input."""

    wraps = eqx.nn.Identity


class Lambda(NamedLayer):
    """A function as a layer."""

    wraps = eqx.nn.Lambda


class PReLU(NamedLayer):
    """Leaky ReLU with a learned negative slope."""

    wraps = eqx.nn.PReLU


class BatchNorm(StatefulLayer):
    """Normalises over the batch, under `pxf.vmap(..., axis_name=...)` with the same `axis_name`.

    In train mode (and in neither mode) the statistics are those of the batch, and the running ones
    are updated; in eval mode the running ones are used and left alone. The running statistics are
    in the `StateParam` `.state`. `mode` is "batch" by default.

    Example:
        >>> import jax.numpy as jnp, pcx.functional as pxf, pcx.nn as pxnn
        >>> layer = pxnn.BatchNorm(3, axis_name="batch").train()
        >>> f = pxf.vmap({}, in_axes=(0,), axis_name="batch")(lambda x, *, layer: layer(x))
        >>> f(jnp.ones((4, 3)), layer=layer).shape
        (4, 3)
    """

    def __init__(self, *args: Any, **kwargs: Any):
        own = {name: kwargs.pop(name) for name in ("filter", "rkg") if name in kwargs}
        # equinox's own default, "legacy", warns that it is not the batch normalisation one expects
        if "mode" not in _BATCH_NORM.bind_partial(*args, **kwargs).arguments:
            kwargs["mode"] = "batch"
        super().__init__(eqx.nn.BatchNorm, *args, **kwargs, **own)


_BATCH_NORM = inspect.signature(eqx.nn.BatchNorm)
describe_as(BatchNorm, eqx.nn.BatchNorm, {})


class Flatten(Module):
    """Gives a sample as one vector.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.Flatten()(jnp.ones((3, 4, 4))).shape
        (48,)
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(-1)
