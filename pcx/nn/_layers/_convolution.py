"""Convolutions: of one sample `(channels, *spatial)`."""

import equinox as eqx

from .._wrap import NamedLayer


class Conv(NamedLayer):
    """Convolution over `num_spatial_dims` axes of `(channels, *spatial)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> conv = pxnn.Conv(num_spatial_dims=2, in_channels=3, out_channels=8, kernel_size=3)
        >>> conv(jnp.ones((3, 32, 32))).shape  # no padding: one less on each side
        (8, 30, 30)
    """

    wraps = eqx.nn.Conv


class Conv1d(NamedLayer):
    """Convolution of `(channels, length)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> conv = pxnn.Conv1d(1, 4, kernel_size=3, padding=1)  # keeps the length
        >>> conv(jnp.ones((1, 100))).shape
        (4, 100)
    """

    wraps = eqx.nn.Conv1d


class Conv2d(NamedLayer):
    """Convolution of `(channels, height, width)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> conv = pxnn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)  # halves the image
        >>> conv(jnp.ones((3, 32, 32))).shape
        (8, 16, 16)
    """

    wraps = eqx.nn.Conv2d


class Conv3d(NamedLayer):
    """Convolution of `(channels, depth, height, width)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> pxnn.Conv3d(1, 2, kernel_size=3, padding=1)(jnp.ones((1, 4, 6, 8))).shape
        (2, 4, 6, 8)
    """

    wraps = eqx.nn.Conv3d


class ConvTranspose(NamedLayer):
    """Transposed convolution over `num_spatial_dims` axes.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> up = pxnn.ConvTranspose(1, in_channels=2, out_channels=1, kernel_size=3)
        >>> up(jnp.ones((2, 10))).shape  # a `Conv` with this kernel goes from 12 to 10
        (1, 12)
    """

    wraps = eqx.nn.ConvTranspose


class ConvTranspose1d(NamedLayer):
    """Transposed convolution of `(channels, length)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> up = pxnn.ConvTranspose1d(4, 1, kernel_size=2, stride=2)  # doubles the length
        >>> up(jnp.ones((4, 50))).shape
        (1, 100)
    """

    wraps = eqx.nn.ConvTranspose1d


class ConvTranspose2d(NamedLayer):
    """Transposed convolution of `(channels, height, width)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> up = pxnn.ConvTranspose2d(8, 3, kernel_size=2, stride=2)  # doubles the image
        >>> up(jnp.ones((8, 16, 16))).shape
        (3, 32, 32)
    """

    wraps = eqx.nn.ConvTranspose2d


class ConvTranspose3d(NamedLayer):
    """Transposed convolution of `(channels, depth, height, width)`.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> up = pxnn.ConvTranspose3d(2, 1, kernel_size=2, stride=2)
        >>> up(jnp.ones((2, 2, 3, 4))).shape
        (1, 4, 6, 8)
    """

    wraps = eqx.nn.ConvTranspose3d
