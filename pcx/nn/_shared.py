"""`shared`: a second module that uses the same params."""

from typing import Any, TypeVar

import jax

from ..core import DynamicParam, Mask, is_param

T = TypeVar("T")


def shared(module: T, filter: Any = DynamicParam) -> T:
    """A copy of `module` that shares the params which the filter selects; the others are copied.

    Args:
        module: any pytree with params.
        filter: a param type, union, callable or mask; every param by default.

    Example:
        >>> import pcx.nn as pxnn
        >>> a = pxnn.Linear(2, 2)
        >>> b = pxnn.shared(a)
        >>> b is a, b.nn.weight is a.nn.weight
        (False, True)
    """
    mask = Mask(filter)
    copies: dict[int, Any] = {}

    def pick(leaf: Any) -> Any:
        if not is_param(leaf) or mask.select(leaf):
            return leaf
        # a param that the original uses twice is one param in the copy too
        if id(leaf) not in copies:
            value = jax.tree_util.tree_map(lambda x: x, leaf._value)
            copies[id(leaf)] = type(leaf).rebuild(value, leaf.metadata)
        return copies[id(leaf)]

    return jax.tree_util.tree_map(pick, module, is_leaf=is_param)
