"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import numpy as np

from pcx.data._dataset import Array, Dataset, check_labels, scale_pixels
from pcx.data._download import Download, found_or_downloaded
from pcx.data._files import File, PathLike, find_files, read_file
from pcx.data._table import DATASETS

Pair = tuple[Array, Array]

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


def load_cifar10(
    data_dir: PathLike, *, normalize: bool | str = True, download: Download = False
) -> Dataset:
    """CIFAR-10, from the official python or binary version.

    `data_batch_1` … `data_batch_5` and `test_batch` (plain, `.gz` or `.xz`; with `.bin` those of the
    binary version) are taken from `data_dir/cifar10`, from the folders into which the official
    archives unpack, or from inside `cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz`, which need
    not be unpacked. The python version is made of pickles; they are read by an unpickler that can
    build arrays and plain values and nothing else, so a file that means harm is refused.

    Args:
        data_dir: where the folder is.
        normalize: True for the set's own mean and deviation (see `NORMALIZATION`), False for pixels
            in 0..1, or another set's name for that one's.
        download: True to fetch the official archive (170 MB), or the address of a folder that holds
            it.

    Returns:
        A `Dataset` with `shape == (3, 32, 32)`, channels red, green, blue.

    Raises:
        FileNotFoundError: files are missing; the message says which and where they may lie.
        ValueError: a file is damaged, or is no batch of CIFAR-10.

    Example:
        >>> load_cifar10("~/data")  # doctest: +SKIP
        Dataset('cifar10', train=50000, test=10000, shape=(3, 32, 32), classes=10)

    References:
        Krizhevsky: Learning Multiple Layers of Features from Tiny Images (2009).
    """
    stems = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files = _find("cifar10", data_dir, download, [stems, [f"{stem}.bin" for stem in stems]])
    parts = [_read_batch(file, "CIFAR-10", "labels", ("labels",), (10,)) for file in files]
    return _dataset("cifar10", parts[:-1], parts[-1], normalize, _CIFAR10_NAMES)


def load_cifar100(
    data_dir: PathLike,
    *,
    labels: Literal["fine", "coarse"] = "fine",
    normalize: bool | str = True,
    download: Download = False,
) -> Dataset:
    """CIFAR-100, from the official python or binary version, or from arrays.

    `train` and `test` (plain, `.gz` or `.xz`; `train.bin` and `test.bin` of the binary version) are
    taken from `data_dir/cifar100`, from the folders into which the official archives unpack, or from
    inside `cifar-100-python.tar.gz` or `cifar-100-binary.tar.gz`, which need not be unpacked. The
    names of the classes are those of `meta`, or `fine_label_names.txt`, if it is there.

    Else `test-images.npy` (`(n, 32, 32, 3)`, uint8, RGB) and `test-labels.npy` (fine labels) are read
    from `data_dir/cifar100`, as an out-of-distribution set without a training part.

    Args:
        data_dir: where the folder is.
        labels: "fine" for the 100 classes, "coarse" for the 20 groups of five.
        normalize: True for the set's own mean and deviation (see `NORMALIZATION`), False for pixels
            in 0..1, or another set's name for that one's: `"cifar10"` for a network trained on
            that.
        download: True to fetch the official archive (169 MB), or the address of a folder that holds
            it.

    Returns:
        A `Dataset` with `shape == (3, 32, 32)`.

    Raises:
        FileNotFoundError: files are missing; the message says which and where they may lie.
        ValueError: a file is damaged or has another form than described, or arrays without coarse
            labels are asked for them.

    Example:
        >>> load_cifar100("~/data", normalize="cifar10")  # doctest: +SKIP
        Dataset('cifar100', train=50000, test=10000, shape=(3, 32, 32), classes=100)

    References:
        Krizhevsky: Learning Multiple Layers of Features from Tiny Images (2009).
    """
    if labels not in ("fine", "coarse"):
        raise ValueError(f'load_cifar100: labels={labels!r}; pass "fine" or "coarse".')
    arrays = ["test-images.npy", "test-labels.npy"]
    layouts = [["train", "test"], ["train.bin", "test.bin"], arrays]
    files = _find("cifar100", data_dir, download, layouts)
    if str(files[0]).endswith((".npy", ".npy.gz", ".npy.xz")):
        if labels == "coarse":
            raise ValueError(
                f"{files[1]} has the fine labels only. For labels='coarse' put an official archive "
                "into the folder."
            )
        test = _read_arrays(*files)
        names = _names(data_dir, "fine_label_names")
        return _dataset("cifar100", [(test[0][:0], test[1][:0])], test, normalize, names, 100)
    columns = ("coarse_labels", "fine_labels")
    train, test = (
        _read_batch(file, "CIFAR-100", f"{labels}_labels", columns, (20, 100)) for file in files
    )
    names = _names(data_dir, f"{labels}_label_names")
    classes = 100 if labels == "fine" else 20
    return _dataset("cifar100", [train], test, normalize, names, classes)


