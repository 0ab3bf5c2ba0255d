"""`read_idx` against files packed by hand, byte by byte, from the published format."""

import gzip
import lzma
import struct

import numpy as np
import pytest

from pcx.data import read_idx


def idx(code, shape, payload):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + payload


IMAGES = idx(0x08, (2, 2, 3), bytes(range(12)))


@pytest.mark.parametrize(
    ("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_images_are_read_plain_and_compressed(tmp_path, suffix, compress):
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(compress(IMAGES))

    images = read_idx(path)

    assert images.dtype == np.uint8
    assert images.tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]


def test_the_path_may_be_a_string(tmp_path):
    (tmp_path / "a").write_bytes(IMAGES)
    assert read_idx(str(tmp_path / "a")).shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("code", "letter", "dtype", "values"),
    [
        (0x08, "B", np.uint8, [0, 255]),
        (0x09, "b", np.int8, [-128, 127]),
        (0x0B, "h", np.int16, [-300, 300]),
        (0x0C, "i", np.int32, [-70000, 70000]),
        (0x0D, "f", np.float32, [0.5, -1024.25]),
        (0x0E, "d", np.float64, [0.1, -1e300]),
    ],
)
def test_every_type_code_is_big_endian_in_the_file_and_native_in_memory(
    tmp_path, code, letter, dtype, values
):
    (tmp_path / "a").write_bytes(idx(code, (2,), struct.pack(f">2{letter}", *values)))

    array = read_idx(tmp_path / "a")

    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.tolist() == values


def test_the_array_can_be_written_to(tmp_path):
    (tmp_path / "a").write_bytes(IMAGES)
    images = read_idx(tmp_path / "a")
    images[0] = 0
    assert images[0].sum() == 0


@pytest.mark.parametrize(
    "content",
    [b"<!doctype html>", b"", b"\0\0\x08", b"\0\0\x07\x01\0\0\0\0", gzip.compress(IMAGES, mtime=0)],
    ids=["web page", "empty", "too short", "unknown type", "gzip without its suffix"],
)
def test_a_file_that_is_not_idx_is_refused_with_its_first_bytes(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    shown = content[:4].hex(" ") or "nothing"
    with pytest.raises(ValueError, match=f"a is not an IDX file: it begins with {shown}, where"):
        read_idx(tmp_path / "a")


def test_a_file_cut_inside_its_header_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(IMAGES[:10])
    with pytest.raises(
        ValueError, match=r"ends inside its header: 10 bytes, .* 3 dimensions need 16"
    ):
        read_idx(tmp_path / "a")


@pytest.mark.parametrize(("content", "size"), [(IMAGES[:-1], 11), (IMAGES + b"\0", 13)])
def test_a_file_of_another_length_than_its_header_says_is_refused(tmp_path, content, size):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{size} bytes of data, .* shape \(2, 2, 3\) of 1-byte values, 12 bytes"
    ):
        read_idx(tmp_path / "a")


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".gz", gzip.compress(IMAGES, mtime=0)[:-9]),
        (".gz", gzip.compress(IMAGES, mtime=0)[:12] + b"\xff" * 12),
        (".gz", IMAGES),
        (".xz", lzma.compress(IMAGES)[:-9]),
        (".xz", IMAGES),
    ],
)
def test_a_file_that_its_suffix_misdescribes_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=f"a{suffix} cannot be decompressed as its suffix {suffix}"
    ):
        read_idx(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")
