"""Readers of official archives and picture folders, on small files written here without their help."""

import gzip
import io
import pickle
import struct
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io

import pcx.data
from pcx.data import (
    load,
    load_celeba,
    load_cifar10,
    load_cifar100,
    load_emnist,
    load_svhn,
    load_tiny_imagenet,
)


def rows(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3072)).astype(np.uint8)


def tar_gz(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def zipped(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def unpacked(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# --- CIFAR --------------------------------------------------------------------------------------


def cifar100_python():
    def batch(n, seed):
        return pickle.dumps(
            {
                "data": rows(n, seed),
                "fine_labels": [99 - i for i in range(n)],
                "coarse_labels": list(range(n)),
            },
            protocol=2,
        )

    names = {"fine_label_names": [f"f{i}" for i in range(100)], "coarse_label_names": ["c0", "c1"]}
    return {
        "cifar-100-python/meta": pickle.dumps(names, protocol=2),
        "cifar-100-python/test": batch(2, 1),
        "cifar-100-python/train": batch(3, 0),
    }


def cifar100_binary():
    def batch(n, seed):
        labels = np.array([[i, 99 - i] for i in range(n)], np.uint8)
        return np.concatenate([labels, rows(n, seed)], axis=1).tobytes()

    return {
        "cifar-100-binary/train.bin": batch(3, 0),
        "cifar-100-binary/test.bin": batch(2, 1),
        "cifar-100-binary/fine_label_names.txt": b"f0\nf1\n",
        "cifar-100-binary/coarse_label_names.txt": b"c0\nc1\n",
    }


LAYOUTS = {
    "python archive": lambda p: tar_gz(p / "cifar-100-python.tar.gz", cifar100_python()),
    "python archive in the folder": lambda p: tar_gz(
        p / "cifar100/cifar-100-python.tar.gz", cifar100_python()
    ),
    "python folder": lambda p: unpacked(p, cifar100_python()),
    "binary archive": lambda p: tar_gz(p / "cifar-100-binary.tar.gz", cifar100_binary()),
    "binary folder": lambda p: unpacked(p / "cifar100", cifar100_binary()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("labels", "train", "classes", "name"),
    [("fine", [99, 98, 97], 100, "f1"), ("coarse", [0, 1, 2], 20, "c1")],
)
def test_cifar100_in_every_official_form(tmp_path, layout, labels, train, classes, name):
    LAYOUTS[layout](tmp_path)
    data = load_cifar100(tmp_path, labels=labels, normalize=False)
    assert repr(data) == (
        f"Dataset('cifar100', train=3, test=2, shape=(3, 32, 32), classes={classes})"
    )
    assert data.y_train.tolist() == train
    assert data.y_test.tolist() == train[:2]
    assert data.class_names[1] == name
    np.testing.assert_allclose(data.x_train.reshape(3, 3072) * 255, rows(3, 0), atol=1e-3)
    np.testing.assert_allclose(data.x_test.reshape(2, 3072) * 255, rows(2, 1), atol=1e-3)


@pytest.mark.parametrize("kind", ["fine", "coarse"])
def test_a_label_of_cifar100_beyond_the_last_class_is_refused(tmp_path, kind):
    files = cifar100_binary()
    images = np.frombuffer(files["cifar-100-binary/test.bin"], np.uint8).reshape(2, 3074).copy()
    column, last = (0, 19) if kind == "coarse" else (1, 99)
    images[0, column] = last
    files["cifar-100-binary/test.bin"] = images.tobytes()
    unpacked(tmp_path, files)
    assert load_cifar100(tmp_path, labels=kind).y_test[0] == last
    images[0, column] = last + 1
    files["cifar-100-binary/test.bin"] = images.tobytes()
    unpacked(tmp_path, files)
    with pytest.raises(ValueError, match=r"test\.bin.*"):
        load_cifar100(tmp_path, labels=kind)


@pytest.mark.wrong_types
def test_cifar100_has_two_kinds_of_labels(tmp_path):
    with pytest.raises(ValueError, match='labels=\'rough\'; pass "fine" or "coarse"'):
        load_cifar100(tmp_path, labels="rough")


def test_arrays_have_no_coarse_labels(tmp_path):
    (tmp_path / "cifar100").mkdir()
    np.save(tmp_path / "cifar100/test-images.npy", np.zeros((1, 32, 32, 3), np.uint8))
    np.save(tmp_path / "cifar100/test-labels.npy", np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match=r"test-labels.npy has the fine labels only"):
        load_cifar100(tmp_path, labels="coarse")


CIFAR10 = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def cifar10_binary():
    return {
        f"cifar-10-batches-bin/{name}.bin": b"".join(
            bytes([label]) + row.tobytes() for label, row in zip([i, 9], rows(2, i), strict=True)
        )
        for i, name in enumerate(CIFAR10)
    }


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10s_binary_version_and_archive(tmp_path, packed):
    files = cifar10_binary()
    if packed:
        tar_gz(tmp_path / "cifar10/cifar-10-binary.tar.gz", files)
    else:
        unpacked(tmp_path, files)
    data = load_cifar10(tmp_path, normalize=False)
    assert data.y_train.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert data.y_test.tolist() == [5, 9]
    np.testing.assert_allclose(data.x_test.reshape(2, 3072) * 255, rows(2, 5), atol=1e-3)


def test_cifar10s_python_archive(tmp_path):
    files = {
        f"cifar-10-batches-py/{name}": pickle.dumps({"data": rows(1, i), "labels": [i]})
        for i, name in enumerate(CIFAR10)
    }
    tar_gz(tmp_path / "cifar-10-python.tar.gz", files)
    assert load_cifar10(tmp_path).y_train.tolist() == [0, 1, 2, 3, 4]


def test_an_archive_that_lacks_a_file_names_it(tmp_path):
    files = cifar10_binary()
    del files["cifar-10-batches-bin/data_batch_3.bin"]
    tar_gz(tmp_path / "cifar-10-binary.tar.gz", files)
    with pytest.raises(FileNotFoundError, match=r"cifar-10-binary.tar.gz lacks data_batch_3.bin"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.95])
def test_an_archive_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "cifar-100-python.tar.gz"
    tar_gz(path, cifar100_python())
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(
        ValueError, match=r"python.tar.gz cannot be read as an archive .* cut short"
    ):
        load_cifar100(tmp_path)


def test_a_binary_file_cut_short_says_how_long_it_is(tmp_path):
    unpacked(tmp_path, cifar100_binary())
    path = tmp_path / "cifar-100-binary/train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    message = r"train.bin has 9221 bytes, where a multiple of 3074 .* 2 label bytes and 3072 pixels"
    with pytest.raises(ValueError, match=message):
        load_cifar100(tmp_path)


def test_a_label_outside_the_classes_is_refused_in_the_binary_version(tmp_path):
    files = cifar100_binary()
    files["cifar-100-binary/test.bin"] = bytes([0, 100]) + rows(1).tobytes()
    unpacked(tmp_path, files)
    with pytest.raises(ValueError, match=r"test.bin has labels from 100 to 100, where 0\.\.99"):
        load_cifar100(tmp_path)


def test_damaged_names_of_classes_are_told_apart_from_the_data(tmp_path):
    unpacked(tmp_path, {**cifar100_python(), "cifar-100-python/meta": b"no pickle"})
    with pytest.raises(ValueError, match="the file meta is damaged"):
        load_cifar100(tmp_path)


# --- EMNIST -------------------------------------------------------------------------------------


def emnist(split, labels, side=28):
    def images(n):
        pixels = np.random.default_rng(n).integers(0, 256, (n, side, side)).astype(np.uint8)
        # the files hold each image transposed
        return pixels, struct.pack(">4B3I", 0, 0, 8, 3, n, side, side) + b"".join(
            image.T.tobytes() for image in pixels
        )

    stem = f"emnist-{split}"
    files = {}
    for part, values in (("train", labels), ("test", labels[:2])):
        files[f"{stem}-{part}-images-idx3-ubyte.gz"] = gzip.compress(images(len(values))[1])
        head = struct.pack(">4BI", 0, 0, 8, 1, len(values))
        files[f"{stem}-{part}-labels-idx1-ubyte.gz"] = gzip.compress(head + bytes(values))
    return images(len(labels))[0], files


SPLITS = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("split", SPLITS)
def test_emnist_images_are_upright_and_classes_count_from_0(tmp_path, split, packed):
    first, classes = int(split == "letters"), SPLITS[split]
    pixels, files = emnist(split, [first, first + 1, first + classes - 1])
    if packed:
        zipped(tmp_path / "emnist/gzip.zip", {f"gzip/{name}": c for name, c in files.items()})
    else:
        unpacked(tmp_path / "emnist", files)
    data = load_emnist(tmp_path, split)
    assert (data.name, data.classes, len(data.class_names)) == (f"emnist-{split}", classes, classes)
    assert data.y_train.tolist() == [0, 1, classes - 1]
    assert (data.x_train.shape, data.x_test.shape) == ((3, 1, 28, 28), (2, 1, 28, 28))
    np.testing.assert_allclose(data.x_train[:, 0], pixels / 127.5 - 1, atol=1e-6)


def test_emnists_classes_have_the_letters_of_its_mapping(tmp_path):
    unpacked(tmp_path / "emnist", emnist("balanced", [10, 36, 46])[1])
    data = load("emnist-balanced", tmp_path)
    assert [data.class_names[k] for k in data.y_train] == ["A", "a", "t"]


def test_a_split_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no split 'greek'; there are 'byclass', 'bymerge', 'bala"):
        load_emnist(tmp_path, "greek")


def test_letters_that_count_from_0_are_refused(tmp_path):
    unpacked(tmp_path / "emnist", emnist("letters", [0, 1])[1])
    with pytest.raises(ValueError, match=r"has labels from 0 to 1, where 1\.\.26 were expected"):
        load_emnist(tmp_path, "letters")


def test_a_zip_cut_short_is_refused(tmp_path):
    path = tmp_path / "emnist/gzip.zip"
    zipped(path, emnist("mnist", [1, 2])[1])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"gzip.zip cannot be read as an archive"):
        load_emnist(tmp_path, "mnist")


def test_a_damaged_member_of_a_zip_is_refused(tmp_path):
    path = tmp_path / "emnist/gzip.zip"
    zipped(path, emnist("mnist", [1, 2])[1])
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"gzip.zip cannot be read as an archive \(Bad CRC"):
        load_emnist(tmp_path, "mnist")


# --- SVHN ---------------------------------------------------------------------------------------


def write_svhn(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    images = rows(4).reshape(4, 3, 32, 32)
    content = {"X": images.transpose(2, 3, 1, 0), "y": np.uint8([[10], [1], [9], [5]])} | changes
    for name in ("train_32x32.mat", "test_32x32.mat"):
        content = {k: v for k, v in content.items() if v is not None}
        scipy_io.savemat(folder / name, content, do_compression=True)
    return images


def test_svhns_class_10_is_the_digit_0(tmp_path):
    images = write_svhn(tmp_path / "svhn")
    data = load_svhn(tmp_path)
    assert repr(data) == "Dataset('svhn', train=4, test=4, shape=(3, 32, 32), classes=10)"
    assert data.y_train.tolist() == [0, 1, 9, 5]
    np.testing.assert_allclose(data.x_train, images / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None}, r"train_32x32.mat holds y, where the arrays X and y were expected"),
        ({"X": np.zeros((32, 32, 4), np.uint8)}, r"X is uint8 of shape \(32, 32, 4\), where uint8"),
        ({"X": np.zeros((32, 32, 3, 4))}, r"X is float64 of shape \(32, 32, 3, 4\), where uint8"),
        ({"y": np.uint8([[1], [2]])}, r"has 4 images and 2 labels"),
        ({"y": np.uint8([[0], [2], [3], [4]])}, r"has labels from 0 to 4, where 1\.\.10 were"),
    ],
)
def test_other_matlab_files_are_refused(tmp_path, changes, message):
    write_svhn(tmp_path / "svhn", **changes)
    with pytest.raises(ValueError, match=message):
        load_svhn(tmp_path)


