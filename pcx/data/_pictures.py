"""Sets of picture files: Tiny ImageNet and CelebA."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from pcx.data._dataset import Array, Dataset, scale_pixels
from pcx.data._download import Download, found_or_downloaded
from pcx.data._files import File, PathLike, find_archives, read_archive
from pcx.data._table import DATASETS

NO_PILLOW = """{function} decodes JPEG files with Pillow, which is not installed. Install the extra that \
has it: `pip install "pcx-networks[images]"`."""


def load_tiny_imagenet(
    data_dir: PathLike,
    *,
    images_per_class: int | None = None,
    normalize: bool | str = True,
    download: Download = False,
) -> Dataset:
    """Tiny ImageNet: 200 classes of 64×64 pictures, its validation part as the test set.

    `wnids.txt`, `train/` and `val/` are taken from `data_dir/tiny-imagenet`, from
    `data_dir/tiny-imagenet-200`, or from inside the official `tiny-imagenet-200.zip`, which need not
    be unpacked, or a `.tar` in the folder. Without a `train/` the training part is empty. Classes are
    numbered in the alphabetical order of their WordNet ids. Grey pictures get three equal channels.

    Args:
        data_dir: where the folder or archive is.
        images_per_class: read so many of each class at most, the first by name, or in the order of
            the annotations. The whole training set has 100,000 pictures and takes 4.9 GB.
        normalize: True for the set's own mean and deviation (see `NORMALIZATION`), False for pixels
            in 0..1, or another set's name for that one's.
        download: True to fetch the official archive (248 MB), or the address of a folder that holds
            it.

    Returns:
        A `Dataset` with `shape == (3, 64, 64)`; `class_names` are the WordNet ids.

    Raises:
        FileNotFoundError: there is no such folder, or a picture that an annotation names is missing.
        ValueError: a picture or list is damaged.
        ImportError: Pillow is not installed.

    Example:
        >>> load_tiny_imagenet("~/data")  # doctest: +SKIP
        Dataset('tiny-imagenet', train=100000, test=10000, shape=(3, 64, 64), classes=200)

    References:
        Le, Yang: Tiny ImageNet Visual Recognition Challenge (2015).
    """
    decode = _decoder("load_tiny_imagenet")

    def wanted(path: str) -> bool:
        parts = PurePosixPath(path).parts
        return path.endswith((".txt", ".JPEG")) and "test" not in parts

    files = found_or_downloaded(
        "tiny-imagenet",
        data_dir,
        download,
        lambda: _gather("tiny-imagenet", data_dir, "wnids.txt", wanted),
    )
    ids = tuple(sorted(_lines(files["wnids.txt"])))
    number = {wnid: index for index, wnid in enumerate(ids)}
    train: list[tuple[str, int]] = []
    for path in sorted(files):
        parts = PurePosixPath(path).parts
        if parts[0] == "train" and path.endswith(".JPEG"):
            train.append((path, _class_of(files[path], parts[1], number)))
    test: list[tuple[str, int]] = []
    annotations = files.get("val/val_annotations.txt")
    if annotations is None:
        raise FileNotFoundError(
            f"tiny-imagenet: val/val_annotations.txt is missing beside {files['wnids.txt']}. Put the "
            "whole official folder there."
        )
    for line in _lines(annotations):
        name, wnid, *_ = [*line.split("\t"), ""]
        test.append((f"val/images/{name}", _class_of(annotations, wnid, number)))

    def part(pictures: Sequence[tuple[str, int]]) -> tuple[Array, Array]:
        chosen, counts = [], [0] * len(ids)
        for path, label in pictures:
            counts[label] += 1
            if images_per_class is None or counts[label] <= images_per_class:
                chosen.append((path, label))
        missing = [path for path, _ in chosen if path not in files]
        if missing:
            raise FileNotFoundError(
                f"tiny-imagenet: {len(missing)} pictures that {annotations} names are missing, "
                f"{missing[0]} first. Put the whole official folder there."
            )
        pixels = np.empty((len(chosen), 3, 64, 64), np.uint8)
        for index, (path, _) in enumerate(chosen):
            pixels[index] = decode(files[path], 64, None)
        labels = np.asarray([label for _, label in chosen], np.int32)
        return scale_pixels(pixels, "tiny-imagenet", normalize), labels

    x_train, y_train = part(train)
    x_test, y_test = part(test)
    return Dataset(
        name="tiny-imagenet",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=len(ids),
        shape=(3, 64, 64),
        class_names=ids,
    )


def load_celeba(
    data_dir: PathLike,
    *,
    size: int = 64,
    crop: int = 178,
    images: int | None = None,
    attribute: str | None = None,
    normalize: bool | str = True,
) -> Dataset:
    """CelebA: faces, aligned and cropped by its authors to 178×218 pixels.

    `img_align_celeba/*.jpg` (or `img_align_celeba.zip`) are taken from `data_dir/celeba`;
    `list_attr_celeba.txt` beside them is needed for `attribute`. Pictures 1 to 162,770 are the
    training part, those from 182,638 on the test part, as its authors have it; the validation part
    between them is left out.

    Args:
        data_dir: where the folder is.
        size: height and width to resize to.
        crop: first cut a square of so many pixels out of the middle.
        images: read so many pictures of each part at most.
        attribute: the name of one of the 40 attributes, such as `"Smiling"`, for labels 0 and 1.
            None: every label is 0.
        normalize: True for mean and deviation 1/2 (the paper gives none), False for pixels in 0..1,
            or another set's name for that one's.

    Returns:
        A `Dataset` with `shape == (3, size, size)`.

    Raises:
        FileNotFoundError: there are no pictures, or no list of attributes where one is asked for.
        ValueError: a picture or the list is damaged; there is no such attribute; or `crop` is larger
            than a picture.
        ImportError: Pillow is not installed.

    Example:
        >>> load_celeba("~/data", attribute="Smiling")  # doctest: +SKIP
        Dataset('celeba', train=162770, test=19962, shape=(3, 64, 64), classes=2)

    References:
        Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild (2015).
    """
    decode = _decoder("load_celeba")
    first_of_test, last_of_train = 182_638, 162_770

    def wanted(path: str) -> bool:
        stem = PurePosixPath(path).stem
        part = stem.isdigit() and (int(stem) <= last_of_train or int(stem) >= first_of_test)
        return path.endswith("list_attr_celeba.txt") or (path.endswith(".jpg") and part)

    files = _gather("celeba", data_dir, "*.jpg", wanted)
    paths = sorted(path for path in files if path.endswith(".jpg"))
    train = [path for path in paths if int(PurePosixPath(path).stem) <= last_of_train][:images]
    test = [path for path in paths if int(PurePosixPath(path).stem) >= first_of_test][:images]
    values: Mapping[str, int] = {}
    if attribute is not None:
        values = _attribute(files.get("list_attr_celeba.txt"), attribute, data_dir)

    def part(chosen: Sequence[str]) -> tuple[Array, Array]:
        pixels = np.empty((len(chosen), 3, size, size), np.uint8)
        labels = np.zeros(len(chosen), np.int32)
        for index, path in enumerate(chosen):
            pixels[index] = decode(files[path], size, crop)
            if attribute is not None:
                name = PurePosixPath(path).name
                if name not in values:
                    raise ValueError(
                        f"{files['list_attr_celeba.txt']} has no line for {name}. Put the official "
                        "file there."
                    )
                labels[index] = values[name]
        return scale_pixels(pixels, "celeba", normalize), labels

    (x_train, y_train), (x_test, y_test) = part(train), part(test)
    return Dataset(
        name="celeba",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=1 if attribute is None else 2,
        shape=(3, size, size),
        class_names=() if attribute is None else (f"not {attribute}", attribute),
    )


def _attribute(file: File | None, attribute: str, data_dir: PathLike) -> dict[str, int]:
    if file is None:
        raise FileNotFoundError(
            f"celeba: attribute={attribute!r} needs list_attr_celeba.txt, which is not beside the "
            f"pictures below {data_dir}. Put it there, or leave out `attribute`."
        )
    # the number of pictures, the names of the attributes, then a line for each picture
    header, lines = "".join(_lines(file)[1:2]), _lines(file)[2:]
    names = header.split()
    if attribute not in names:
        raise ValueError(
            f"{file} has no attribute {attribute!r}; it has {', '.join(names) or 'none'}."
        )
    column, values = names.index(attribute) + 1, {}
    for number, line in enumerate(lines, start=3):
        cells = line.split()
        if len(cells) != len(names) + 1 or cells[column] not in ("1", "-1"):
            raise ValueError(
                f"{file}, line {number}: {line[:60]!r}, where a file name and {len(names)} values "
                "1 or -1 were expected. The file is damaged or cut short; copy it again."
            )
        values[cells[0]] = int(cells[column] == "1")
    return values


def _class_of(file: object, wnid: str, number: Mapping[str, int]) -> int:
    if wnid not in number:
        raise ValueError(
            f"{file}: {wnid!r} is none of the {len(number)} classes of wnids.txt. The file is damaged "
            "or cut short; copy it again."
        )
    return number[wnid]


def _lines(file: File) -> list[str]:
    return [line for line in file.read_bytes().decode().splitlines() if line.strip()]


def _gather(
    name: str, data_dir: PathLike, marker: str, wanted: Callable[[str], bool]
) -> dict[str, File]:
    """The files of a set by their path from the folder that holds `marker`.

    The first of the set's folders that has it, or else an archive.
    """
    root, source = Path(data_dir).expanduser(), DATASETS[name]
    places = [root / folder for folder in source.folders]
    if root.resolve().name in source.folders:
        places.append(root)
    for place in places:
        if next(place.glob(marker), None) or next(place.glob(f"*/{marker}"), None):
            found = {path.relative_to(place).as_posix(): path for path in place.rglob("*.*")}
            return _from_marker({p: f for p, f in found.items() if wanted(p)}, marker)
    for archive in find_archives(root, source.folders, source.archives):
        members = _from_marker(dict(read_archive(archive, wanted)), marker)
        beside = {p.name: p for p in archive.parent.glob("*.txt") if wanted(p.name)}
        if members:
            return {**beside, **members}
    raise FileNotFoundError(
        f"{name}: neither a folder with {marker} nor {' or '.join(source.archives)} is in "
        f"{places[0]}. Put the official files there, or pass as data_dir the folder that holds "
        f"{source.folders[0]!r}; pcx.data downloads only with `download=True`."
    )


def _from_marker(files: Mapping[str, File], marker: str) -> dict[str, File]:
    if "*" in marker:
        return {PurePosixPath(path).name: file for path, file in files.items()}
    at = next((path for path in files if PurePosixPath(path).name == marker), None)
    if at is None:
        return {}
    start = len(at) - len(marker)
    return {path[start:]: file for path, file in files.items() if path[:start] == at[:start]}


def _decoder(function: str) -> Callable[[File, int, int | None], Array]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(NO_PILLOW.format(function=function)) from error

    def decode(file: File, size: int, crop: int | None) -> Array:
        try:
            with Image.open(io.BytesIO(file.read_bytes())) as opened:
                picture = opened.convert("RGB")
        # a damaged picture can raise nearly anything
        except Exception as error:
            raise ValueError(
                f"{file} cannot be decoded as a picture ({error}). It is damaged or cut short; copy "
                "it again."
            ) from error
        width, height = picture.size
        if crop is None and (width, height) != (size, size):
            raise ValueError(
                f"{file} has {width}x{height} pixels, where {size}x{size} were expected. Put the "
                "official file there."
            )
        if crop is not None:
            if not 0 < crop <= min(width, height):
                raise ValueError(
                    f"{function}: crop={crop} cannot be cut out of {file}, which has {width}x{height} "
                    f"pixels; it must lie in 1..{min(width, height)}."
                )
            left, top = (width - crop) // 2, (height - crop) // 2
            box = (left, top, left + crop, top + crop)
            picture = picture.crop(box).resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(picture).transpose(2, 0, 1)

    return decode
