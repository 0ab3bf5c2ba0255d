"""`vmap` that keeps track of params."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves, tree_map

from .. import core
from ..core import Unreadable
from ._collect import ARRAY
from ._masking import read_mask
from ._tracked import Structure, Updates, changes, collect, write_back
from ._transform import Transform

NO_AXIS = """{title}: nothing is mapped. Give an axis to a positional argument, as in \
`in_axes=(0,)`, or to params, as in `pxf.vmap(pxu.M(pxc.VodeParam | pxc.VodeParam.Cache)\
.to((None, 0)))`.{masked}"""

SIZES = """{title}: the mapped arrays have different sizes along their mapped axis: {sizes}. If a \
vode still holds the states of a batch of another size, initialise them in this batch \
(`with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache): ...`) before they are \
used, or declare a mask that does not map them"""

UNMAPPED = """{title}: the function returns or writes a value that differs for each \
mapped element, but the corresponding axis is None. If it writes to a param, map that param too \
(for vodes: `pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))`); if it returns it, give \
out_axes an axis, or reduce it with `jax.lax.psum`. Params not mapped: {names}"""

NO_SUCH_AXIS = """{title}: {name} is to be mapped along axis {axis}, but its shape is {shape}"""

PREFIX = """{title}: in_axes has {prefix!r} for {name}, which has another structure"""

ARITY = """{title}: in_axes has {n} entries for {args} positional arguments; give one axis (or \
None) for each positional argument"""


class _Size(NamedTuple):
    """The number of elements along the mapped axis of one array."""

    owner: int | str  # number of a param, or a description of anything else
    size: int


class Vmap(Transform):
    """See `vmap`."""

    name = "vmap"

    def __init__(
        self,
        fn: Callable[..., Any],
        kwargs_mask: Any = None,
        in_axes: Any = (),
        out_axes: Any = (),
        axis_name: Any = None,
        axis_size: int | None = None,
        **vmap_kwargs: Any,
    ):
        super().__init__(fn)
        self.kwargs_mask = {} if kwargs_mask is None else kwargs_mask
        self.in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        # () is "not given": the result is mapped along its first axis, as in jax.vmap
        self.out_axes = 0 if out_axes == () else out_axes
        self.axis_size = axis_size
        self.vmap_kwargs = {"axis_name": axis_name, **vmap_kwargs}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        structure, params, values = collect(kwargs, self.title)
        axes, array_axes = read_mask(self.title, self.kwargs_mask, kwargs, structure, (None, 0))
        generators = [
            i for i, spec in enumerate(structure.specs) if issubclass(spec.cls, core.RandomKey)
        ]
        own = [
            i
            for i in generators
            if i == 0
            or (
                (axes[i] is not None or getattr(structure.specs[i].cls, "per_element", False))
                and _is_key(params[i]._value)
            )
        ]
        for i in own:
            axes[i] = None
        in_axes = self._positional_axes(args)
        sizes = [
            *_positional_sizes(self.title, args, in_axes),
            *_kwargs_sizes(self.title, structure, values, axes, array_axes),
        ]
        size, stale = self._size(structure, sizes, axes)
        if stale:
            why = Unreadable(self._sizes_message(structure, sizes))
            structure, values = _without(structure, values, stale, why)
        per_param = structure.split(values)
        for i in own:  # each element has its own key
            axes[i] = 0
            per_param[i] = (jax.random.split(core.uncommitted(params[i]._value), size),)
        # a generator that is not mapped is shared; the states of both are the first element's
        first = {i for i in generators if i in own or axes[i] is None}
        out_axes = [0 if i in first else axis for i, axis in enumerate(axes)]

        def mapped(values: Any, args: Any) -> tuple[Any, Updates]:
            return structure.run(self.title, self.fn, values, args)

        try:
            result, updates = jax.vmap(
                mapped,
                in_axes=([*structure.spread(axes), *array_axes], in_axes),
                out_axes=(self.out_axes, tuple(out_axes)),
                axis_size=size,
                **self.vmap_kwargs,
            )([*(v for mine in per_param for v in mine), *values[structure.size :]], args)
        except Exception as error:
            if isinstance(error, ValueError) and "out_axes" in str(error):
                names = [structure.name_of(i) for i, axis in enumerate(axes) if axis is None]
                raise ValueError(UNMAPPED.format(title=self.title, names=_some(names))) from error
            raise
        new = changes(updates)
        write_back(params, new | {i: new[i][0] for i in first if i in new})
        return result

    def _positional_axes(self, args: tuple[Any, ...]) -> Any:
        axes = self.in_axes
        if axes == () or axes is None:
            return (None,) * len(args)
        if isinstance(axes, tuple) and len(axes) != len(args):
            raise ValueError(ARITY.format(title=self.title, n=len(axes), args=len(args)))
        return axes

    def _size(
        self, structure: Structure, sizes: list[_Size], axes: list[Any]
    ) -> tuple[int, set[int]]:
        """Number of mapped elements, and the params that hold another number.

        Such a param may still be a state of another batch that the function overwrites before it
        reads it, so it is an error only if it is read.
        """
        given = {s.size for s in sizes if isinstance(s.owner, str)}
        if self.axis_size is not None:
            given.add(self.axis_size)
        given = given or {s.size for s in sizes}
        if not given:
            masked = any(axis is not None for axis in axes)
            why = "" if masked else " The mask selects no param."
            raise ValueError(NO_AXIS.format(title=self.title, masked=why))
        if len(given) > 1:
            raise ValueError(self._sizes_message(structure, sizes))
        size = given.pop()
        return size, {s.owner for s in sizes if isinstance(s.owner, int) and s.size != size}

    def _sizes_message(self, structure: Structure, sizes: list[_Size]) -> str:
        shown = [f"{_name(structure, s.owner)} has {s.size}" for s in sizes]
        if len(shown) > 8:
            shown = [*shown[:4], "...", *shown[-4:]]
        return SIZES.format(title=self.title, sizes=", ".join(shown))


def _positional_sizes(title: str, args: tuple[Any, ...], in_axes: Any) -> Iterator[_Size]:
    for position, arg in enumerate(args):
        prefix = in_axes[position] if isinstance(in_axes, tuple) else in_axes
        name = f"positional argument {position}"
        try:
            axes = tree_map(
                lambda axis, part: [axis] * len(tree_leaves(part)), prefix, arg, is_leaf=_is_none
            )
        except ValueError as error:
            raise ValueError(PREFIX.format(title=title, prefix=prefix, name=name)) from error
        flat = tree_leaves(axes, is_leaf=_is_none)
        for leaf, axis in zip(tree_leaves(arg), flat, strict=True):
            if axis is not None:
                yield _Size(name, _measure(title, leaf, axis, functools.partial(str, name)))


def _is_none(x: Any) -> bool:
    return x is None


def _kwargs_sizes(
    title: str, structure: Structure, values: Sequence[Any], axes: list[Any], array_axes: list[Any]
) -> Iterator[_Size]:
    for index, (mine, axis) in enumerate(zip(structure.split(values), axes, strict=True)):
        for value in mine if axis is not None else ():
            name = functools.partial(_name, structure, index)
            yield _Size(index, _measure(title, value, axis, name))
    slots = [i for i, slot in enumerate(structure.slots) if slot == ARRAY]
    for slot, value, axis in zip(slots, values[structure.size :], array_axes, strict=True):
        if axis is not None:
            name = functools.partial(_name, structure, f"`{structure.paths()[slot]}`")
            yield _Size(name(), _measure(title, value, axis, name))


def _name(structure: Structure, owner: int | str) -> str:
    return f"`{structure.name_of(owner)}`" if isinstance(owner, int) else owner


def _measure(title: str, value: Any, axis: int, name: Callable[[], str]) -> int:
    shape = jnp.shape(value)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(NO_SUCH_AXIS.format(title=title, name=name(), axis=axis, shape=shape))
    return int(shape[axis])


def _without(
    structure: Structure, values: Sequence[Any], left_out: set[int], instead: Unreadable
) -> tuple[Structure, tuple[Any, ...]]:
    """The same keyword arguments with `instead` as the value of some params."""
    specs = list(structure.specs)
    mine = structure.split(values)
    for i in left_out:
        specs[i], mine[i] = specs[i].holding(instead), ()
    own = [value for values in mine for value in values]
    return structure.with_specs(specs), (*own, *values[structure.size :])


def _is_key(value: Any) -> bool:
    """Whether this is one key, not a batch of them and not empty."""
    if value is None:
        return False
    typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return jnp.ndim(value) == (0 if typed else 1)


def _some(names: list[str]) -> str:
    return ", ".join(f"`{n}`" for n in names[:6]) + (", ..." if len(names) > 6 else "") or "none"


def vmap(
    kwargs_mask: Any = None,
    in_axes: Any = (),
    out_axes: Any = (),
    axis_name: Any = None,
    **vmap_kwargs: Any,
) -> Callable[[Callable[..., Any]], Vmap]:
    """Map a function over an axis of its positional arguments and of selected params.

    Each mapped element draws its own random keys from `px.RKG`, and from a generator among the
    keyword arguments that the mask maps; one that is not mapped is shared: all elements draw the
    same from it. Afterwards a generator goes on from the first element's state. A param's axis is
    the same in and out; a param that gets its first value inside (a vode at its first forward pass)
    gets the axis that the mask gives it.

    Args:
        kwargs_mask: a mask such as `pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))` for
            all keyword arguments, or a dict from name (or tuple of names) to a mask, an axis, or a
            mask tree.
        in_axes: axis of each positional argument, as in `jax.vmap`; none is mapped if not given.
        out_axes: axis of each result, as in `jax.vmap`; 0 if not given.
        axis_name: name for collectives such as `jax.lax.psum`.
        **vmap_kwargs: any other option of `jax.vmap`.

    Raises:
        ValueError: at the call: nothing is mapped; sizes differ; a param that is not mapped would
            get a different value for each element.

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