@pytest.mark.parametrize("keep", [0, 60, 3000])
def test_a_matlab_file_cut_short_is_refused(tmp_path, keep):
    write_svhn(tmp_path / "svhn")
    path = tmp_path / "svhn/test_32x32.mat"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"test_32x32.mat cannot be read as a MATLAB file"):
        load_svhn(tmp_path)


def test_without_scipy_it_is_named(tmp_path, monkeypatch):
    write_svhn(tmp_path / "svhn")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match="load_svhn reads MATLAB files with SciPy"):
        load_svhn(tmp_path)


# --- Tiny ImageNet ------------------------------------------------------------------------------


def picture(value, size=(64, 64), mode="RGB", form="JPEG"):
    content = io.BytesIO()
    Image.new(mode, size, value).save(content, form, quality=100)
    return content.getvalue()


def tiny_imagenet(train=True):
    files = {
        "wnids.txt": b"n02\nn01\n",
        "words.txt": b"n01\tcat\n",
        "val/images/val_0.JPEG": picture((250, 5, 5)),
        "val/images/val_1.JPEG": picture(100, mode="L"),
        "val/val_annotations.txt": b"val_1.JPEG\tn02\t0\t0\t9\t9\nval_0.JPEG\tn01\t1\t1\t9\t9\n",
        "test/images/test_0.JPEG": b"not read",
    }
    if train:
        for wnid, value in (("n01", 10), ("n02", 200)):
            for i in range(3):
                files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = picture((value + i,) * 3)
            files[f"train/{wnid}/{wnid}_boxes.txt"] = b""
    return files


