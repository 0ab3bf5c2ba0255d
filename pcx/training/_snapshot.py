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


def _copy(value: Any) -> Any:
    return jax.tree_util.tree_map(lambda x: jnp.copy(x) if isinstance(x, jax.Array) else x, value)


class Snapshot:
    """The state of an algorithm at one moment, on the device. The arrays are copies, because those
    in the params may be donated to the next step.
    """

    def __init__(self, algorithm: Any):
        self._values = {path: _copy(param.get()) for path, param in state_of(algorithm).items()}

    def restore(self, algorithm: Any) -> None:
        """Put the state back."""
        for path, param in state_of(algorithm).items():
            param.set(_copy(self._values[path]))
