"""Two classes in the plane that no line separates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pcx.data._dataset import Array, Dataset


def two_moons(
    *, samples: int = 1000, test_samples: int = 200, noise: float = 0.1, seed: int = 0
) -> Dataset:
    """Two interleaved half circles with Gaussian noise.

    For t uniform in [0, π]: class 0 is `(cos t, sin t)`, class 1 is `(1 − cos t, 1/2 − sin t)`,
    each plus noise of deviation `noise` on both coordinates.

    Args:
        samples, test_samples: sizes of the two parts; each has as many of one class as of the
            other, class 0 having one more where the size is odd.
        noise: standard deviation.
        seed: of the draw; the same seed gives the same points.

    Returns:
        A `Dataset` with `shape == (2,)`.

    Raises:
        ValueError: `samples`, `test_samples` or `noise` is negative.

    Example:
        >>> data = two_moons(samples=4, noise=0.0)
        >>> data.x_train.shape, sorted(data.y_train.tolist())
        ((4, 2), [0, 0, 1, 1])
    """

    def points(t: Array, label: Array) -> Array:
        upper = np.stack([np.cos(t), np.sin(t)], axis=-1)
        lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], axis=-1)
        return np.where(label[:, None] == 0, upper, lower)

    _check_sizes("two_moons", samples, test_samples, noise)
    rng = np.random.default_rng(seed)
    train, test = (_draw(rng, points, np.pi, n, noise) for n in (samples, test_samples))
    return Dataset("two-moons", *train, *test, classes=2, shape=(2,))


def two_circles(
    *,
    samples: int = 1000,
    test_samples: int = 200,
    noise: float = 0.05,
    factor: float = 0.5,
    seed: int = 0,
) -> Dataset:
    """Two concentric circles with Gaussian noise.

    For t uniform in [0, 2π]: `r (cos t, sin t)` with r = 1 for class 0 and r = `factor` for class
    1, plus noise of deviation `noise` on both coordinates.

    Args:
        samples, test_samples: sizes of the two parts; each has as many of one class as of the
            other, class 0 having one more where the size is odd.
        noise: standard deviation.
        factor: radius of the inner circle, in (0, 1).
        seed: of the draw; the same seed gives the same points.

    Returns:
        A `Dataset` with `shape == (2,)`.

    Raises:
        ValueError: `samples`, `test_samples` or `noise` is negative, or `factor` not in (0, 1).

    Example:
        >>> import numpy as np
        >>> data = two_circles(samples=6, noise=0.0, factor=0.25)
        >>> sorted(np.linalg.norm(data.x_train, axis=1).round(2).tolist())
        [0.25, 0.25, 0.25, 1.0, 1.0, 1.0]
    """
    _check_sizes("two_circles", samples, test_samples, noise)
    if not 0 < factor < 1:
        raise ValueError(
            f"two_circles: factor={factor}; the inner circle's radius must lie between 0 and 1, "
            "the outer one's. Pass for example factor=0.5."
        )

    def points(t: Array, label: Array) -> Array:
        radius = np.where(label == 0, 1.0, factor)
        return radius[:, None] * np.stack([np.cos(t), np.sin(t)], axis=-1)

    rng = np.random.default_rng(seed)
    train, test = (_draw(rng, points, 2 * np.pi, n, noise) for n in (samples, test_samples))
    return Dataset("two-circles", *train, *test, classes=2, shape=(2,))


def _check_sizes(function: str, samples: int, test_samples: int, noise: float) -> None:
    for name, value in (("samples", samples), ("test_samples", test_samples), ("noise", noise)):
        if value < 0:
            raise ValueError(f"{function}: {name}={value} is negative; pass 0 or more.")


def _draw(
    rng: np.random.Generator,
    points: Callable[[Array, Array], Array],
    end: float,
    samples: int,
    noise: float,
) -> tuple[Array, Array]:
    labels = rng.permutation(np.arange(samples, dtype=np.int32) % 2)
    x = points(rng.uniform(0, end, samples), labels) + noise * rng.standard_normal((samples, 2))
    return x.astype(np.float32), labels
