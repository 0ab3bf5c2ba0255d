"""`scan`, `while_loop`, `cond` and `switch` that keep track of params."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from .. import core
from ._tracked import LEAF, Collected, Structure, Updates, _split, collect, is_dynamic, note_reads, unpack, write_back
from ._transforms import Transform

CHANGED = """{title}: `{name}` is {old} before {what} and {new} after it. What a loop or branch carries \
must keep its structure, shape and dtype.{hint}"""

FIRST = """ Give it a value before: for vodes, run the forward initialisation \
(`with pxu.step(model, pxc.STATUS.INIT): ...`) first; for caches, clear them inside the body with \
`pxu.step(model, clear_params=pxc.VodeParam.Cache)`; for optimisers, call `optim.init(...)` first."""


class _Loop(Transform):
    """Base of transforms whose params must leave in the form in which they came."""

    def _run(
        self, structure: Structure, fn: Callable[..., Any], values: Any, args: Any, what: str
    ) -> tuple[Any, list[Any]]:
        """Run `fn` and give all params' new arrays, flat, after checking them against the old."""
        result, updates = structure.run(self._title(), fn, values, args, full=True)
        flat = _flatten_updates(self._title(), structure, updates, values, what)
        # plain arrays in kwargs are carried along unchanged
        return result, flat + list(values[len(flat) :])

    def _finish(self, collected: Collected, values: Sequence[Any]) -> None:
        """Write the final arrays into the caller's params."""
        structure, params, old = collected
        updates: list[Any] = []
        position = 0
        for spec in structure.specs:
            size = getattr(spec, "size", 1)
            mine = list(values[position : position + size])
            if all(a is b for a, b in zip(mine, old[position : position + size], strict=True)):
                updates.append(())
            else:
                updates.append((_value_of(spec, mine),))
            position += size
        write_back(params, tuple(updates))


def _value_of(spec: Any, arrays: list[Any]) -> Any:
    if isinstance(spec, type) or spec.treedef is LEAF:
        return arrays[0]
    for position, leaf in spec.statics or ():
        arrays.insert(position, leaf.get())
    return tree_unflatten(spec.treedef, arrays)


def _flatten_updates(
    title: str, structure: Structure, updates: Updates, values: Any, what: str
) -> list[Any]:
    flat: list[Any] = []
    for index, (spec, (packed,)) in enumerate(zip(structure.specs, updates, strict=True)):
        value = unpack(packed)
        before = len(flat)
        size = getattr(spec, "size", 1)
        old = list(values[before : before + size])
        if isinstance(spec, type) or spec.treedef is LEAF:
            fits = hasattr(value, "dtype")
            if fits:
                flat.append(value)
        else:
            new = _split(core.DynamicParam.rebuild(value, spec.metadata), value, flat)
            fits = new.treedef == spec.treedef and new.statics == spec.statics
        fits = fits and all(_alike(a, b) for a, b in zip(flat[before:], old, strict=True))
        if not fits:
            old_value = _value_of(spec, old)
            hint = FIRST if _is_empty(old_value) else ""
            raise TypeError(
                CHANGED.format(
                    title=title,
                    name=structure.name_of(index),
                    old=core.describe(old_value),
                    new=core.describe(value),
                    what=what,
                    hint=hint,
                )
            )
    return flat


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not value)


def _alike(a: Any, b: Any) -> bool:
    return jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b)


