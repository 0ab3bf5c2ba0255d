"""The layers that neither convolve, pool nor normalise."""

from typing import ClassVar

import equinox as eqx
import jax

from ...core import Module
from .._wrap import NamedLayer


class Linear(NamedLayer):
    """Affine map `W x + b`, for one sample of shape `(in_features,)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.Linear(3, 2)(jnp.ones(3)).shape
        (2,)
    """

    wraps = eqx.nn.Linear
    renames: ClassVar[dict[str, str]] = {"bias": "use_bias"}


class Dropout(NamedLayer):
    """Sets a random share `p` of the entries to zero, except in eval mode.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> layer = pxnn.Dropout(0.5)
        >>> sorted(set(layer.train()(jnp.ones(100)).tolist()))  # the others grow by 1 / (1 - p)
        [0.0, 2.0]
        >>> layer.eval()(jnp.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    wraps = eqx.nn.Dropout


class Embedding(NamedLayer):
    """Looks up a learned vector for an integer.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> layer = pxnn.Embedding(10, 4)  # ten vectors of four numbers
        >>> bool((layer(jnp.array(7)) == layer.nn.weight[7]).all())
        True
    """

    wraps = eqx.nn.Embedding


class MultiheadAttention(NamedLayer):
    """Scaled dot-product attention with several heads.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> attend = pxnn.MultiheadAttention(num_heads=2, query_size=6)
        >>> queries, memory = jnp.ones((4, 6)), jnp.ones((5, 6))
        >>> attend(queries, memory, memory).shape  # one answer for each query
        (4, 6)
    """

    wraps = eqx.nn.MultiheadAttention


class GRUCell(NamedLayer):
    """One step of a gated recurrent unit.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> cell, h = pxnn.GRUCell(3, 4), jnp.zeros(4)
        >>> for x in jnp.ones((10, 3)):  # ten time steps
        ...     h = cell(x, h)
        >>> h.shape
        (4,)
    """

    wraps = eqx.nn.GRUCell


class LSTMCell(NamedLayer):
    """One step of a long short-term memory unit.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> cell, state = pxnn.LSTMCell(3, 4), (jnp.zeros(4), jnp.zeros(4))
        >>> for x in jnp.ones((10, 3)):  # ten time steps
        ...     state = cell(x, state)
        >>> h, c = state
        >>> h.shape, c.shape
        ((4,), (4,))
    """

    wraps = eqx.nn.LSTMCell


class Identity(NamedLayer):
    """Returns its input.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.Identity()(jnp.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """

    wraps = eqx.nn.Identity


class Lambda(NamedLayer):
    """A function as a layer.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.Lambda(jnp.square)(jnp.array([1.0, -3.0])).tolist()
        [1.0, 9.0]
    """

    wraps = eqx.nn.Lambda


class PReLU(NamedLayer):
    """Leaky ReLU with a learned negative slope.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.PReLU(0.25)(jnp.array([-4.0, 2.0])).tolist()  # a slope of 1/4 below zero
        [-1.0, 2.0]
    """

    wraps = eqx.nn.PReLU


class Flatten(Module):
    """Returns a sample as one vector.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.Flatten()(jnp.ones((3, 4, 4))).shape
        (48,)
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(-1)