def _find(
    name: str, data_dir: PathLike, download: Download, layouts: Sequence[Sequence[str]]
) -> list[File]:
    """The files of the first layout that is there. Missing files are told of the first one, unless
    only another one is there in part."""
    source = DATASETS[name]

    def find() -> list[File]:
        errors: list[FileNotFoundError] = []
        for stems in layouts:
            try:
                return find_files(name, data_dir, source.folders, stems, source.archives)
            except FileNotFoundError as error:
                errors.append(error)
        raise next((error for error in errors if " lacks " in str(error)), errors[0])

    return found_or_downloaded(name, data_dir, download, find)


def _dataset(
    name: str,
    train: Sequence[Pair],
    test: Pair,
    normalize: bool | str,
    names: tuple[str, ...],
    classes: int = 10,
) -> Dataset:
    return Dataset(
        name=name,
        x_train=np.concatenate([scale_pixels(x, name, normalize) for x, _ in train]),
        y_train=np.concatenate([y for _, y in train]),
        x_test=scale_pixels(test[0], name, normalize),
        y_test=test[1],
        classes=classes,
        shape=(3, 32, 32),
        class_names=names,
    )


def _names(data_dir: PathLike, stem: str) -> tuple[str, ...]:
    """The names of the classes, from the file of either version, if there is one."""
    source = DATASETS["cifar100"]

    def look(file: str) -> bytes | None:
        try:
            found = find_files("cifar100", data_dir, source.folders, [file], source.archives)
        except FileNotFoundError:
            return None
        return read_file(found[0])

    listed = look(f"{stem}.txt")
    if listed is not None:
        return tuple(listed.decode().split())
    meta = look("meta")
    if meta is None:
        return ()
    try:
        return tuple(_ArrayUnpickler(io.BytesIO(meta), encoding="latin1").load()[stem])
    # a damaged pickle can raise nearly anything
    except Exception as error:
        raise ValueError(
            f"cifar100: the file meta is damaged ({error}). Put the official file there, or remove "
            "it: it holds the names of the classes only."
        ) from error


def _read_batch(
    file: File, title: str, key: str, columns: tuple[str, ...], classes: tuple[int, ...]
) -> Pair:
    """Images and labels of one file of the python or the binary version.

    Args:
        key: the label that is wanted.
        columns, classes: the labels that a row of the binary version begins with, and the number of
            classes of each.
    """
    content = read_file(file)
    if ".bin" in str(file).rpartition("/")[2]:
        data, labels = _binary(file, content, title, len(columns))
        labels = labels[columns.index(key)]
    else:
        data, labels = _pickled(file, content, title, key)
    check_labels(labels, file, classes[columns.index(key)])
    return data.reshape(-1, 3, 32, 32), labels.astype(np.int32)


def _binary(file: File, content: bytes, title: str, columns: int) -> Pair:
    row = columns + 3072
    if not content or len(content) % row:
        raise ValueError(
            f"{file} has {len(content)} bytes, where a multiple of {row} was expected: {title}'s "
            f"binary version has {columns} label byte{'s' * (columns > 1)} and 3072 pixels for each "
            "image. The file is damaged or cut short; copy it again."
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    return rows[:, columns:], rows[:, :columns].T


def _pickled(file: File, content: bytes, title: str, key: str) -> Pair:
    def refuse(reason: str, cause: Exception | None = None) -> NoReturn:
        raise ValueError(
            f"{file} is not a batch of {title}'s python version: {reason}. Put the official file "
            "there (not the Matlab version)."
        ) from cause

    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    # A damaged pickle can raise nearly anything.
    except Exception as error:
        refuse(f"it could not be unpickled ({error})", error)
    if not isinstance(batch, dict) or not {"data", key} <= batch.keys():
        keys = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        refuse(f"a dict with 'data' and {key!r} was expected, got {keys}")
    data, labels = np.asarray(batch["data"]), np.asarray(batch[key])
    if data.ndim != 2 or data.shape[1] != 3072 or data.dtype != np.uint8:
        refuse(f"'data' is {data.dtype} of shape {data.shape}, not uint8 of shape (n, 3072)")
    if labels.shape != data.shape[:1]:
        refuse(f"{key!r} has shape {labels.shape}, 'data' {data.shape}")
    return data, labels


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


def _read_arrays(image_file: File, label_file: File) -> Pair:
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
    return images.transpose(0, 3, 1, 2), labels.astype(np.int32)


def _read_npy(path: File) -> Array:
    content = io.BytesIO(read_file(path))
    try:
        return np.load(content, allow_pickle=False)
    except ValueError as error:
        raise ValueError(
            f"{path} is not an array written by numpy.save ({error}). Put such a file there."
        ) from error
