"""Modules: pytrees of their attributes."""

import copy
import enum
import inspect
import operator
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, Self

import jax
from jax.tree_util import GetAttrKey

from . import _scope
from ._describe import describe
from ._param import BaseParam


class _OfInit:
    """`__signature__` of a class: its `__init__`. Python 3.11.2 looks at an inherited `__new__` first."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")  # that of an instance is its `__call__`
        return inspect.signature(MethodType(owner.__init__, owner))  # type: ignore[misc]


class BaseModule:
    """An object that is a pytree of its attributes, in an order that assignment cannot change.

    Params are its data. Plain arrays are data too, but changes to them do not leave a
    transform. Every other attribute (numbers, strings, functions) is static in a tracked call.

    Example:
        >>> import jax, pcx as px
        >>> class Pair(px.BaseModule):
        ...     def __init__(self):
        ...         self.b, self.a = px.Param(2.0), px.Param(1.0)
        >>> jax.tree_util.tree_leaves(Pair())  # by name
        [1.0, 2.0]
    """

    # `_walk` is where `pxf` remembers its last walk over what is below this object
    __slots__ = ("__dict__", "__weakref__", "_scope", "_walk")
    _is_pcx_module = True
    __signature__ = _OfInit()
    _scope: "_scope.Scope | None"

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        module = object.__new__(cls)
        object.__setattr__(module, "_scope", _scope.here())
        return module

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls._register()

    @classmethod
    def _register(cls) -> None:
        jax.tree_util.register_pytree_with_keys(
            cls,
            _flatten_with_keys,
            lambda names, children: _unflatten(cls, names, children),
            _flatten,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        _scope.check_write(self._scope, value, self, name)
        object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # `jax.nn.relu` is an object to `copy`; it is shared like any function, so that what was
        # compiled for a module fits its copy
        for leaf in jax.tree_util.tree_leaves(vars(self)):
            if callable(leaf) and type(leaf).__module__.partition(".")[0] in ("jax", "jaxlib"):
                memo[id(leaf)] = leaf
        new = memo[id(self)] = type(self).__new__(type(self))
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def submodules(self, cls: "type | tuple[type, ...] | None" = None) -> Iterator["BaseModule"]:
        """The direct children (also those held in lists, tuples and dicts), each object once.

        Args:
            cls: yield only children of this type.
        """
        seen: set[int] = set()
        for child in jax.tree_util.tree_leaves(
            vars(self), is_leaf=lambda x: isinstance(x, BaseModule | BaseParam)
        ):
            if not isinstance(child, BaseModule) or id(child) in seen:
                continue
            seen.add(id(child))
            if cls is None or isinstance(child, cls):
                yield child

    def modules(self, cls: "type | tuple[type, ...] | None" = None) -> Iterator["BaseModule"]:
        """This module and all modules below it, each object once.

        Args:
            cls: yield only modules of this type.
        """
        seen: set[int] = set()
        stack: list[BaseModule] = [self]
        while stack:
            module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            if cls is None or isinstance(module, cls):
                yield module
            stack.extend(reversed(list(module.submodules())))

    def __repr__(self) -> str:
        lines = [
            f"  {jax.tree_util.keystr(path)}: {param!r}"
            for path, param in jax.tree_util.tree_flatten_with_path(
                self, is_leaf=lambda x: isinstance(x, BaseParam)
            )[0]
            if isinstance(param, BaseParam) or describe(param) != repr(param)
        ]
        name = type(self).__name__
        return "\n".join([f"{name}(", *lines, ")"]) if lines else f"{name}()"


# names in the order of assignment -> names sorted, and a function from the dictionary of attributes
# to their values in that order: modules are flattened at every call of a transform
_LAYOUTS: dict[tuple[str, ...], tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]] = {}


def _layout(assigned: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    names = tuple(sorted(assigned))
    if len(names) > 1:
        values: Callable[[Any], tuple[Any, ...]] = operator.itemgetter(*names)
    else:
        values = lambda attributes: tuple(attributes.values())
    # equal names are one object, so that comparing them costs nothing
    names, values = _LAYOUTS.setdefault(names, (names, values))
    _LAYOUTS[assigned] = names, values
    return names, values


def _flatten(module: BaseModule) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    attributes = module.__dict__
    assigned = tuple(attributes)
    names, values = _LAYOUTS.get(assigned) or _layout(assigned)
    return values(attributes), names


def _flatten_with_keys(module: BaseModule) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    children, names = _flatten(module)
    return tuple((GetAttrKey(n), c) for n, c in zip(names, children, strict=True)), names


def _unflatten(cls: type[BaseModule], names: tuple[str, ...], children: Any) -> BaseModule:
    module = object.__new__(cls)
    object.__setattr__(module, "_scope", _scope.here())
    module.__dict__.update(zip(names, children, strict=True))
    return module


class Module(BaseModule):
    """A module with a train/eval mode, as in PyTorch. A fresh module is in neither.

    Example:
        >>> import pcx as px, jax.numpy as jnp
        >>> class Scale(px.Module):
        ...     def __init__(self):
        ...         self.gain = px.Param(jnp.ones(2))
        ...         self.power = 2  # static
        ...
        ...     def __call__(self, x):
        ...         return self.gain * x**self.power
        >>> Scale().train().is_train
        True
    """

    __slots__ = ()
    _mode: str | None

    class MODE(enum.StrEnum):
        """The two modes."""

        TRAIN = "train"
        EVAL = "eval"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004
        # not in `__init__`, which subclasses need not call; and from the start, because a mask tree
        # made before `train()` must still fit the module after it
        module = super().__new__(cls)
        module.__dict__["_mode"] = None
        return module

    def train(self) -> Self:
        """Put this module and all below it in train mode, and return it."""
        self.mode(self.MODE.TRAIN)
        return self

    def eval(self) -> Self:
        """Put this module and all below it in eval mode, and return it."""
        self.mode(self.MODE.EVAL)
        return self

    def mode(self, mode: str | None = None) -> "Module.MODE | None":
        """Set the mode of this module and all below it; None only asks.

        Args:
            mode: `Module.MODE.TRAIN` or `Module.MODE.EVAL`, or "train" or "eval".

        Returns:
            The mode that this module is in now; None if it was never set.

        Raises:
            ValueError: another mode.

        Example:
            >>> import pcx as px, pcx.nn as pxnn
            >>> layer = pxnn.Dropout(0.5).eval()
            >>> layer.mode() == px.Module.MODE.EVAL, layer.mode("train") == px.Module.MODE.TRAIN
            (True, True)
        """
        if mode is not None:
            if mode not in tuple(self.MODE):
                raise ValueError(
                    f"a mode is {' or '.join(repr(str(m)) for m in self.MODE)}; got {mode!r}"
                )
            for module in self.modules(Module):
                assert isinstance(module, Module)
                module._mode = str(mode)
                module._on_mode_change()
        return None if self._mode is None else self.MODE(self._mode)

    def _on_mode_change(self) -> None:
        """Hook for modules that hold other libraries' train/eval flags."""

    @property
    def is_train(self) -> bool:
        """Whether `train()` was called last."""
        return self._mode == "train"

    @property
    def is_eval(self) -> bool:
        """Whether `eval()` was called last."""
        return self._mode == "eval"