def nested(files):
    return {f"tiny-imagenet-200/{name}": content for name, content in files.items()}


TINY = {
    "folder": lambda p: unpacked(p / "tiny-imagenet", tiny_imagenet()),
    "unpacked": lambda p: unpacked(p, nested(tiny_imagenet())),
    "unpacked inside": lambda p: unpacked(p / "tiny-imagenet", nested(tiny_imagenet())),
    "zip": lambda p: zipped(p / "tiny-imagenet-200.zip", nested(tiny_imagenet())),
    "tar": lambda p: tar_gz(p / "tiny-imagenet/some.tar", tiny_imagenet()),
}


@pytest.mark.parametrize("layout", TINY)
def test_tiny_imagenet_from_a_folder_or_archive(tmp_path, layout):
    TINY[layout](tmp_path)
    data = load_tiny_imagenet(tmp_path, normalize=False)
    assert (data.shape, data.classes, data.class_names) == ((3, 64, 64), 2, ("n01", "n02"))
    assert data.y_train.tolist() == [0, 0, 0, 1, 1, 1]
    # in the order of the annotations
    assert data.y_test.tolist() == [1, 0]
    means = data.x_train.mean(axis=(1, 2, 3)) * 255
    np.testing.assert_allclose(means, [10, 11, 12, 200, 201, 202], atol=1)
    # a grey picture, and a red one
    np.testing.assert_allclose(data.x_test[0] * 255, 100, atol=1)
    np.testing.assert_allclose(data.x_test[1].mean(axis=(1, 2)) * 255, [250, 5, 5], atol=3)


