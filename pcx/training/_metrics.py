"""Metrics: functions of predictions and targets that give one number per sample.

They are computed on the device, inside the compiled step; their means over a batch come out of it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float


def accuracy(prediction: Any, target: Any) -> Float[jax.Array, "*batch"]:
    """Whether the largest output is where the target has its largest value.

    Args:
        prediction: `(batch, classes)`, of any scale.
        target: `(batch, classes)`, one-hot vectors.

    Returns:
        `(batch,)`, each 1.0 or 0.0.

    Example:
        >>> import jax.numpy as jnp, pcx.training as pxt
        >>> pxt.accuracy(jnp.array([[0.1, 0.9], [2.0, 1.0]]), jnp.array([[0, 1], [0, 1]])).tolist()
        [1.0, 0.0]
    """
    return (jnp.argmax(prediction, -1) == jnp.argmax(target, -1)).astype(jnp.float32)


def top_k_accuracy(k: int) -> Callable[[Any, Any], Float[jax.Array, "*batch"]]:
    """A metric: whether the target's class is among the k largest outputs.

    Among equal outputs the earlier class wins, so that k = 1 is `accuracy`.

    Example:
        >>> import jax.numpy as jnp, pcx.training as pxt
        >>> top2 = pxt.top_k_accuracy(2)
        >>> top2(jnp.array([[0.1, 0.9, 0.5]]), jnp.array([[0, 0, 1]])).tolist()
        [1.0]
    """
    if k < 1:
        raise ValueError(f"top_k_accuracy: k must be at least 1, got {k}")

    def metric(prediction: Any, target: Any) -> Float[jax.Array, "*batch"]:
        _, best = jax.lax.top_k(prediction, k)
        return jnp.any(best == jnp.argmax(target, -1)[..., None], -1).astype(jnp.float32)

    return metric


def squared_error(prediction: Any, target: Any) -> Float[jax.Array, " batch"]:
    """Mean over the event axes of `(prediction - target)^2`, one number per sample.

    Example:
        >>> import jax.numpy as jnp, pcx.training as pxt
        >>> prediction, target = jnp.array([[1.0, 3.0], [0.0, 0.0]]), jnp.array([[1, 1], [0, 0]])
        >>> pxt.squared_error(prediction, target).tolist()
        [2.0, 0.0]
    """
    error = jnp.square(prediction - target)
    return jnp.mean(error.reshape(error.shape[0], -1), axis=1)
