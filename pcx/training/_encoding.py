"""Values of params and states of callbacks as arrays in a checkpoint."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..utils._files import decode, encode
from ..utils._mesh import whole

# values of params: the arrays in a flat list; the rest of the structure is the algorithm's own


def store(value: Any, name: str, arrays: dict[str, np.ndarray]) -> list[str]:
    """Put the arrays of a param's value into `arrays`; their types, in order."""
    kinds = []
    for index, leaf in enumerate(jax.tree_util.tree_leaves(value)):
        array, kind = encode(whole(leaf))
        arrays[f"{name}/{index}"] = array
        kinds.append(kind)
    return kinds


def restore(
    old: Any, kinds: list[str], name: str, arrays: Mapping[str, np.ndarray]
) -> tuple[Any, str | None]:
    """The saved value of a param, and what is wrong with it, if anything."""
    leaves, treedef = jax.tree_util.tree_flatten(old)
    new = [_decoded(arrays[f"{name}/{index}"], kind) for index, kind in enumerate(kinds)]
    if old is None and len(new) == 1:
        # a state that a fresh model does not have yet
        return new[0], None
    if len(leaves) != len(new):
        return None, f"{len(new)} arrays in the file, {len(leaves)} in the algorithm"
    for have, want in zip(new, leaves, strict=True):
        if jnp.shape(have) != jnp.shape(want) or jnp.result_type(have) != jnp.result_type(want):
            return None, f"{_describe(have)} in the file, {_describe(want)} in the algorithm"
    return jax.tree_util.tree_unflatten(treedef, new), None


def _decoded(array: np.ndarray, kind: str) -> jax.Array:
    return jax.device_put(decode(array, kind))


def _describe(array: Any) -> str:
    return f"{jnp.result_type(array)}{list(jnp.shape(array))}"


# states of callbacks: any nesting of dicts and lists


def pack(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Put the arrays of a nested value into `arrays`; the rest of it, as JSON can hold it."""
    if isinstance(value, Mapping):
        return {k: pack(v, f"{name}/{k}", arrays) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [pack(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, jax.Array | np.ndarray):
        arrays[name], kind = encode(value)
        return {"__array__": name, "kind": kind}
    return value


def unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of `pack`."""
    if isinstance(value, dict) and "__array__" in value:
        return _decoded(arrays[value["__array__"]], value["kind"])
    if isinstance(value, dict):
        return {k: unpack(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [unpack(v, arrays) for v in value]
    return value
