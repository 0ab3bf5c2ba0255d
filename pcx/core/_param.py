"""`Param`, the mutable cell that tracked transforms carry in and out, and its relatives."""

from collections.abc import Iterator
from typing import Any, Self

import jax

from . import _scope
from ._operators import install_operators

EMPTY = """this {cls} is empty (its value is None), so it has no attribute {name!r}. A vode's state \
gets a value in a forward pass under `pxu.step(model, pxc.STATUS.INIT)`, or by `.set(array)`."""


class BaseParam:
    """Base of everything that masks and tree functions treat as one leaf.

    Any attribute put on a param (`param.frozen = True`) is static metadata: it is part of the
    structure that `pxf.jit` compiles for, survives transforms, and can be used in masks.
    """

    # `_first` is what happened first to the param in its scope, "read" or "write": a param that a
    # jitted function writes before it reads need not be passed in at all (see functional/_tracked.py)
    __slots__ = ("__dict__", "__weakref__", "_first", "_scope", "_value")

    def __init__(self, value: Any = None):
        self._value = get(value)
        self._first: str | None = None
        self._scope = _scope.state.scope

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls._register()

    @classmethod
    def _register(cls) -> None:
        raise NotImplementedError

    @property
    def metadata(self) -> tuple[tuple[str, Any], ...]:
        """The attributes put on this param, sorted by name."""
        own = self.__dict__
        return tuple(sorted(own.items())) if own else ()

    @classmethod
    def rebuild(cls, value: Any, metadata: tuple[tuple[str, Any], ...] = ()) -> Self:
        """A param of this class with the given value and metadata, made in the current scope."""
        param = object.__new__(cls)
        param._value = value
        param._first = None
        param._scope = _scope.state.scope
        if metadata:
            param.__dict__.update(metadata)
        return param

    def get(self) -> Any:
        """The wrapped value."""
        return self._read()

    def _read(self) -> Any:
        if self._first is None:
            self._first = "read"
        return self._value

    def set(self, value: Any) -> Self:
        """Replace the wrapped value and return the param itself.

        Raises:
            RuntimeError: a traced value would be left in a param that the running transform does
                not track.
        """
        value = get(value)
        if self._scope is not _scope.state.scope:
            _scope.check_write(self._scope, value, self)
        if self._first is None:
            self._first = "write"
        self._value = value
        return self

    def __reduce__(self) -> Any:
        return _unpickle, (type(self), self._read(), self.metadata)

    def __repr__(self) -> str:
        extra = "".join(f", {k}={v!r}" for k, v in self.metadata)
        return f"{type(self).__qualname__}({describe(self._read())}{extra})"


def _unpickle(cls: type[BaseParam], value: Any, metadata: tuple[tuple[str, Any], ...]) -> BaseParam:
    return cls.rebuild(value, metadata)


class DynamicParam(BaseParam):
    """Base of params whose value is data: a pytree node with the value as its child."""

    __slots__ = ()

    @classmethod
    def _register(cls) -> None:
        jax.tree_util.register_pytree_with_keys(
            cls,
            lambda p: (((_VALUE_KEY, p._read()),), p.metadata),
            lambda metadata, children: cls.rebuild(children[0], metadata),
            lambda p: ((p._read(),), p.metadata),
        )


class _ValueKey:
    """Key of a param's value in a pytree path; prints as nothing, so paths read `layer.weight`."""

    def __str__(self) -> str:
        return ""


_VALUE_KEY = _ValueKey()


