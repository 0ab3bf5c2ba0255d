"""What every reader returns, and the steps from raw pixels and labels to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pcx.data._table import DATASETS

Array = NDArray[Any]

# For pixels scaled to 0..1, per channel; the values of the paper's Table 6 are in the common table.
NORMALIZATION: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {name: (source.mean, source.std) for name, source in DATASETS.items()}
)


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
    """Training and test arrays of one data set.

    Args:
        name: the name it was loaded under.
        x_train, x_test: `(n, *shape)`, float32. A set that has no training part has `n = 0` there.
        y_train, y_test: `(n,)`, int32 class numbers, `0 <= y < classes`.
        classes: how many classes there are.
        shape: the shape of one sample; images are channels first, `(channels, height, width)`.
        class_names: one name for each class, or empty where the classes have none.
        x_val, y_val: validation data, which `split` takes from the training data; None before.

    Example:
        >>> from pcx.data import two_circles
        >>> two_circles(samples=80, test_samples=20)
        Dataset('two-circles', train=80, test=20, shape=(2,), classes=2)
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: int
    shape: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    x_val: Array | None = None
    y_val: Array | None = None

    def split(self, fraction: float, seed: int = 0) -> Dataset:
        """The same data with a part of the training data, drawn at random, as validation data.

        Choose settings and the epoch by the validation data, and use the test data once, at the end.

        Args:
            fraction: how much of the training data becomes validation data, `0 < fraction < 1`; the number of
                samples is rounded.
            seed: of the drawing; the same seed draws the same samples.

        Returns:
            A `Dataset` with `x_val` and `y_val`, and without these samples in `x_train` and `y_train`, whose order
            stays.

        Raises:
            ValueError: one of the two parts would be empty, or the data is split already.

        Example:
            >>> from pcx.data import two_circles
            >>> two_circles(samples=80, test_samples=20).split(0.25)
            Dataset('two-circles', train=60, val=20, test=20, shape=(2,), classes=2)
        """
        if self.x_val is not None:
            raise ValueError(f"{self!r} is split already. Split the one that was loaded.")
        total = len(self.x_train)
        count = round(fraction * total)
        if not 0 < count < total:
            raise ValueError(
                f"split({fraction}) of {total} training samples would make {count} validation samples; "
                f"both parts need one at least. Give a fraction between 0 and 1, such as 0.1."
            )
        chosen = np.zeros(total, bool)
        chosen[np.random.default_rng(seed).choice(total, count, replace=False)] = True
        return dataclasses.replace(
            self,
            x_train=self.x_train[~chosen],
            y_train=self.y_train[~chosen],
            x_val=self.x_train[chosen],
            y_val=self.y_train[chosen],
        )

    def flat(self) -> Dataset:
        """The same data with every sample as one vector, for a network without convolutions.

        Returns:
            A `Dataset` whose `shape` is `(size,)`, the product of the old one; its arrays are
            views.

        Example:
            >>> import numpy as np
            >>> x, y = np.zeros((5, 1, 28, 28), np.float32), np.zeros(5, np.int32)
            >>> Dataset("blank", x, y, x[:2], y[:2], classes=10, shape=(1, 28, 28)).flat().shape
            (784,)
        """
        size = math.prod(self.shape)
        return dataclasses.replace(
            self,
            x_train=self.x_train.reshape(len(self.x_train), size),
            x_test=self.x_test.reshape(len(self.x_test), size),
            x_val=None if self.x_val is None else self.x_val.reshape(len(self.x_val), size),
            shape=(size,),
        )

    # The generated one prints whole arrays.
    def __repr__(self) -> str:
        val = "" if self.x_val is None else f"val={len(self.x_val)}, "
        return (
            f"Dataset({self.name!r}, train={len(self.x_train)}, {val}test={len(self.x_test)}, "
            f"shape={self.shape}, classes={self.classes})"
        )


def one_hot(
    labels: ArrayLike, classes: int, dtype: DTypeLike = np.float32
) -> Shaped[np.ndarray, "*labels classes"]:
    """Class numbers as unit vectors: `out[..., k] = 1` where `labels[...] == k`, else 0.

    Args:
        labels: integers of any shape, each in `0 .. classes - 1`.
        classes: the length of the new last axis.
        dtype: of the result.

    Returns:
        An array of shape `(*labels.shape, classes)`.

    Raises:
        TypeError: the labels are not integers.
        ValueError: a label is outside `0 .. classes - 1`.

    Example:
        >>> one_hot([2, 0], 3)
        array([[0., 0., 1.],
               [1., 0., 0.]], dtype=float32)
    """
    numbers = np.asarray(labels)
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(
            f"one_hot: the labels are {numbers.dtype}, of shape {numbers.shape}; it takes integer "
            "class numbers. If they are whole numbers write `one_hot(labels.astype(int), "
            "classes)`; if they are one-hot already, use them as they are."
        )
    if numbers.size and (numbers.min() < 0 or numbers.max() >= classes):
        raise ValueError(
            f"one_hot: the labels go from {numbers.min()} to {numbers.max()}, but with "
            f"classes={classes} they must lie in 0..{classes - 1}. Pass "
            f"`classes={max(int(numbers.max()) + 1, 1)}`, or renumber the labels from 0."
        )
    out = np.zeros((*numbers.shape, classes), dtype=dtype)
    np.put_along_axis(out, numbers.astype(np.intp)[..., None], 1, axis=-1)
    return out


def scale_pixels(pixels: Array, name: str, normalize: bool | str, white: int = 255) -> Array:
    """Integer pixels `(n, channels, height, width)` as float32: `(pixels / white − μ) / σ`.

    Args:
        name: the data set whose μ and σ of `NORMALIZATION` are meant by `normalize=True`.
        normalize: False leaves the pixels in 0..1; another data set's name uses that set's μ and σ.
        white: the largest value a pixel can have.
    """
    if normalize is False:
        return pixels.astype(np.float32) / np.float32(white)
    key = name if normalize is True else normalize
    if key not in NORMALIZATION:
        raise ValueError(
            f"normalize={normalize!r} is none of the data sets whose mean and deviation are known: "
            f"{', '.join(NORMALIZATION)}. Pass one of them, True for {name}'s own, or False for "
            "pixels in 0..1."
        )
    mean, std = NORMALIZATION[key]
    channels = pixels.shape[1]
    if len(mean) not in (1, channels):
        raise ValueError(
            f"normalize={normalize!r} has {len(mean)} channels, but the images of {name} have "
            f"{channels}. Name a data set with as many channels, or pass False and normalise by "
            "hand."
        )
    # A table instead of arithmetic on every pixel: no float copies besides the result, and the same
    # value for the same pixel on every machine.
    levels = np.arange(white + 1, dtype=np.float64) / white
    out = np.empty(pixels.shape, np.float32)
    for channel in range(channels):
        k = channel % len(mean)
        table = ((levels - mean[k]) / std[k]).astype(np.float32)
        out[:, channel] = table[pixels[:, channel]]
    return out


def check_labels(labels: Array, path: object, classes: int) -> None:
    """Refuse a file with labels outside of 0..classes - 1."""
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"{path} has labels from {labels.min()} to {labels.max()}, where 0..{classes - 1} were "
            "expected. Put the official file there."
        )
