"""Compare optax transformations by what they are made of.

`optax.adam(1e-3)` returns new functions at every call. Their code is the same object each time, and
so are the values in their closures, or equal to it. Two transformations that agree in code, defaults
and closures compute the same, so a jitted function need not be compiled for both.

Equal must mean that they behave equally; where that is not certain, functions are compared by
identity: where one writes to its closure or to a global, reads a global that is data, or holds an
object of an unknown class or (outside of the libraries below) a list or dict.
"""

import builtins
import dis
import enum
import functools
import inspect
import types
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np

from ..core import freeze

# their globals do not change, and their closures hold no container that someone edits
LIBRARIES = (
    *("builtins", "collections", "functools", "inspect", "itertools", "math", "operator", "typing"),
    *("chex", "equinox", "jax", "jaxlib", "numpy", "optax", "pcx"),
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.ndarray)
# through these a function reaches what is written nowhere in its code
_REFLECTION = frozenset(("eval", "exec", "globals", "locals", "vars", "getattr", "__import__"))


class Opaque(Exception):
    """A value that cannot be compared by content."""


def fingerprint(value: Any) -> Hashable:
    """A hashable stand-in for a value; equal for two values only if they behave equally.

    Raises:
        Opaque: that cannot be known.
    """
    return _of(value, trusted=True, within=())


class ByContent:
    """Holds a value, as static data. Two are equal if their values are made of the same things.

    The comparison is made once: when the first of them was used, neither had changed since.

    Example:
        >>> import optax
        >>> from pcx.utils._fingerprint import ByContent
        >>> ByContent(optax.adam(0.1)) == ByContent(optax.adam(0.1))
        True
        >>> ByContent(optax.adam(0.1)) == ByContent(optax.adam(0.2))
        False
    """

    def __init__(self, value: Any):
        self.value = value
        self._key: Hashable = None
        self._hash = 0
        # those found to be equal share one of these
        self._group = object()

    def _current(self) -> Hashable:
        try:
            return fingerprint(self.value)
        except Opaque:
            return freeze(self.value)

    def __hash__(self) -> int:
        # not when it is made: a closure may still change before the first use
        if self._key is None:
            self._key = (self._current(),)
            self._hash = hash(self._key)
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ByContent):
            return NotImplemented
        if self._group is other._group:
            return True
        if hash(self) != hash(other) or self._key != other._key:
            return False
        if any((held._current(),) != held._key for held in (self, other)):
            return False
        other._group = self._group
        return True

    def __deepcopy__(self, memo: Any) -> "ByContent":
        return self


def _of(value: Any, trusted: bool, within: tuple[int, ...]) -> Hashable:
    """The stand-in of a value.

    Args:
        value: what a function holds.
        trusted: whether a library's function holds it, which nobody edits.
        within: the functions and objects that are being looked at, outermost first.
    """
    if id(value) in within:
        return "cycle", within.index(id(value))
    kind = type(value)
    if kind in _PLAIN or isinstance(value, np.generic | np.dtype):
        if getattr(value, "hasobject", getattr(value, "dtype", np.dtype(int)).hasobject):
            raise Opaque
        return kind, freeze(value)
    if isinstance(value, enum.Enum):
        return kind, value.name
    if isinstance(value, jax.Array):
        return _array(value)
    inner = (*within, id(value))
    of = lambda x: _of(x, trusted, inner)
    if isinstance(value, types.FunctionType):
        return _function(value, inner)
    if isinstance(value, types.MethodType):
        return "method", of(value.__func__), of(value.__self__)
    if isinstance(value, functools.partial):
        return kind, of(value.func), of(value.args), _items(value.keywords, of)
    if isinstance(value, tuple):
        return kind, tuple(map(of, value))
    if trusted and kind is list:
        return kind, tuple(map(of, value))
    if trusted and kind is dict:
        return kind, _items(value, of)
    if kind is frozenset or (trusted and kind is set):
        return kind, frozenset(map(of, value))
    if isinstance(value, types.ModuleType) and _is_library(value.__name__):
        return "module", value.__name__
    if isinstance(value, type):
        return _class(value)
    if isinstance(value, types.BuiltinFunctionType | np.ufunc):
        if isinstance(getattr(value, "__self__", None), types.ModuleType | type(None)):
            return "builtin", value
        raise Opaque
    if isinstance(value, inspect.Signature):
        parameters = value.parameters.values()
        return kind, tuple((p.name, p.kind, of(p.default)) for p in parameters)
    package = kind.__module__.partition(".")[0]
    if package == "optax":
        return kind, _items(vars(value), of)
    if package in ("jax", "jaxlib") and callable(value):
        # what `jax.jit` and its like return, which cannot be edited
        return kind, freeze(value)
    raise Opaque


def _items(value: dict[Any, Any], of: Any) -> Hashable:
    return tuple((of(key), of(item)) for key, item in value.items())


def _array(value: jax.Array) -> Hashable:
    if isinstance(value, jax.core.Tracer):
        raise Opaque
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return str(value.dtype), _array(jax.random.key_data(value))
    return jax.Array, getattr(value, "weak_type", False), freeze(np.asarray(value))


def _class(value: type) -> Hashable:
    is_named_tuple = issubclass(value, tuple) and hasattr(value, "_fields")
    if not (is_named_tuple or _is_library(value.__module__)):
        raise Opaque
    return "class", value


def _function(fn: types.FunctionType, within: tuple[int, ...]) -> Hashable:
    code = fn.__code__
    module = fn.__globals__.get("__name__", "")
    trusted = _is_library(module)
    of = lambda x: _of(x, trusted, within)
    writes, reads = _names(code)
    if not trusted and not writes.isdisjoint((*code.co_freevars, _GLOBAL)):
        raise Opaque
    cells = []
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:  # a branch did not fill it, which other values tell
            if not trusted:
                raise Opaque from None
            held = None
        # optax's cosine schedule makes its number of steps a float when it is first called
        cells.append(of(float(held) if name in writes and isinstance(held, int) else held))
    return (
        code,
        tuple(cells),
        of(fn.__defaults__),
        _items(fn.__kwdefaults__ or {}, of),
        module if trusted else tuple(_global(fn, name, within) for name in reads),
        () if trusted else _items(vars(fn), of),
    )


def _global(fn: types.FunctionType, name: str, within: tuple[int, ...]) -> Hashable:
    """The stand-in of a global that a function reads: code, but no data, which may change."""
    if name in _REFLECTION:
        raise Opaque
    if name not in fn.__globals__:
        if not hasattr(builtins, name):
            raise Opaque
        return name
    value = fn.__globals__[name]
    if isinstance(value, (*_PLAIN, jax.Array, tuple, frozenset, functools.partial)):
        raise Opaque
    return name, _of(value, False, within)


_GLOBAL = "<a global>"


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> tuple[frozenset[str], tuple[str, ...]]:
    """The closure's variables (and whether globals) that code writes to, and the globals it reads."""
    writes, reads = set(), set()
    for instruction in dis.get_instructions(code):
        operation = instruction.opname
        if operation in ("STORE_DEREF", "DELETE_DEREF"):
            writes.add(instruction.argval)
        elif operation in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_NAME", "IMPORT_NAME"):
            writes.add(_GLOBAL)
        elif operation in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            reads.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            below, also = _names(constant)
            writes |= below
            reads |= set(also)
    return frozenset(writes), tuple(sorted(reads))


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in LIBRARIES
