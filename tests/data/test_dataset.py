import dataclasses

import numpy as np
import pytest

from pcx.data import Dataset, one_hot


def blank(n, shape):
    x, y = np.arange(n * np.prod(shape), dtype=np.float32).reshape(n, *shape), np.zeros(n, np.int32)
    return Dataset("blank", x, y, x[:1], y[:1], classes=10, shape=shape, class_names=("a",))


def test_flat_keeps_the_row_major_order_and_everything_else():
    data = blank(2, (3, 2, 2))
    flat = data.flat()
    assert flat.shape == (12,)
    assert flat.x_train.tolist() == [list(range(12)), list(range(12, 24))]
    assert flat.x_test.shape == (1, 12)
    assert (flat.name, flat.classes, flat.class_names) == ("blank", 10, ("a",))
    assert flat.y_train is data.y_train


def test_flat_works_on_an_empty_part():
    data = blank(2, (3, 2, 2))
    data = dataclasses.replace(data, x_train=data.x_train[:0], y_train=data.y_train[:0])
    assert data.flat().x_train.shape == (0, 12)


def test_repr_gives_sizes_and_no_arrays():
    text = "Dataset('blank', train=2, test=1, shape=(4,), classes=10)"
    assert repr(blank(2, (4,))) == text


def test_a_dataset_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        blank(2, (4,)).classes = 3


def test_one_hot_is_rows_of_the_identity():
    labels = np.array([[3, 0], [1, 1]], dtype=np.uint8)
    out = one_hot(labels, 4)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.eye(4)[labels])


def test_one_hot_takes_scalars_empty_arrays_and_a_dtype():
    assert one_hot(2, 3).tolist() == [0, 0, 1]
    assert one_hot([], 3).shape == (0, 3)
    assert one_hot([0], 2, dtype=np.int8).dtype == np.int8


def test_one_hot_refuses_labels_that_are_not_integers():
    with pytest.raises(TypeError, match=r"labels are float64, of shape \(2,\); it takes integer"):
        one_hot([0.0, 1.0], 2)


@pytest.mark.parametrize(
    ("labels", "span", "remedy"), [([0, 3], "0 to 3", 4), ([-1, 2], "-1 to 2", 3)]
)
def test_one_hot_refuses_labels_outside_the_classes(labels, span, remedy):
    with pytest.raises(
        ValueError, match=rf"go from {span}, but with classes=3 .* 0\.\.2. Pass `classes={remedy}`"
    ):
        one_hot(labels, 3)
