"""Arrays in `.npz` files: without pickle, written at once or not at all."""

import os
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

# the entry by which a file tells what it is: weights of `save_params`, or a checkpoint of the trainer
WEIGHTS_MANIFEST, CHECKPOINT_MANIFEST = "__pcx__", "__pcx_checkpoint__"


def with_suffix(path: str | os.PathLike[str]) -> Path:
    """The path with `.npz` at its end."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file beside `path`, then give it that name; a crash leaves the old file as it was."""
    # beside it, since a rename is atomic only within a file system
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            # else the name could reach the disk before the content
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], compress: bool = False) -> None:
    """Write an `.npz` file of these arrays, as `np.savez` does, whatever their names."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED

    def write(file: BinaryIO) -> None:
        # `np.savez` takes names as keyword arguments, among which it has some of its own
        with zipfile.ZipFile(file, "w", kind) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)

    write_atomically(path, write)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, or damaged; the message is the reason.
    """
    # opened here, because `np.load` leaves a file that it cannot read open
    with open(path, "rb") as handle:
        try:
            file = np.load(handle, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("it is a single array")
            _check_size(file.zip, os.fstat(handle.fileno()).st_size)
            return {name: file[name] for name in file.files}
        # a damaged file makes the readers of zip and of arrays fail in any way at all
        except Exception as error:
            raise ValueError(str(error) or type(error).__name__) from error


def _check_size(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse a file that unpacks to far more than pcx ever packs into its size."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > max(2**30, 100 * size):
        raise ValueError(f"its {size:,} bytes unpack to {unpacked:,}, which pcx never writes")


def encode(leaf: Any) -> tuple[np.ndarray, str]:
    """An array as NumPy can write it, and what it was; the latter is empty if they are the same."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf)), f"key:{jax.random.key_impl(leaf)}"
    array = np.asarray(leaf)
    if array.dtype.kind not in "biufc":
        # bfloat16 and its like, which NumPy cannot name in a file
        return array.view(f"u{array.dtype.itemsize}"), str(array.dtype)
    return array, ""


def decode(array: np.ndarray, kind: str) -> Any:
    """The inverse of `encode`: a NumPy array, or a JAX array of keys."""
    if kind.startswith("key:"):
        return jax.random.wrap_key_data(jax.device_put(array), impl=kind.removeprefix("key:"))
    return array.view(jnp.dtype(kind)) if kind else array