def test_the_folder_itself_is_taken_as_well_and_no_other_that_holds_such_files(tmp_path):
    unpacked(tmp_path / "tiny-imagenet", tiny_imagenet())
    assert len(load_tiny_imagenet(tmp_path / "tiny-imagenet").y_train) == 6
    unpacked(tmp_path / "mine", tiny_imagenet())
    with pytest.raises(FileNotFoundError, match=r"neither a folder with wnids\.txt"):
        load_tiny_imagenet(tmp_path / "mine")


def test_fewer_pictures_of_each_class_can_be_asked_for(tmp_path):
    TINY["zip"](tmp_path)
    data = load("tiny-imagenet", tmp_path, images_per_class=2)
    assert data.y_train.tolist() == [0, 0, 1, 1]
    assert len(data.y_test) == 2


def test_without_training_pictures_the_training_part_is_empty(tmp_path):
    unpacked(tmp_path / "tiny-imagenet", tiny_imagenet(train=False))
    assert load_tiny_imagenet(tmp_path).x_train.shape == (0, 3, 64, 64)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (
            "val/images/val_1.JPEG",
            picture(5, mode="L")[:200],
            ValueError,
            "val_1.JPEG cannot be decoded as a picture",
        ),
        (
            "val/images/val_1.JPEG",
            picture(5, size=(32, 64), mode="L"),
            ValueError,
            "val_1.JPEG has 32x64 pixels, where 64x64 were expected",
        ),
        ("val/images/val_1.JPEG", None, FileNotFoundError, r"1 pictures that .*txt names are miss"),
        ("val/val_annotations.txt", None, FileNotFoundError, "val/val_annotations.txt is missing"),
        (
            "val/val_annotations.txt",
            b"val_0.JPEG\tn0",
            ValueError,
            "val_annotations.txt: 'n0' is none of the 2 classes of wnids.txt",
        ),
        ("wnids.txt", b"n01\n", ValueError, "'n02' is none of the 1 classes"),
    ],
)
def test_a_damaged_tiny_imagenet_names_the_file(tmp_path, name, content, error, message):
    unpacked(tmp_path / "tiny-imagenet", tiny_imagenet())
    path = tmp_path / "tiny-imagenet" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        load_tiny_imagenet(tmp_path)


