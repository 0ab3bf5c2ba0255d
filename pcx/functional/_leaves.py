"""Leaves of a pytree: which are data, and how values that hold others go through a transform."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_unflatten

from .. import core
from ..core import DynamicParam

LEAF = jax.tree_util.tree_structure(0)

# a C function, called for every node of every call's arguments: `isinstance(x, DynamicParam)`
is_param = DynamicParam.__instancecheck__

_DATA = jax.Array | np.ndarray | np.generic | bool | int | float | complex
# asking `jax.Array` costs ten times what looking up a type does
_is_array_type: dict[type, bool] = {}


def is_array(leaf: Any) -> bool:
    """Whether a leaf is a JAX array (traced or not) or a NumPy array."""
    kind = type(leaf)
    known = _is_array_type.get(kind)
    if known is None:
        known = _is_array_type[kind] = isinstance(leaf, jax.Array | np.ndarray)
    return known


def is_dynamic(leaf: Any) -> bool:
    """Whether a leaf is data for JAX (an array or a number) rather than part of the structure."""
    return is_array(leaf) or isinstance(leaf, _DATA)


# the types of leaves that were seen to be data
_data_types: set[type] = set()


def all_dynamic(leaves: Sequence[Any]) -> bool:
    """Whether all leaves are data."""
    if _data_types.issuperset(map(type, leaves)):
        return True
    if all(map(is_dynamic, leaves)):
        _data_types.update(map(type, leaves))
        return True
    return False


def structure_of(tree: Any) -> Any:
    """The treedef of a pytree."""
    return jax.tree_util.tree_structure(tree)


class ParamSpec(NamedTuple):
    """What a param is, apart from its arrays."""

    cls: type[DynamicParam]
    metadata: tuple[tuple[str, Any], ...]
    treedef: Any  # `LEAF` itself: the value is one plain array
    statics: tuple[tuple[int, Any], ...]  # positions and values of leaves that are not data
    size: int  # number of arrays

    @classmethod
    def of(cls, param: DynamicParam) -> "ParamSpec":
        """The spec of a param, as it is now."""
        value = param._value
        if is_array(value):
            return cls(type(param), param.metadata, LEAF, (), 1)
        leaves, treedef = tree_flatten(value)
        statics = tuple((i, leaf) for i, leaf in enumerate(leaves) if not is_dynamic(leaf))
        return cls(type(param), param.metadata, treedef, statics, len(leaves) - len(statics))

    def holding(self, value: Any) -> "ParamSpec":
        """The spec of the same param with another value."""
        return ParamSpec.of(self.cls.rebuild(value, self.metadata))

    def leaves(self, values: Sequence[Any]) -> list[Any]:
        """All leaves of the value, from its arrays."""
        leaves = list(values)
        for position, leaf in self.statics:
            leaves.insert(position, leaf)
        return leaves

    def join(self, values: Sequence[Any]) -> Any:
        """The value, from its arrays."""
        return values[0] if self.treedef is LEAF else self.with_leaves(self.leaves(values))

    def with_leaves(self, leaves: Sequence[Any]) -> Any:
        """A value of this form with other leaves."""
        return tree_unflatten(self.treedef, leaves)

    def fits(self, value: Any) -> bool:
        """Whether a value has this form, apart from shapes and types."""
        leaves, treedef = tree_flatten(value)
        statics = tuple((i, leaf) for i, leaf in enumerate(leaves) if not is_dynamic(leaf))
        frozen = [(i, core.freeze(leaf)) for i, leaf in statics]
        return treedef == self.treedef and frozen == [(i, core.freeze(s)) for i, s in self.statics]


class WithStatics:
    """A value with leaves that are not data, on its way out of a transform."""

    __slots__ = ("arrays", "aux")

    def __init__(self, arrays: Sequence[Any], aux: Any):
        self.arrays, self.aux = arrays, aux

    def value(self) -> Any:
        """The value itself."""
        treedef, statics = self.aux
        arrays = iter(self.arrays)
        return tree_unflatten(treedef, [next(arrays) if s is None else s.get() for s in statics])


jax.tree_util.register_pytree_node(
    WithStatics, lambda x: (x.arrays, x.aux), lambda aux, arrays: WithStatics(arrays, aux)
)


def with_statics(value: Any) -> Any:
    """`value` if all its leaves are data, else a `WithStatics` that holds it."""
    leaves, treedef = tree_flatten(value)
    if all(is_dynamic(leaf) for leaf in leaves):
        return value
    statics = tuple(None if is_dynamic(leaf) else core.static(leaf) for leaf in leaves)
    return WithStatics([leaf for leaf in leaves if is_dynamic(leaf)], (treedef, statics))
