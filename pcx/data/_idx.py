"""The IDX format, in which MNIST and its relatives are published."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pcx.data._dataset import Array
from pcx.data._files import File, Member, PathLike, read_file

# The third byte of the file; multi-byte values are stored most significant byte first.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: PathLike | Member) -> Array:
    """Read one IDX file, plain or compressed (`.gz`, `.xz`).

    The file is two zero bytes, a type code, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the values in row-major order.

    Args:
        path: the file.

    Returns:
        The array, in the machine's byte order; uint8 for images and labels of the MNIST family.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the header is not IDX, the file is shorter or longer than its header says, or it
            cannot be decompressed.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "labels-idx1-ubyte")
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_idx(path)
        array([7, 2, 1], dtype=uint8)

    References:
        LeCun, Cortes, Burges: The MNIST database of handwritten digits (1998), section
        "File formats".
    """
    file: File = path if isinstance(path, Member) else Path(path).expanduser()
    content = read_file(file)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise ValueError(
            f"{file} is not an IDX file: it begins with {content[:4].hex(' ') or 'nothing'}, where "
            f"two zero bytes, a type code ({', '.join(f'{code:02x}' for code in _TYPES)}) and the "
            "number of dimensions were expected. Is it still compressed under another suffix, or "
            "an error page saved under this name? Put the official file there."
        )
    rank, start = content[3], 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(
            f"{file} ends inside its header: {len(content)} bytes, where {rank} dimensions need "
            f"{start}. The file is cut short; copy it again."
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    dtype = np.dtype(_TYPES[content[2]])
    expected = math.prod(shape) * dtype.itemsize
    if len(content) - start != expected:
        raise ValueError(
            f"{file} has {len(content) - start} bytes of data, but its header says shape {shape} "
            f"of {dtype.itemsize}-byte values, {expected} bytes. The file is damaged; copy it "
            "again."
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    # A copy: the buffer of a bytes object is read-only.
    return values.astype(dtype.newbyteorder("="))
