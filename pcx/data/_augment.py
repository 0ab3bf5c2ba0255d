"""Random flips and crops of whole batches, without a loop over the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike

from pcx.data._dataset import NORMALIZATION, Array

Augmentation = Callable[[Array, np.random.Generator], Array]

# Appendix B of Pinchetti et al. (2024): padding on each side, and the size cut out of the result.
_CROPS = {"cifar10": (4, 32), "cifar100": (4, 32), "tiny-imagenet": (0, 56)}


def random_flip(
    x: Array, rng: np.random.Generator, *, p: float = 0.5
) -> Shaped[np.ndarray, "n channels height width"]:
    """Mirror each image left to right with probability `p`.

    Args:
        x: `(n, channels, height, width)`.
        rng: the source of the draw.
        p: the probability, for every image on its own.

    Returns:
        A new array of the same shape.

    Raises:
        ValueError: `x` is not a batch of images.

    Example:
        >>> import numpy as np
        >>> random_flip(np.array([[[[1, 2, 3]]]]), np.random.default_rng(0), p=1.0)
        array([[[[3, 2, 1]]]])
    """
    check_images("random_flip", x)
    flipped = rng.random(len(x)) < p
    return np.where(flipped[:, None, None, None], x[..., ::-1], x)


def random_crop(
    x: Array,
    rng: np.random.Generator,
    *,
    size: int | None = None,
    padding: int = 0,
    fill: ArrayLike | Sequence[float] = 0.0,
) -> Shaped[np.ndarray, "n channels height width"]:
    """Pad every side, then cut a square out of each image at a place of its own, uniformly drawn.

    Args:
        x: `(n, channels, height, width)`.
        rng: the source of the draw.
        size: height and width of the result; the height of `x` if None.
        padding: pixels added on each of the four sides.
        fill: the value of these, one for all channels or one for each. Black is `0` for pixels in
            0..1 and `−μ/σ` for normalised ones, which is what `augmentation` fills in.

    Returns:
        `(n, channels, size, size)`.

    Raises:
        ValueError: `x` is not a batch of images, or the padded images are smaller than `size`.

    Example:
        >>> import numpy as np
        >>> random_crop(np.ones((5, 3, 32, 32)), np.random.default_rng(0), padding=4).shape
        (5, 3, 32, 32)
    """
    check_images("random_crop", x)
    n, channels, height, width = x.shape
    size = height if size is None else size
    check_crop("random_crop", size, height, width, padding)
    padded = np.empty((n, channels, height + 2 * padding, width + 2 * padding), x.dtype)
    padded[:] = np.reshape(np.broadcast_to(np.asarray(fill, x.dtype), channels), (channels, 1, 1))
    padded[:, :, padding : padding + height, padding : padding + width] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    top = rng.integers(0, windows.shape[2], n)
    left = rng.integers(0, windows.shape[3], n)
    return windows[np.arange(n), :, top, left]


def center_crop(x: Array, size: int) -> Shaped[np.ndarray, "n channels height width"]:
    """The `size`×`size` square in the middle of each image, as the paper tests on Tiny ImageNet.

    Args:
        x: `(n, channels, height, width)`.
        size: height and width of the result. Where the margin is odd, the larger part of it is at
            the bottom and the right.

    Returns:
        `(n, channels, size, size)`, a view.

    Raises:
        ValueError: `x` is not a batch of images, or they are smaller than `size`.

    Example:
        >>> import numpy as np
        >>> center_crop(np.arange(16).reshape(1, 1, 4, 4), 2)
        array([[[[ 5,  6],
                 [ 9, 10]]]])
    """
    check_images("center_crop", x)
    height, width = x.shape[2:]
    if not 0 < size <= min(height, width):
        raise ValueError(
            f"center_crop: size={size} cannot be cut out of images {height}x{width}; it must lie "
            f"in 1..{min(height, width)}."
        )
    top, left = (height - size) // 2, (width - size) // 2
    return x[:, :, top : top + size, left : left + size]


def augmentation(name: str, *, normalize: bool | str = True) -> Augmentation:
    """The training-time augmentation of the paper: a random flip, then a random crop.

    CIFAR-10 and CIFAR-100: 4 pixels of black around, 32×32 cut out. Tiny ImageNet: 56×56 cut out of
    the 64×64, no padding.

    Args:
        name: `"cifar10"`, `"cifar100"` or `"tiny-imagenet"`.
        normalize: what the reader of the images was given; it decides which value is black.

    Returns:
        A function `(x, rng) -> x` on batches, ready for `batches(..., transform=...)`.

    Raises:
        ValueError: the paper augments no set of that name, or `normalize` names an unknown one.

    Example:
        >>> import numpy as np
        >>> augment = augmentation("tiny-imagenet")
        >>> augment(np.ones((2, 3, 64, 64), np.float32), np.random.default_rng(0)).shape
        (2, 3, 56, 56)

    References:
        Pinchetti et al., Benchmarking Predictive Coding Networks -- Made Simple (2024), Appendix B.
    """
    padding, size = crop_of(name)
    black = black_of(name, normalize)

    def augment(x: Array, rng: np.random.Generator) -> Array:
        return random_crop(random_flip(x, rng), rng, size=size, padding=padding, fill=black)

    return augment


def crop_of(name: str) -> tuple[int, int]:
    """The padding and the size of the paper's crops of a data set."""
    if name not in _CROPS:
        raise ValueError(
            f"augmentation: the paper augments no data set called {name!r}, only "
            f"{', '.join(map(repr, _CROPS))}. For another one combine a random flip and a random crop."
        )
    return _CROPS[name]


def black_of(name: str, normalize: bool | str) -> Array:
    """The value of a black pixel, for each channel."""
    key = name if normalize is True else normalize
    if key is False:
        return np.zeros(1)
    if key not in NORMALIZATION:
        raise ValueError(
            f"augmentation: normalize={normalize!r} is none of the data sets whose mean and "
            f"deviation are known: {', '.join(NORMALIZATION)}. Pass what the reader of the "
            "images was given."
        )
    mean, std = NORMALIZATION[key]
    return -np.asarray(mean) / np.asarray(std)


def check_crop(function: str, size: int, height: int, width: int, padding: int) -> None:
    """Refuse a crop that is larger than the padded images."""
    if not 0 < size <= min(height, width) + 2 * padding:
        raise ValueError(
            f"{function}: size={size} cannot be cut out of images {height}x{width} with "
            f"padding={padding}; it must lie in 1..{min(height, width) + 2 * padding}."
        )


def check_images(function: str, x: Any) -> None:
    """Refuse what is no batch of images."""
    if np.ndim(x) != 4:
        raise ValueError(
            f"{function}: x has shape {np.shape(x)}, where a batch of images (n, channels, height, "
            "width) was expected. For a single image write `x[None]`."
        )
