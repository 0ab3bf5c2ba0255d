"""`jit`, `vmap` and `value_and_grad` that keep track of params."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from .. import core
from ..core import Module, Param
from ._masking import read_mask
from ._tracked import LEAF, Collected, Structure, Updates, collect, is_dynamic, note_firsts, note_reads, write_back

MODULE_POSITIONAL = """{transform}: argument {position} holds a {cls}, which has attributes that are \
not arrays. Positional arguments are plain JAX values and are never tracked: pass it by keyword, as in \
`f(x, model=model)`, and declare it after a `*`: `def f(x, *, model): ...`"""


class Transform:
    """Base of all tracked transforms: wraps a function and keeps its name and documentation."""

    def __init__(self, fn: Callable[..., Any]):
        if not callable(fn):
            raise TypeError(
                f"pxf.{self._name()} takes its options first and the function second: write "
                f"`pxf.{self._name()}(...)(fn)` or decorate with `@pxf.{self._name()}(...)`; "
                f"got {fn!r} in place of the function"
            )
        self.fn = fn
        functools.update_wrapper(self, fn, updated=())

    @classmethod
    def _name(cls) -> str:
        return {"ValueAndGrad": "value_and_grad", "WhileLoop": "while_loop"}.get(
            cls.__name__, cls.__name__.lower()
        )

    def _title(self) -> str:
        return f"pxf.{self._name()}({getattr(self.fn, '__name__', type(self.fn).__name__)})"

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        fn = self.fn
        inner = repr(fn) if isinstance(fn, Transform) else getattr(fn, "__qualname__", repr(fn))
        return f"{type(self).__name__}({inner})"


class _WithStatics:
    """A result with leaves that are not arrays, on its way out of `jax.jit`."""

    def __init__(self, arrays: Sequence[Any], aux: Any):
        self.arrays, self.aux = arrays, aux

    def result(self) -> Any:
        treedef, statics = self.aux
        arrays = iter(self.arrays)
        return tree_unflatten(treedef, [next(arrays) if s is None else s.get() for s in statics])


jax.tree_util.register_pytree_node(
    _WithStatics, lambda r: (r.arrays, r.aux), lambda aux, arrays: _WithStatics(arrays, aux)
)


def _wrap_statics(result: Any) -> Any:
    leaves, treedef = tree_flatten(result)
    if all(is_dynamic(leaf) for leaf in leaves):
        return result
    statics = tuple(None if is_dynamic(leaf) else core.static(leaf) for leaf in leaves)
    return _WithStatics([leaf for leaf in leaves if is_dynamic(leaf)], (treedef, statics))


class Jit(Transform):
    """See `jit`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        static_argnums: int | Sequence[int] | None = None,
        donate_argnums: int | Sequence[int] | None = None,
        donate_params: bool = False,
        **jit_kwargs: Any,
    ):
        super().__init__(fn)
        self.donate_params = donate_params
        donate = _shift(donate_argnums) + ((1,) if donate_params else ())
        title = self._title()
        # for each structure, the one to run it as, and the params to leave out (see `_resolve`)
        self._routes: dict[Structure, tuple[Structure, frozenset[int]]] = {}
        self._written: dict[Structure, frozenset[int]] = {}

        def pure(structure: Structure, own: Any, plain: Any, *args: Any) -> tuple[Any, Updates]:
            values = (*own, *plain)

            def note(firsts: list[str | None]) -> None:
                now = frozenset(i for i, first in enumerate(firsts) if first == "write")
                self._written[structure] = self._written.get(structure, now) & now

            # donated arrays are gone after the call, so then every param needs its new one
            result, updates = structure.run(title, fn, values, args, donate_params, note)
            return _wrap_statics(result), updates

        pure.__name__ = pure.__qualname__ = getattr(fn, "__name__", "pure")
        self._jitted = jax.jit(
            pure,
            static_argnums=(0, *_shift(static_argnums)),
            donate_argnums=donate or None,
            **jit_kwargs,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        structure, params, values = collect(kwargs)
        route = self._routes.get(structure)
        if route is None:
            route = self._routes[structure] = self._resolve(structure)
        target, left_out = route
        if left_out:
            values = _leave_out(structure, values, left_out)
        own, plain = values[: target.size], values[target.size :]
        if self.donate_params:
            del values
            own = _unshared(own)
        try:
            result, updates = self._jitted(target, own, plain, *args)
        except TypeError as error:
            _explain_positional(self._title(), args, error)
            raise
        written = self._written[target]
        if not left_out <= written:
            # with arguments of these shapes the body does read what was left out
            self._routes[structure] = (structure, frozenset())
            return self(*args, **kwargs)
        if core.scope_state.scope is not None:
            note_firsts(params)(["write" if i in written else "read" for i in range(len(params))])
        write_back(params, updates)
        return result.result() if type(result) is _WithStatics else result

    def _resolve(self, structure: Structure) -> tuple[Structure, frozenset[int]]:
        """Find a version traced before that differs only in params which it writes before reading."""
        for known, written in self._written.items():
            differing = known.differing_params(structure)
            if differing is not None and differing <= written and not any(
                known.size_of(i) for i in differing
            ):
                return known, differing
        return structure, frozenset()

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """The lowered computation of this call, as `jax.jit(...).lower`; nothing is run."""
        structure, _, values = collect(kwargs)
        own, plain = values[: structure.size], values[structure.size :]
        return self._jitted.lower(structure, own, plain, *args)

    def clear_cache(self) -> None:
        """Forget compiled versions."""
        self._jitted.clear_cache()


def _leave_out(structure: Structure, values: tuple[Any, ...], params: frozenset[int]) -> tuple[Any, ...]:
    out: list[Any] = []
    position = 0
    for index in range(len(structure.specs)):
        size = structure.size_of(index)
        if index not in params:
            out.extend(values[position : position + size])
        position += size
    return (*out, *values[position:])


def _shift(argnums: int | Sequence[int] | None) -> tuple[int, ...]:
    if argnums is None:
        return ()
    argnums = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    # three arguments of the protocol come first; negative numbers count from the end as before
    return tuple(n if n < 0 else n + 3 for n in argnums)


def _unshared(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copies in place of arrays that anything else holds as well.

    A donated array is gone after the call. One that only its param holds is never missed; one that is also
    in a user's variable, in another param or in another model must stay. References are counted by the
    interpreter, so this is exact and costs next to nothing.
    """
    return tuple([jnp.copy(v) if sys.getrefcount(v) > _ALONE else v for v in values])


def _count_alone() -> int:
    """What `sys.getrefcount` says in `_unshared` of an array that only its param holds."""
    counts: list[int] = []
    holder = [object()]
    values = (holder[0],)

    def look(values: tuple[Any, ...]) -> None:
        counts.extend([sys.getrefcount(v) for v in values])

    look(values)
    return counts[0]


_ALONE = _count_alone()


def _explain_positional(title: str, args: tuple[Any, ...], error: TypeError) -> None:
    for position, arg in enumerate(args):
        for leaf in tree_leaves(arg, is_leaf=lambda x: isinstance(x, Module)):
            if isinstance(leaf, Module):
                raise TypeError(
                    MODULE_POSITIONAL.format(
                        transform=title, position=position, cls=type(leaf).__name__
                    )
                ) from error


class Vmap(Transform):
    """See `vmap`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        kwargs_mask: Any = None,
        in_axes: Any = (),
        out_axes: Any = (),
        axis_name: Any = None,
        **vmap_kwargs: Any,
    ):
        super().__init__(fn)
        self.kwargs_mask = {} if kwargs_mask is None else kwargs_mask
        self.in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        # () is "not given": the result is mapped along its first axis, as in jax.vmap
        self.out_axes = 0 if out_axes == () else out_axes
        self.axis_name = axis_name
        self.vmap_kwargs = vmap_kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        title = self._title()
        collected = collect(kwargs)
        structure, params, values = collected
        per_param, per_array = read_mask(title, self.kwargs_mask, kwargs, collected, (None, 0))
        in_axes = self._positional_axes(title, args)
        per_value = _per_value(structure, per_param) + per_array
        size = _axis_size(title, collected, per_param, per_value, args, in_axes)
        keys = jax.random.split(values[0], size + 1)

        def mapped(values: Any, args: Any) -> tuple[Any, Updates]:
            return structure.run(title, self.fn, values, args, firsts=note_firsts(params))

        try:
            result, updates = jax.vmap(
                mapped,
                in_axes=([0, *per_value[1:]], in_axes),
                out_axes=(self.out_axes, (0, *per_param[1:])),
                axis_name=self.axis_name,
                axis_size=size,
                **self.vmap_kwargs,
            )([keys[1:], *values[1:]], args)
        except ValueError as error:
            if "out_axes" in str(error) and "vmap has mapped output" in str(error):
                raise ValueError(_unmapped_message(title, structure, per_param)) from error
            raise
        # the elements' own keys end here; the caller's moves on only if randomness was used
        write_back(params, ((keys[0],) if updates[0] else (), *updates[1:]))
        return result

    def _positional_axes(self, title: str, args: tuple[Any, ...]) -> Any:
        axes = self.in_axes
        if axes == () or axes is None:
            return (None,) * len(args)
        if isinstance(axes, tuple) and len(axes) != len(args):
            raise ValueError(
                f"{title}: in_axes has {len(axes)} entries for {len(args)} positional arguments; "
                "give one axis (or None) for each positional argument"
            )
        return axes


def _per_value(structure: Structure, per_param: list[Any]) -> list[Any]:
    """Repeat a param's entry for each of its arrays."""
    out = []
    for spec, entry in zip(structure.specs, per_param, strict=True):
        out.extend([entry] * getattr(spec, "size", 1))
    return out


NO_AXIS = """{title}: nothing is mapped. Give an axis to a positional argument, as in `in_axes=(0,)`, or \
to params, as in `pxf.vmap(pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0)))`.{masked}"""

SIZES = """{title}: the mapped arrays have different sizes along their mapped axis: {sizes}. \
If a vode still holds the states of a batch of another size, clear them or initialise them in this batch \
(`with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache): ...`), or declare a mask \
that does not map them."""


def _axis_size(
    title: str,
    collected: Collected,
    per_param: list[Any],
    per_value: list[Any],
    args: tuple[Any, ...],
    in_axes: Any,
) -> int:
    sizes: dict[str, int] = {}
    structure, params, values = collected
    names = _value_names(structure)
    for i in range(1, len(values)):
        axis = per_value[i]
        if axis is not None:
            sizes[names(i)] = _size(title, names(i), values[i], axis)
    for position, arg in enumerate(args):
        axis = in_axes[position] if isinstance(in_axes, tuple) else in_axes
        axes = jax.tree_util.tree_map(
            lambda a, sub: [a] * len(tree_leaves(sub)), axis, arg, is_leaf=lambda x: x is None
        )
        flat = tree_leaves(axes, is_leaf=lambda x: x is None)
        for leaf, one in zip(tree_leaves(arg), flat, strict=True):
            if one is not None:
                name = f"positional argument {position}"
                sizes[name] = _size(title, name, leaf, one)
    if not sizes:
        masked = "" if any(a is not None for a in per_param) else " The mask selects no param."
        raise ValueError(NO_AXIS.format(title=title, masked=masked))
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"`{name}` has {n}" for name, n in list(sizes.items())[-8:])
        raise ValueError(SIZES.format(title=title, sizes=shown))
    return next(iter(sizes.values()))


