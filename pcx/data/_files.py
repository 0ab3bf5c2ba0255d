"""Finding and opening the files a user was asked to provide."""

from __future__ import annotations

import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_SUFFIXES: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}

PathLike = str | os.PathLike[str]


def read_file(path: Path) -> bytes:
    """The content of a file, with the compression undone that its suffix names.

    Raises:
        ValueError: the file is not compressed in that way, or not completely there.
    """
    content = path.read_bytes()
    try:
        return _SUFFIXES.get(path.suffix, bytes)(content)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(
            f"{path} cannot be decompressed as its suffix {path.suffix} says ({error}). The file "
            "is damaged or cut short, or is not compressed; copy it again, or remove the suffix."
        ) from error


def find_file(folder: Path, stem: str) -> Path | None:
    """`stem` as it is, or compressed with `.gz` or `.xz`, inside `folder`."""
    for suffix in _SUFFIXES:
        path = folder / (stem + suffix)
        if path.is_file():
            return path
    return None


def find_files(
    name: str, data_dir: PathLike, folders: Sequence[str], stems: Sequence[str]
) -> list[Path]:
    """All of `stems`, from the first of `folders` below `data_dir` that has any of them.

    `data_dir` itself counts when it is named like one of the folders: the files of the MNIST family
    all have the same names, so that nothing else tells a folder with the wrong ones.

    Raises:
        FileNotFoundError: with the files that are missing and where they may lie.
    """
    root = Path(data_dir).expanduser()
    places = [root / folder for folder in folders]
    if root.resolve().name in folders:
        places.append(root)
    partly: tuple[Path, list[str]] | None = None
    for place in places:
        found = {stem: find_file(place, stem) for stem in stems}
        paths = [path for path in found.values() if path is not None]
        if len(paths) == len(stems):
            return paths
        if paths and partly is None:
            partly = (place, [stem for stem, path in found.items() if path is None])
    endings = "each as it is, or compressed as .gz or .xz"
    if partly is not None:
        place, missing = partly
        raise FileNotFoundError(
            f"{name}: {place} lacks {', '.join(missing)} ({endings}). Put the missing files beside "
            "the others there; pcx.data downloads nothing."
        )
    state = "has none of its files" if root.is_dir() else "does not exist"
    raise FileNotFoundError(
        f"{name}: data_dir={os.fspath(data_dir)!r} {state}. Put {', '.join(stems)} ({endings}) "
        f"into {places[0]}, or pass as data_dir the folder that holds {folders[0]!r}; pcx.data "
        "downloads nothing."
    )
