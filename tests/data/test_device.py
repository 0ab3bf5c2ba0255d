"""What runs on the device or beside it: flips and crops of a key, prefetching."""

import threading
import time

import jax
import numpy as np
import pytest

from pcx.data import batches, device_augmentation, device_crop, device_flip, prefetch


def images(n=6, side=8):
    return np.random.default_rng(5).normal(size=(n, 3, side, side)).astype(np.float32)


def places(x, cut, padding, fill):
    """Where an image was cut, by trying every place with plain slicing."""
    size = cut.shape[-1]
    padded = np.stack([np.pad(p, padding, constant_values=v) for p, v in zip(x, fill, strict=True)])
    steps = range(padded.shape[1] - size + 1)
    return [
        (top, left)
        for top in steps
        for left in steps
        if np.array_equal(padded[:, top : top + size, left : left + size], cut)
    ]


def test_flips_and_crops_inside_jit_against_plain_slicing():
    x = np.repeat(images(2), 225, axis=0)
    flipped = np.asarray(jax.jit(device_flip)(jax.random.key(0), x))
    mirrored = np.array([np.array_equal(a, b[..., ::-1]) for a, b in zip(flipped, x, strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(flipped, x, strict=True)])
    assert np.all(mirrored ^ kept)
    # Binomial(450, 1/2) has deviation 10.6; five of these
    assert abs(mirrored.sum() - 225) < 53

    fill = (-1.0, 2.0, 3.0)
    crop = jax.jit(lambda key, x: device_crop(key, x, size=8, padding=1, fill=fill))
    cuts = np.asarray(crop(jax.random.key(1), x))
    found = [places(image, cut, 1, fill) for image, cut in zip(x, cuts, strict=True)]
    assert all(len(place) == 1 for place in found)
    counts = np.unique([3 * top + left for [(top, left)] in found], return_counts=True)[1]
    # nine places: mean 50, deviation 6.7; five of these
    assert len(counts) == 9
    assert np.abs(counts - 50).max() < 34


def test_a_key_decides_and_images_differ():
    augment = device_augmentation("cifar10")
    x = np.broadcast_to(images(1, 32), (8, 3, 32, 32))
    one = augment(jax.random.key(7), x)
    np.testing.assert_array_equal(one, augment(jax.random.key(7), x))
    assert not np.array_equal(one, augment(jax.random.key(8), x))
    assert len({image.tobytes() for image in np.asarray(one)}) > 4


@pytest.mark.parametrize(
    ("name", "before", "after"), [("cifar100", 32, 32), ("tiny-imagenet", 64, 56)]
)
def test_the_papers_sizes(name, before, after):
    out = device_augmentation(name)(jax.random.key(0), images(2, before))
    assert out.shape == (2, 3, after, after)


def test_the_border_is_black_on_the_scale_of_the_images():
    x = np.full((100, 3, 32, 32), 100, np.float32)
    out = device_augmentation("cifar10")(jax.random.key(0), x)
    np.testing.assert_allclose(np.unique(out[:, 1]), [-0.4822 / 0.1994, 100], rtol=1e-6)


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match=r"device_crop: size=9 cannot be cut out of images 8x8"):
        device_crop(jax.random.key(0), images(), size=9)
    with pytest.raises(ValueError, match=r"device_flip: x has shape \(3, 8, 8\)"):
        device_flip(jax.random.key(0), images()[0])
    with pytest.raises(ValueError, match="the paper augments no data set called 'mnist'"):
        device_augmentation("mnist")


# prefetching


def workers():
    return [t for t in threading.enumerate() if t.name == "pcx-prefetch"]


def loader(**options):
    return batches(np.arange(20), {"y": np.arange(20) * 3}, 6, shuffle=True, rkg=2, **options)


def test_prefetching_changes_neither_order_nor_epochs():
    plain, ahead = loader(), prefetch(loader())
    assert len(ahead) == len(plain) == 4
    for _ in range(2):
        for (x, y), (u, v) in zip(plain, ahead, strict=True):
            assert isinstance(u, jax.Array)
            np.testing.assert_array_equal(x, u)
            np.testing.assert_array_equal(y["y"], v["y"])
    assert ahead.epoch == plain.epoch == 2
    ahead.epoch = 0
    assert [x.tolist() for x, _ in ahead] == [x.tolist() for x, _ in loader()]
    assert not workers()


def test_batches_are_made_ahead_but_not_further_than_asked():
    made = []

    def source():
        for i in range(10):
            made.append(i)
            yield np.full(1, i)

    iterator = iter(prefetch(source(), ahead=2))
    next(iterator)
    deadline = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    # one in use, two waiting, one that waits for a place
    assert made == [0, 1, 2, 3]
    iterator.close()
    assert not workers()


def test_an_error_comes_where_its_batch_would_have_come():
    def source():
        yield np.zeros(1)
        raise KeyError("no file")

    iterator = iter(prefetch(source(), ahead=3))
    assert next(iterator).shape == (1,)
    with pytest.raises(KeyError, match="no file"):
        next(iterator)
    assert not workers()


def test_a_loop_left_early_ends_the_thread_and_closes_the_source():
    closed = []

    def source():
        try:
            while True:
                yield np.zeros(1)
        finally:
            closed.append(True)

    for _ in prefetch(source()):
        break
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not workers()
    assert closed == [True]


def test_at_least_one_batch_is_ahead():
    with pytest.raises(ValueError, match="prefetch: ahead=0; it must be at least 1"):
        prefetch(loader(), ahead=0)
