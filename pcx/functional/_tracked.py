"""THE tracking protocol: how mutable params go through a pure JAX transform and back.

Every transform does the same four things:

1. `collect(kwargs)` walks the keyword arguments (see `_collect.py`). It returns a `Structure`
   (static), the caller's own `Param` objects, each once however often it is reached, and their
   arrays, flat.
2. Inside the transform `structure.run(...)` rebuilds fresh copies from the (traced) arrays, runs
   the user's function on them in a new scope, and reads back which params changed.
3. The changes leave the transform as an ordinary pytree: one entry per param, `()` if untouched.
4. `write_back` stores them in the caller's own params.

The key of the default random key generator is always param number 0, so it travels the same way.
Positional arguments are rebuilt too, but never read back: what happens to them stays inside.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.tree_util import tree_flatten, tree_unflatten

from .. import core
from ..core import DynamicParam
from ._collect import ARRAY, Parts, take_apart
from ._leaves import LEAF, ParamSpec, WithStatics, is_array, is_param, with_statics

Updates = tuple[Any, ...]


class Structure:
    """Everything about the keyword arguments of a call that is not an array."""

    __slots__ = ("size", "slots", "specs", "statics", "treedef")

    def __init__(self, parts: Parts):
        self.treedef, self.slots = parts.treedef, parts.key.form[1]
        self.specs = tuple([ParamSpec.of(param) for param in parts.params])
        self.statics = tuple(parts.statics)
        # number of arrays in params; plain arrays follow them
        self.size = sum([spec.size for spec in self.specs])

    def with_specs(self, specs: Sequence[ParamSpec]) -> "Structure":
        """The same structure with other values in its params."""
        new = object.__new__(Structure)
        new.treedef, new.slots, new.statics = self.treedef, self.slots, self.statics
        new.specs = tuple(specs)
        new.size = sum(spec.size for spec in specs)
        return new

    def rebuild(self, values: Sequence[Any]) -> tuple[dict[str, Any], list[DynamicParam]]:
        """Fresh keyword arguments from flat arrays, and their params in order."""
        params = [
            spec.cls.rebuild(spec.join(mine), spec.metadata)
            for spec, mine in zip(self.specs, self.split(values), strict=True)
        ]
        arrays, statics = iter(values[self.size :]), iter(self.statics)
        leaves = [
            params[s] if s >= 0 else next(arrays) if s == ARRAY else next(statics)
            for s in self.slots
        ]
        return tree_unflatten(self.treedef, leaves), params

    def split(self, values: Sequence[Any]) -> list[Sequence[Any]]:
        """The arrays of each param."""
        out, position = [], 0
        for spec in self.specs:
            out.append(values[position : position + spec.size])
            position += spec.size
        return out

    def spread(self, per_param: Sequence[Any]) -> list[Any]:
        """An entry per param, repeated for each of its arrays."""
        return [
            entry
            for spec, entry in zip(self.specs, per_param, strict=True)
            for _ in range(spec.size)
        ]

    def run(
        self,
        name: str,
        body: Callable[..., Any],
        values: Sequence[Any],
        args: tuple[Any, ...],
        full: bool = False,
    ) -> tuple[Any, Updates]:
        """Run `body(*args, **kwargs)` on rebuilt kwargs; its result, and the params' changes.

        Args:
            name: shown in error messages.
            full: report every param as changed (loops need the same output each time).
        """
        scope = core.Scope.now(name)

        def rebuilt() -> tuple[Any, list[DynamicParam]]:
            kwargs, params = self.rebuild(values)
            scope.key = params[0]
            result = body(*tree_unflatten(*reversed(tree_flatten(args))), **kwargs)
            self._refuse_replaced(name, kwargs, params)
            return result, params

        result, params = core.scope_state.run(scope, rebuilt)
        updates = tuple(
            (_pack(param._value),) if full or _changed(param, spec, old) else ()
            for param, spec, old in zip(params, self.specs, self.split(values), strict=True)
        )
        return result, updates

    def _refuse_replaced(self, name: str, kwargs: Any, params: list[DynamicParam]) -> None:
        """Raise if the body put something new where params were: the caller would not see it.

        Params may be left out (a shorter list, say) or change places: that stays inside.
        """
        leaves = jax.tree_util.tree_flatten_with_path(kwargs, is_leaf=is_param)[0]
        own = set(map(id, params))
        kept = [tuple(path) for path, leaf in leaves if id(leaf) in own]
        new = [
            tuple(path)
            for path, leaf in leaves
            if id(leaf) not in own and (is_param(leaf) or is_array(leaf))
        ]
        if not new:
            return
        before = dict(zip(self.key_paths(), self.slots, strict=True))
        new = [path for path in new if before.get(path, 0) >= 0]
        if not new:
            return
        for path, slot in before.items():
            # the largest part of the arguments that has none of its params left
            sizes = range(1, len(path) + 1) if slot > 0 else ()
            size = next((n for n in sizes if all(k[:n] != path[:n] for k in kept)), None)
            if size and any(other[:size] == path[:size] for other in new):
                part, param = map(core.kwargs_path_str, (path[:size], path))
                raise RuntimeError(REPLACED.format(title=name, part=part, param=param))

    def size_of(self, index: int) -> int:
        """Number of arrays in a param."""
        return self.specs[index].size

    def key_paths(self) -> list[tuple[Any, ...]]:
        """The path of each leaf of the keyword arguments, in JAX's keys."""
        tree = tree_unflatten(self.treedef, [_Marker()] * len(self.slots))
        return [tuple(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]

    def paths(self) -> list[str]:
        """The path of each leaf of the keyword arguments."""
        return [*map(core.kwargs_path_str, self.key_paths())]

    def name_of(self, index: int) -> str:
        """Path of a param, for error messages."""
        return "px.RKG.key" if index == 0 else self.paths()[self.slots.index(index)]


REPLACED = """{title}: `{part}` was replaced by another object inside the transform; only what is \
written *into* a param reaches the caller. Write `{param}.set(...)`, or an in-place \
operator such as `{param} -= ...` (not `{param} = {param} - ...`)"""


class _Marker:
    """A leaf where a structure is rebuilt only to learn its paths."""


def collect(
    kwargs: dict[str, Any], title: str | None = None
) -> tuple[Structure, list[Any], tuple[Any, ...]]:
    """The structure of keyword arguments, the caller's params, and all arrays, flat.

    Args:
        title: the transform, which is refused params inside one of JAX's own that compiles; None
            for a pure function.
    """
    parts = take_apart(kwargs)
    if title is not None:
        core.check_call(title, len(parts.params) > 1)
    return Structure(parts), parts.params, (*parts.values, *parts.arrays)


def _changed(param: DynamicParam, spec: ParamSpec, old: Sequence[Any]) -> bool:
    value = param._value
    if spec.treedef is LEAF:
        return value is not old[0]
    # leaf by leaf, since a container may have been edited in place
    leaves, treedef = tree_flatten(value)
    return treedef != spec.treedef or any(
        a is not b for a, b in zip(leaves, spec.leaves(old), strict=True)
    )


def _pack(value: Any) -> Any:
    return value if is_array(value) else with_statics(value)


def changes(updates: Updates) -> dict[int, Any]:
    """The updates that are some, by number of the param."""
    return {index: update[0] for index, update in enumerate(updates) if update}


def write_back(params: Sequence[Any], new: dict[int, Any]) -> None:
    """Store what a transform changed in the caller's own params: all of it, or nothing."""
    unknown = core.in_unknown_trace()
    if unknown or core.scope_state.scope is not None:
        # an inner transform may have got objects that the outer one does not track
        for index, value in new.items():
            param = params[index]
            core.check_write(param._scope, value, param)
            if unknown and isinstance(param, core.RandomKey) and not core.made_here(param._scope):
                raise RuntimeError(core.UNTRACKED)
    store(params, new)


def store(params: Sequence[Any], new: dict[int, Any]) -> None:
    """Put new values into params; an interrupt in between comes after the last."""
    values = [v.value() if type(v) is WithStatics else v for v in new.values()]
    try:
        for index, value in zip(new, values, strict=True):
            params[index]._value = value
    except BaseException:
        for index, value in zip(new, values, strict=True):
            params[index]._value = value
        raise
