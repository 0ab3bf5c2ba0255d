"""Fetching official files, on request only, checked before they get their names."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from pcx.data._files import PathLike
from pcx.data._table import DATASETS

T = TypeVar("T")

Download = bool | str

OFFLINE = """{name}: {url} cannot be fetched ({reason}). If this machine is offline, put {files} into \
{folder} by hand, or pass `download="http://..."`, the address of a folder that holds them."""

CHANGED = """{name}: what {url} sent is not the official file: {size} bytes with MD5 {found}, where MD5 \
{expected} was expected. The transfer was cut short, or the server has another file. Nothing was kept; \
try again, or put the official file into {folder} by hand."""

NOT_OFFERED = """{name} cannot be downloaded: no server offers its official files without a form or a \
browser. Put them into {folder} by hand."""

SECONDS, CHUNK = 30.0, 1 << 20


def found_or_downloaded(
    name: str, data_dir: PathLike, download: Download, find: Callable[[], T]
) -> T:
    """What `find` finds; where it finds nothing and `download` allows it, after a download."""
    if download is False:
        return find()
    try:
        return find()
    except FileNotFoundError:
        fetch(name, data_dir, None if download is True else download)
        return find()


def fetch(name: str, data_dir: PathLike, mirror: str | None = None) -> list[Path]:
    """Download the official files of a data set into its folder below `data_dir`.

    A file is written beside its place, its MD5 is compared with the official one, and only then it
    gets its name. Files that are there already are not fetched again.

    Args:
        name: one of `DATASETS`.
        data_dir: where the set's folder is, or will be.
        mirror: another address of a folder with the files, instead of the official one.

    Returns:
        The paths of the files.

    Raises:
        ValueError: the set is not offered, or what came is not the official file.
        ConnectionError: the server cannot be reached.

    Example:
        >>> import pcx.data
        >>> pcx.data.fetch("celeba", "~/data")
        Traceback (most recent call last):
        ValueError: celeba cannot be downloaded: ...
    """
    if name not in DATASETS:
        raise ValueError(
            f"fetch: no data set is called {name!r}; there are {', '.join(map(repr, DATASETS))}."
        )
    source = DATASETS[name]
    folder = Path(data_dir).expanduser()
    if source.folders and folder.resolve().name not in source.folders:
        folder /= source.folders[0]
    if not source.files:
        raise ValueError(NOT_OFFERED.format(name=name, folder=folder))
    base = (mirror or source.url).rstrip("/") + "/"
    paths = []
    for file, md5 in source.files.items():
        paths.append(folder / file)
        if not paths[-1].is_file():
            _fetch_file(name, base + file, paths[-1], md5)
    return paths


def _fetch_file(name: str, url: str, path: Path, md5: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            digest, size = hashlib.md5(usedforsecurity=False), 0
            try:
                with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                    total = int(answer.headers.get("Content-Length") or 0) or None
                    with tqdm(
                        total=total, desc=path.name, unit="B", unit_scale=True, disable=None
                    ) as bar:
                        while chunk := answer.read(CHUNK):
                            file.write(chunk)
                            digest.update(chunk)
                            size += len(chunk)
                            bar.update(len(chunk))
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
                raise ConnectionError(
                    OFFLINE.format(
                        name=name,
                        url=url,
                        reason=getattr(error, "reason", error),
                        files=", ".join(DATASETS[name].files),
                        folder=path.parent,
                    )
                ) from error
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != md5:
            raise ValueError(
                CHANGED.format(
                    name=name,
                    url=url,
                    size=size,
                    found=digest.hexdigest(),
                    expected=md5,
                    folder=path.parent,
                )
            )
        # a temporary file is readable by its owner only
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(part, 0o666 & ~umask)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
