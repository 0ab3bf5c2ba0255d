"""EMNIST: handwritten letters and digits."""

from __future__ import annotations

import string
from collections.abc import Mapping

from pcx.data._dataset import Array, Dataset, scale_pixels
from pcx.data._datasets import read_idx_pair
from pcx.data._download import Download, found_or_downloaded
from pcx.data._files import File, PathLike, find_files
from pcx.data._table import DATASETS

# letters whose small form looks like the large one have one class in the merged splits
_MERGED = tuple(string.digits + string.ascii_uppercase + "abdefghnqrt")
_CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    "byclass": tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase),
    "bymerge": _MERGED,
    "balanced": _MERGED,
    "letters": tuple(string.ascii_uppercase),
    "digits": tuple(string.digits),
    "mnist": tuple(string.digits),
}


def load_emnist(
    data_dir: PathLike,
    split: str = "balanced",
    *,
    normalize: bool | str = True,
    download: Download = False,
) -> Dataset:
    """One of the six splits of EMNIST.

    `emnist-<split>-train-images-idx3-ubyte` and its three companions (plain, `.gz` or `.xz`) are
    taken from `data_dir/emnist`, from torchvision's folder, or from inside the official `gzip.zip`,
    which need not be unpacked. The official files hold each image transposed; here it is upright,
    as in MNIST. The labels of "letters" count from 0, in the file from 1.

    Args:
        data_dir: where the folder is.
        split: "byclass" (62 classes), "bymerge", "balanced" (47), "letters" (26), "digits" or
            "mnist" (10).
        normalize: True for mean and deviation 1/2, as for MNIST, False for pixels in 0..1, or
            another set's name for that one's.
        download: True to fetch the official archive (562 MB), or the address of a folder that holds
            it.

    Returns:
        A `Dataset` named `"emnist-<split>"` with `shape == (1, 28, 28)`.

    Raises:
        FileNotFoundError: files are missing; the message says which and where they may lie.
        ValueError: an unknown split, or a damaged file.

    Example:
        >>> load_emnist("~/data", "letters")  # doctest: +SKIP
        Dataset('emnist-letters', train=124800, test=20800, shape=(1, 28, 28), classes=26)

    References:
        Cohen, Afshar, Tapson, van Schaik: EMNIST: an extension of MNIST to handwritten letters
        (2017).
    """
    if split not in _CLASS_NAMES:
        raise ValueError(
            f"load_emnist: there is no split {split!r}; there are "
            f"{', '.join(map(repr, _CLASS_NAMES))}."
        )
    name, names = f"emnist-{split}", _CLASS_NAMES[split]
    stems = [
        f"emnist-{split}-{part}-{kind}-ubyte"
        for part in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    ]
    source = DATASETS[name]
    files = found_or_downloaded(
        name,
        data_dir,
        download,
        lambda: find_files(name, data_dir, source.folders, stems, source.archives),
    )

    def read(images: File, labels: File) -> tuple[Array, Array]:
        first = 1 if split == "letters" else 0
        x, y = read_idx_pair(images, labels, classes=len(names), first=first)
        return scale_pixels(x.swapaxes(2, 3), name, normalize), y

    x_train, y_train = read(*files[:2])
    x_test, y_test = read(*files[2:])
    return Dataset(
        name=name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=len(names),
        shape=x_test.shape[1:],
        class_names=names,
    )
