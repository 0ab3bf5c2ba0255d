"""The batch that a method of an algorithm is called with: as arrays, and what is wrong with it if the call fails.

Nothing is looked for before a call, which costs time at every step and would refuse what a model may well take.
After a failure the call is traced again with what was probably meant, and is told only if that works.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..core import BaseParam
from ..data._samples import as_array, sample_count

ONE_SAMPLE = """{where}: {names} {are} one sample, of shape {shapes}; algorithms take batches, with the samples \
along the first axis. Write {write}, a batch of one, or stack several samples: `np.stack([...])`."""

ONE_OF = """{where}: {name} is {got}, and the model takes one array, such as `{name}{key}`. Give it that, or let \
the model's `__call__` take what it needs: `x = x{key}`. (`pxt.batches` takes dicts and tuples as well.)"""

NOTE = """{where} was called with {name} as {got}; the model's `__call__` is given it in this form, each array \
without its first axis."""

_PLAIN = (np.ndarray, jax.Array, type(None), bool, int, float, str)


def as_batches(args: Sequence[Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Arguments with arrays of other libraries, such as torch tensors, as arrays of NumPy or JAX."""
    return tuple(
        value if isinstance(value, _PLAIN) else converted(value, names[min(n, len(names) - 1)])
        for n, value in enumerate(args)
    )


def converted(value: Any, name: str) -> Any:
    """One argument; a list of numbers is an array, too."""
    if isinstance(value, list) and _is_number(value):
        return np.asarray(value)
    convert = lambda leaf: as_array(leaf, name) if _is_foreign(leaf) else leaf
    is_leaf = lambda node: isinstance(node, BaseParam)
    return jax.tree_util.tree_map(convert, value, is_leaf=is_leaf)


def _is_number(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, bool | int | float)


def _is_foreign(leaf: Any) -> bool:
    if isinstance(leaf, (*_PLAIN, np.generic)) or hasattr(leaf, "__jax_array__"):
        return False
    return hasattr(leaf, "__array__")


def explain(
    error: Exception,
    where: str,
    args: Mapping[str, Any],
    works: Callable[[Mapping[str, Any]], bool],
) -> None:
    """After a failed call, raise an error that says what is wrong with its x and y, if that is what was wrong.

    Args:
        args: by name.
        works: whether a call with other arguments could be traced.
    """
    given = {name: args[name] for name in ("x", "y") if args.get(name) is not None}
    leaves = jax.tree_util.tree_leaves(given)
    if not leaves or not all(hasattr(leaf, "shape") for leaf in leaves):
        return
    if works({**args, **jax.tree_util.tree_map(lambda leaf: leaf[None], given)}):
        message = ONE_SAMPLE.format(
            where=where,
            names=" and ".join(given),
            are="are" if len(given) > 1 else "is",
            shapes=" and ".join(str(tuple(leaf.shape)) for leaf in leaves),
            write=" and ".join(f"`{name}[None]`" for name in given),
        )
        raise ValueError(message) from error
    sample_count(where, **given)
    for name, value in given.items():
        if isinstance(value, dict | tuple | list):
            for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
                if works({**args, name: leaf}):
                    key = jax.tree_util.keystr(path)
                    message = ONE_OF.format(where=where, name=name, got=_describe(value), key=key)
                    raise TypeError(message) from error
            error.add_note(NOTE.format(where=where, name=name, got=_describe(value)))


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value))}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a list of {len(value)}"
