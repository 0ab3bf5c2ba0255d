"""One step of an optimiser: from gradients by path to updates and the next state."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax as ox
from jax.tree_util import tree_flatten_with_path, tree_leaves, tree_map

from ..core import Mask, Param, StaticParam, get, is_param, path_str, static
from ..predictive_coding import Vode, energy_modules
from ._fingerprint import ByContent

NOT_OPTAX = """{cls} takes an optax transformation such as `optax.sgd(1e-2)`, or a function \
without arguments that makes one; {got}."""

MISSING = """{cls}.step: no gradient for {names}. What has no gradient is left as it is, its \
optimiser state too. If it should learn, give a gradient for it: compute gradients with a mask that \
selects it. If not, freeze it (`param.frozen = True`), leave it out of the optimiser, or pass \
`allow_none=True`. (Gradients were given for: {given}.)"""

ALL_MISSING = """{cls}.step: none of the params of this optimiser has a gradient: {names}. Give \
gradients of the params that it was made with (they were given for: {given}), or pass \
`allow_none=True` if a step may leave them all as they are."""

STRANGER = """{cls}.step: this optimiser was initialised with {names}, which the model given to \
`step` does not have. Give `step` the object that the params were selected from: \
`optim.init(pxu.M(pxnn.LayerParam)(model))` goes with `optim.step(model, grads["model"])`."""

RESHAPED = """{cls}.step: `{path}` has shape {now}, and this optimiser's state is for shape {then}. After a \
layer was replaced, or for states of a batch of another size, initialise the optimiser again: \
`optim.init(mask(model))`."""

NO_BATCH = """{cls}.step: `scale_by=True` multiplies by the batch size, which cannot be known \
here: {why}. Give the number: `optim.step(model, grads, scale_by=x.shape[0])`."""

SCALES = """{cls}.step: `scale_by`, `mul` and `scale_by_batch_size` are three names of one factor; \
got more than one of them: {got}."""

FROZEN = Mask(None).has(frozen=True)


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
    """What an optimiser remembers: the shapes of its params (static), by path, and optax's own state."""

    params: StaticParam
    inner: Any

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.params.get())


class Update:
    """One call of `step`: the model's params and the gradients, by path."""

    def __init__(self, name: str, model: Any, grads: Any, scale_by: Any, allow_none: bool):
        self.name = name
        self.model, self.scale_by, self.allow_none = model, scale_by, allow_none
        self.params = params_by_path(model)
        self.grads = _named_grads(grads)
        # neither frozen nor allowed to lack a gradient
        self.unexplained: list[str] = []

    def run(
        self, optax: Any, state: OptimState, extra_args: dict[str, Any]
    ) -> tuple[dict[str, Any], OptimState]:
        """The updates and the next state of one optimiser; nothing is written."""
        paths = state.paths
        if strangers := [path for path in paths if path not in self.params]:
            raise ValueError(STRANGER.format(cls=self.name, names=some(strangers)))
        missing = [path for path in paths if path not in self.grads]
        if not self.allow_none:
            unexplained = [path for path in missing if not FROZEN.select(self.params[path])]
            if unexplained and len(missing) == len(paths):
                raise ValueError(self.message(ALL_MISSING, unexplained))
            self.unexplained += unexplained
        if len(missing) == len(paths):
            return {}, state
        values = {path: self.params[path].get() for path in paths}
        if reshaped := [(k, s) for k, s in state.params.get() if _shape(values[k]) != s]:
            kept_for = _per_param_state(state.inner, set(paths))
            for path, then in reshaped:
                if path in kept_for:
                    now = _shape(values[path])
                    raise ValueError(
                        RESHAPED.format(cls=self.name, path=path, now=_show(now), then=_show(then))
                    )
        # zeros stand in for what is missing, because an optimiser may know all paths (in a mask)
        grads = {
            path: tree_map(jnp.zeros_like, value) if path in missing else self._scaled(path)
            for path, value in values.items()
        }
        updates, inner = optax.update(grads, state.inner, values, **extra_args)
        if missing:
            inner = _keep(inner, state.inner, set(paths), set(missing))
        kept = {path: update for path, update in updates.items() if path not in missing}
        return kept, OptimState(state.params, inner)

    def message(self, text: str, names: list[str]) -> str:
        """A message about params without a gradient."""
        return text.format(cls=self.name, names=some(names), given=some(list(self.grads)))

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


class Source(ByContent):
    """What an optimiser was given, or what the factory that it was given made.

    `warned` holds the names that a warning was about; it takes no part in the comparison.
    """

    def __init__(self, value: Any):
        super().__init__(value)
        self.warned: frozenset[str] = frozenset()

    @property
    def is_factory(self) -> bool:
        return not is_transformation(self.value)


def is_transformation(x: Any) -> bool:
    """Whether `x` is an optax transformation, or as good as one."""
    return hasattr(x, "init") and hasattr(x, "update")


def one_scale(name: str, **given: Any) -> Any:
    """The factor for the gradients, from the three names that it has; None for none."""
    scales = {k: v for k, v in given.items() if v is not None and v is not False}
    if len(scales) > 1:
        got = ", ".join(f"{k}={v!r}" for k, v in scales.items())
        raise ValueError(SCALES.format(cls=name, got=got))
    return next(iter(scales.values()), None)


def _is_per_param(x: Any, paths: set[str]) -> bool:
    """Whether a part of an optimiser's state has something for each param, under its path."""
    # `multi_transform` has a dict too, of the state for each label
    return (
        isinstance(x, dict)
        and x.keys() == paths
        and not any(isinstance(part, ox.MaskedState) for part in x.values())
    )


def _keep(new: Any, old: Any, paths: set[str], missing: set[str]) -> Any:
    """The new state, with the old one of the params that are missing."""

    def choose(new: Any, old: Any) -> Any:
        if not _is_per_param(new, paths):
            return new
        return {path: old[path] if path in missing else new[path] for path in new}

    return tree_map(choose, new, old, is_leaf=lambda x: _is_per_param(x, paths))


def _per_param_state(inner: Any, paths: set[str]) -> set[str]:
    """Paths of the params that a state has arrays for."""
    parts = tree_leaves(inner, is_leaf=lambda x: _is_per_param(x, paths))
    return {
        path
        for part in parts
        if _is_per_param(part, paths)
        for path, own in part.items()
        if tree_leaves(own)
    }


def _show(shapes: Any) -> str:
    return str(shapes[0] if len(shapes) == 1 else shapes)


def _shape(value: Any) -> Any:
    return tuple(jnp.shape(leaf) for leaf in tree_leaves(value))


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
    shapes = tuple((path, _shape(value)) for path, value in values.items())
    return OptimState(static(shapes), optax.init(values)) if values else None


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
