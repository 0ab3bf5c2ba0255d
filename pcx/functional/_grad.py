"""`value_and_grad` that keeps track of params."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_map, tree_unflatten

from .. import core
from ._leaves import is_dynamic
from ._masking import read_mask
from ._tracked import Structure, changes, collect, write_back
from ._transform import Transform

NOTHING = """{title}: nothing to differentiate with kwargs_mask={mask!r}: {why}. Select params \
with a mask, as in `pxu.M(pxnn.LayerParam).to((False, True))`"""

NOT_FLOAT = """{title}: `{name}` is {got}; only floating point params have gradients. Leave it out \
of the mask, or store it as floats"""

NO_ARGUMENT = """{title}: argnums={argnums} asks for the gradient of positional argument {n}, and \
the call has {given} of them"""

NOT_SCALAR = """{title}: the function must return a scalar, got {got}. Sum over the batch, or \
reduce inside `pxf.vmap(..., axis_name='batch')` with `jax.lax.psum(energy, 'batch')` and \
out_axes=None.{hint}"""

NO_AUX = """{title}: with has_aux=True the function returns `(scalar, *extras)`; got {got}"""


class ValueAndGrad(Transform):
    """See `value_and_grad`."""

    name = "value_and_grad"

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
        structure, params, values = collect(kwargs, self.title)
        mask, _ = read_mask(self.title, self.kwargs_mask, kwargs, structure, (False, True))
        chosen = [i for i, entry in enumerate(structure.spread(mask)) if entry]
        numbers = (self.argnums,) if isinstance(self.argnums, int) else self.argnums
        self._check(structure, values, mask, chosen, numbers, args)
        # what is not differentiated is not traced: keep the caller's NumPy arrays out of reach
        args, values = tree_map(_protected, args), tree_map(_protected, values)

        def scalar(selected: Any, *positional: Any) -> tuple[Any, Any]:
            merged = list(values)
            for i, value in zip(chosen, selected, strict=True):
                merged[i] = value
            all_args = list(args)
            for n, value in zip(numbers, positional, strict=True):
                all_args[n] = value
            result, updates = structure.run(self.title, self.fn, merged, tuple(all_args))
            value, extras = self._split_result(result)
            return value, (extras, updates)

        differentiated = jax.value_and_grad(
            scalar, argnums=tuple(range(len(numbers) + 1)), has_aux=True, **self.grad_kwargs
        )
        (value, (extras, updates)), (selected, *positional) = differentiated(
            [values[i] for i in chosen], *(args[n] for n in numbers)
        )
        write_back(params, changes(updates))
        if not self.grad_kwargs.get("holomorphic"):
            selected, positional = tree_map(_ascent, (selected, positional))
        grads: Any = _gradient_tree(structure, mask, selected)
        if self.argnums != ():
            grads = (positional[0] if isinstance(self.argnums, int) else tuple(positional), grads)
        return ((value, extras) if self.has_aux else value), grads

    def _split_result(self, result: Any) -> tuple[Any, tuple[Any, ...]]:
        extras: tuple[Any, ...] = ()
        if self.has_aux:
            if not isinstance(result, tuple | list) or not result:
                raise TypeError(NO_AUX.format(title=self.title, got=core.describe(result)))
            result, *rest = result
            extras = tuple(rest)
        result = core.get(result)
        if not is_dynamic(result) or jnp.shape(result) != ():
            hint = "" if self.has_aux else " With further results beside it, set has_aux=True."
            got = core.describe(result)
            raise TypeError(NOT_SCALAR.format(title=self.title, got=got, hint=hint))
        return result, extras

    def _check(
        self,
        structure: Structure,
        values: Sequence[Any],
        mask: list[Any],
        chosen: list[int],
        numbers: tuple[int, ...],
        args: tuple[Any, ...],
    ) -> None:
        if not chosen and not numbers:
            selected = [structure.name_of(i) for i, entry in enumerate(mask) if entry]
            why = "it selects no param of the keyword arguments, and argnums is empty"
            if selected:
                why = f"the params it selects have no value yet: {', '.join(selected[:6])}"
            raise ValueError(NOTHING.format(title=self.title, mask=self.kwargs_mask, why=why))
        for n in numbers:
            if not -len(args) <= n < len(args):
                raise ValueError(
                    NO_ARGUMENT.format(title=self.title, argnums=self.argnums, n=n, given=len(args))
                )
        if self.grad_kwargs.get("allow_int"):
            return
        owners = structure.spread(range(len(mask)))
        for i in chosen:
            if not jnp.issubdtype(jnp.result_type(values[i]), jnp.inexact):
                name, got = structure.name_of(owners[i]), core.describe(values[i])
                raise TypeError(NOT_FLOAT.format(title=self.title, name=name, got=got))


def _ascent(gradient: Any) -> Any:
    return jnp.conj(gradient) if jnp.iscomplexobj(gradient) else gradient


def _protected(x: Any) -> Any:
    return jnp.asarray(x) if isinstance(x, np.ndarray) and x.dtype.kind in "biufc" else x


def _gradient_tree(structure: Structure, mask: list[Any], grads: list[Any]) -> Any:
    """The kwargs with a gradient in each selected param and None elsewhere."""
    rest = iter(grads)
    per_param: list[Any] = []
    for spec, entry in zip(structure.specs, mask, strict=True):
        if not entry or not spec.size:
            per_param.append(None)
            continue
        leaves = [next(rest) for _ in range(spec.size)]
        for position, _ in spec.statics:
            leaves.insert(position, None)
        per_param.append(spec.cls.rebuild(spec.with_leaves(leaves), spec.metadata))
    leaves = [per_param[slot] if slot >= 0 else None for slot in structure.slots]
    return tree_unflatten(structure.treedef, leaves)


def value_and_grad(
    kwargs_mask: Any = None,
    argnums: int | Sequence[int] = (),
    has_aux: bool = False,
    **grad_kwargs: Any,
) -> Callable[[Callable[..., Any]], ValueAndGrad]:
    """Value and gradient with respect to the params that a mask maps to True.

    For a complex array z = a + ib the gradient is dF/da + i dF/db, the direction in which the real
    value F rises fastest, so that a step along its negative descends. `jax.grad` returns the
    conjugate of this. With `holomorphic=True` the complex derivative is returned as it is.

    Args:
        kwargs_mask: a mask such as `pxu.M(pxnn.LayerParam).to((False, True))`, or a dict from
            keyword argument to mask or mask tree.
        argnums: positional arguments to differentiate as well.
        has_aux: the function returns `(scalar, *extras)`.
        **grad_kwargs: any other option of `jax.value_and_grad`.

    Returns:
        A decorator. The decorated function returns `(value, grads)`, or `((value, extras), grads)`
        with `has_aux`. `grads` is a dict like the keyword arguments: `grads["model"]` is shaped as
        the model, with the gradient in each selected param and None elsewhere. With `argnums`, it
        is `(positional gradients, that dict)`.

    Raises:
        ValueError: nothing is selected. TypeError: the value is no scalar, or a param not floating
            point.

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.functional as pxf, pcx.utils as pxu
        >>> w = px.Param(jnp.array(3.0))
        >>> value, grads = pxf.value_and_grad(pxu.M(px.Param))(lambda x, *, w: x * w**2)(2.0, w=w)
        >>> float(value), float(grads["w"])
        (18.0, 12.0)
    """
    return lambda fn: ValueAndGrad(fn, kwargs_mask, argnums, has_aux, **grad_kwargs)