def _as_args(title: str, returned: Any, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
    """The body's first result as a tuple like `args`; and whether it was a single bare value."""
    if not args and (returned is None or returned == ()):
        return (), returned is None
    if len(args) == 1 and tree_structure(returned) == tree_structure(args[0]):
        return (returned,), True
    if isinstance(returned, tuple | list) and len(returned) == len(args):
        return tuple(returned), False
    if len(args) == 1:
        return (returned,), True
    raise TypeError(
        f"{title}: the body must return its {len(args)} positional arguments again, in the same order; "
        f"got {core.describe(returned)}"
    )


class Scan(_Loop):
    """See `scan`."""

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
            raise ValueError(
                "pxf.scan needs `xs` (arrays to scan over, such as `jnp.arange(T)`) or `length=T`"
            )
        self.xs, self.length, self.reverse, self.unroll = xs, length, reverse, unroll

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        title = self._title()
        collected = collect(kwargs)
        note_reads(collected.params)
        bare = False

        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            nonlocal bare
            values, args = carry
            result, values = self._run(
                collected.structure, lambda *a, **k: self.fn(x, *a, **k), values, args, "one iteration"
            )
            if not isinstance(result, tuple | list) or len(result) != 2:
                raise TypeError(
                    f"{title}: the body returns `(args, y)`, its positional arguments and one output; "
                    f"got {core.describe(result)}. Write `return (x,), y`, or `return (), None` with "
                    "neither"
                )
            args, bare = _as_args(title, result[0], args)
            return (values, args), result[1]

        (values, args), ys = jax.lax.scan(
            step, (list(collected.values), args), self.xs, self.length, self.reverse, self.unroll
        )
        self._finish(collected, values)
        return (args[0] if args and bare else args), ys


class WhileLoop(_Loop):
    """See `while_loop`."""

    def __init__(self, fn: Callable[..., Any], cond_fn: Callable[..., Any]):
        super().__init__(fn)
        self.cond_fn = cond_fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        title = self._title()
        collected = collect(kwargs)
        note_reads(collected.params)
        structure = collected.structure
        bare = False

        def proceed(carry: Any) -> Any:
            values, args = carry
            result, _ = structure.run(title, self.cond_fn, values, args)
            return core.get(result)

        def step(carry: Any) -> Any:
            nonlocal bare
            values, args = carry
            result, values = self._run(structure, self.fn, values, args, "one iteration")
            args, bare = _as_args(title, result, args)
            return values, args

        values, args = jax.lax.while_loop(proceed, step, (list(collected.values), args))
        self._finish(collected, values)
        return args[0] if args and bare else args


class Switch(_Loop):
    """See `switch`."""

    def __init__(self, branches: Sequence[Callable[..., Any]]):
        branches = tuple(branches)
        if not branches or not all(map(callable, branches)):
            raise TypeError(f"pxf.{self._name()} takes functions, at least one; got {branches!r}")
        super().__init__(branches[0])
        self.branches = branches

    def __call__(self, index: Any, *args: Any, **kwargs: Any) -> Any:
        return self._select(lambda fns, *operands: jax.lax.switch(index, fns, *operands), args, kwargs)

    def _select(self, choose: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        collected = collect(kwargs)
        note_reads(collected.params)

        def branch(fn: Callable[..., Any]) -> Callable[..., Any]:
            return lambda values, args: self._run(
                collected.structure, fn, values, args, f"the branch `{getattr(fn, '__name__', fn)}`"
            )

        # Python scalars would be constants in one branch and traced in the other
        values = [jnp.asarray(v) if is_dynamic(v) else v for v in collected.values]
        leaves, treedef = tree_flatten(args)
        dynamic = [leaf for leaf in leaves if is_dynamic(leaf)]

        def with_args(fn: Callable[..., Any]) -> Callable[..., Any]:
            def call(values: Any, dynamic: Any) -> Any:
                data = iter(dynamic)
                full = [next(data) if is_dynamic(leaf) else leaf for leaf in leaves]
                return branch(fn)(values, tree_unflatten(treedef, full))

            return call

        result, values = choose([with_args(fn) for fn in self.branches], values, dynamic)
        self._finish(collected, values)
        return result

    def __repr__(self) -> str:
        names = ", ".join(
            repr(b) if isinstance(b, Transform) else getattr(b, "__qualname__", repr(b))
            for b in self.branches
        )
        return f"{type(self).__name__}({names})"


class Cond(Switch):
    """See `cond`."""

    def __init__(self, true_fun: Callable[..., Any], false_fun: Callable[..., Any]):
        super().__init__((true_fun, false_fun))

    def __call__(self, pred: Any, *args: Any, **kwargs: Any) -> Any:
        return self._select(
            lambda fns, *operands: jax.lax.cond(core.get(pred), *fns, *operands), args, kwargs
        )


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
        A function `(*args, **kwargs) -> (args, ys)`.

    Raises:
        ValueError: neither xs nor length. TypeError: the body returns something else than (args, y), or
            changes the structure, shape or dtype of a param (the message names it).

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
        body: `body(*args, **kwargs) -> args`.
        cond: `cond(*args, **kwargs) -> bool`; it sees the params as the body left them. What it writes
            to them is dropped.

    Returns:
        A function `(*args, **kwargs) -> args`.

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


def cond(true_fun: Callable[..., Any], false_fun: Callable[..., Any]) -> Cond:
    """Run one of two functions. Called as `cond(f, g)(pred, *args, **kwargs)`.

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
    """Run one of several functions. Called as `switch(branches)(index, *args, **kwargs)`."""
    return Switch(branches)
