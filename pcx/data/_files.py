"""Finding and opening the files a user was asked to provide."""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

_SUFFIXES: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}

PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Member:
    """A file inside an archive, with as much of `Path` as the readers use."""

    archive: Path
    name: str
    content: bytes = dataclasses.field(repr=False)

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def read_bytes(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"


File = Path | Member


def read_archive(path: Path, wanted: Callable[[str], bool]) -> dict[str, Member]:
    """The files of a `.zip`, `.tar` or compressed tar whose names are wanted; nothing is unpacked.

    Raises:
        ValueError: the archive is damaged or cut short.
    """
    members = {}
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if not info.is_dir() and wanted(info.filename):
                        members[info.filename] = Member(path, info.filename, archive.read(info))
        else:
            # as a stream: going back in a compressed file means to read it again from its start
            with tarfile.open(path, "r|*") as stream:
                for entry in stream:
                    if entry.isfile() and wanted(entry.name):
                        file = stream.extractfile(entry)
                        assert file is not None
                        members[entry.name] = Member(path, entry.name, file.read())
    except (
        EOFError,
        OSError,
        NotImplementedError,
        zlib.error,
        lzma.LZMAError,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{path} cannot be read as an archive ({error}), {path.stat().st_size} bytes. The file "
            "is damaged or cut short; copy it again."
        ) from error
    return members


def read_file(path: File) -> bytes:
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
    name: str,
    data_dir: PathLike,
    folders: Sequence[str],
    stems: Sequence[str],
    archives: Sequence[str] = (),
) -> list[File]:
    """All of `stems`, from the first of `folders` below `data_dir` that has any of them.

    Without such a folder they may be inside one of `archives`, in these folders or in `data_dir`.
    `data_dir` itself counts when it is named like one of the folders: the files of the MNIST family
    all have the same names, so that nothing else tells a folder with the wrong ones.

    Raises:
        FileNotFoundError: with the files that are missing and where they may lie.
        ValueError: an archive is damaged.
    """
    root = Path(data_dir).expanduser()
    places = [root / folder for folder in folders]
    if root.resolve().name in folders:
        places.append(root)
    partly: tuple[str, list[str]] | None = None
    for place in places:
        found = {stem: find_file(place, stem) for stem in stems}
        paths: list[File] = [path for path in found.values() if path is not None]
        if len(paths) == len(stems):
            return paths
        if paths and partly is None:
            partly = (str(place), [stem for stem, path in found.items() if path is None])
    for archive in find_archives(root, folders, archives):
        inside = _find_inside(archive, stems)
        if len(inside) == len(stems):
            return list(inside.values())
        if inside and partly is None:
            partly = (str(archive), [stem for stem in stems if stem not in inside])
    endings = "each as it is, or compressed as .gz or .xz"
    ending = "pcx.data downloads only with `download=True`."
    if partly is not None:
        where, missing = partly
        raise FileNotFoundError(
            f"{name}: {where} lacks {', '.join(missing)} ({endings}). Put the missing files beside "
            f"the others there; {ending}"
        )
    state = "has none of its files" if root.is_dir() else "does not exist"
    packed = f", or {' or '.join(archives)} as it is," if archives else ""
    raise FileNotFoundError(
        f"{name}: data_dir={os.fspath(data_dir)!r} {state}. Put {', '.join(stems)} ({endings})"
        f"{packed} into {places[0]}, or pass as data_dir the folder that holds {folders[0]!r}; "
        f"{ending}"
    )


def find_archives(root: Path, folders: Sequence[str], archives: Sequence[str]) -> list[Path]:
    """Those of `archives` that are in one of the folders or in `root`; `*.tar` is any in a folder."""
    paths = []
    for archive in archives:
        places = [root / folder for folder in folders]
        if "*" not in archive or root.resolve().name in folders:
            places.append(root)
        paths += [path for place in places for path in sorted(place.glob(archive))]
    return paths


def _find_inside(archive: Path, stems: Sequence[str]) -> dict[str, File]:
    def stem_of(name: str) -> str:
        base = PurePosixPath(name).name
        return next((base[: -len(s)] for s in _SUFFIXES if s and base.endswith(s)), base)

    members = read_archive(archive, lambda name: stem_of(name) in stems)
    by_stem = {stem_of(name): member for name, member in members.items()}
    return {stem: by_stem[stem] for stem in stems if stem in by_stem}
