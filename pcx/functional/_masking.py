"""Reading a transform's `kwargs_mask`: one value (axis, or True/False) for each param."""

from typing import Any

import jax

from .. import core
from ..core import Mask
from ._tracked import Collected, _is_param

UNKNOWN = """{transform}: kwargs_mask names {got!r}, which is not a keyword argument of this call \
(they are: {known}). Write `{{"model": mask}}` with the names that you pass, as in `f(x, model=model)`."""

MISFIT = """{transform}: the mask tree given for {name!r} does not fit the object passed: {why}. A mask \
tree is what a mask returns for that object, as in `mask = pxu.M(pxc.VodeParam).to((False, True))(model)`."""

CONFLICT = """{transform}: the param `{first}` is shared with `{second}`, and the mask gives it two \
different values, {a!r} and {b!r}. A shared param is one value: give it the same one at every path."""


def read_mask(
    transform: str, kwargs_mask: Any, kwargs: dict[str, Any], collected: Collected, values: tuple[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """The mask's value for each distinct param, and for each plain array.

    Args:
        transform: name of the transform, for error messages.
        kwargs_mask: a mask for all kwargs, or a dict from kwarg name (or tuple of names) to a mask,
            a single value, or a mask tree of the same structure.
        kwargs: the keyword arguments of the call.
        collected: what `collect(kwargs)` gave.
        values: (rejected, selected) for masks that carry no values of their own.
    """
    structure = collected.structure
    per_leaf = _per_leaf(transform, kwargs_mask, kwargs, values)
    params: list[Any] = [_Unset] * len(collected.params)
    arrays: list[Any] = []
    for position, (slot, value) in enumerate(zip(structure.slots, per_leaf, strict=True)):
        if slot >= 0:
            if params[slot] is not _Unset and params[slot] != value:
                raise ValueError(_conflict(transform, structure, slot, position, params[slot], value))
            params[slot] = value
        elif slot == -1:
            arrays.append(value)
    if params[0] is _Unset:
        params[0] = values[0]
    return params, arrays


class _Unset:
    pass


def _per_leaf(transform: str, mask: Any, kwargs: dict[str, Any], values: tuple[Any, Any]) -> list[Any]:
    """One mask value for each leaf of kwargs, in tree order."""
    if isinstance(mask, type) or (callable(mask) and not isinstance(mask, Mask)):
        mask = Mask(mask)
    if isinstance(mask, Mask):
        leaves = jax.tree_util.tree_leaves(kwargs, is_leaf=_is_param)
        return [mask.value(leaf, values) for leaf in leaves]
    if not isinstance(mask, dict):
        raise TypeError(
            f"{transform}: kwargs_mask is a mask (`pxu.M(pxc.VodeParam)`), or a dict from keyword "
            f"argument to mask; got {type(mask).__name__}"
        )
    by_name: dict[str, Any] = {}
    for names, entry in mask.items():
        for name in names if isinstance(names, tuple) else (names,):
            if name not in kwargs:
                known = ", ".join(map(repr, kwargs)) or "none"
                raise ValueError(UNKNOWN.format(transform=transform, got=name, known=known))
            by_name[name] = entry
    out: list[Any] = []
    for name in sorted(kwargs):
        leaves, treedef = jax.tree_util.tree_flatten(kwargs[name], is_leaf=_is_param)
        entry = by_name.get(name, values[0])
        if isinstance(entry, type):
            entry = Mask(entry)
        if isinstance(entry, Mask):
            out.extend(entry.value(leaf, values) for leaf in leaves)
        elif entry is None or isinstance(entry, bool | int):
            out.extend([entry] * len(leaves))
        else:
            out.extend(_broadcast(transform, name, entry, kwargs[name]))
    return out


def _broadcast(transform: str, name: str, mask_tree: Any, tree: Any) -> list[Any]:
    """The values of a mask tree, which may be shallower than the tree it is for."""
    out: list[Any] = []

    def extend(value: Any, subtree: Any) -> None:
        count = len(jax.tree_util.tree_leaves(subtree, is_leaf=_is_param))
        out.extend([None if core.is_param(value) else value] * count)

    try:
        jax.tree_util.tree_map(
            extend, mask_tree, tree, is_leaf=lambda x: x is None or core.is_param(x)
        )
    except (ValueError, TypeError, AttributeError) as error:
        # jax's own explanation of a misfit fails on some custom nodes, with an AttributeError
        explained = not isinstance(error, AttributeError)
        why = str(error).splitlines()[0] if explained else "their attributes differ"
        raise ValueError(MISFIT.format(transform=transform, name=name, why=why)) from error
    return out


def _conflict(transform: str, structure: Any, slot: int, position: int, a: Any, b: Any) -> str:
    tree = jax.tree_util.tree_unflatten(structure.treedef, range(len(structure.slots)))
    paths = [core.kwargs_path_str(p) for p, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    first = paths[structure.slots.index(slot)]
    return CONFLICT.format(transform=transform, first=first, second=paths[position], a=a, b=b)
