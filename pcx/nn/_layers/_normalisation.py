"""Normalisation: over a sample, or over the batch."""

import inspect
from typing import Any

import equinox as eqx

from .._wrap import NamedLayer, StatefulLayer, describe_as


class LayerNorm(NamedLayer):
    """Normalises a sample to mean 0 and variance 1, with learned scale and shift.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.LayerNorm(2)(jnp.array([10.0, 30.0])).round(3).tolist()
        [-1.0, 1.0]
    """

    wraps = eqx.nn.LayerNorm


class GroupNorm(NamedLayer):
    """Normalises groups of channels.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> layer = pxnn.GroupNorm(groups=2, channels=4)
        >>> layer(jnp.array([1.0, 3.0, 10.0, 30.0])).round(3).tolist()
        [-1.0, 1.0, -1.0, 1.0]
    """

    wraps = eqx.nn.GroupNorm


class RMSNorm(NamedLayer):
    """Divides a sample by its root mean square.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.RMSNorm(4)(jnp.array([0.0, 0.0, 0.0, 10.0])).round(3).tolist()  # by 5
        [0.0, 0.0, 0.0, 2.0]
    """

    wraps = eqx.nn.RMSNorm


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
describe_as(BatchNorm, eqx.nn.BatchNorm, {}, mode="batch")
