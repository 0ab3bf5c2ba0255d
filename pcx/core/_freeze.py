"""Static values as part of a cache key: what a trace depends on, comparable and hashable.

A static value that is edited in place (a dictionary, a config object) is another value to a trace,
so it is compared by content.
"""

import dataclasses
import enum
import functools
import operator
import sys
import types
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import jax
import numpy as np

from ._param import BaseParam

# objects of these that are compared by identity hold caches, counters, handles: no settings
_NO_SETTINGS = frozenset(sys.stdlib_module_names | {"jax", "jaxlib", "numpy"})
# what comes after so many values is compared by identity
_MAX_VALUES = 10_000


class ById:
    """Stands for a value without hash: equal only to itself."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def freeze(value: Any) -> Hashable:
    """A hashable stand-in that is equal whenever the value is, to a function that is traced."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    return Content().of(value)


class Content:
    """A walk over a static value: its stand-in, and where it could be edited.

    Attributes:
        containers: the dictionaries and lists that it went through.
        objects: the objects whose attributes are among them.
        functions: the functions, whose code an editor's reload may replace.
        seen_whole: whether every edit in place shows in the three lists above.
    """

    __slots__ = ("_count", "_path", "containers", "functions", "objects", "seen_whole")

    def __init__(self) -> None:
        self.containers: list[Any] = []
        self.objects: list[Any] = []
        self.functions: list[Any] = []
        self.seen_whole = True
        self._path: set[int] = set()
        self._count = 0

    def of(self, value: Any) -> Hashable:
        """The stand-in for a value."""
        kind = type(value)
        if kind in _AS_THEY_ARE:
            return value
        self._count += 1
        if id(value) in self._path or self._count > _MAX_VALUES:
            return ById(value)
        self._path.add(id(value))
        try:
            for base in kind.__mro__:
                if base in _STAND_INS:
                    return (kind, _STAND_INS[base](self, value))
            return self._object(kind, value)
        finally:
            self._path.discard(id(value))

    def all(self, values: Iterable[Any]) -> tuple[Hashable, ...]:
        """The stand-ins for several values."""
        return tuple(map(self.of, values))

    def _list(self, value: list[Any]) -> Hashable:
        self.containers.append(value)
        return self.all(value)

    def _dict(self, value: dict[Any, Any]) -> Hashable:
        self.containers.append(value)
        return tuple((self.of(k), self.of(v)) for k, v in value.items())

    def _set(self, value: Any) -> Hashable:
        self.seen_whole = False
        return frozenset(self.all(value))

    def _array(self, value: np.ndarray) -> Hashable:
        self.seen_whole = False
        return (value.shape, str(value.dtype), value.tobytes())

    def _bytes(self, value: bytearray) -> Hashable:
        self.seen_whole = False
        return bytes(value)

    def _function(self, value: types.FunctionType) -> Hashable:
        # by identity: two of one code may read globals that have changed in between
        self.functions.append(value)
        return (value, value.__code__)

    def _method(self, value: types.MethodType) -> Hashable:
        return (self.of(value.__func__), self.of(value.__self__))

    def _partial(self, value: functools.partial[Any]) -> Hashable:
        return self.all((value.func, value.args, value.keywords))

    def _object(self, kind: type, value: Any) -> Hashable:
        by_identity = getattr(kind, "__hash__", None) is _IDENTITY
        is_ours = getattr(kind, "_is_pcx_module", False)
        if is_ours or isinstance(value, _ONES):
            return value if _is_hashable(value) else ById(value)
        own, slots = getattr(value, "__dict__", None), _slots(kind)
        if by_identity and kind.__module__.partition(".")[0] in _NO_SETTINGS:
            return value
        settings = by_identity or kind.__hash__ is None or dataclasses.is_dataclass(kind)
        if not settings or not (slots or isinstance(own, dict)):
            if not _is_hashable(value):
                self.seen_whole = False
                return ById(value)
            return value
        content: list[Hashable] = []
        if isinstance(own, dict):
            if not _is_frozen(kind):
                self.objects.append(value)
                self.containers.append(own)
            # what a dataclass leaves out of its comparison is no setting
            fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
            notes = {field.name for field in fields if not field.compare}
            content.append(tuple((k, self.of(v)) for k, v in own.items() if k not in notes))
        if slots:
            self.seen_whole = False
            content.append(self.all(getattr(value, name, None) for name in slots))
        return (kind, ById(value) if by_identity else None, *content)


def _is_frozen(kind: type) -> bool:
    """Whether a class is a dataclass that refuses to be edited."""
    return dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def _slots(kind: type) -> tuple[str, ...]:
    names: list[str] = []
    for base in kind.__mro__:
        own = base.__dict__.get("__slots__", ())
        names.extend([own] if isinstance(own, str) else own)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


CODE = operator.attrgetter("__code__")
_IDENTITY: Any = object.__hash__
# each is one thing, whatever it holds
_ONES = (type, types.ModuleType, enum.Enum, jax.Array, BaseParam)
# what needs no stand-in: equal means the same to a trace
_AS_THEY_ARE = frozenset({str, bytes, type(None), types.BuiltinFunctionType})

# How a value that compares too loosely, or not at all, is made comparable. Numbers: 1 == 1.0 and
# 1 == True and 0.0 == -0.0, yet they trace differently; nan is not even equal to itself.
_STAND_INS: dict[type, Callable[[Content, Any], Hashable]] = {
    bool: lambda _, x: ("bool", x),
    int: lambda _, x: ("int", x),
    float: lambda _, x: float.hex(x),
    complex: lambda _, x: repr(x),
    np.generic: lambda _, x: (str(x.dtype), x.tobytes()),
    np.ndarray: Content._array,
    tuple: Content.all,
    list: Content._list,
    dict: Content._dict,
    set: Content._set,
    frozenset: lambda content, x: frozenset(content.all(x)),
    bytearray: Content._bytes,
    types.FunctionType: Content._function,
    types.MethodType: Content._method,
    functools.partial: Content._partial,
}
