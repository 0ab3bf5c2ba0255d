"""SVHN: house numbers, in MATLAB files."""

from __future__ import annotations

import io

import numpy as np

from pcx.data._dataset import Array, Dataset, scale_pixels
from pcx.data._download import Download, found_or_downloaded
from pcx.data._files import File, PathLike, find_files, read_file
from pcx.data._table import DATASETS


def load_svhn(
    data_dir: PathLike, *, normalize: bool | str = True, download: Download = False
) -> Dataset:
    """Street View House Numbers, the cropped digits of format 2.

    `train_32x32.mat` and `test_32x32.mat` are taken from `data_dir/svhn`, or from `data_dir` itself
    if that is its name. The files call the digit 0 class 10; here it is class 0.

    Args:
        data_dir: where the folder is.
        normalize: True for mean and deviation 1/2 (the paper gives none), False for pixels in 0..1,
            or another set's name for that one's: `"cifar10"` for a network trained on that.
        download: True to fetch missing files (246 MB) from the official server, or the address of a
            folder that holds them.

    Returns:
        A `Dataset` with `shape == (3, 32, 32)`.

    Raises:
        FileNotFoundError: files are missing; the message says which and where they may lie.
        ValueError: a file is damaged, or is not one of SVHN's.
        ImportError: SciPy is not installed.

    Example:
        >>> load_svhn("~/data")  # doctest: +SKIP
        Dataset('svhn', train=73257, test=26032, shape=(3, 32, 32), classes=10)

    References:
        Netzer, Wang, Coates, Bissacco, Wu, Ng: Reading Digits in Natural Images with Unsupervised
        Feature Learning (2011).
    """
    folders, stems = DATASETS["svhn"].folders, ["train_32x32.mat", "test_32x32.mat"]
    files = found_or_downloaded(
        "svhn", data_dir, download, lambda: find_files("svhn", data_dir, folders, stems)
    )
    (x_train, y_train), (x_test, y_test) = (_read_mat(file) for file in files)
    return Dataset(
        name="svhn",
        x_train=scale_pixels(x_train, "svhn", normalize),
        y_train=y_train,
        x_test=scale_pixels(x_test, "svhn", normalize),
        y_test=y_test,
        classes=10,
        shape=(3, 32, 32),
        class_names=tuple("0123456789"),
    )


def _read_mat(file: File) -> tuple[Array, Array]:
    try:
        from scipy import io as scipy_io
    except ImportError as error:
        raise ImportError(
            "load_svhn reads MATLAB files with SciPy, which is not installed: `pip install scipy`."
        ) from error
    try:
        content = scipy_io.loadmat(io.BytesIO(read_file(file)))
    # a damaged file can raise nearly anything
    except Exception as error:
        raise ValueError(
            f"{file} cannot be read as a MATLAB file ({error}). It is damaged, cut short, or not an "
            "official file; copy it again."
        ) from error
    if not {"X", "y"} <= content.keys():
        names = ", ".join(sorted(name for name in content if name[0] != "_")) or "nothing"
        raise ValueError(
            f"{file} holds {names}, where the arrays X and y were expected. Put the official file of "
            "format 2 (cropped digits) there."
        )
    images, labels = content["X"], content["y"].reshape(-1)
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8:
        raise ValueError(
            f"{file}: X is {images.dtype} of shape {images.shape}, where uint8 of shape "
            "(32, 32, 3, n) was expected. Put the official file there."
        )
    if len(labels) != images.shape[3]:
        raise ValueError(
            f"{file} has {images.shape[3]} images and {len(labels)} labels. Put the official file "
            "there."
        )
    if labels.size and (labels.min() < 1 or labels.max() > 10):
        raise ValueError(
            f"{file} has labels from {labels.min()} to {labels.max()}, where 1..10 were expected. "
            "Put the official file there."
        )
    return images.transpose(3, 2, 0, 1), (labels % 10).astype(np.int32)
