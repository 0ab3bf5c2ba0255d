"""Numbers from the device, all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np


def fetch(logs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What steps returned, as NumPy arrays. Waits for the last of them."""
    values = [value for row in logs for value in row.values()]
    # On a CPU the arrays are in reach already, and starting a copy costs more than reading them.
    if any(_is_remote(value) for value in values[:1]):
        values = jax.device_get(values)
    arrays = iter([np.asarray(value) for value in values])
    return [{name: next(arrays) for name in row} for row in logs]


def _is_remote(value: Any) -> bool:
    return isinstance(value, jax.Array) and any(d.platform != "cpu" for d in value.devices())