def test_without_a_folder_it_says_what_to_put_where(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"neither a folder with wnids.txt nor tiny-imagene"
    ):
        load_tiny_imagenet(tmp_path)


@pytest.mark.parametrize("reader", [load_tiny_imagenet, load_celeba])
def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch, reader):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "pcx-networks\[images\]"'):
        reader(tmp_path)


# --- CelebA -------------------------------------------------------------------------------------

FACES = {"000001.jpg": 40, "000002.jpg": 80, "170000.jpg": 0, "182638.jpg": 120}
ATTRIBUTES = b"4\nBald Smiling\n" + b"".join(
    f"{name} -1 {1 if value > 50 else -1}\n".encode() for name, value in FACES.items()
)


def celeba():
    return {f"img_align_celeba/{n}": picture((v,) * 3, (178, 218)) for n, v in FACES.items()}


@pytest.mark.parametrize("packed", [True, False])
def test_celeba_has_the_parts_of_its_authors(tmp_path, packed):
    if packed:
        zipped(tmp_path / "celeba/img_align_celeba.zip", celeba())
    else:
        unpacked(tmp_path / "celeba", celeba())
    (tmp_path / "celeba/list_attr_celeba.txt").write_bytes(ATTRIBUTES)
    data = load_celeba(tmp_path, size=32, normalize=False, attribute="Smiling")
    assert repr(data) == "Dataset('celeba', train=2, test=1, shape=(3, 32, 32), classes=2)"
    assert (data.y_train.tolist(), data.y_test.tolist()) == ([0, 1], [1])
    assert data.class_names == ("not Smiling", "Smiling")
    np.testing.assert_allclose(data.x_test * 255, 120, atol=1)


