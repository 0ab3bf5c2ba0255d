"""The digits of scikit-learn, and the data sets of the MNIST family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pcx.data._dataset import Array, Dataset, scale_pixels
from pcx.data._download import Download, found_or_downloaded
from pcx.data._files import File, PathLike, find_file, find_files
from pcx.data._idx import read_idx
from pcx.data._table import DATASETS

_DIGIT_NAMES = tuple("0123456789")

_CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    "mnist": _DIGIT_NAMES,
    "fashion-mnist": (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "kmnist": tuple("おきすつなはまやれを"),
    "notmnist": tuple("ABCDEFGHIJ"),
}
# Sets used only as out-of-distribution data: their training files may be absent.
_TEST_ONLY = {"kmnist", "notmnist"}


def load_digits(*, test_samples: int = 360, normalize: bool | str = True, seed: int = 0) -> Dataset:
    """The 8×8 digits that come with scikit-learn: 1797 images, for examples that need no files.

    Args:
        test_samples: how many of the images, drawn at random, become the test set.
        normalize: True for `(x − 0.5) / 0.5`, False for pixels in 0..1, or the name of the data set
            whose values in `NORMALIZATION` to use.
        seed: of that draw.

    Returns:
        A `Dataset` with `shape == (1, 8, 8)`.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: `test_samples` does not leave at least one image on each side.

    Example:
        >>> load_digits()
        Dataset('digits', train=1437, test=360, shape=(1, 8, 8), classes=10)
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "load_digits reads the digits that come with scikit-learn, which is not installed. "
            "Install "
            'the extra that has it: `pip install "pcx-networks[examples]"`.'
        ) from error
    bunch = datasets.load_digits()
    pixels = np.asarray(bunch.images).astype(np.uint8)[:, None]
    labels = np.asarray(bunch.target).astype(np.int32)
    if not 0 < test_samples < len(pixels):
        raise ValueError(
            f"load_digits: test_samples={test_samples}; there are {len(pixels)} images, so it must "
            f"lie in 1..{len(pixels) - 1}."
        )
    order = np.random.default_rng(seed).permutation(len(pixels))
    test, train = order[:test_samples], order[test_samples:]
    images = scale_pixels(pixels, "digits", normalize, white=16)
    return Dataset(
        name="digits",
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
        classes=10,
        shape=(1, 8, 8),
        class_names=_DIGIT_NAMES,
    )


def load_idx(
    name: str, data_dir: PathLike, *, normalize: bool | str = True, download: Download = False
) -> Dataset:
    """A data set of the MNIST family, from its four official IDX files.

    The files `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte` (plain, `.gz` or `.xz`) are taken from `data_dir/<name>`, from
    torchvision's folder below `data_dir`, or from `data_dir` itself if that is its name. Of
    `kmnist` and `notmnist`, which serve as out-of-distribution data, the training files may be
    absent.

    Args:
        name: `"mnist"`, `"fashion-mnist"`, `"kmnist"` or `"notmnist"`.
        data_dir: where the folders are.
        normalize: True for the set's own mean and deviation (see `NORMALIZATION`), False for pixels
            in 0..1, or another set's name for that one's.
        download: True to fetch missing files from the official server, or the address of a folder
            that holds them. Each is checked by its MD5.

    Returns:
        A `Dataset` with `shape == (1, 28, 28)` for the official files.

    Raises:
        FileNotFoundError: files are missing; the message says which and where they may lie.
        ValueError: `name` is unknown, a file is damaged, or images and labels do not fit together.

    Example:
        Write a set of two blank images, then read it:

        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp(), "mnist")
        >>> folder.mkdir()
        >>> for part in ("train", "t10k"):
        ...     header = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28])
        ...     _ = (folder / f"{part}-images-idx3-ubyte").write_bytes(header + bytes(2 * 28 * 28))
        ...     labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 1])
        ...     _ = (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        >>> load_idx("mnist", folder)
        Dataset('mnist', train=2, test=2, shape=(1, 28, 28), classes=10)
    """
    if name not in _CLASS_NAMES:
        raise ValueError(
            f"load_idx: no data set is called {name!r}; there are "
            f"{', '.join(map(repr, _CLASS_NAMES))}. For a single IDX file of another set use "
            "`read_idx(path)`."
        )
    class_names = _CLASS_NAMES[name]
    *train_files, test_images, test_labels = found_or_downloaded(
        name, data_dir, download, lambda: _find_idx(name, data_dir)
    )
    x_test, y_test = read_idx_pair(test_images, test_labels, classes=len(class_names))
    x_train, y_train = x_test[:0], y_test[:0]
    if train_files:
        x_train, y_train = read_idx_pair(*train_files, classes=len(class_names))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"{train_files[0]} has images of shape {x_train.shape[2:]} and {test_images} of "
            f"shape {x_test.shape[2:]}: they belong to different data sets. Put the files of "
            "one set there."
        )
    return Dataset(
        name=name,
        x_train=scale_pixels(x_train, name, normalize),
        y_train=y_train,
        x_test=scale_pixels(x_test, name, normalize),
        y_test=y_test,
        classes=len(class_names),
        shape=x_test.shape[1:],
        class_names=class_names,
    )


def _find_idx(name: str, data_dir: PathLike) -> list[File]:
    folders = DATASETS[name].folders
    test = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    train = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
    if name in _TEST_ONLY:
        found = find_files(name, data_dir, folders, test)
        folder = Path(str(found[0])).parent
        if not any(find_file(folder, stem) for stem in train):
            return found
    return find_files(name, data_dir, folders, train + test)


def read_idx_pair(
    image_file: File, label_file: File, *, classes: int, first: int = 0
) -> tuple[Array, Array]:
    """Images `(n, 1, height, width)` and class numbers from 0; the file counts from `first`."""
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"{image_file} holds {images.dtype} of shape {images.shape}, where uint8 images "
            "(n, height, width) were expected. Put the official file there."
        )
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise ValueError(
            f"{label_file} holds {labels.dtype} of shape {labels.shape}, where uint8 labels (n,) "
            "were expected. Put the official file there."
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{image_file} has {len(images)} images, but {label_file} has {len(labels)} labels: "
            "they belong to different parts or sets. Put the two official files of one part there."
        )
    classed = labels.astype(np.int32) - first
    if labels.size and (classed.min() < 0 or classed.max() >= classes):
        raise ValueError(
            f"{label_file} has labels from {labels.min()} to {labels.max()}, where "
            f"{first}..{classes - 1 + first} were expected. Put the official file there."
        )
    return images[:, None], classed