class Param(DynamicParam):
    """A mutable cell around an array (or any pytree).

    Arithmetic, comparison, indexing, `len`, iteration, `float`, `@` and unknown attributes go to
    the array and give arrays; in-place operators update the cell and keep the object. A param can
    be handed to `jnp` functions as it is.

    Args:
        value: an array or pytree; None for "no value yet". Another param is unwrapped.

    Raises:
        TypeError: by `bool(param)`, since a param is neither true nor false: use
            `param.get() is None` or compare its array.

    Example:
        >>> import jax.numpy as jnp, pcx as px
        >>> p = px.Param(jnp.arange(3.0))
        >>> p += 1
        >>> float(jnp.sum(p * 2))
        12.0
        >>> p.frozen = True     # metadata, for masks
        >>> p
        Param(f32[3], frozen=True)
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = self._read()
        if value is None:
            raise AttributeError(EMPTY.format(cls=type(self).__name__, name=name))
        return getattr(value, name)

    def __jax_array__(self) -> jax.Array:
        return jax.numpy.asarray(self._read())

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        import numpy as np

        return np.asarray(self._read(), dtype)

    def __bool__(self) -> bool:
        raise TypeError(
            f"the truth value of a {type(self).__name__} is not defined: write "
            "`param.get() is None` to ask whether it is empty, or `bool(param.get())` for its array"
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._read())

    # `==` is elementwise, so a param has no hash of its own value
    __hash__ = None  # type: ignore[assignment]


install_operators(Param)

_MISSING = object()


class ParamCache:
    """Marker class of params that hold temporaries; `M(ParamCache)` selects them."""

    __slots__ = ()


class ParamDict(DynamicParam):
    """A dictionary in one param, for caches. Cleared (`.set(None)`) means empty.

    Example:
        >>> import pcx as px
        >>> d = px.ParamDict()
        >>> d["u"] = 3
        >>> "u" in d, d.get("u"), d.get("e", 0)
        (True, 3, 0)
        >>> "u" in d.set(None)
        False
    """

    __slots__ = ()

    def get(self, key: Any = _MISSING, default: Any = None) -> Any:
        """The value under `key` (or `default`); without a key, the whole dictionary or None."""
        if key is _MISSING:
            return self._read()
        return default if self._read() is None else self._read().get(key, default)

    def set(self, value: Any) -> Self:
        """Replace the whole dictionary; None empties it."""
        value = get(value)
        if value is not None and not isinstance(value, dict):
            raise TypeError(
                f"ParamDict.set takes a dict or None, got {type(value).__name__}; "
                "write `d[key] = value` for a single entry"
            )
        return super().set(value)

    def __getitem__(self, key: Any) -> Any:
        if self._read() is None or key not in self._read():
            raise KeyError(key)
        return self._read()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        # a fresh dict: the old one may still be referenced by the caller of a transform
        self.set({**(self._read() or {}), key: value})

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        self.set({k: v for k, v in self._read().items() if k != key} or None)

    def __contains__(self, key: Any) -> bool:
        return self._read() is not None and key in self._read()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._read() or {})

    def __len__(self) -> int:
        return len(self._read() or {})


def is_param(x: Any) -> bool:
    """Whether `x` is a param that holds data (the leaf of masks and tree functions)."""
    return isinstance(x, DynamicParam)


def get(x: Any) -> Any:
    """The value of a param (dynamic or static), or `x` itself if it is none.

    Example:
        >>> import pcx as px
        >>> px.get(px.Param(3)), px.get(3)
        (3, 3)
    """
    return x.get() if isinstance(x, BaseParam) else x


def set(x: Any, value: Any) -> Any:
    """Write `value` into `x` if it is a param and return it; else return the new value.

    Example:
        >>> import pcx as px
        >>> p = px.Param(1)
        >>> px.set(p, 2) is p, p.get(), px.set(1, 2)
        (True, 2, 2)
    """
    return x.set(value) if isinstance(x, BaseParam) else get(value)


def describe(value: Any) -> str:
    """A short description of a value: `f32[3,4]` for arrays."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        short = str(dtype).replace("float", "f").replace("uint", "u").replace("int", "i")
        return f"{short}[{','.join(map(str, shape))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {describe(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(describe(v) for v in value)
        if len(inner) > 60:
            inner = f"{len(value)} items"
        return f"{type(value).__name__}({inner})"
    return repr(value)