def test_celeba_needs_no_attributes(tmp_path):
    unpacked(tmp_path / "celeba", celeba())
    data = load("celeba", tmp_path, images=1)
    assert (data.y_train.tolist(), data.classes, data.shape) == ([0], 1, (3, 64, 64))
    with pytest.raises(FileNotFoundError, match=r"attribute='Bald' needs list_attr_celeba.txt"):
        load_celeba(tmp_path, attribute="Bald")


def test_a_face_is_cropped_from_the_middle(tmp_path):
    pixels = np.zeros((218, 178, 3), np.uint8)
    # the middle 100x100 is white
    pixels[59:159, 39:139] = 255
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=100)
    unpacked(tmp_path / "celeba", {"img_align_celeba/000001.jpg": content.getvalue()})
    (tmp_path / "celeba/img_align_celeba/190000.jpg").write_bytes(content.getvalue())
    inner = load_celeba(tmp_path, crop=96, size=8, normalize=False).x_train
    np.testing.assert_allclose(inner, 1, atol=0.02)
    assert load_celeba(tmp_path, crop=178, size=178, normalize=False).x_train.mean() == (
        pytest.approx(100 * 100 / 178**2, abs=0.01)
    )
    with pytest.raises(ValueError, match=r"crop=179 cannot be cut out of .* in 1\.\.178"):
        load_celeba(tmp_path, crop=179)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ATTRIBUTES, r"has no attribute 'Tall'; it has Bald, Smiling"),
        (b"", r"has no attribute 'Tall'; it has none"),
        (b"4\nBald Tall\n000001.jpg -1\n", r"line 3: '000001.jpg -1', where a file name and 2"),
        (b"4\nBald Tall\n000001.jpg -1 1\n", r"has no line for 000002.jpg"),
    ],
)
def test_a_damaged_list_of_attributes_is_refused(tmp_path, content, message):
    unpacked(tmp_path / "celeba", celeba())
    (tmp_path / "celeba/list_attr_celeba.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_celeba(tmp_path, attribute="Tall")


# --- the common table ---------------------------------------------------------------------------


def test_the_table_has_the_papers_normalisation():
    # Table 6
    table = {
        "mnist": ([0.5], [0.5]),
        "fashion-mnist": ([0.5], [0.5]),
        "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
        "cifar100": ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
        "tiny-imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }
    for name, (mean, std) in table.items():
        source = pcx.data.DATASETS[name]
        assert (list(source.mean), list(source.std)) == (mean, std)
        assert pcx.data.NORMALIZATION[name] == (source.mean, source.std)


def test_the_shapes_and_classes_are_those_of_the_official_files():
    grey, colour, larger = (1, 28, 28), (3, 32, 32), (3, 64, 64)
    expected = {
        **dict.fromkeys(("mnist", "fashion-mnist", "kmnist", "notmnist"), (grey, 10)),
        **dict.fromkeys(("cifar10", "svhn"), (colour, 10)),
        "emnist-byclass": (grey, 62),
        "emnist-bymerge": (grey, 47),
        "emnist-balanced": (grey, 47),
        "emnist-letters": (grey, 26),
        "emnist-digits": (grey, 10),
        "emnist-mnist": (grey, 10),
        "digits": ((1, 8, 8), 10),
        "cifar100": (colour, 100),
        "tiny-imagenet": (larger, 200),
    }
    found = {name: (source.shape, source.classes) for name, source in pcx.data.DATASETS.items()}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("name", pcx.data.DATASETS)
def test_every_set_of_the_table_has_a_reader_and_whole_checksums(tmp_path, name):
    source = pcx.data.DATASETS[name]
    assert len(source.mean) == len(source.std) == source.shape[0]
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in source.files.values())
    assert bool(source.files) == bool(source.url)
    if name == "digits":
        assert load(name).shape == source.shape
    else:
        with pytest.raises(FileNotFoundError, match=name):
            load(name, tmp_path)


def test_an_unknown_set_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="load: no data set is called 'imagenet'; there are 'mnist'"
    ):
        load("imagenet")
