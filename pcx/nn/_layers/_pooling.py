"""Pooling: of one sample `(channels, *spatial)`."""

import equinox as eqx

from .._wrap import NamedLayer


class Pool(NamedLayer):
    """General pooling with any reduction.

    Example:
        >>> import jax, jax.numpy as jnp, pcx.nn as pxnn
        >>> total = pxnn.Pool(0.0, jax.lax.add, num_spatial_dims=1, kernel_size=2, stride=2)
        >>> total(jnp.array([[1.0, 2.0, 3.0, 4.0]])).tolist()
        [[3.0, 7.0]]
    """

    wraps = eqx.nn.Pool


class MaxPool1d(NamedLayer):
    """Maximum over windows of `(channels, length)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.MaxPool1d(kernel_size=2, stride=2)(jnp.array([[1.0, 3.0, 5.0, 2.0]])).tolist()
        [[3.0, 5.0]]
    """

    wraps = eqx.nn.MaxPool1d


class MaxPool2d(NamedLayer):
    """Maximum over windows of `(channels, height, width)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> image = jnp.arange(16.0).reshape(1, 4, 4)
        >>> pxnn.MaxPool2d(kernel_size=2, stride=2)(image).tolist()
        [[[5.0, 7.0], [13.0, 15.0]]]
    """

    wraps = eqx.nn.MaxPool2d


class MaxPool3d(NamedLayer):
    """Maximum over windows of `(channels, depth, height, width)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> volume = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> pxnn.MaxPool3d(kernel_size=2)(volume).tolist()
        [[[[7.0]]]]
    """

    wraps = eqx.nn.MaxPool3d


class AvgPool1d(NamedLayer):
    """Mean over windows of `(channels, length)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.AvgPool1d(kernel_size=2, stride=2)(jnp.array([[1.0, 3.0, 5.0, 2.0]])).tolist()
        [[2.0, 3.5]]
    """

    wraps = eqx.nn.AvgPool1d


class AvgPool2d(NamedLayer):
    """Mean over windows of `(channels, height, width)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> image = jnp.arange(16.0).reshape(1, 4, 4)
        >>> pxnn.AvgPool2d(kernel_size=2, stride=2)(image).tolist()
        [[[2.5, 4.5], [10.5, 12.5]]]
    """

    wraps = eqx.nn.AvgPool2d


class AvgPool3d(NamedLayer):
    """Mean over windows of `(channels, depth, height, width)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> volume = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> pxnn.AvgPool3d(kernel_size=2)(volume).tolist()
        [[[[3.5]]]]
    """

    wraps = eqx.nn.AvgPool3d


class AdaptivePool(NamedLayer):
    """Pooling to a given output size with any reduction.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> halves = pxnn.AdaptivePool(2, num_spatial_dims=1, operation=jnp.max)
        >>> halves(jnp.array([[1.0, 2.0, 6.0, 5.0, 4.0, 3.0]])).tolist()
        [[6.0, 5.0]]
    """

    wraps = eqx.nn.AdaptivePool


class AdaptiveAvgPool2d(NamedLayer):
    """Mean pooling of `(channels, height, width)` to a given size.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pool = pxnn.AdaptiveAvgPool2d((2, 2))
        >>> pool(jnp.ones((3, 8, 8))).shape, pool(jnp.ones((3, 12, 20))).shape
        ((3, 2, 2), (3, 2, 2))
    """

    wraps = eqx.nn.AdaptiveAvgPool2d


class AdaptiveMaxPool2d(NamedLayer):
    """Maximum pooling of `(channels, height, width)` to a given size.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> image = jnp.arange(16.0).reshape(1, 4, 4)
        >>> pxnn.AdaptiveMaxPool2d(1)(image).tolist()  # one number for each channel
        [[[15.0]]]
    """

    wraps = eqx.nn.AdaptiveMaxPool2d
