"""`cond` and `switch` that keep track of params."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_unflatten

from .. import core
from ._carry import Carried
from ._leaves import is_dynamic
from ._transform import Transform, show_function

NO_BRANCH = """pxf.{name} takes functions, at least one; got {got!r}"""


class Switch(Transform):
    """See `switch`."""

    name = "switch"

    def __init__(self, branches: Sequence[Callable[..., Any]]):
        branches = tuple(branches)
        if not branches or not all(map(callable, branches)):
            raise TypeError(NO_BRANCH.format(name=self.name, got=branches))
        super().__init__(branches[0])
        self.branches = branches

    def __call__(self, index: Any, /, *args: Any, **kwargs: Any) -> Any:
        carried = Carried(self.title, kwargs)
        # the branches get what is data; functions and the like they share as it is
        leaves, treedef = tree_flatten(args)
        data = [leaf for leaf in leaves if is_dynamic(leaf)]

        def branch(fn: Callable[..., Any]) -> Callable[..., Any]:
            def run(values: Any, data: Any) -> Any:
                rest = iter(data)
                full = [next(rest) if is_dynamic(leaf) else leaf for leaf in leaves]
                what = f"the branch `{show_function(fn)}`"
                return carried.run(fn, values, tree_unflatten(treedef, full), what)

            return run

        values = [jnp.asarray(value) for value in carried.values]
        branches = [branch(fn) for fn in self.branches]
        result, values = self._choose(core.get(index), branches, values, data)
        carried.write_back(values)
        return result

    def _choose(self, index: Any, branches: list[Any], *operands: Any) -> Any:
        return jax.lax.switch(index, branches, *operands)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(show_function, self.branches))})"


class Cond(Switch):
    """See `cond`."""

    name = "cond"

    def __init__(self, true_fun: Callable[..., Any], false_fun: Callable[..., Any]):
        super().__init__((true_fun, false_fun))

    def _choose(self, index: Any, branches: list[Any], *operands: Any) -> Any:
        return jax.lax.cond(index, *branches, *operands)


def cond(true_fun: Callable[..., Any], false_fun: Callable[..., Any]) -> Cond:
    """Run one of two functions. Called as `cond(f, g)(pred, *args, **kwargs)`.

    Both must return results of one structure, and leave each param with its structure, shape and dtype.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> p = px.Param(jnp.array(1.0))
        >>> def halve(*, p):
        ...     p /= 2
        >>> pxf.cond(halve, lambda *, p: None)(True, p=p)
        >>> float(p)
        0.5
    """
    return Cond(true_fun, false_fun)


def switch(branches: Sequence[Callable[..., Any]]) -> Switch:
    """Run one of several functions. Called as `switch(branches)(index, *args, **kwargs)`.

    An index out of range is clamped, as in `jax.lax.switch`.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> p = px.Param(jnp.array(3.0))
        >>> pick = pxf.switch([lambda x, *, p: x + p, lambda x, *, p: x * p])
        >>> float(pick(0, 2.0, p=p)), float(pick(1, 2.0, p=p))
        (5.0, 6.0)
    """
    return Switch(branches)
