"""`static`: a value that is part of the structure instead of the data."""

from collections.abc import Hashable, Iterator
from typing import Any

import jax
import numpy as np

from ._param import BaseParam, describe, get


class StaticParam(BaseParam):
    """Wraps any static value (function, int, string, ...); a pytree node without leaves.

    Calls, indexing, iteration, `len`, `in`, `==` and attributes go to the value. A plain attribute
    (`self.n = 3`) works as well on a module; this class remains for code that expects it.
    """

    __slots__ = ()

    @classmethod
    def _register(cls) -> None:
        jax.tree_util.register_pytree_with_keys(
            cls,
            lambda p: ((), (freeze(p._value), _Held(p._value), p.metadata)),
            lambda aux, _: cls.rebuild(aux[1].value, aux[2]),
            lambda p: ((), (freeze(p._value), _Held(p._value), p.metadata)),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._value(*args, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        return self._value[get(index)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._value)

    def __len__(self) -> int:
        return len(self._value)

    def __contains__(self, item: Any) -> bool:
        return get(item) in self._value

    def __eq__(self, other: Any) -> bool:
        return self._value == get(other)

    def __hash__(self) -> int:
        return hash(freeze(self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._value, name)

    def __repr__(self) -> str:
        return f"static({describe(self._value)})"


class _Held:
    """Carries a value through a pytree's static data without taking part in comparison."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


def static(x: Any) -> StaticParam:
    """Mark `x` as static. Idempotent: a `StaticParam` is returned as it is.

    Example:
        >>> import pcx as px
        >>> n = px.static(3)
        >>> n.get(), n == 3, px.static(n) is n
        (3, True, True)
    """
    return x if isinstance(x, StaticParam) else StaticParam(x)


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
    """A hashable stand-in that is equal whenever the value is.

    Containers are frozen by content, so that editing a static list is seen as a change.
    """
    if isinstance(value, bool | int | float):
        # 1 == 1.0 == True, yet they trace differently
        return (type(value), value)
    if isinstance(value, list | tuple):
        return (type(value), *map(freeze, value))
    if isinstance(value, dict):
        return (type(value), *((freeze(k), freeze(v)) for k, v in value.items()))
    if isinstance(value, np.ndarray):
        return (np.ndarray, value.shape, str(value.dtype), value.tobytes())
    if isinstance(value, set | frozenset):
        return (type(value), frozenset(map(freeze, value)))
    try:
        hash(value)
    except TypeError:
        return ById(value)
    return value
