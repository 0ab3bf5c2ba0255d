"""What `pxf.jit` compiles for one structure of the keyword arguments, and what comes out of it."""

import functools
from collections.abc import Sequence
from typing import Any
from weakref import ref

import jax
from jax.tree_util import tree_flatten

from ..core import BaseModule, BaseParam
from ._leaves import is_dynamic


class Version:
    """One structure of the keyword arguments for which a function is compiled.

    It owns its compiled functions, so that dropping it frees them.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_permanent",
        "chosen",
        "donating",
        "draws",
        "jitted",
        "used",
    )

    def __init__(self, jitted: Any, donating: Any, chosen: tuple[bool, ...] | None):
        self.jitted, self.donating = jitted, donating
        self.chosen = chosen  # which arrays are donated; None is all of them
        self.used = 0  # number of calls that returned
        self.draws: bool | None = None  # whether it draws from `px.RKG`; None is not known yet
        self._calls: list[tuple[ref[Any], ...]] = []
        self._permanent = False

    def note(self, kwargs: dict[str, Any]) -> None:
        """Remember for which objects this version is used."""
        objects = [x for x in kwargs.values() if isinstance(x, BaseModule | BaseParam)]
        self._permanent = self._permanent or not objects
        call = tuple(map(ref, objects))
        self._calls = [c for c in self._calls if _lives(c) and not _same(c, call)]
        self._calls.append(call)

    def lives(self) -> bool:
        """Whether a call with the same objects can come again."""
        return self._permanent or any(map(_lives, self._calls))


def _lives(call: tuple["ref[Any]", ...]) -> bool:
    return all(r() is not None for r in call)


def _same(a: tuple["ref[Any]", ...], b: tuple["ref[Any]", ...]) -> bool:
    return len(a) == len(b) and all(x() is y() for x, y in zip(a, b, strict=True))


class Output(functools.partial):
    """What a compiled function returns: `Output(form, arrays)`.

    JAX rebuilds it without running Python code: nothing can come between donating the old arrays
    and holding the new ones (see `Jit`).
    """

    __slots__ = ()

    @classmethod
    def of(cls, result: Any, updates: dict[int, Any]) -> "Output":
        """The result of a function and the changes of the params."""
        changes, arrays = _Form.of(updates)
        rest, more = _Form.of(result)
        return cls(OutputForm(changes, rest, len(arrays)), (*arrays, *more))


class OutputForm:
    """An `Output` apart from its arrays."""

    __slots__ = ("_count", "_result", "_updates")

    def __init__(self, updates: "_Form", result: "_Form", count: int):
        self._updates, self._result, self._count = updates, result, count

    def updates(self, arrays: Sequence[Any]) -> dict[int, Any]:
        """The changes of the params."""
        updates: dict[int, Any] = self._updates.join(arrays[: self._count])
        return updates

    def __call__(self, arrays: Sequence[Any]) -> Any:
        """The result."""
        return self._result.join(arrays[self._count :])


jax.tree_util.register_pytree_node(Output, lambda out: (out.args[0], out.func), Output)


class _Form:
    """A pytree apart from its arrays."""

    __slots__ = ("_statics", "_treedef")

    def __init__(self, treedef: Any, statics: list[tuple[int, Any]]):
        self._treedef, self._statics = treedef, statics

    @classmethod
    def of(cls, tree: Any) -> tuple["_Form", list[Any]]:
        """The form of a pytree, and its arrays."""
        leaves, treedef = tree_flatten(tree)
        statics = [(i, leaf) for i, leaf in enumerate(leaves) if not is_dynamic(leaf)]
        return cls(treedef, statics), [leaf for leaf in leaves if is_dynamic(leaf)]

    def join(self, arrays: Sequence[Any]) -> Any:
        """The pytree, from its arrays."""
        if self._statics:
            arrays = list(arrays)
            for position, leaf in self._statics:
                arrays.insert(position, leaf)
        return self._treedef.unflatten(arrays)
