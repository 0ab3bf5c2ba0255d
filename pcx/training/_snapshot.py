"""All that training changes in an algorithm, as copies."""

from typing import Any

import jax
import jax.numpy as jnp

from ..core import RKG, named_params

RKG_PATH = "px.RKG.key"


def state_of(algorithm: Any) -> dict[str, Any]:
    """`{path: param}` of everything a training step may change: the algorithm's params and the
    key."""
    return {**dict(named_params(algorithm)), RKG_PATH: RKG.key}


@jax.jit
def _copies(leaves: list[Any]) -> list[Any]:
    return [jnp.copy(leaf) for leaf in leaves]


def _copy(values: Any) -> Any:
    """Copies of all arrays of a pytree, made in one call: one by one they would cost more than the
    steps between two snapshots of a small model."""
    leaves, tree = jax.tree_util.tree_flatten(values)
    arrays = iter(_copies([leaf for leaf in leaves if isinstance(leaf, jax.Array)]))
    copied = [next(arrays) if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
    return jax.tree_util.tree_unflatten(tree, copied)


class Snapshot:
    """The state of an algorithm at one moment, on the device. The arrays are copies, because those
    in the params may be donated to the next step.
    """

    def __init__(self, algorithm: Any):
        state = state_of(algorithm)
        self._values = _copy({path: param.get() for path, param in state.items()})

    def restore(self, algorithm: Any) -> None:
        """Put the state back."""
        values = _copy(self._values)
        for path, param in state_of(algorithm).items():
            param.set(values[path])
