"""`Optim` and `OptimTree`: optax optimisers for the params that a mask selected."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax as ox

from ..core import BaseModule, Param, StaticParam, get, is_param, named_params, path_str, static
from ..predictive_coding import Vode, energy_modules

MISSING = """Optim.step: no gradient for {names}, which this optimiser was initialised with. Compute gradients \
with the mask that the optimiser was made with, or pass `allow_none=True` to leave such params alone. \
(Gradients were given for: {given}.)"""

STRANGER = """Optim.step: this optimiser was initialised with {names}, which the model given to `step` does not \
have. Give `step` the object that the params were selected from: \
`optim.init(pxu.M(pxnn.LayerParam)(model))` goes with `optim.step(model, grads["model"])`."""


class OptimParam(Param):
    """The state of an optimiser, a pytree of arrays."""

    __slots__ = ()


class OptimState(NamedTuple):
    """What an optimiser remembers: whose params it has (static), and optax's own state."""

    params: StaticParam
    inner: Any

    @property
    def paths(self) -> tuple[str, ...]:
        return self.params.get()


class _Transformation:
    """Holds an optax transformation; compared by identity."""

    def __init__(self, transformation: Any):
        self.init, self.update = transformation.init, transformation.update


class Optim(BaseModule):
    """An optax optimiser for params in a model.

    Args:
        optax: an optax transformation, or a function without arguments that makes one.
        params: what to optimise: a masked model, such as `pxu.M(pxnn.LayerParam)(model)`. Without it, call
            `init` before the first step, or let the first step take the params that have gradients.

    Raises:
        TypeError: `optax` is neither.

    Example:
        >>> import jax.numpy as jnp, optax, pcx as px, pcx.utils as pxu
        >>> model = [px.Param(jnp.array(1.0))]
        >>> optim = pxu.Optim(optax.sgd(0.1), pxu.M(px.Param)(model))
        >>> _ = optim.step(model, [jnp.array(2.0)])
        >>> round(float(model[0]), 3)
        0.8
    """

    def __init__(self, optax: Any, params: Any = None):
        transformation = optax
        if not hasattr(transformation, "update") and callable(transformation):
            transformation = transformation()
        if not (hasattr(transformation, "init") and hasattr(transformation, "update")):
            raise TypeError(
                "Optim takes an optax transformation such as `optax.sgd(1e-2)`, or a function without "
                f"arguments that makes one; got {optax!r}"
            )
        self._optax = static(_Transformation(transformation))
        self.state = OptimParam()
        if params is not None:
            self.init(params)

    def init(self, params: Any) -> "Optim":
        """Start with fresh state for every param in `params` that has a value; None is skipped."""
        self.state.set(_init(self._optax.get(), _with_value(named_params(params))))
        return self

    def clear(self) -> None:
        """Forget the state; the next `init` or `step` starts afresh."""
        self.state.set(None)

    def step(
        self,
        model: Any,
        grads: Any,
        scale_by: Any = None,
        apply_updates: bool = True,
        allow_none: bool = False,
        *,
        mul: Any = None,
        **extra_args: Any,
    ) -> dict[str, Any]:
        """Update the params from their gradients.

        Args:
            model: what the params were selected from.
            grads: a tree like the model with gradients in (at least) this optimiser's params, as
                `grads["model"]` from `pxf.value_and_grad`. Never changed.
            scale_by: multiply the gradients by this number first; True means the batch size, which turns
                the gradient of a mean over the batch into that of each sample's own energy.
            apply_updates: write the new values; otherwise only the state advances.
            allow_none: leave params without a gradient alone (their state sees a gradient of zero).
            mul: the paper's name of `scale_by`.
            **extra_args: for transformations that take them, such as line searches.

        Returns:
            The updates, a dict from param path to array.

        Raises:
            ValueError: a param of this optimiser has no gradient, or is not in the model.
        """
        call = _Step(model, grads, mul if scale_by is None else scale_by, allow_none)
        state = self.state.get()
        if state is None:
            chosen = [(path, p) for path, p in call.params.items() if path in call.grads]
            state = _init(self._optax.get(), _with_value(chosen))
        if state is None:
            raise ValueError(MISSING.format(names="any param", given=_some(list(call.grads))))
        updates, state = call.run(self._optax.get(), state, extra_args)
        if apply_updates:
            _apply(call.params, updates)
        self.state.set(state)
        return updates

    def apply_updates(self, model: Any, updates: dict[str, Any]) -> None:
        """Add updates, as `step` returns them, to the model's params."""
        _apply(dict(named_params(model)), updates)

    def __repr__(self) -> str:
        state = self.state.get()
        return f"{type(self).__name__}({len(state.paths) if state else 0} params)"


