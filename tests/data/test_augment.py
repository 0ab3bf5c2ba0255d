"""Flips and crops against a loop over the images, and against the distribution asked for."""

import numpy as np
import pytest

from pcx.data import augmentation, center_crop, random_crop, random_flip


def images(n=6, channels=3, height=8, width=8):
    return np.random.default_rng(5).normal(size=(n, channels, height, width)).astype(np.float32)


def test_a_flip_mirrors_columns_or_leaves_the_image_alone():
    x = images(200)
    out = random_flip(x, np.random.default_rng(0))
    mirrored = sum(np.array_equal(a, b[:, :, ::-1]) for a, b in zip(out, x, strict=True))
    kept = sum(np.array_equal(a, b) for a, b in zip(out, x, strict=True))
    assert mirrored + kept == 200
    # Binomial(200, 1/2) has deviation 7.1; five of these.
    assert abs(mirrored - 100) < 36


@pytest.mark.parametrize(("p", "step"), [(0.0, 1), (1.0, -1)])
def test_the_probability_of_a_flip_is_honoured(p, step):
    x = images()
    np.testing.assert_array_equal(random_flip(x, np.random.default_rng(0), p=p), x[..., ::step])


def places(x, out, padding, fill):
    """Where each image of `out` was cut, by trying every place with plain slicing."""
    size = out.shape[-1]
    for image, cut in zip(x, out, strict=True):
        padded = np.stack(
            [
                np.pad(plane, padding, constant_values=value)
                for plane, value in zip(image, fill, strict=True)
            ]
        )
        yield [
            (top, left)
            for top in range(padded.shape[1] - size + 1)
            for left in range(padded.shape[2] - size + 1)
            if np.array_equal(padded[:, top : top + size, left : left + size], cut)
        ]


@pytest.mark.parametrize(
    ("size", "padding", "fill", "expected"),
    [(None, 2, [0, 0, 0], 8), (5, 0, [0, 0, 0], 5), (7, 1, [-1, 2, 3], 7)],
)
def test_a_crop_is_a_window_of_the_padded_image(size, padding, fill, expected):
    x = images()
    out = random_crop(x, np.random.default_rng(0), size=size, padding=padding, fill=fill)
    assert out.shape == (6, 3, expected, expected)
    assert out.dtype == x.dtype
    assert all(len(found) == 1 for found in places(x, out, padding, fill))


def test_crops_fall_everywhere_and_rows_do_not_follow_columns():
    x = np.broadcast_to(images(1), (900, 3, 8, 8))
    out = random_crop(x, np.random.default_rng(0), size=6)
    found = [place[0] for place in places(x, out, 0, [0, 0, 0])]
    counts = np.array([found.count((top, left)) for top in range(3) for left in range(3)])
    assert counts.sum() == 900
    # Each of nine places: Binomial(900, 1/9), mean 100, deviation 9.4; five of these.
    assert np.abs(counts - 100).max() < 48


def test_images_need_not_be_square():
    out = random_crop(images(height=6, width=9), np.random.default_rng(0), size=6)
    assert out.shape == (6, 3, 6, 6)


@pytest.mark.parametrize(("size", "padding"), [(0, 0), (9, 0), (11, 1)])
def test_a_crop_larger_than_the_padded_image_is_refused(size, padding):
    with pytest.raises(
        ValueError, match=rf"size={size} cannot be cut out of images 8x8 with padding={padding}; it"
    ):
        random_crop(images(), np.random.default_rng(0), size=size, padding=padding)


def test_a_center_crop_is_the_middle():
    x = images(height=7, width=8)
    np.testing.assert_array_equal(center_crop(x, 4), x[:, :, 1:5, 2:6])


@pytest.mark.parametrize("size", [0, 9])
def test_a_center_crop_larger_than_the_image_is_refused(size):
    with pytest.raises(
        ValueError, match=rf"size={size} cannot be cut .* 8x8; it must lie in 1\.\."
    ):
        center_crop(images(), size)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: random_flip(x, np.random.default_rng(0)),
        lambda x: random_crop(x, np.random.default_rng(0)),
        lambda x: center_crop(x, 4),
    ],
)
def test_a_single_image_is_refused_with_the_remedy(call):
    with pytest.raises(ValueError, match=r"x has shape \(3, 8, 8\), where a batch .* `x\[None\]`"):
        call(images()[0])


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("cifar10", 32, 32), ("cifar100", 32, 32), ("tiny-imagenet", 64, 56)],
)
def test_the_papers_augmentation_keeps_or_makes_the_papers_size(name, before, after):
    out = augmentation(name)(images(4, 3, before, before), np.random.default_rng(0))
    assert out.shape == (4, 3, after, after)


@pytest.mark.parametrize(
    ("normalize", "black"),
    [
        (True, [-0.4914 / 0.2023, -0.4822 / 0.1994, -0.4465 / 0.2010]),
        (False, [0, 0, 0]),
        ("mnist", [-1, -1, -1]),
    ],
)
def test_the_border_is_black_on_the_scale_of_the_images(normalize, black):
    x = np.full((500, 3, 32, 32), 100, np.float32)
    out = augmentation("cifar10", normalize=normalize)(x, np.random.default_rng(0))
    for channel in range(3):
        values = np.unique(out[:, channel])
        np.testing.assert_allclose(values, [black[channel], 100], rtol=1e-6)
    # At most 4 of the 32 rows or columns of one side can be border.
    assert (out[:, :, 4:-4, 4:-4] == 100).all()


def test_the_same_generator_state_gives_the_same_images():
    augment, x = augmentation("cifar10"), images(8, 3, 32, 32)
    one = augment(x, np.random.default_rng(7))
    np.testing.assert_array_equal(one, augment(x, np.random.default_rng(7)))


def test_a_set_the_paper_does_not_augment_is_refused():
    with pytest.raises(
        ValueError, match=r"'mnist', only 'cifar10', 'cifar100', 'tiny-imagenet'. F"
    ):
        augmentation("mnist")


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="augmentation: normalize='imagenet' is none of the data"):
        augmentation("cifar10", normalize="imagenet")
