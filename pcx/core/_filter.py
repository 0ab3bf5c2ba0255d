"""Filters and masks: which params does this transform or optimiser touch?"""

import types
from collections.abc import Callable, Sequence
from typing import Any, Union, get_args, get_origin

import jax

from ._param import BaseParam, is_param
from ._param_dict import ParamCache

BAD_FILTER = """a mask filter must be a param type (`pxc.VodeParam`), a union of types \
(`pxnn.LayerParam | pxnn.StateParam`), a callable from param to bool, another mask, or None for \
every param; got {got}.{hint}"""

_UNSET = object()


def to_predicate(spec: Any, nodes: bool = False) -> Callable[[Any], bool]:
    """Turn a filter into a function from param to bool, once.

    Args:
        spec: a type, a union or tuple of types, a callable, a `Mask`, or None for every param.
        nodes: accept module types as well (for functions that visit modules).

    Raises:
        TypeError: the filter is none of these.
    """
    if spec is None:
        return is_param
    if isinstance(spec, Mask):
        return spec.select
    if isinstance(spec, types.UnionType) or get_origin(spec) is Union:
        spec = get_args(spec)
    if isinstance(spec, tuple) and spec:
        if None in spec or types.NoneType in spec:
            raise TypeError(BAD_FILTER.format(got="None as a part of a union", hint=""))
        return _any_of([to_predicate(part, nodes) for part in spec])
    if isinstance(spec, type):
        # markers such as ParamCache are mixed into param classes without being one
        is_node = getattr(spec, "_is_pcx_module", False)
        known = spec is ParamCache or any(issubclass(c, spec) for c in _subclasses(BaseParam))
        if not (nodes if is_node else known):
            hint = ""
            if is_node:
                hint = (
                    " Masks look at params, not modules: use the type of the module's params, "
                    "or give the module's own params a subclass and select that."
                )
            raise TypeError(BAD_FILTER.format(got=f"the type {spec.__qualname__}", hint=hint))
        return lambda param: isinstance(param, spec)
    is_ours = isinstance(spec, BaseParam) or getattr(spec, "_is_pcx_module", False)
    if callable(spec) and not is_ours:
        return lambda param: bool(spec(param))
    raise TypeError(BAD_FILTER.format(got=repr(spec)[:80], hint=""))


