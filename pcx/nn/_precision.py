"""`compute_dtype`: the precision in which layers compute, apart from that in which params are kept."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp


class _State(threading.local):
    dtype: Any = None


_state = _State()


@contextlib.contextmanager
def compute_dtype(dtype: Any) -> Iterator[None]:
    """Let every layer compute in `dtype` inside the block: mixed precision.

    Layers cast their params and inputs to `dtype` and their output back to the input's own type, so
    states, predictions, energies, gradients and optimisers stay in float32.

    Enter it inside a jitted function: like everything that is not an argument, it is read while tracing.
    The algorithms of `pcx.algorithms` do so for their option `compute_dtype`.

    Args:
        dtype: such as `jnp.bfloat16`; None leaves things as they are.

    Raises:
        TypeError: not a floating point type.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> layer = pxnn.Linear(2, 2)
        >>> with pxnn.compute_dtype(jnp.bfloat16):
        ...     y = layer(jnp.ones(2))
        >>> str(y.dtype)
        'float32'
    """
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"compute_dtype takes a floating point type such as jnp.bfloat16; got {dtype!r}"
        )
    outer = _state.dtype
    _state.dtype = dtype
    try:
        yield
    finally:
        _state.dtype = outer


def active_dtype() -> Any:
    """The type of the innermost `compute_dtype` block, or None."""
    return _state.dtype


def cast_floating(tree: Any, dtype: Any) -> Any:
    """Cast the floating point arrays of a tree; everything else stays."""

    def cast(x: Any) -> Any:
        floating = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
        return x.astype(dtype) if floating else x

    return jax.tree_util.tree_map(cast, tree)


def floating_dtype(tree: Any) -> Any:
    """The type of the first floating point array in a tree, or float32."""
    for x in jax.tree_util.tree_leaves(tree):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating):
            return x.dtype
    return jnp.dtype("float32")
