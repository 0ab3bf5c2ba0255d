"""`Param`, the mutable cell that tracked transforms carry in and out, and its relatives."""

from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np

from . import _scope
from ._describe import describe
from ._operators import install_operators

if TYPE_CHECKING:
    from ._operator_types import ArrayOperators as _Operators
else:
    _Operators = object


class BaseParam:
    """Base of everything that masks and tree functions treat as one leaf.

    Any attribute put on a param (`param.frozen = True`) is static metadata: it is part of the
    structure that `pxf.jit` compiles for, survives transforms, and can be used in masks.

    Example:
        >>> import pcx as px, pcx.utils as pxu
        >>> p, q = px.Param(1.0), px.Param(2.0)
        >>> p.frozen = True
        >>> pxu.M(px.Param).hasnot(frozen=True)([p, q])
        [None, Param(2.0)]
    """

    __slots__ = ("__dict__", "__weakref__", "_scope", "_value")

    def __init__(self, value: Any = None):
        self._value = get(value)
        self._scope = _scope.here()

    if TYPE_CHECKING:  # any attribute may be put on a param

        def __setattr__(self, name: str, value: Any) -> None: ...

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
        param._scope = _scope.here()
        if metadata:
            param.__dict__.update(metadata)
        return param

    def get(self) -> Any:
        """The wrapped value."""
        return self._read()

    def _read(self) -> Any:
        value = self._value
        if type(value) is Unreadable:
            raise ValueError(value.message)
        return value

    def set(self, value: Any) -> Self:
        """Replace the wrapped value and return the param itself.

        Raises:
            RuntimeError: a traced value would be left in a param that the running transform does
                not track.
        """
        value = get(value)
        _scope.check_write(self._scope, value, self)
        self._value = value
        return self

    def __reduce__(self) -> Any:
        return _unpickle, (type(self), self._read(), self.metadata)

    def __repr__(self) -> str:
        extra = "".join(f", {k}={v!r}" for k, v in self.metadata)
        return f"{type(self).__qualname__}({describe(self._value)}{extra})"


class Unreadable:
    """In place of a value that may be overwritten but not read; `message` says why."""

    __slots__ = ("message",)

    def __init__(self, message: str):
        self.message = message


def _unpickle(cls: type[BaseParam], value: Any, metadata: tuple[tuple[str, Any], ...]) -> BaseParam:
    return cls.rebuild(value, metadata)


class DynamicParam(BaseParam):
    """Base of params whose value is data: a pytree node with the value as its child.

    Example:
        >>> import jax, pcx as px
        >>> params = [px.Param(1), px.ParamDict({"u": 2}), px.static(3)]
        >>> [isinstance(p, px.DynamicParam) for p in params]
        [True, True, False]
        >>> jax.tree_util.tree_leaves(params)
        [1, 2]
    """

    __slots__ = ()

    @classmethod
    def _register(cls) -> None:
        jax.tree_util.register_pytree_with_keys(
            cls,
            lambda p: (((_VALUE_KEY, p._read()),), p.metadata),
            lambda metadata, children: cls.rebuild(next(iter(children)), metadata),
            lambda p: ((p._read(),), p.metadata),
        )


class _ValueKey:
    """Key of a param's value in a pytree path; prints as nothing, so paths read `layer.weight`."""

    def __str__(self) -> str:
        return ""


_VALUE_KEY = _ValueKey()

EMPTY = """this {cls} is empty (its value is None), so it has no {what}. A vode's state gets a \
value in a forward pass under `pxu.step(model, pxc.STATUS.INIT)`, or by `.set(array)`"""


class Param(DynamicParam, _Operators):
    """A mutable cell around an array (or any pytree).

    Arithmetic, comparison, indexing, `len`, iteration, `float`, `@` and unknown attributes go to
    the array and return arrays; in-place operators (and `p[i] = x`) update the cell and keep the
    object. A param can be passed to `jnp` functions as it is.

    Args:
        value: an array or pytree; None for "no value yet". Another param is unwrapped.

    Raises:
        TypeError: by `bool(param)`, since a param is neither true nor false: use
            `param.get() is None` or compare its array; by arithmetic on an empty param.

    Example:
        >>> import jax.numpy as jnp, pcx as px
        >>> p = px.Param(jnp.arange(3.0))
        >>> p += 1
        >>> float(jnp.sum(p * 2))
        12.0
        >>> p.frozen = True  # metadata, for masks
        >>> p
        Param(f32[3], frozen=True)
    """

    __slots__ = ()

    # NumPy arrays leave `array + param` to the param, whose value may be traced
    __array_priority__ = 100
    # `==` is elementwise, so a param has no hash of its own value
    __hash__ = None  # type: ignore[assignment]

    def _operand(self, operator: str) -> Any:
        value = self._read()
        if value is None:
            what = f"value for the operator {operator!r}"
            raise TypeError(EMPTY.format(cls=type(self).__qualname__, what=what))
        return value

    def _jax_array(self, operator: str) -> jax.Array:
        return jax.numpy.asarray(self._operand(operator))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = self._read()
        if value is None:
            what = f"attribute {name!r}"
            raise AttributeError(EMPTY.format(cls=type(self).__qualname__, what=what))
        return getattr(value, name)

    def __jax_array__(self) -> jax.Array:
        return self._jax_array("array")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.asarray(self._operand("array"), dtype)
        return array.copy() if copy else array

    def __bool__(self) -> bool:
        raise TypeError(
            f"the truth value of a {type(self).__name__} is not defined: write "
            "`param.get() is None` to ask whether it is empty, or `bool(param.get())` for its array"
        )

    def __format__(self, spec: str) -> str:
        return format(self._operand("format"), spec) if spec else str(self)


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


install_operators(Param, get)
