"""`static`: a value that is part of the structure instead of the data."""

import contextlib
from collections.abc import Iterator
from typing import Any, Self

import jax

from ._describe import describe
from ._freeze import CODE, Content, freeze
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
            if not aux[0].metadata and aux[0].can_be_kept:
                param._aux = aux
            return param

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten, flatten)

    def _structure(self) -> Any:
        """What takes the place of this param in the structure of a tree."""
        try:
            # walked at every call of a jitted function, so it is kept for values that cannot change
            if not self.__dict__ and self._aux[0].is_current():
                return self._aux
        except AttributeError:
            pass
        # in a tuple, whose comparison looks at identity first
        aux = (_Held(self._value, self.metadata),)
        if not self.__dict__ and aux[0].can_be_kept:
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

    __slots__ = ("_codes", "_functions", "_hash", "_key", "can_be_kept", "metadata", "value")

    def __init__(self, value: Any, metadata: tuple[tuple[str, Any], ...]):
        self.value, self.metadata = value, metadata
        content = Content()
        self._key = (content.of(value), freeze(metadata))
        self._hash = hash(self._key)
        self._functions = content.functions
        self._codes = list(map(CODE, content.functions))
        self.can_be_kept = content.seen_whole and not content.containers

    def is_current(self) -> bool:
        """Whether the code of the functions in the value is what it was."""
        return not self._functions or list(map(CODE, self._functions)) == self._codes

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
