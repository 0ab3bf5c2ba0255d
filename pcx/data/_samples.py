"""Samples: one array, or a tuple, dict or other pytree of arrays of one length."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ARRAYS = (np.ndarray, jax.Array)

OF_TORCH = """{name} is a torch tensor, {dtype} on {device}, that JAX on {backend} cannot read ({error}). Write \
`{name}.cpu()`, and `.float()` for a type that NumPy lacks."""


def map_arrays(function: Callable[[Any], Any], samples: Any) -> Any:
    """`function` of each array; None, for "no input", stays None. A list is one array."""
    return jax.tree_util.tree_map(function, samples, is_leaf=_is_list)


def as_array(value: Any, name: str = "it") -> Any:
    """A value as an array: torch tensors, lists of numbers and other arrays are NumPy's from then on.

    Tensors that NumPy cannot hold (bfloat16, those on an accelerator) go to JAX directly, if it has the device.

    Raises:
        TypeError: it is a torch tensor that JAX cannot read.
    """
    if isinstance(value, _ARRAYS):
        return value
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach()
    try:
        on_host = value.device.type == "cpu" and value.dtype != torch.bfloat16
        return value.numpy() if on_host else jnp.from_dlpack(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        message = OF_TORCH.format(
            name=name,
            dtype=value.dtype,
            device=value.device,
            backend=jax.default_backend(),
            error=str(error).partition("\n")[0],
        )
        raise TypeError(message) from error


def sample_count(where: str, **samples: Any) -> int:
    """The number of samples: the length of the first axis, the same for all arrays.

    Args:
        where: begins the message, such as "batches".
        samples: pytrees of arrays, by the name that the message gives them.

    Raises:
        ValueError: the arrays differ in length, or one is a scalar, or there is none.
    """
    shapes = {}
    for name, part in samples.items():
        leaves, _ = jax.tree_util.tree_flatten_with_path(part, is_leaf=_is_list)
        for path, array in leaves:
            shapes[name + jax.tree_util.keystr(path)] = tuple(np.shape(array))
    if not shapes:
        raise ValueError(f"{where}: {' and '.join(samples)} hold no array. Give at least one.")
    if () in shapes.values() or len({shape[0] for shape in shapes.values()}) > 1:
        first, *others = shapes.items()
        listed = ["{} has shape {}".format(*first), *("{} {}".format(*item) for item in others)]
        raise ValueError(
            f"{where}: {' and '.join(listed)}; their first axes must have the same length, "
            "the batch size, with one target for each input. For learning without labels pass x as y too."
        )
    return next(iter(shapes.values()))[0]


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
