"""The readers, on small files in the official containers, written here without their help."""

import gzip
import lzma
import pickle
import struct
import sys

import numpy as np
import pytest

from pcx.data import (
    NORMALIZATION,
    load_cifar10,
    load_cifar100,
    load_digits,
    load_idx,
)

TRAIN, TEST = "train", "t10k"
PARTS = {TRAIN: 3, TEST: 2}


def idx_images(images):
    return struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes()


def idx_labels(labels):
    return struct.pack(">4BI", 0, 0, 8, 1, len(labels)) + bytes(labels)


def pixels(part, n, side=28):
    return np.random.default_rng(len(part)).integers(0, 256, (n, side, side)).astype(np.uint8)


def write_idx_set(folder, parts=PARTS, suffix="", compress=bytes, side=28):
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in parts.items():
        images = idx_images(pixels(part, n, side))
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(compress(images))
        labels = idx_labels([(number * 7 + 2) % 10 for number in range(n)])
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(compress(labels))


class TestIdx:
    @pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "notmnist"])
    def test_images_are_channels_first_and_normalised_by_one_half(self, tmp_path, name):
        write_idx_set(tmp_path / name, suffix=".gz", compress=gzip.compress)

        data = load_idx(name, tmp_path)

        assert data.name == name
        assert data.shape == (1, 28, 28)
        assert data.classes == len(data.class_names) == 10
        assert data.x_train.dtype == data.x_test.dtype == np.float32
        assert data.y_train.dtype == data.y_test.dtype == np.int32
        # (p / 255 - 0.5) / 0.5
        np.testing.assert_allclose(data.x_train[:, 0], pixels(TRAIN, 3) / 127.5 - 1, atol=1e-6)
        np.testing.assert_allclose(data.x_test[:, 0], pixels(TEST, 2) / 127.5 - 1, atol=1e-6)
        assert data.y_train.tolist() == [2, 9, 6]
        assert data.y_test.tolist() == [2, 9]

    def test_without_normalisation_pixels_lie_between_zero_and_one(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        data = load_idx("mnist", tmp_path, normalize=False)
        np.testing.assert_allclose(data.x_train[:, 0] * 255, pixels(TRAIN, 3), atol=1e-4)

    @pytest.mark.parametrize(
        ("name", "folder"),
        [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw"), ("kmnist", "KMNIST/raw")],
    )
    def test_the_layout_that_torchvision_leaves_is_found(self, tmp_path, name, folder):
        write_idx_set(tmp_path / folder)
        assert len(load_idx(name, tmp_path).x_train) == 3

    def test_the_folder_itself_may_be_given(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        assert len(load_idx("mnist", tmp_path / "mnist").x_train) == 3

    def test_a_folder_of_another_name_is_not_taken_for_the_data_set(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        with pytest.raises(FileNotFoundError, match="fashion-mnist: data_dir="):
            load_idx("fashion-mnist", tmp_path / "mnist")

    @pytest.mark.parametrize("name", ["kmnist", "notmnist"])
    def test_out_of_distribution_sets_need_no_training_files(self, tmp_path, name):
        write_idx_set(tmp_path / name, {TEST: 2})
        data = load_idx(name, tmp_path)
        assert data.x_train.shape == (0, 1, 28, 28)
        assert data.y_train.shape == (0,)
        assert len(data.x_test) == 2

    def test_half_of_the_training_files_is_an_error_there_too(self, tmp_path):
        write_idx_set(tmp_path / "kmnist")
        (tmp_path / "kmnist" / "train-labels-idx1-ubyte").unlink()
        with pytest.raises(FileNotFoundError, match="kmnist lacks train-labels-idx1-ubyte "):
            load_idx("kmnist", tmp_path)

    def test_a_missing_file_is_named_with_its_folder(self, tmp_path):
        write_idx_set(tmp_path / "mnist", {TRAIN: 3})
        with pytest.raises(
            FileNotFoundError,
            match=r"mnist: .*mnist lacks t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte \(each as "
            r"it is, or compressed as .gz or .xz\). Put the missing files beside the others",
        ):
            load_idx("mnist", tmp_path)

    @pytest.mark.parametrize(
        ("folder", "state"), [(".", "has none of its files"), ("no", "does not exist")]
    )
    def test_an_empty_or_absent_folder_says_what_to_put_where(self, tmp_path, folder, state):
        with pytest.raises(
            FileNotFoundError,
            match=rf"mnist: data_dir=.* {state}. Put train-images-idx3-ubyte, train-labels-idx1-"
            r"ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte .* into .*mnist, or pass as "
            "data_dir the folder that holds 'mnist'; pcx.data downloads only with",
        ) as caught:
            load_idx("mnist", tmp_path / folder)
        assert str(tmp_path) in str(caught.value)

    def test_an_unknown_name_lists_the_known_ones(self, tmp_path):
        with pytest.raises(ValueError, match="'emnist'; there are 'mnist', 'fashion-mnist', 'kmni"):
            load_idx("emnist", tmp_path)

    def test_an_unknown_normalisation_lists_the_known_ones(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        with pytest.raises(ValueError, match=r"normalize='imagenet' is none of .*: mnist, fashion"):
            load_idx("mnist", tmp_path, normalize="imagenet")

    def test_a_normalisation_for_colour_images_is_refused_for_grey_ones(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        with pytest.raises(ValueError, match=r"'cifar10' has 3 channels, but .* mnist have 1"):
            load_idx("mnist", tmp_path, normalize="cifar10")

    def test_labels_in_the_place_of_images_are_refused(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        (tmp_path / "mnist/train-images-idx3-ubyte").write_bytes(idx_labels([1, 2, 3]))
        with pytest.raises(ValueError, match=r"images-idx3-ubyte holds uint8 of shape \(3,\), whe"):
            load_idx("mnist", tmp_path)

    def test_images_in_the_place_of_labels_are_refused(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(idx_images(pixels(TRAIN, 3)))
        with pytest.raises(ValueError, match=r"labels-idx1-ubyte holds uint8 of shape \(3, 28, 28"):
            load_idx("mnist", tmp_path)

    def test_as_many_labels_as_images_are_required(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(idx_labels([1, 2]))
        with pytest.raises(
            ValueError, match=r"idx3-ubyte has 3 images, but .*idx1-ubyte has 2 lab"
        ):
            load_idx("mnist", tmp_path)

    def test_a_label_outside_the_classes_is_refused(self, tmp_path):
        write_idx_set(tmp_path / "mnist")
        (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(idx_labels([1, 2, 10]))
        with pytest.raises(
            ValueError, match=r"has labels from 1 to 10, where 0\.\.9 were expected"
        ):
            load_idx("mnist", tmp_path)

    def test_training_and_test_images_must_have_one_size(self, tmp_path):
        write_idx_set(tmp_path / "mnist", {TRAIN: 3})
        write_idx_set(tmp_path / "mnist", {TEST: 2}, side=8)
        with pytest.raises(
            ValueError, match=r"shape \(28, 28\) and .* of shape \(8, 8\): they bel"
        ):
            load_idx("mnist", tmp_path)


CIFAR_FILES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def cifar_rows(number):
    return np.random.default_rng(number).integers(0, 256, (2, 3072)).astype(np.uint8)


def write_cifar(folder, protocol=2, suffix="", compress=bytes):
    folder.mkdir(parents=True)
    for number, name in enumerate(CIFAR_FILES):
        batch = {"data": cifar_rows(number), "labels": [number, 9], "batch_label": "one of six"}
        content = compress(pickle.dumps(batch, protocol=protocol))
        (folder / f"{name}{suffix}").write_bytes(content)


def python2_pickle(rows, labels):
    """What Python 2 wrote in 2009: protocol-0 opcodes, byte strings, numpy.core names."""
    raw = rows.tobytes()
    return b"".join(
        [
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85",
            b"U\x01b\x87R(K\x01",
            b"J" + struct.pack("<i", rows.shape[0]) + b"J" + struct.pack("<i", 3072) + b"\x86",
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff",
            b"K\x00tb\x89T" + struct.pack("<i", len(raw)) + raw + b"tb",
            b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"eu.",
        ]
    )


class TestCifar10:
    @pytest.mark.parametrize(
        ("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)]
    )
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_rows_become_normalised_red_green_blue_planes(
        self, tmp_path, protocol, suffix, compress
    ):
        write_cifar(tmp_path / "cifar10", protocol, suffix, compress)

        data = load_cifar10(tmp_path)

        assert repr(data) == "Dataset('cifar10', train=10, test=2, shape=(3, 32, 32), classes=10)"
        assert data.y_train.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
        assert data.y_test.tolist() == [5, 9]
        assert data.x_train.dtype == np.float32
        assert data.y_train.dtype == np.int32
        # Sample 1 of the third file, row 4, column 7 of each plane.
        row = cifar_rows(2)[1]
        for plane, (mean, std) in enumerate([(0.4914, 0.2023), (0.4822, 0.1994), (0.4465, 0.2010)]):
            expected = (row[plane * 1024 + 4 * 32 + 7] / 255 - mean) / std
            assert data.x_train[5, plane, 4, 7] == pytest.approx(expected, abs=1e-6)

    def test_the_pickles_that_python_2_wrote_are_read(self, tmp_path):
        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        for number, name in enumerate(CIFAR_FILES):
            (folder / name).write_bytes(python2_pickle(cifar_rows(number), [number, 200 % 10]))

        data = load_cifar10(tmp_path, normalize=False)

        expected = np.concatenate([cifar_rows(number) for number in range(5)]) / 255
        np.testing.assert_allclose(data.x_train.reshape(10, 3072), expected, atol=1e-6)
        assert data.y_test.tolist() == [5, 0]

    @pytest.mark.parametrize(
        ("made", "given"),
        [
            ("cifar-10-batches-py", "."),
            ("cifar10/cifar-10-batches-py", "."),
            ("cifar-10-batches-py", "cifar-10-batches-py"),
            ("cifar10", "cifar10"),
        ],
    )
    def test_the_layout_of_the_official_archive_is_found(self, tmp_path, made, given):
        write_cifar(tmp_path / made)
        assert len(load_cifar10(tmp_path / given).x_test) == 2

    def test_missing_files_are_named(self, tmp_path):
        write_cifar(tmp_path / "cifar10")
        (tmp_path / "cifar10/data_batch_4").unlink()
        with pytest.raises(FileNotFoundError, match=r"cifar10: .*cifar10 lacks data_batch_4 "):
            load_cifar10(tmp_path)

    def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(self, tmp_path):
        write_cifar(tmp_path / "cifar10")
        witness = tmp_path / "ran"
        harmful = f"cpathlib\nPath\n(V{witness}\ntR."
        (tmp_path / "cifar10/data_batch_1").write_text(harmful)
        with pytest.raises(
            ValueError, match=r"unpickled \(it asks for pathlib.Path, which no data"
        ):
            load_cifar10(tmp_path)

    @pytest.mark.parametrize(
        ("batch", "reason"),
        [
            ([1, 2], "a dict with 'data' and 'labels' was expected, got list"),
            ({"fine_labels": []}, r"was expected, got \['fine_labels'\]"),
            (
                {"data": np.zeros((2, 3073), np.uint8), "labels": [0, 1]},
                r"'data' is uint8 of shape \(2, 3073\), not uint8 of shape \(n, 3072\)",
            ),
            (
                {"data": np.zeros((2, 3072), np.int64), "labels": [0, 1]},
                r"'data' is int64 of shape \(2, 3072\)",
            ),
            (
                {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
                r"'labels' has shape \(1,\), 'data' \(2, 3072\)",
            ),
        ],
    )
    def test_a_file_of_another_kind_is_refused_with_the_reason(self, tmp_path, batch, reason):
        write_cifar(tmp_path / "cifar10")
        (tmp_path / "cifar10/data_batch_2").write_bytes(pickle.dumps(batch))
        with pytest.raises(ValueError, match=rf"data_batch_2 is not a batch of CIFAR-10.*{reason}"):
            load_cifar10(tmp_path)

    def test_a_damaged_pickle_is_refused(self, tmp_path):
        write_cifar(tmp_path / "cifar10")
        path = tmp_path / "cifar10/test_batch"
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ValueError, match=r"test_batch .* could not be unpickled"):
            load_cifar10(tmp_path)

    def test_a_label_outside_the_classes_is_refused(self, tmp_path):
        write_cifar(tmp_path / "cifar10")
        batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [-1, 3]}
        (tmp_path / "cifar10/test_batch").write_bytes(pickle.dumps(batch))
        with pytest.raises(ValueError, match=r"test_batch has labels from -1 to 3, where 0\.\.9"):
            load_cifar10(tmp_path)


def write_cifar100(folder, images=None, labels=None):
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8) if images is None else images
    with lzma.open(folder / "test-images.npy.xz", "wb") as file:
        np.save(file, images)
    np.save(folder / "test-labels.npy", np.uint8([5, 99, 0]) if labels is None else labels)
    return images


class TestCifar100:
    def test_images_become_channels_first(self, tmp_path):
        images = write_cifar100(tmp_path / "cifar100")

        data = load_cifar100(tmp_path, normalize=False)

        assert repr(data) == "Dataset('cifar100', train=0, test=3, shape=(3, 32, 32), classes=100)"
        assert data.x_train.shape == (0, 3, 32, 32)
        assert data.y_test.tolist() == [5, 99, 0]
        assert data.class_names == ()
        assert data.x_test[1, 2, 3, 4] == pytest.approx(images[1, 3, 4, 2] / 255)

    def test_the_values_of_table_6_are_used(self, tmp_path):
        images = write_cifar100(tmp_path / "cifar100")
        data = load_cifar100(tmp_path)
        expected = (images[0, 0, 0] / 255 - [0.5071, 0.4867, 0.4408]) / [0.2675, 0.2565, 0.2761]
        np.testing.assert_allclose(data.x_test[0, :, 0, 0], expected, atol=1e-6)

    def test_the_values_of_the_set_a_network_was_trained_on_can_be_used(self, tmp_path):
        images = write_cifar100(tmp_path / "cifar100")
        data = load_cifar100(tmp_path, normalize="cifar10")
        expected = (images[0, 0, 0] / 255 - [0.4914, 0.4822, 0.4465]) / [0.2023, 0.1994, 0.2010]
        np.testing.assert_allclose(data.x_test[0, :, 0, 0], expected, atol=1e-6)

    def test_one_mean_and_deviation_will_do_for_all_channels(self, tmp_path):
        images = write_cifar100(tmp_path / "cifar100")
        data = load_cifar100(tmp_path, normalize="mnist")
        expected = (images[0, 0, 0] / 255 - 0.5) / 0.5
        np.testing.assert_allclose(data.x_test[0, :, 0, 0], expected, atol=1e-6)

    def test_names_of_the_classes_are_read_where_they_are_given(self, tmp_path):
        write_cifar100(tmp_path / "cifar100")
        (tmp_path / "cifar100/fine_label_names.txt").write_text("apple\naquarium_fish\n")
        assert load_cifar100(tmp_path).class_names == ("apple", "aquarium_fish")

    def test_missing_files_are_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"Put train, test .* or cifar-100-python"):
            load_cifar100(tmp_path)

    @pytest.mark.parametrize(
        "images", [np.zeros((3, 3, 32, 32), np.uint8), np.zeros((3, 32, 32, 3), np.float32)]
    )
    def test_images_of_another_shape_or_type_are_refused(self, tmp_path, images):
        write_cifar100(tmp_path / "cifar100", images=images)
        with pytest.raises(
            ValueError, match=rf"npy.xz holds {images.dtype} of shape .* channels la"
        ):
            load_cifar100(tmp_path)

    @pytest.mark.parametrize("labels", [np.zeros(2, np.uint8), np.zeros(3, np.float32)])
    def test_labels_of_another_shape_or_type_are_refused(self, tmp_path, labels):
        write_cifar100(tmp_path / "cifar100", labels=labels)
        with pytest.raises(
            ValueError, match=r"labels.npy holds .* integers of shape \(3,\) were e"
        ):
            load_cifar100(tmp_path)

    def test_a_label_outside_the_classes_is_refused(self, tmp_path):
        write_cifar100(tmp_path / "cifar100", labels=np.uint8([0, 1, 100]))
        with pytest.raises(ValueError, match=r"has labels from 0 to 100, where 0\.\.99 were"):
            load_cifar100(tmp_path)

    @pytest.mark.parametrize("content", [b"not an array", pickle.dumps([1, 2])])
    def test_a_file_that_is_no_array_is_refused(self, tmp_path, content):
        write_cifar100(tmp_path / "cifar100")
        (tmp_path / "cifar100/test-labels.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"test-labels.npy is not an array written by numpy.s"):
            load_cifar100(tmp_path)


class TestDigits:
    def test_they_are_scikit_learns_images_and_labels_in_another_order(self):
        from sklearn import datasets

        data = load_digits(normalize=False)

        assert data.shape == (1, 8, 8)
        assert (len(data.x_train), len(data.x_test)) == (1437, 360)
        x = np.concatenate([data.x_train, data.x_test]).reshape(1797, 64)
        y = np.concatenate([data.y_train, data.y_test])
        bunch = datasets.load_digits()
        ours = sorted((*row.tolist(), label) for row, label in zip(x * 16, y.tolist(), strict=True))
        theirs = sorted(
            (*row, label)
            for row, label in zip(bunch.data.tolist(), bunch.target.tolist(), strict=True)
        )
        assert ours == theirs

    def test_normalised_pixels_go_from_minus_one_to_one(self):
        data = load_digits()
        assert data.x_train.dtype == np.float32
        assert (data.x_train.min(), data.x_train.max()) == (-1, 1)

    def test_the_same_seed_gives_the_same_split_and_another_another(self):
        one, again, other = load_digits(), load_digits(), load_digits(seed=1)
        np.testing.assert_array_equal(one.x_test, again.x_test)
        assert not np.array_equal(one.x_test, other.x_test)

    def test_every_class_is_in_both_parts(self):
        data = load_digits(test_samples=100)
        assert set(data.y_test.tolist()) == set(data.y_train.tolist()) == set(range(10))

    @pytest.mark.parametrize("test_samples", [0, 1797])
    def test_an_empty_part_is_refused(self, test_samples):
        with pytest.raises(ValueError, match=rf"test_samples={test_samples}; .* in 1\.\.1796"):
            load_digits(test_samples=test_samples)

    def test_without_scikit_learn_the_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(
            ImportError, match=r"load_digits .* `pip install \"pcx-networks\[examples\]\"`"
        ):
            load_digits()


def test_the_table_of_normalisations_cannot_be_changed():
    with pytest.raises(TypeError, match="does not support item assignment"):
        NORMALIZATION["mnist"] = ((0.1307,), (0.3081,))