def _any_of(parts: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return lambda param: any(part(param) for part in parts)


def _subclasses(cls: type) -> list[type]:
    below: list[type] = cls.__subclasses__()
    return [cls, *(s for c in below for s in _subclasses(c))]


def _matches(param: Any, attributes: dict[str, Any]) -> list[bool]:
    """For each attribute, whether the param has it with this value."""
    return [_equal(_attribute(param, name), want) for name, want in attributes.items()]


def _attribute(param: Any, name: str) -> Any:
    # metadata only: `getattr` would fall through to the array
    return param.__dict__.get(name, getattr(type(param), name, _UNSET))


def _equal(have: Any, want: Any) -> bool:
    return have is want or bool(have == want)


class Mask:
    """Answers, per param: does this transform or optimiser touch you? Immutable.

    Called on a tree, it returns the tree with None in place of what it rejects and the params that
    it selects kept, or with both mapped to values (`map_to`, `.to`). The result is a tree of the
    same classes, which may be edited: `mask.vodes[0].h = False`. Masks combine with `|`, `&` and
    `~`.

    Args:
        filter: a param type, a union of types, a callable from param to bool, another mask, or None
            for every param.
        map_to: `(rejected, selected)` values, as in `Mask(VodeParam, [False, True])`.

    Raises:
        TypeError: a filter that is none of these.
        ValueError: `map_to` without exactly two values.

    Example:
        >>> import pcx as px, pcx.utils as pxu, pcx.predictive_coding as pxc
        >>> model = [px.Param(1.0), pxc.VodeParam(2.0)]
        >>> pxu.M(pxc.VodeParam).to((None, 0))(model)
        [None, 0]
        >>> (~pxu.M(pxc.VodeParam))(model)
        [Param(1.0), None]
    """

    __slots__ = ("_map_to", "_name", "_predicate")

    def __init__(self, filter: Any, map_to: Sequence[Any] | None = None):
        self._predicate = to_predicate(filter)
        self._name = _name_of(filter)
        self._map_to = None if map_to is None else _pair(map_to)

    @classmethod
    def _make(cls, predicate: Callable[[Any], bool], name: str, map_to: Any = None) -> "Mask":
        mask = object.__new__(cls)
        mask._predicate, mask._name, mask._map_to = predicate, name, map_to
        return mask

    def select(self, param: Any) -> bool:
        """Whether this mask selects `param`; never true for anything that is not a data param."""
        return is_param(param) and self._predicate(param)

    apply = select

    def value(self, param: Any, default: Sequence[Any] = (False, True)) -> Any:
        """The mapped value for one param (`default` where the mask has no values of its own)."""
        return (self._map_to or default)[self.select(param)]

    def __call__(self, tree: Any, is_pytree: bool = True) -> Any:
        """Apply to a tree, or to a single param, which is a tree too.

        Args:
            tree: a model or any other tree of params.
            is_pytree: accepted for programs written for PCX; it changes nothing.

        Returns:
            A tree of the same structure with one value in place of each leaf.
        """
        keep = self._map_to is None
        rejected, selected = self._map_to or (None, None)
        return jax.tree_util.tree_map(
            lambda x: (x if keep else selected) if self.select(x) else rejected,
            tree,
            is_leaf=is_param,
        )

    def to(self, map_to: Sequence[Any]) -> "Mask":
        """A new mask with the same selection that maps to `(rejected, selected)`."""
        return Mask._make(self._predicate, self._name, _pair(map_to))

    def has(self, **attributes: Any) -> "Mask":
        """A new mask: as this one, and with all of these attributes, as in `.has(frozen=True)`."""
        return Mask._make(
            lambda p: self.select(p) and all(_matches(p, attributes)),
            f"{self._name}.has({_show(attributes)})",
            self._map_to,
        )

    def hasnot(self, **attributes: Any) -> "Mask":
        """A new mask: as this one, and with none of these attributes, as in `.hasnot(frozen=True)`."""
        return Mask._make(
            lambda p: self.select(p) and not any(_matches(p, attributes)),
            f"{self._name}.hasnot({_show(attributes)})",
            self._map_to,
        )

    has_not = hasnot

    def __or__(self, other: Any) -> "Mask":
        other = other if isinstance(other, Mask) else Mask(other)
        return Mask._make(
            lambda p: self.select(p) or other.select(p), f"({self._name} | {other._name})"
        )

    def __and__(self, other: Any) -> "Mask":
        other = other if isinstance(other, Mask) else Mask(other)
        return Mask._make(
            lambda p: self.select(p) and other.select(p), f"({self._name} & {other._name})"
        )

    __ror__ = __or__
    __rand__ = __and__

    def __invert__(self) -> "Mask":
        return Mask._make(lambda p: not self.select(p), f"~{self._name}")

    def __repr__(self) -> str:
        to = "" if self._map_to is None else f".to({self._map_to!r})"
        return f"M({self._name}){to}"


Filter = Mask | type | Callable[[Any], bool] | None


def _pair(map_to: Any) -> tuple[Any, Any]:
    if not isinstance(map_to, list | tuple) or len(map_to) != 2:
        raise ValueError(
            "a mask maps to two values, (rejected, selected), such as (False, True) for gradients "
            f"or (None, 0) for vmap axes; got {map_to!r}"
        )
    return (map_to[0], map_to[1])


def _name_of(spec: Any) -> str:
    return spec._name if isinstance(spec, Mask) else getattr(spec, "__qualname__", repr(spec))


def _show(attributes: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in attributes.items())
