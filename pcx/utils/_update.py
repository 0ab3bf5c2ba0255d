"""What one optimiser step computes: gradients by path in, updates and the next state out."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax as ox
from jax.tree_util import tree_flatten_with_path, tree_map

from ..core import Param, StaticParam, get, is_param, path_str, static
from ..predictive_coding import Vode, energy_modules

NOT_OPTAX = """{cls} takes an optax transformation such as `optax.sgd(1e-2)`, or a function \
without arguments that makes one; got {got!r}."""

MISSING = """{cls}.step: no gradient for {names}, which this optimiser was initialised with. \
Compute gradients with the mask that the optimiser was made with, or pass `allow_none=True` to \
leave such params alone. (Gradients were given for: {given}.)"""

STRANGER = """{cls}.step: this optimiser was initialised with {names}, which the model given to \
`step` does not have. Give `step` the object that the params were selected from: \
`optim.init(pxu.M(pxnn.LayerParam)(model))` goes with `optim.step(model, grads["model"])`."""

NO_BATCH = """{cls}.step: `scale_by=True` multiplies by the batch size, which cannot be known \
here: {why}. Give the number: `optim.step(model, grads, scale_by=x.shape[0])`."""


class OptimParam(Param):
    """The state of an optimiser, a pytree of arrays.

    Example:
        >>> import jax.numpy as jnp, optax, pcx as px, pcx.utils as pxu
        >>> model = [px.Param(jnp.ones(2))]
        >>> optim = pxu.Optim(optax.adam(0.1), model)
        >>> is_state = pxu.M_is(pxu.OptimParam).select  # tells it from weights
        >>> is_state(optim.state), is_state(model[0])
        (True, False)
    """

    __slots__ = ()


class OptimState(NamedTuple):
    """What an optimiser remembers: whose params it has (static), and optax's own state."""

    params: StaticParam
    inner: Any

    @property
    def paths(self) -> tuple[str, ...]:
        return self.params.get()


class Update:
    """One call of `step`: the model's params and the gradients, by path."""

    def __init__(self, name: str, model: Any, grads: Any, scale_by: Any, allow_none: bool):
        self.name = name
        self.model, self.scale_by, self.allow_none = model, scale_by, allow_none
        self.params = params_by_path(model)
        self.grads = _named_grads(grads)

    def run(
        self, optax: Any, state: OptimState, extra_args: dict[str, Any]
    ) -> tuple[dict[str, Any], OptimState]:
        """The updates and the next state of one optimiser; nothing is written."""
        paths = state.paths
        if strangers := [path for path in paths if path not in self.params]:
            raise ValueError(STRANGER.format(cls=self.name, names=some(strangers)))
        missing = [path for path in paths if path not in self.grads]
        if missing and not self.allow_none:
            raise ValueError(self.missing(some(missing)))
        values = {path: self.params[path].get() for path in paths}
        grads = {
            path: tree_map(jnp.zeros_like, value) if path in missing else self._scaled(path)
            for path, value in values.items()
        }
        updates, inner = optax.update(grads, state.inner, values, **extra_args)
        kept = {path: update for path, update in updates.items() if path not in missing}
        return kept, OptimState(state.params, inner)

    def missing(self, names: str) -> str:
        """The message for params without a gradient."""
        return MISSING.format(cls=self.name, names=names, given=some(list(self.grads)))

    def _scaled(self, path: str) -> Any:
        grad, scale = self.grads[path], self.scale_by
        if scale is None:
            return grad
        if scale is True:
            scale = self._batch_size(self.params[path])
        return tree_map(lambda g: g * scale, grad)

    def _batch_size(self, param: Any) -> int:
        """The size of the batch that a state holds; for other params, that of all the states."""
        sizes: set[int] = set()
        for vode in energy_modules(self.model):
            if not isinstance(vode, Vode) or vode.h.get() is None:
                continue
            if vode.shape is None:
                raise ValueError(
                    self._no_batch("a vode has no declared shape and was never called")
                )
            shape = jnp.shape(vode.h.get())
            size = math.prod(shape[: max(len(shape) - len(vode.shape), 0)])
            if vode.h is param:
                return size
            sizes.add(size)
        if not sizes:
            raise ValueError(self._no_batch("the model has no vode with a state"))
        if len(sizes) > 1:
            raise ValueError(self._no_batch(f"the states are batches of sizes {sorted(sizes)}"))
        return sizes.pop()

    def _no_batch(self, why: str) -> str:
        return NO_BATCH.format(cls=self.name, why=why)


class _Transformation:
    """Holds an optax transformation; two that hold the same one are equal, and compile once."""

    def __init__(self, transformation: Any):
        self.init, self.update = transformation.init, transformation.update

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Transformation) and self._functions == other._functions

    def __hash__(self) -> int:
        return hash(self._functions)

    @property
    def _functions(self) -> tuple[Any, Any]:
        return self.init, self.update


def transformation_of(name: str, optax: Any) -> StaticParam:
    """The optax transformation that the user gave, directly or as a factory."""
    made = optax
    if not hasattr(made, "update") and callable(made):
        made = made()
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise TypeError(NOT_OPTAX.format(cls=name, got=optax))
    return static(_Transformation(made))


def params_by_path(model: Any) -> dict[str, Any]:
    """Every param under each of its paths, so that a shared one is found under all its names."""
    leaves = tree_flatten_with_path(model, is_leaf=is_param)[0]
    return {path_str(path): leaf for path, leaf in leaves if is_param(leaf)}


def with_value(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The values of those params that are not empty, by path."""
    values = {path: param.get() for path, param in named}
    return {path: value for path, value in values.items() if value is not None}


def fresh_state(optax: Any, values: dict[str, Any]) -> OptimState | None:
    """The state before the first step; None if there is nothing to optimise."""
    return OptimState(static(tuple(values)), optax.init(values)) if values else None


def apply(params: dict[str, Any], updates: dict[str, Any]) -> None:
    """Add updates to params."""
    values = {path: params[path].get() for path in updates}
    new: Any = ox.apply_updates(values, updates)
    for path, value in new.items():
        params[path].set(value)


def _named_grads(grads: Any) -> dict[str, Any]:
    """Gradients by path: in params, as `pxf.value_and_grad` gives them, or as plain arrays."""
    leaves = tree_flatten_with_path(grads, is_leaf=is_param)[0]
    named = {path_str(path): get(leaf) for path, leaf in leaves}
    # settings of the modules (functions, strings) are leaves too
    return {
        path: grad
        for path, grad in named.items()
        if grad is not None and not callable(grad) and not isinstance(grad, str)
    }


def some(names: list[str]) -> str:
    """A short list of names, for error messages."""
    if not names:
        return "none"
    shown = ", ".join(f"`{n}`" for n in names[:6])
    return shown + (f" and {len(names) - 6} more" if len(names) > 6 else "")
