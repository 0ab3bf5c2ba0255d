"""`scan` and `while_loop` that keep track of params."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves

from .. import core
from ._carry import CHANGED, Carried
from ._leaves import structure_of
from ._transform import Transform, refuse_non_data, show_function

NO_LENGTH = """pxf.scan needs `xs` (arrays to scan over, such as `jnp.arange(T)`) or `length=T`"""

NOT_A_PAIR = """{title}: the body returns `(args, y)`, its positional arguments and one output; \
got {got}. Write `return (x,), y`, or `return (), None` with neither"""

NOT_ARGS = """{title}: the body must return its {n} positional arguments again, in the same order; \
got {got}"""

NO_BOOL = """{title}: the condition `{fn}` must return one bool; got {got}"""


class Scan(Transform):
    """See `scan`."""

    name = "scan"

    def __init__(
        self,
        fn: Callable[..., Any],
        xs: Any = None,
        length: int | None = None,
        reverse: bool = False,
        unroll: int | bool = 1,
    ):
        super().__init__(fn)
        if xs is None and length is None:
            raise ValueError(NO_LENGTH)
        self.xs, self.length, self.reverse, self.unroll = core.get(xs), length, reverse, unroll

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        refuse_non_data(self.title, args)
        carried = Carried(self.title, kwargs)

        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            values, args = carry
            body = lambda *args, **kwargs: self.fn(x, *args, **kwargs)
            result, values = carried.run(body, values, args, "one iteration")
            if not isinstance(result, tuple | list) or len(result) != 2:
                got = core.describe(result)
                raise TypeError(NOT_A_PAIR.format(title=self.title, got=got))
            return (values, _as_args(self.title, result[0], args)), result[1]

        (values, args), ys = jax.lax.scan(
            step, (list(carried.values), args), self.xs, self.length, self.reverse, self.unroll
        )
        carried.write_back(values)
        return args, ys


class WhileLoop(Transform):
    """See `while_loop`."""

    name = "while_loop"

    def __init__(self, fn: Callable[..., Any], cond_fn: Callable[..., Any]):
        super().__init__(fn)
        if not callable(cond_fn):
            raise TypeError(f"pxf.while_loop takes a body and a condition; got {cond_fn!r} for it")
        self.cond_fn = cond_fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        refuse_non_data(self.title, args)
        carried = Carried(self.title, kwargs)

        def proceed(carry: Any) -> Any:
            values, args = carry
            result, _ = carried.structure.run(self.title, self.cond_fn, values, args)
            result = core.get(result)
            if not hasattr(result, "dtype") and not isinstance(result, bool):
                fn, got = show_function(self.cond_fn), core.describe(result)
                raise TypeError(NO_BOOL.format(title=self.title, fn=fn, got=got))
            return result

        def step(carry: Any) -> Any:
            values, args = carry
            result, values = carried.run(self.fn, values, args, "one iteration")
            return values, _as_args(self.title, result, args)

        values, args = jax.lax.while_loop(proceed, step, (list(carried.values), args))
        carried.write_back(values)
        return args


def _as_args(title: str, returned: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a body returned as a tuple like `args`; a single argument may be bare."""
    if not args and returned is None:
        return ()
    is_tuple = isinstance(returned, tuple | list) and len(returned) == len(args)
    bare = len(args) == 1 and (not is_tuple or structure_of(returned) == structure_of(args[0]))
    if not (bare or is_tuple):
        got = core.describe(returned)
        raise TypeError(NOT_ARGS.format(title=title, n=len(args), got=got))
    new = (returned,) if bare else tuple(returned)
    for position, (before, after) in enumerate(zip(args, new, strict=True)):
        same = structure_of(before) == structure_of(after)
        # types are left to JAX, which promotes weak ones
        if not same or any(
            jnp.shape(a) != jnp.shape(b)
            for a, b in zip(tree_leaves(before), tree_leaves(after), strict=True)
        ):
            raise TypeError(
                CHANGED.format(
                    title=title,
                    name=f"positional argument {position}",
                    old=core.describe(before),
                    new=core.describe(after),
                    what="one iteration",
                    hint="",
                )
            )
    return new


def scan(
    f: Callable[..., Any],
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> Scan:
    """Run a body once for each slice of `xs`, carrying arguments and params along.

    Args:
        f: `f(x, *args, **kwargs) -> (args, y)`. A single argument need not be a tuple.
        xs: arrays to scan over along their first axis; None with `length`.
        length: number of iterations, if there is no `xs`.
        reverse, unroll: as in `jax.lax.scan`.

    Returns:
        A function `(*args, **kwargs) -> (args, ys)`; `args` is always a tuple.

    Raises:
        ValueError: neither xs nor length. TypeError: the body returns something else than
            `(args, y)`, or changes the structure, shape or dtype of a param (the message names it).

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> total = px.Param(jnp.array(0.0))
        >>> def body(x, scale, *, total):
        ...     total += x * scale
        ...     return scale, total.get()
        >>> _, partial_sums = pxf.scan(body, jnp.arange(3.0))(2.0, total=total)
        >>> float(total), partial_sums.tolist()
        (6.0, [0.0, 2.0, 6.0])
    """
    return Scan(f, xs, length, reverse, unroll)


def while_loop(body: Callable[..., Any], cond: Callable[..., Any]) -> WhileLoop:
    """Repeat a body while a condition holds.

    Args:
        body: `body(*args, **kwargs) -> args`. A single argument need not be a tuple.
        cond: `cond(*args, **kwargs) -> bool`; it sees the params as the body left them. What it
            writes to them is dropped.

    Returns:
        A function `(*args, **kwargs) -> args`; `args` is always a tuple.

    Raises:
        TypeError: the body returns something else than its arguments, or changes the structure,
            shape or dtype of a param (the message names it).

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> p = px.Param(jnp.array(1.0))
        >>> def double(*, p):
        ...     p *= 2
        >>> pxf.while_loop(double, lambda *, p: p < 100)(p=p)
        ()
        >>> float(p)
        128.0
    """
    return WhileLoop(body, cond)