def _value_names(structure: Structure) -> Callable[[int], str]:
    owner: list[int] = []
    for index, spec in enumerate(structure.specs):
        owner.extend([index] * getattr(spec, "size", 1))
    return lambda i: structure.name_of(owner[i]) if i < len(owner) else "a plain array in kwargs"


def _size(title: str, name: str, value: Any, axis: Any) -> int:
    shape = jnp.shape(value)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"{title}: `{name}` is to be mapped along axis {axis}, but its shape is {shape}"
        )
    return int(shape[axis])


def _unmapped_message(title: str, structure: Structure, per_param: list[Any]) -> str:
    names = [structure.name_of(i) for i, axis in enumerate(per_param) if axis is None and i]
    shown = ", ".join(f"`{name}`" for name in names[:6]) + (", ..." if len(names) > 6 else "")
    return (
        f"{title}: the function gives a result, or writes a value, that differs for each mapped "
        "element, but the corresponding axis is None. If it writes to a param, map that param too "
        "(for vodes: `pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))`); if it returns it, "
        f"give out_axes an axis, or reduce it with `jax.lax.psum`. Params not mapped: {shown or 'none'}"
    )


class ValueAndGrad(Transform):
    """See `value_and_grad`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        kwargs_mask: Any = None,
        argnums: int | Sequence[int] = (),
        has_aux: bool = False,
        **grad_kwargs: Any,
    ):
        super().__init__(fn)
        self.kwargs_mask = {} if kwargs_mask is None else kwargs_mask
        self.argnums = argnums if isinstance(argnums, int) else tuple(argnums)
        self.has_aux = has_aux
        self.grad_kwargs = grad_kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        title = self._title()
        collected = collect(kwargs)
        structure, params, values = collected
        per_param, _ = read_mask(title, self.kwargs_mask, kwargs, collected, (False, True))
        chosen = [i for i, entry in enumerate(_per_value(structure, per_param)) if entry]
        numbers = (self.argnums,) if isinstance(self.argnums, int) else self.argnums
        self._check(title, collected, per_param, chosen, numbers)
        note_reads([p for p, entry in zip(params, per_param, strict=True) if entry])

        def scalar(selected: Any, *positional: Any) -> tuple[Any, Any]:
            merged = list(values)
            for i, value in zip(chosen, selected, strict=True):
                merged[i] = value
            all_args = list(args)
            for n, value in zip(numbers, positional, strict=True):
                all_args[n] = value
            result, updates = structure.run(
                title, self.fn, merged, tuple(all_args), firsts=note_firsts(params)
            )
            value, extras = self._split_result(title, result)
            return value, (extras, updates)

        differentiated = jax.value_and_grad(
            scalar, argnums=tuple(range(len(numbers) + 1)), has_aux=True, **self.grad_kwargs
        )
        (value, (extras, updates)), (selected, *positional) = differentiated(
            [values[i] for i in chosen], *(args[n] for n in numbers)
        )
        write_back(params, updates)
        grads: Any = self._gradient_tree(structure, per_param, dict(zip(chosen, selected, strict=True)))
        if self.argnums != ():
            grads = (positional[0] if isinstance(self.argnums, int) else tuple(positional), grads)
        return ((value, extras) if self.has_aux else value), grads

    def _split_result(self, title: str, result: Any) -> tuple[Any, tuple[Any, ...]]:
        extras: tuple[Any, ...] = ()
        if self.has_aux:
            if not isinstance(result, tuple | list) or not result:
                raise TypeError(
                    f"{title}: with has_aux=True the function returns `(scalar, *extras)`; "
                    f"got {core.describe(result)}"
                )
            result, *rest = result
            extras = tuple(rest)
        result = core.get(result)
        if jnp.shape(result) != ():
            hint = "" if self.has_aux else " With further results beside it, set has_aux=True."
            raise TypeError(
                f"{title}: the function must return a scalar, got {core.describe(result)}. Sum over "
                "the batch, or reduce inside `pxf.vmap(..., axis_name='batch')` with "
                f"`jax.lax.psum(energy, 'batch')` and out_axes=None.{hint}"
            )
        return result, extras

    def _check(
        self, title: str, collected: Collected, per_param: list[Any], chosen: list[int], numbers: Any
    ) -> None:
        structure, params, values = collected
        if not chosen and not numbers:
            selected = [structure.name_of(i) for i, entry in enumerate(per_param) if entry]
            if selected:
                why = f"the params it selects have no value yet: {', '.join(selected[:6])}"
            else:
                why = "it selects no param of the keyword arguments, and argnums is empty"
            raise ValueError(
                f"{title}: nothing to differentiate with kwargs_mask={self.kwargs_mask!r}: {why}. "
                "Select params with a mask, as in `pxu.M(pxnn.LayerParam).to((False, True))`"
            )
        names = _value_names(structure)
        for i in chosen:
            if not jnp.issubdtype(jnp.result_type(values[i]), jnp.inexact) and not self.grad_kwargs:
                raise TypeError(
                    f"{title}: `{names(i)}` is {core.describe(values[i])}; only floating point params "
                    "have gradients. Leave it out of the mask, or store it as floats"
                )

    @staticmethod
    def _gradient_tree(structure: Structure, per_param: list[Any], grads: dict[int, Any]) -> Any:
        """The kwargs with a gradient in each selected param and None elsewhere."""
        new: list[Any] = []
        position = 0
        for spec, entry in zip(structure.specs, per_param, strict=True):
            size = getattr(spec, "size", 1)
            new.append(None)
            if entry and size:
                mine = [grads[i] for i in range(position, position + size)]
                if isinstance(spec, type):
                    new[-1] = spec.rebuild(mine[0])  # type: ignore[attr-defined]
                else:
                    value = mine[0] if spec.treedef is LEAF else _join_grads(spec, mine)
                    new[-1] = spec.cls.rebuild(value, spec.metadata)
            position += size
        return tree_unflatten(
            structure.treedef, [new[slot] if slot >= 0 else None for slot in structure.slots]
        )


def _join_grads(spec: Any, grads: list[Any]) -> Any:
    leaves = list(grads)
    for position, _ in spec.statics or ():
        leaves.insert(position, None)
    return tree_unflatten(spec.treedef, leaves)


def jit(
    static_argnums: int | Sequence[int] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    donate_params: bool = False,
    **jit_kwargs: Any,
) -> Callable[[Callable[..., Any]], Jit]:
    """Compile a function whose keyword arguments are tracked; positional ones are as in `jax.jit`.

    A change of structure (a static value, metadata of a param, a vode that got its first state)
    compiles again; nothing else does.

    Args:
        static_argnums: positions of positional arguments that are compile-time constants.
        donate_argnums: positions of positional arguments whose memory XLA may reuse.
        donate_params: let XLA reuse the memory of the params' old values, except of arrays that something
            else holds too (they are copied).
        **jit_kwargs: any other option of `jax.jit`.

    Returns:
        A decorator.

    Raises:
        TypeError: at the call, if a module is passed positionally.
        RuntimeError: if the function writes a traced value to an object that is not among its
            keyword arguments.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> @pxf.jit()
        ... def add(x, *, total):
        ...     total += x
        ...     return total * 2
        >>> total = px.Param(jnp.array(1.0))
        >>> float(add(jnp.array(2.0), total=total)), float(total)
        (6.0, 3.0)
    """
    if callable(static_argnums):
        raise TypeError("write `@pxf.jit()` with parentheses: every pxf transform takes its options first")
    return lambda fn: Jit(fn, static_argnums, donate_argnums, donate_params, **jit_kwargs)


def vmap(
    kwargs_mask: Any = None,
    in_axes: Any = (),
    out_axes: Any = (),
    axis_name: Any = None,
    **vmap_kwargs: Any,
) -> Callable[[Callable[..., Any]], Vmap]:
    """Map a function over an axis of its positional arguments and of selected params.

    Each mapped element draws its own random keys. A param's axis is the same in and out; a param that
    gets its first value inside (a vode at its first forward pass) gets the axis the mask gives it.

    Args:
        kwargs_mask: a mask such as `pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))` for all
            keyword arguments, or a dict from name (or tuple of names) to a mask, an axis, or a mask tree.
        in_axes: axis of each positional argument, as in `jax.vmap`.
        out_axes: axis of each result, as in `jax.vmap`; 0 if not given.
        axis_name: name for collectives such as `jax.lax.psum`.
        **vmap_kwargs: any other option of `jax.vmap`.

    Raises:
        ValueError: at the call: nothing is mapped; sizes differ; a param that is not mapped would get
            a different value for each element.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf
        >>> state, weight = px.Param(jnp.zeros(3)), px.Param(jnp.array(2.0))
        >>> @pxf.vmap({"state": 0, "weight": None}, in_axes=(0,))
        ... def f(x, *, state, weight):
        ...     state.set(x * weight)
        >>> f(jnp.arange(3.0), state=state, weight=weight)
        >>> state.get().tolist()
        [0.0, 2.0, 4.0]
    """
    return lambda fn: Vmap(fn, kwargs_mask, in_axes, out_axes, axis_name, **vmap_kwargs)


def value_and_grad(
    kwargs_mask: Any = None,
    argnums: int | Sequence[int] = (),
    has_aux: bool = False,
    **grad_kwargs: Any,
) -> Callable[[Callable[..., Any]], ValueAndGrad]:
    """Value and gradient with respect to the params that a mask maps to True.

    Args:
        kwargs_mask: a mask such as `pxu.M(pxnn.LayerParam).to((False, True))`, or a dict from keyword
            argument to mask or mask tree.
        argnums: positional arguments to differentiate as well.
        has_aux: the function returns `(scalar, *extras)`.
        **grad_kwargs: any other option of `jax.value_and_grad`.

    Returns:
        A decorator. The decorated function returns `(value, grads)`, or `((value, extras), grads)` with
        `has_aux`. `grads` is a dict like the keyword arguments: `grads["model"]` is shaped as the model,
        with the gradient in each selected param and None elsewhere. With `argnums`, it is
        `(positional gradients, that dict)`.

    Raises:
        ValueError: nothing is selected. TypeError: the value is no scalar, or a param not floating point.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf, pcx.utils as pxu
        >>> w = px.Param(jnp.array(3.0))
        >>> value, grads = pxf.value_and_grad(pxu.M(px.Param))(lambda x, *, w: x * w**2)(2.0, w=w)
        >>> float(value), float(grads["w"])
        (18.0, 12.0)
    """
    return lambda fn: ValueAndGrad(fn, kwargs_mask, argnums, has_aux, **grad_kwargs)


__all__ = ["Jit", "Param", "Transform", "ValueAndGrad", "Vmap", "jit", "value_and_grad", "vmap"]
