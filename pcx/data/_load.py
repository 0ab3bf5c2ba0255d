"""A data set by its name."""

from __future__ import annotations

from typing import Any

from pcx.data._cifar import load_cifar10, load_cifar100
from pcx.data._dataset import Dataset
from pcx.data._datasets import load_digits, load_idx
from pcx.data._download import Download, found_or_downloaded
from pcx.data._emnist import load_emnist
from pcx.data._files import PathLike
from pcx.data._pictures import load_celeba, load_tiny_imagenet
from pcx.data._svhn import load_svhn
from pcx.data._table import DATASETS


def load(
    name: str,
    data_dir: PathLike = ".",
    *,
    normalize: bool | str = True,
    download: Download = False,
    **options: Any,
) -> Dataset:
    """A data set by its name in `DATASETS`.

    Args:
        name: such as `"mnist"`, `"emnist-letters"` or `"cifar100"`.
        data_dir: where the set's folder is.
        normalize: True for the set's own mean and deviation, False for pixels in 0..1, or another
            set's name for that one's.
        download: True to fetch missing files from the official server, or the address of a folder
            that holds them.
        options: what else the set's reader takes, such as `labels="coarse"` for `load_cifar100`.

    Returns:
        What the reader returns: a `Dataset`.

    Raises:
        ValueError: there is no set of that name, a file is damaged, or a download is asked for where
            none is offered.
        FileNotFoundError: files are missing.

    Example:
        >>> load("digits")
        Dataset('digits', train=1437, test=360, shape=(1, 8, 8), classes=10)
    """
    if name not in DATASETS:
        raise ValueError(
            f"load: no data set is called {name!r}; there are {', '.join(map(repr, DATASETS))}."
        )
    if name == "digits":
        return load_digits(normalize=normalize, **options)
    if name == "celeba":
        read = lambda: load_celeba(data_dir, normalize=normalize, **options)
        return found_or_downloaded(name, data_dir, download, read)
    options |= {"normalize": normalize, "download": download}
    if name.startswith("emnist-"):
        return load_emnist(data_dir, name.removeprefix("emnist-"), **options)
    readers: dict[str, Any] = {
        "cifar10": load_cifar10,
        "cifar100": load_cifar100,
        "svhn": load_svhn,
        "tiny-imagenet": load_tiny_imagenet,
    }
    if name in readers:
        return readers[name](data_dir, **options)
    return load_idx(name, data_dir, **options)
