"""Reading a transform's `kwargs_mask`: one value (axis, or True/False) for each param."""

import types
from typing import Any

from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves

from .. import core
from ..core import BaseModule, Mask
from ._collect import ARRAY
from ._leaves import LEAF, is_param, structure_of
from ._tracked import Structure

NO_MASK = """{title}: kwargs_mask is a mask (`pxu.M(pxc.VodeParam)`), or a dict from keyword \
argument to mask; got {got}"""

UNKNOWN = """{title}: kwargs_mask names {got!r}, which is not a keyword argument of this call \
(they are: {known}). Write `{{"model": mask}}` with the names that you pass, as in \
`f(x, model=model)`"""

MISFIT = """{title}: the mask tree given for {name!r} does not fit the object passed: at {where} \
the mask has {got} and the object has {expected}. A mask tree is what a mask returns for that \
object, as in `mask = pxu.M(pxc.VodeParam).to((False, True))(model)`"""

CONFLICT = """{title}: the param `{first}` is shared with `{second}`, and the mask gives it two \
different values, {a!r} and {b!r}. A shared param is one value: give it the same one everywhere"""


def read_mask(
    title: str, mask: Any, kwargs: dict[str, Any], structure: Structure, values: tuple[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """The mask's value for each distinct param, and for each plain array.

    Args:
        title: name of the transform, for error messages.
        mask: a mask for all kwargs, or a dict from kwarg name (or tuple of names) to a mask, a
            single value, or a mask tree of the same structure.
        kwargs: the keyword arguments of the call.
        structure: what `collect(kwargs)` returned.
        values: (rejected, selected) for masks that carry no values of their own.
    """
    params: dict[int, Any] = {}
    arrays: list[Any] = []
    per_leaf = _per_leaf(title, mask, kwargs, values)
    for position, (slot, value) in enumerate(zip(structure.slots, per_leaf, strict=True)):
        if slot == ARRAY:
            arrays.append(value)
        elif slot >= 0 and params.setdefault(slot, value) != value:
            paths = structure.paths()
            first = paths[structure.slots.index(slot)]
            raise ValueError(
                CONFLICT.format(
                    title=title, first=first, second=paths[position], a=params[slot], b=value
                )
            )
    # the default random key need not be among the keyword arguments
    return [params.get(i, values[0]) for i in range(len(structure.specs))], arrays


def _as_mask(entry: Any) -> Mask | None:
    """A mask from anything that a mask can be made of; None from a value or a mask tree."""
    if isinstance(entry, Mask):
        return entry
    is_filter = isinstance(entry, type | types.UnionType)
    # modules are callable too, but they are mask trees
    is_function = callable(entry) and structure_of(entry) == LEAF
    return Mask(entry) if is_filter or is_function else None


def _per_leaf(title: str, mask: Any, kwargs: dict[str, Any], values: tuple[Any, Any]) -> list[Any]:
    """One mask value for each leaf of kwargs, in tree order."""
    whole = _as_mask(mask)
    if whole is not None:
        return [whole.value(leaf, values) for leaf in tree_leaves(kwargs, is_leaf=is_param)]
    if not isinstance(mask, dict):
        raise TypeError(NO_MASK.format(title=title, got=core.describe(mask)))
    by_name: dict[str, Any] = {}
    for names, entry in mask.items():
        for name in names if isinstance(names, tuple) else (names,):
            if name not in kwargs:
                known = ", ".join(map(repr, kwargs)) or "none"
                raise ValueError(UNKNOWN.format(title=title, got=name, known=known))
            by_name[name] = entry
    out: list[Any] = []
    for name in sorted(kwargs):
        leaves = tree_leaves(kwargs[name], is_leaf=is_param)
        entry = by_name.get(name, values[0])
        whole = _as_mask(entry)
        if whole is not None:
            out.extend(whole.value(leaf, values) for leaf in leaves)
        elif _is_value(entry):
            out.extend([entry] * len(leaves))
        else:
            _spread(title, name, entry, kwargs[name], values, "", out)
    return out


def _is_value(x: Any) -> bool:
    return x is None or isinstance(x, bool | int)


def _spread(
    title: str, name: str, mask: Any, tree: Any, values: tuple[Any, Any], path: str, out: list[Any]
) -> None:
    """Append the mask's value for each leaf of `tree`; `mask` may be shallower.

    Modules are matched by the names of their attributes: an attribute that came after the mask was
    made (a mode, a status) is not selected.
    """
    if _is_value(mask) or is_param(mask):
        # a mask without values of its own keeps the params that it selects
        value = values[1] if is_param(mask) else mask
        out.extend([value] * len(tree_leaves(tree, is_leaf=is_param)))
        return
    same = type(mask) is type(tree)
    below, parts = _children(mask), _children(tree)
    if not same or not (below.keys() == parts.keys() or isinstance(tree, BaseModule)):
        raise ValueError(
            MISFIT.format(
                title=title,
                name=name,
                where=f"`{name}{path}`",
                got=_shape(mask),
                expected=_shape(tree),
            )
        )
    for key, part in parts.items():
        _spread(title, name, below.get(key, values[0]), part, values, path + key, out)


def _children(node: Any) -> dict[str, Any]:
    """The children of a pytree node one level down, by key."""
    one_level = tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    return {keystr(path): child for path, child in one_level}


def _shape(node: Any) -> str:
    size = f" of {len(node)}" if isinstance(node, list | tuple | dict) else ""
    return f"a {type(node).__name__}{size}"
