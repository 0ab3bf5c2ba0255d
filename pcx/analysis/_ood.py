"""Out-of-distribution detection: scores of how familiar an input is, and how well they tell."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..algorithms import Algorithm


def energy_score(algorithm: Algorithm, x: Any, T: int | None = None) -> Float[np.ndarray, " batch"]:
    """Minus the energy of each sample with its own prediction as the target.

    The energy is a negative log-likelihood: what the network cannot explain has a high one. As the
    label is unknown, the most probable one, one-hot, is clamped.

    Args:
        algorithm: a trained classifier.
        x: inputs, (batch, *event).
        T: number of inference steps instead of the algorithm's own.

    Returns:
        (batch,); the higher, the more familiar.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.analysis as pxan, pcx.models as pxm
        >>> import pcx.predictive_coding as pxc
        >>> pc = pxa.PC(pxm.MLP([2, 4, 3], energy_fn=pxc.ce_energy), T=6)
        >>> pxan.energy_score(pc, jnp.ones((5, 2))).shape
        (5,)

    References:
        Pinchetti et al., "Benchmarking predictive coding networks - made simple", section 5.2; Liu
        et al., "Energy-based out-of-distribution detection", 2020.
    """
    prediction = jnp.asarray(algorithm.predict(x))
    target = jax.nn.one_hot(
        jnp.argmax(prediction, -1), prediction.shape[-1], dtype=prediction.dtype
    )
    return -np.asarray(algorithm.energy(x, target, T))


def softmax_score(algorithm: Algorithm, x: Any) -> Float[np.ndarray, " batch"]:
    """The largest class probability of each sample, softmax of the prediction, (batch,).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import pcx.algorithms as pxa, pcx.analysis as pxan, pcx.models as pxm
        >>> pc = pxa.PC(pxm.MLP([2, 8, 4], weight_init=jax.nn.initializers.zeros))
        >>> pxan.softmax_score(pc, jnp.ones((3, 2))).tolist()  # four classes, all alike
        [0.25, 0.25, 0.25]

    References:
        Hendrycks & Gimpel, "A baseline for detecting misclassified and out-of-distribution
        examples", 2017.
    """
    return np.asarray(jnp.max(jax.nn.softmax(jnp.asarray(algorithm.predict(x)), -1), -1))


def roc_auc(inside: Any, outside: Any) -> float:
    """Area under the ROC curve: how often a familiar sample scores higher than an unfamiliar one.

        P(score_in > score_out) + 1/2 P(score_in = score_out)

    Args:
        inside, outside: scores of samples from the training distribution, and from another.

    Returns:
        1.0 for perfect separation, 0.5 for chance.

    Example:
        >>> roc_auc([0.9, 0.8, 0.4], [0.5, 0.1])
        0.8333333333333334
    """
    a, b = _scores(inside, outside)
    b = np.sort(b)
    lower, lower_or_equal = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")
    return float((lower + lower_or_equal).sum() / (2 * len(a) * len(b)))


def roc_curve(
    inside: Any, outside: Any
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """The ROC curve: the share of each kind of samples that a threshold on the score lets pass.

    Returns:
        False positive rates (of `outside`) and true positive rates (of `inside`), from (0, 0) to
        (1, 1), one point for each threshold.

    Example:
        >>> import pcx.analysis as pxan
        >>> false_positives, true_positives = pxan.roc_curve([0.9, 0.6], [0.7, 0.1])
        >>> false_positives.tolist()
        [0.0, 0.0, 0.5, 0.5, 1.0]
        >>> true_positives.tolist()
        [0.0, 0.5, 0.5, 1.0, 1.0]
    """
    a, b = _scores(inside, outside)
    thresholds = np.unique(np.concatenate([a, b]))[::-1]

    def passing(scores: np.ndarray) -> np.ndarray:
        below = np.searchsorted(np.sort(scores), thresholds, "left")
        return np.concatenate([[0.0], 1 - below / len(scores)])

    return passing(b), passing(a)


def _scores(inside: Any, outside: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.ravel(np.asarray(inside)), np.ravel(np.asarray(outside))
    if len(a) == 0 or len(b) == 0:
        raise ValueError(f"both kinds of samples are needed; got {len(a)} inside, {len(b)} outside")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("scores must be finite; there are nan or infinite ones")
    return a, b
