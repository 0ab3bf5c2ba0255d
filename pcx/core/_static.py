"""`static`: a value that is part of the structure instead of the data."""

import contextlib
import types
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Self

import jax
import numpy as np

from ._describe import describe
from ._param import BaseParam, get


class StaticParam(BaseParam):
    """Wraps any static value (function, int, string, ...); a pytree node without leaves.

    Calls, indexing, iteration, `len`, `in`, `==` and attributes go to the value. A plain attribute
    (`self.n = 3`) works as well on a module; this class remains for code that expects it.

    Example:
        >>> import jax, pcx as px
        >>> activation = px.StaticParam(jax.nn.relu)
        >>> float(activation(-1.0)), jax.tree_util.tree_leaves(activation)
        (0.0, [])
    """

    __slots__ = ("_aux",)
    _aux: Any

    @classmethod
    def _register(cls) -> None:
        def flatten(param: "StaticParam") -> tuple[tuple[()], Any]:
            return (), param._structure()

        def unflatten(aux: Any, _: Any) -> "StaticParam":
            param = cls.rebuild(aux[0].value, aux[0].metadata)
            if not aux[0].metadata and _is_hashable(aux[0].value):
                param._aux = aux
            return param

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten, flatten)

    def _structure(self) -> Any:
        """What takes the place of this param in the structure of a tree."""
        try:
            # walked at every call of a jitted function, so it is kept for values that cannot change
            if not self.__dict__:
                return self._aux
        except AttributeError:
            pass
        value = self._value
        # in a tuple, whose comparison looks at identity first
        aux = (_Held(value, self.metadata),)
        if not self.__dict__ and _is_hashable(value):
            self._aux = aux
        return aux

    def set(self, value: Any) -> Self:
        """Replace the value. Inside a transform the change does not leave it."""
        super().set(value)
        with contextlib.suppress(AttributeError):
            del self._aux
        return self

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
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._value, name)

    def __repr__(self) -> str:
        return f"static({describe(self._value)})"


class _Held:
    """A value as the static data of a pytree: compared by content, hashed once."""

    __slots__ = ("_hash", "_key", "metadata", "value")

    def __init__(self, value: Any, metadata: tuple[tuple[str, Any], ...]):
        self.value, self.metadata = value, metadata
        self._key = (freeze(value), freeze(metadata))
        self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Held) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash


def static(x: Any) -> StaticParam:
    """Mark `x` as static. Idempotent: a `StaticParam` is returned as it is.

    Example:
        >>> import pcx as px
        >>> n = px.static(3)
        >>> n.get(), n == 3, px.static(n) is n
        (3, True, True)
    """
    return x if isinstance(x, StaticParam) else StaticParam(x)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


class ById:
    """Stands for a value without hash: equal only to itself."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _freeze_all(value: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(map(freeze, value))


# How a value that compares too loosely, or not at all, is made comparable. Numbers: 1 == 1.0 and
# 1 == True and 0.0 == -0.0, yet they trace differently; nan is not even equal to itself.
# Containers: by content, so that editing a static list in place is seen as a change.
_STAND_INS: dict[type, Callable[[Any], Hashable]] = {
    bool: lambda x: ("bool", x),
    int: lambda x: ("int", x),
    float: float.hex,
    complex: repr,
    np.ndarray: lambda x: (x.shape, str(x.dtype), x.tobytes()),
    tuple: _freeze_all,
    list: _freeze_all,
    dict: lambda x: tuple((freeze(k), freeze(v)) for k, v in x.items()),
    set: lambda x: frozenset(map(freeze, x)),
    frozenset: lambda x: frozenset(map(freeze, x)),
    bytearray: bytes,
    np.generic: lambda x: (str(x.dtype), x.tobytes()),
}
# what needs no stand-in: equal means the same to a trace
_PLAIN = (str, bytes, type(None), types.FunctionType, types.BuiltinFunctionType)


def freeze(value: Any) -> Hashable:
    """A hashable stand-in that is equal whenever the value is, to a function that is traced."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    for base in kind.__mro__:
        if base in _STAND_INS:
            return (kind, _STAND_INS[base](value))
    return value if _is_hashable(value) else ById(value)
