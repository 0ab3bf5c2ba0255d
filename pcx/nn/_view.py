"""`View`: a wrapped module whose settings answer as values and by `.get()`, as in PCX."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax

from ..core import is_param, static


class View:
    """An equinox module as `layer.nn` shows it: the module itself, but for its settings' `.get()`.

    Numbers, strings and tuples are subclasses of their types, so they can be used as before;
    booleans and functions, whose types have no subclasses, are `StaticParam`s.

    Example:
        >>> import pcx.nn as pxnn
        >>> linear = pxnn.Linear(3, 2)
        >>> linear.nn.in_features, linear.nn.in_features.get(), linear.nn.use_bias.get()
        (3, 3, True)
    """

    __slots__ = ("_module",)
    _module: Any

    def __init__(self, module: Any):
        object.__setattr__(self, "_module", module)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # `isinstance(layer.nn, eqx.nn.Linear)` is true
        return type(self._module)

    def __getattr__(self, name: str) -> Any:
        if name == "_module":  # while it is being copied
            raise AttributeError(name)
        value = getattr(self._module, name)
        if isinstance(value, bool) and not _is_setting(self._module, name):
            return value  # a mask tree has True and False where the params were
        return _shown(value) if name in vars(self._module) else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._module(*args, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        return _shown(self._module[index])

    def __iter__(self) -> Iterator[Any]:
        return map(_shown, self._module)

    def __len__(self) -> int:
        return len(self._module)

    def __bool__(self) -> bool:
        return bool(self._module)

    def __eq__(self, other: object) -> Any:
        return self._module == (other._module if type(other) is View else other)

    def __hash__(self) -> int:
        return hash(self._module)

    def __reduce__(self) -> Any:
        return View, (self._module,)

    def __repr__(self) -> str:
        return repr(self._module)


def _is_setting(module: Any, name: str) -> bool:
    """Whether a field was declared as a boolean."""
    field = getattr(type(module), "__dataclass_fields__", {}).get(name)
    return field is not None and field.type in (bool, "bool")


def _flatten(view: View) -> tuple[list[Any], Any]:
    """The children of the module, with its own keys: paths are those of equinox."""
    module = view._module
    children, treedef = jax.tree_util.tree_flatten_with_path(
        module, is_leaf=lambda x: x is not module
    )
    return [(path[0], child) for path, child in children], treedef


jax.tree_util.register_pytree_with_keys(
    View, _flatten, lambda treedef, children: View(treedef.unflatten(children))
)


class _Value:
    """Mixed into a subclass of a plain type."""

    def get(self) -> Any:
        """The plain value."""
        return type(self).__bases__[1](self)


class _Int(_Value, int):
    pass


class _Float(_Value, float):
    pass


class _Str(_Value, str):
    pass


class _Tuple(_Value, tuple):
    pass


_WITH_GET: dict[type, type] = {int: _Int, float: _Float, str: _Str}


def _shown(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, eqx.Module):
        return View(value)
    if kind is list:
        return [_shown(item) for item in value]
    if kind is tuple:
        return _Tuple(item if type(item) in _WITH_GET else _shown(item) for item in value)
    if kind in _WITH_GET:
        return _WITH_GET[kind](value)
    is_data = value is None or is_param(value) or isinstance(value, jax.Array)
    return static(value) if kind is bool or (callable(value) and not is_data) else value
