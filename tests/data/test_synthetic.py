"""The generators against the curves they are drawn from."""

import numpy as np
import pytest

from pcx.data import two_circles, two_moons

GENERATORS = [two_moons, two_circles]


@pytest.mark.parametrize("generate", GENERATORS)
def test_sizes_types_and_balance(generate):
    data = generate(samples=101, test_samples=40)
    assert data.x_train.shape == (101, 2)
    assert data.x_test.shape == (40, 2)
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == np.int32
    assert np.bincount(data.y_train).tolist() == [51, 50]
    assert np.bincount(data.y_test).tolist() == [20, 20]
    assert (data.shape, data.classes) == ((2,), 2)


@pytest.mark.parametrize("generate", GENERATORS)
def test_the_seed_decides_the_points(generate):
    np.testing.assert_array_equal(generate(seed=3).x_train, generate(seed=3).x_train)
    assert not np.array_equal(generate(seed=3).x_train, generate(seed=4).x_train)


@pytest.mark.parametrize("generate", GENERATORS)
def test_labels_come_in_no_fixed_order(generate):
    labels = generate(samples=200).y_train
    assert 50 < np.sum(labels[1:] != labels[:-1]) < 150


def test_without_noise_the_moons_are_half_circles_of_radius_one():
    data = two_moons(samples=400, noise=0.0)
    upper, lower = data.x_train[data.y_train == 0], data.x_train[data.y_train == 1]
    np.testing.assert_allclose(np.linalg.norm(upper, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(lower - [1, 0.5], axis=1), 1, atol=1e-6)
    assert upper[:, 1].min() >= -1e-6
    assert lower[:, 1].max() <= 0.5 + 1e-6
    # They reach into each other: each tip is inside the other's bow.
    assert upper[:, 0].max() > 0.9
    assert lower[:, 0].min() < 0.1


@pytest.mark.parametrize("factor", [0.25, 0.8])
def test_without_noise_the_circles_have_radius_one_and_factor(factor):
    data = two_circles(samples=400, noise=0.0, factor=factor)
    radius = np.linalg.norm(data.x_train, axis=1)
    np.testing.assert_allclose(radius, np.where(data.y_train == 0, 1, factor), atol=1e-6)
    # All around, not only one half.
    assert data.x_train[data.y_train == 1].min(axis=0).max() < -0.9 * factor


@pytest.mark.parametrize("generate", GENERATORS)
def test_noise_has_the_deviation_asked_for(generate):
    clean = generate(samples=20000, noise=0.0, seed=1).x_train
    noisy = generate(samples=20000, noise=0.3, seed=1).x_train
    # Standard error of a deviation estimated from 40,000 draws: 0.3 / sqrt(80,000) = 0.001.
    assert np.std(noisy - clean) == pytest.approx(0.3, abs=0.006)


@pytest.mark.parametrize("generate", GENERATORS)
@pytest.mark.parametrize("name", ["samples", "test_samples", "noise"])
def test_negative_sizes_are_refused(generate, name):
    with pytest.raises(ValueError, match=f"{generate.__name__}: {name}=-1 is negative; pass 0"):
        generate(**{name: -1})


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0])
def test_an_inner_circle_that_is_not_inside_is_refused(factor):
    with pytest.raises(ValueError, match=f"factor={factor}; the inner circle's radius must"):
        two_circles(factor=factor)