class OptimTree(BaseModule):
    """One independent optimiser for each node that `leaf_fn` selects.

    A group whose params all lack gradients is skipped, and its state does not advance: so layers can learn
    at different times, as in zero-divergence inference learning.

    Args:
        optax: an optax transformation, or a function without arguments that makes one.
        leaf_fn: `f(node) -> bool`: where a group begins (a layer, a param). Params outside any selected
            node get an optimiser each.
        params: a masked model, as for `Optim`; or call `init` later.
    """

    def __init__(self, optax: Any, leaf_fn: Callable[[Any], bool], params: Any = None):
        # refuses what is no optimiser
        self._optax = Optim(optax)._optax
        self._leaf_fn = static(leaf_fn)
        self.state = OptimParam()
        if params is not None:
            self.init(params)

    def init(self, params: Any) -> "OptimTree":
        """Start with fresh state for every group in `params`."""
        leaf_fn = self._leaf_fn.get()
        groups = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: is_param(x) or leaf_fn(x))[0]
        states: dict[str, OptimState] = {}
        seen: set[int] = set()
        for path, node in groups:
            name = path_str(path)
            members = [(_join(name, inner), p) for inner, p in named_params(node) if id(p) not in seen]
            seen.update(id(p) for _, p in members)
            state = _init(self._optax.get(), _with_value(members))
            if state is not None:
                states[name] = state
        self.state.set(states or None)
        return self

    def clear(self) -> None:
        """Forget all state."""
        self.state.set(None)

    def step(
        self,
        model: Any,
        grads: Any,
        scale_by: Any = None,
        apply_updates: bool = True,
        allow_none: bool = False,
        *,
        mul: Any = None,
        **extra_args: Any,
    ) -> dict[str, Any]:
        """As `Optim.step`, for every group that has gradients.

        Raises:
            ValueError: not initialised; or a group has gradients for some of its params only (unless
                `allow_none`).
        """
        states = self.state.get()
        if not states:
            raise ValueError(
                "OptimTree.step: not initialised; give it params, as in "
                "`OptimTree(optax.sgd(1e-2), leaf_fn, pxu.M(pxnn.LayerParam)(model))`"
            )
        call = _Step(model, grads, mul if scale_by is None else scale_by, allow_none)
        updates: dict[str, Any] = {}
        states = dict(states)
        for name, state in states.items():
            if any(path in call.grads for path in state.paths):
                new, states[name] = call.run(self._optax.get(), state, extra_args)
                updates |= new
        if apply_updates:
            _apply(call.params, updates)
        self.state.set(states)
        return updates

    def apply_updates(self, model: Any, updates: dict[str, Any]) -> None:
        """Add updates, as `step` returns them, to the model's params."""
        _apply(dict(named_params(model)), updates)


class _Step:
    """One call of `step`: the model's params and the gradients, by path."""

    def __init__(self, model: Any, grads: Any, scale_by: Any, allow_none: bool):
        self.model, self.scale_by, self.allow_none = model, scale_by, allow_none
        self.params = dict(named_params(model))
        self.grads = _named_grads(grads)

    def run(self, optax: Any, state: OptimState, extra_args: Any) -> tuple[dict[str, Any], OptimState]:
        """The updates and the next state of one optimiser; nothing is written."""
        paths = state.paths
        if strangers := [p for p in paths if p not in self.params]:
            raise ValueError(STRANGER.format(names=_some(strangers)))
        missing = [p for p in paths if p not in self.grads]
        if missing and not self.allow_none:
            raise ValueError(MISSING.format(names=_some(missing), given=_some(list(self.grads))))
        values = {path: self.params[path].get() for path in paths}
        scales = _scales(self.model, self.params, paths, self.scale_by)
        grads = {
            path: jax.tree_util.tree_map(jnp.zeros_like, values[path])
            if path in missing
            else _scaled(self.grads[path], scales[path])
            for path in paths
        }
        updates, inner = optax.update(grads, state.inner, values, **extra_args)
        kept = {path: update for path, update in updates.items() if path not in missing}
        return kept, OptimState(state.params, inner)


def _with_value(named: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values = {path: param.get() for path, param in named}
    return {path: value for path, value in values.items() if value is not None}


def _init(optax: Any, values: dict[str, Any]) -> OptimState | None:
    return OptimState(static(tuple(values)), optax.init(values)) if values else None


def _apply(params: dict[str, Any], updates: dict[str, Any]) -> None:
    values = {path: params[path].get() for path in updates}
    new = ox.apply_updates(values, updates)
    assert isinstance(new, dict)
    for path, value in new.items():
        params[path].set(value)


def _join(name: str, inner: str) -> str:
    return f"{name}.{inner}" if name and inner and not inner.startswith("[") else name + inner


def _named_grads(grads: Any) -> dict[str, Any]:
    """Gradients by path: in params, as `pxf.value_and_grad` gives them, or as plain arrays."""
    leaves = jax.tree_util.tree_flatten_with_path(grads, is_leaf=is_param)[0]
    named = {path_str(path): get(leaf) for path, leaf in leaves}
    return {path: g for path, g in named.items() if g is not None and not callable(g) and not isinstance(g, str)}


def _scaled(grad: Any, scale: Any) -> Any:
    return grad if scale is None else jax.tree_util.tree_map(lambda g: g * scale, grad)


def _scales(model: Any, params: dict[str, Any], paths: tuple[str, ...], scale_by: Any) -> dict[str, Any]:
    if scale_by is not True:
        return dict.fromkeys(paths, scale_by)
    event = {id(m.h): m.shape for m in energy_modules(model) if isinstance(m, Vode)}
    return {path: _batch_size(params[path].get(), event.get(id(params[path]))) for path in paths}


def _batch_size(value: Any, event: tuple[int, ...] | None) -> int:
    shape = jnp.shape(value)
    if event is None:
        return shape[0] if shape else 1
    size = 1
    for n in shape[: len(shape) - len(event)]:
        size *= n
    return size


def _some(names: list[str]) -> str:
    return ", ".join(f"`{n}`" for n in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
