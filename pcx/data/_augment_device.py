"""Flips and crops on the device, as functions of a key, for use inside compiled steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Shaped
from numpy.typing import ArrayLike

from pcx.data._augment import black_of, check_crop, check_images, crop_of


def device_flip(
    key: Any, x: Any, *, p: float = 0.5
) -> Shaped[jax.Array, "n channels height width"]:
    """Mirror each image left to right with probability `p`; see `random_flip`.

    Args:
        key: a JAX key.
        x: `(n, channels, height, width)`.
        p: the probability, for every image on its own.

    Returns:
        An array of the same shape.

    Raises:
        ValueError: `x` is not a batch of images.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> jax.jit(device_flip)(jax.random.key(0), jnp.arange(3).reshape(1, 1, 1, 3)).shape
        (1, 1, 1, 3)
    """
    check_images("device_flip", x)
    flipped = jax.random.bernoulli(key, p, (x.shape[0], 1, 1, 1))
    return jnp.where(flipped, x[..., ::-1], x)


def device_crop(
    key: Any,
    x: Any,
    *,
    size: int | None = None,
    padding: int = 0,
    fill: ArrayLike | Sequence[float] = 0.0,
) -> Shaped[jax.Array, "n channels height width"]:
    """Pad every side, then cut a square out of each image at a place of its own; see `random_crop`.

    Args:
        key: a JAX key.
        x: `(n, channels, height, width)`.
        size: height and width of the result; the height of `x` if None.
        padding: pixels added on each of the four sides.
        fill: the value of these, one for all channels or one for each.

    Returns:
        `(n, channels, size, size)`.

    Raises:
        ValueError: `x` is not a batch of images, or the padded images are smaller than `size`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> device_crop(jax.random.key(0), jnp.ones((5, 3, 32, 32)), padding=4).shape
        (5, 3, 32, 32)
    """
    check_images("device_crop", x)
    n, channels, height, width = x.shape
    size = height if size is None else size
    check_crop("device_crop", size, height, width, padding)
    tall, wide = height + 2 * padding, width + 2 * padding
    edge = jnp.broadcast_to(jnp.asarray(fill, x.dtype), (channels,))[:, None, None]
    padded = jnp.broadcast_to(edge, (n, channels, tall, wide))
    padded = padded.at[:, :, padding : padding + height, padding : padding + width].set(x)
    top_key, left_key = jax.random.split(key)
    top = jax.random.randint(top_key, (n,), 0, tall - size + 1)
    left = jax.random.randint(left_key, (n,), 0, wide - size + 1)

    def cut(image: Any, top: Any, left: Any) -> Any:
        return jax.lax.dynamic_slice(image, (0, top, left), (channels, size, size))

    return jax.vmap(cut)(padded, top, left)


def device_augmentation(
    name: str, *, normalize: bool | str = True
) -> Callable[[Any, Any], jax.Array]:
    """The training-time augmentation of the paper on the device: a random flip, then a random crop.

    What `augmentation` does, as a function of a key: for `pxt.Trainer(..., augment=...)`, or inside a
    step of your own.

    Args:
        name: `"cifar10"`, `"cifar100"` or `"tiny-imagenet"`.
        normalize: what the reader of the images was given; it decides which value is black.

    Returns:
        A function `(key, x) -> x` on batches.

    Raises:
        ValueError: the paper augments no set of that name, or `normalize` names an unknown one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> augment = device_augmentation("tiny-imagenet")
        >>> jax.jit(augment)(jax.random.key(0), jnp.ones((2, 3, 64, 64))).shape
        (2, 3, 56, 56)

    References:
        Pinchetti et al., Benchmarking Predictive Coding Networks -- Made Simple (2024), Appendix B.
    """
    padding, size = crop_of(name)
    black = black_of(name, normalize)

    def augment(key: Any, x: Any) -> jax.Array:
        flip, crop = jax.random.split(key)
        return device_crop(crop, device_flip(flip, x), size=size, padding=padding, fill=black)

    return augment
