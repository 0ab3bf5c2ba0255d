"""Functions on trees of params: paths, aliases, and moving values in and out."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.tree_util import DictKey, keystr

from ._filter import Filter, to_predicate
from ._module import BaseModule
from ._param import BaseParam, DynamicParam, get, is_param


def path_str(path: Sequence[Any], root: str = "") -> str:
    """A pytree path as `repr` prints it: `layers[0].nn.weight`."""
    return (root + keystr(tuple(path))).lstrip(".")


def kwargs_path_str(path: Sequence[Any]) -> str:
    """A path into a dict of keyword arguments: `model.layers[0].nn.weight`."""
    head, *rest = path
    return f"{head.key if isinstance(head, DictKey) else head}{keystr(tuple(rest))}"


def named_params(tree: Any) -> Iterator[tuple[str, Any]]:
    """`(path, param)` of every param in a tree, shared ones at their first path only."""
    seen: set[int] = set()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_param)[0]:
        if is_param(leaf) and id(leaf) not in seen:
            seen.add(id(leaf))
            yield path_str(path), leaf


def _is_node(x: Any) -> bool:
    return isinstance(x, BaseModule | BaseParam)


def tree_apply(
    fn: Callable[[Any], Any],
    filter_fn: Filter | type | Callable[[Any], bool],
    tree: Any,
    recursive: bool = True,
) -> None:
    """Call `fn` on every module or param of `tree` that the filter accepts, for its side effects.

    Args:
        fn: called with the node; what it returns is ignored.
        filter_fn: a type (of module or param), a union, a callable or a mask.
        tree: any pytree.
        recursive: also look inside nodes that were accepted.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.nn as pxnn
        >>> net = pxnn.Sequential(pxnn.Linear(2, 3), pxnn.Linear(3, 1))
        >>> px.tree_apply(lambda w: w.set(jnp.zeros(w.shape)), pxnn.LayerParam, net)
        >>> net(jnp.ones(2)).tolist()
        [0.0]
    """
    accept = to_predicate(filter_fn, nodes=True)
    seen: set[int] = set()

    def visit(node: Any) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        accepted = accept(node)
        if accepted:
            fn(node)
        if isinstance(node, BaseModule) and (recursive or not accepted):
            for child in jax.tree_util.tree_leaves(vars(node), is_leaf=_is_node):
                if _is_node(child):
                    visit(child)

    for node in jax.tree_util.tree_leaves(tree, is_leaf=_is_node):
        if _is_node(node):
            visit(node)


class ParamRef(BaseParam):
    """Stands where a shared param appears again: the position of its first appearance."""

    __slots__ = ()

    @classmethod
    def _register(cls) -> None:
        jax.tree_util.register_pytree_node(
            cls, lambda p: ((), p._value), lambda position, _: cls.rebuild(position)
        )


def tree_ref(tree: Any) -> Any:
    """A copy of `tree` in which every repeated param is replaced by a `ParamRef`.

    Example:
        >>> import pcx as px
        >>> p = px.Param(1.0)
        >>> px.tree_ref([p, px.Param(2.0), p])  # the third is the one at position 0
        [Param(1.0), Param(2.0), ParamRef(0)]
    """
    leaves, treedef = jax.tree_util.tree_flatten(tree, is_leaf=is_param)
    first: dict[int, int] = {}
    out = []
    for leaf in leaves:
        if is_param(leaf) and id(leaf) in first:
            out.append(ParamRef(first[id(leaf)]))
            continue
        if is_param(leaf):
            first[id(leaf)] = len(first)
        out.append(leaf)
    return jax.tree_util.tree_unflatten(treedef, out)


def tree_unref(tree: Any) -> Any:
    """The inverse of `tree_ref`: shared params are one object again.

    Example:
        >>> import jax, pcx as px
        >>> p = px.Param(1.0)
        >>> copy = px.tree_unref(jax.tree_util.tree_map(lambda x: x + 1, px.tree_ref([p, p])))
        >>> copy, copy[0] is copy[1]
        ([Param(2.0), Param(2.0)], True)
    """
    leaves, treedef = jax.tree_util.tree_flatten(
        tree, is_leaf=lambda x: is_param(x) or isinstance(x, ParamRef)
    )
    params = [leaf for leaf in leaves if is_param(leaf)]
    out = [params[leaf.get()] if isinstance(leaf, ParamRef) else leaf for leaf in leaves]
    return jax.tree_util.tree_unflatten(treedef, out)


def tree_extract(
    tree: Any, filter_fn: Any = DynamicParam, extract_fn: Callable[[Any], Any] = get
) -> tuple[Any, ...]:
    """The values of all params that the filter accepts, shared ones once, in tree order.

    Example:
        >>> import pcx as px
        >>> px.tree_extract([px.Param(1), px.Param(2)])
        (1, 2)
    """
    accept = to_predicate(filter_fn)
    return tuple(extract_fn(param) for _, param in named_params(tree) if accept(param))


def tree_inject(
    tree: Any,
    values: Sequence[Any] | None = None,
    *,
    params: Any = None,
    filter_fn: Any = DynamicParam,
    inject_fn: Callable[[Any, Any], Any] = lambda param, value: param.set(value),
) -> Any:
    """Write values into all params that the filter accepts, in the order of `tree_extract`.

    Args:
        tree: the tree to write into; returned.
        values: one value (or param) for each accepted param; or
        params: a tree whose params' values are taken.

    Raises:
        ValueError: a wrong number of values; nothing is written.

    Example:
        >>> import pcx as px
        >>> model, other = [px.Param(0), px.Param(0)], [px.Param(1), px.Param(2)]
        >>> px.tree_inject(model, params=other)
        [Param(1), Param(2)]
        >>> px.tree_inject(model, [3, 4])
        [Param(3), Param(4)]
    """
    if (values is None) == (params is None):
        raise ValueError("tree_inject takes either `values` or `params`, exactly one of them")
    source = [p for _, p in named_params(params)] if values is None else list(values)
    accept = to_predicate(filter_fn)
    targets = [(path, param) for path, param in named_params(tree) if accept(param)]
    if len(source) != len(targets):
        shown = ", ".join(path for path, _ in targets[:8]) + (", ..." if len(targets) > 8 else "")
        raise ValueError(
            f"tree_inject got {len(source)} values for {len(targets)} params ({shown}); "
            "nothing was written. Values come in the order of `tree_extract` with the same filter"
        )
    for (_, param), value in zip(targets, source, strict=True):
        inject_fn(param, get(value))
    return tree
