"""What a program is to the harness."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Program(NamedTuple):
    """One training step, and the weights it has reached.

    `step()` runs one training step and returns something that `jax.block_until_ready` waits for
    (or that is ready already). `read_weights()` gives (weight, bias) of every layer as the case
    lays them out, or None where the program's own parameters do not correspond to them.
    """

    step: Callable[[], Any]
    read_weights: Callable[[], list[tuple[np.ndarray, np.ndarray]] | None]
