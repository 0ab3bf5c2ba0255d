"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pcx.data._dataset import Array, Dataset, check_labels, scale_pixels
from pcx.data._files import PathLike, find_file, find_files, read_file

_CIFAR10_FOLDERS = ("cifar10", "cifar-10-batches-py", "cifar10/cifar-10-batches-py")
_CIFAR10_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def load_cifar10(data_dir: PathLike, *, normalize: bool | str = True) -> Dataset:
    """CIFAR-10, from the files of the official python version.

    `data_batch_1` … `data_batch_5` and `test_batch` (plain, `.gz` or `.xz`) are taken from
    `data_dir/cifar10`, from `data_dir/cifar-10-batches-py`, where the official archive unpacks
    them, or from `data_dir` itself if it has one of these names. The files are pickles; they are
    read by an unpickler that can build arrays and plain values and nothing else, so a file that
    means harm is refused.

    Args:
        data_dir: where the folder is.
        normalize: True for the set's own mean and deviation (see `NORMALIZATION`), False for pixels
            in 0..1, or another set's name for that one's.

    Returns:
        A `Dataset` with `shape == (3, 32, 32)`, channels red, green, blue.

    Raises:
        FileNotFoundError: files are missing; the message says which and where they may lie.
        ValueError: a file is not a batch of the python version.

    Example:
        >>> load_cifar10("~/data")  # doctest: +SKIP
        Dataset('cifar10', train=50000, test=10000, shape=(3, 32, 32), classes=10)

    References:
        Krizhevsky: Learning Multiple Layers of Features from Tiny Images (2009).
    """
    stems = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files = find_files("cifar10", data_dir, _CIFAR10_FOLDERS, stems)
    parts = [_read_cifar_batch(path) for path in files]
    return Dataset(
        name="cifar10",
        x_train=np.concatenate([scale_pixels(x, "cifar10", normalize) for x, _ in parts[:-1]]),
        y_train=np.concatenate([y for _, y in parts[:-1]]),
        x_test=scale_pixels(parts[-1][0], "cifar10", normalize),
        y_test=parts[-1][1],
        classes=10,
        shape=(3, 32, 32),
        class_names=_CIFAR10_NAMES,
    )


def _read_cifar_batch(path: Path) -> tuple[Array, Array]:
    def refuse(reason: str) -> NoReturn:
        raise ValueError(
            f"{path} is not a batch of CIFAR-10's python version: {reason}. Put the official file "
            "there (not the binary or the Matlab version)."
        )

    content = read_file(path)
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    # A damaged pickle can raise nearly anything.
    except Exception as error:
        raise ValueError(
            f"{path} is not a batch of CIFAR-10's python version: it could not be unpickled "
            f"({error}). Put the official file there (not the binary or the Matlab version)."
        ) from error
    if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
        keys = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        refuse(f"a dict with 'data' and 'labels' was expected, got {keys}")
    data, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
    if data.ndim != 2 or data.shape[1] != 3072 or data.dtype != np.uint8:
        refuse(f"'data' is {data.dtype} of shape {data.shape}, not uint8 of shape (n, 3072)")
    if labels.shape != data.shape[:1]:
        refuse(f"'labels' has shape {labels.shape}, 'data' {data.shape}")
    check_labels(labels, path, classes=10)
    return data.reshape(-1, 3, 32, 32), labels.astype(np.int32)


def _from_buffer(
    buffer: bytes | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any
) -> Array:
    """What arrays pickled with protocol 5 or later ask for, under a name private to NumPy."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain values, and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            # The function moved between NumPy 1 and 2; an array says itself where it is.
            return np.empty(0).__reduce__()[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _from_buffer
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        # Python 3 writes the bytes of an array through this one below protocol 3.
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data batch needs")


def load_cifar100(data_dir: PathLike, *, normalize: bool | str = True) -> Dataset:
    """The test images of CIFAR-100, from arrays; an out-of-distribution set for CIFAR-10.

    `test-images.npy` (plain, `.gz` or `.xz`; `(n, 32, 32, 3)`, uint8, RGB) and `test-labels.npy`
    (the fine labels, 0..99), and if it is there `fine_label_names.txt` (a name on each line), are
    taken from `data_dir/cifar100`, or from `data_dir` itself if that is its name. The training part
    is empty.

    Args:
        data_dir: where the folder is.
        normalize: True for the set's own mean and deviation (see `NORMALIZATION`), False for pixels
            in 0..1, or another set's name for that one's: `"cifar10"` for a network trained on
            that.

    Returns:
        A `Dataset` with `shape == (3, 32, 32)` and no training samples.

    Raises:
        FileNotFoundError: files are missing; the message says which and where they may lie.
        ValueError: an array has another shape or type than described.

    Example:
        >>> load_cifar100("~/data", normalize="cifar10")  # doctest: +SKIP
        Dataset('cifar100', train=0, test=10000, shape=(3, 32, 32), classes=100)
    """
    stems = ["test-images.npy", "test-labels.npy"]
    image_file, label_file = find_files("cifar100", data_dir, ("cifar100",), stems)
    images, labels = _read_npy(image_file), _read_npy(label_file)
    if images.ndim != 4 or images.shape[1:] != (32, 32, 3) or images.dtype != np.uint8:
        raise ValueError(
            f"{image_file} holds {images.dtype} of shape {images.shape}, where uint8 of shape "
            "(n, 32, 32, 3) was expected. Save the images channels last, unscaled."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{label_file} holds {labels.dtype} of shape {labels.shape}, where integers of shape "
            f"{images.shape[:1]} were expected, one label for each image."
        )
    check_labels(labels, label_file, classes=100)
    name_file = find_file(image_file.parent, "fine_label_names.txt")
    x_test = scale_pixels(images.transpose(0, 3, 1, 2), "cifar100", normalize)
    y_test = labels.astype(np.int32)
    return Dataset(
        name="cifar100",
        x_train=x_test[:0],
        y_train=y_test[:0],
        x_test=x_test,
        y_test=y_test,
        classes=100,
        shape=(3, 32, 32),
        class_names=tuple(name_file.read_text().split()) if name_file else (),
    )


def _read_npy(path: Path) -> Array:
    content = io.BytesIO(read_file(path))
    try:
        return np.load(content, allow_pickle=False)
    except ValueError as error:
        raise ValueError(
            f"{path} is not an array written by numpy.save ({error}). Put such a file there."
        ) from error
