"""`Optim`: an optax optimiser for the params that a mask selected."""

from typing import Any

from ..core import BaseModule, named_params
from ._update import (
    OptimParam,
    Update,
    apply,
    fresh_state,
    params_by_path,
    transformation_of,
    with_value,
)

NOTHING = """{cls}.init: there is no param in what it was given, so there is nothing to optimise. \
Give it a masked model, as in `optim.init(pxu.M(pxnn.LayerParam)(model))`, with a mask that \
selects params the model has."""


class Optim(BaseModule):
    """An optax optimiser for params in a model.

    Args:
        optax: an optax transformation, or a function without arguments that makes one.
        params: what to optimise: a masked model, such as `pxu.M(pxnn.LayerParam)(model)`. Without
            it, call `init` before the first step, or let the first step take the params that have
            gradients.

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
        self._optax = transformation_of(type(self).__name__, optax)
        self.state = OptimParam()
        if params is not None:
            self.init(params)

    def init(self, params: Any) -> "Optim":
        """Start with fresh state for every param in `params` that has a value; None is skipped.

        If all of them are empty (states before the first forward pass), the first step decides.

        Raises:
            ValueError: there is no param.
        """
        chosen = list(named_params(params))
        if not chosen:
            raise ValueError(NOTHING.format(cls=type(self).__name__))
        self.state.set(fresh_state(self._optax.get(), with_value(chosen)))
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
            scale_by: multiply the gradients by this number first; True means the batch size, which
                turns the gradient of a mean over the batch into that of each sample's own energy.
                The batch size is read off the states of the model's vodes; it is 1 for one sample.
            apply_updates: write the new values; otherwise only the state advances.
            allow_none: leave params without a gradient alone (their state sees a gradient of zero).
            mul: the paper's name of `scale_by`.
            **extra_args: for transformations that take them, such as line searches.

        Returns:
            The updates, a dict from param path to array.

        Raises:
            ValueError: a param of this optimiser has no gradient, or is not in the model; or the
                batch size is asked for and not known.
        """
        scale_by = mul if scale_by is None else scale_by
        call = Update(type(self).__name__, model, grads, scale_by, allow_none)
        updates, state = self._advance(call, extra_args)
        if apply_updates:
            apply(call.params, updates)
        self.state.set(state)
        return updates

    def _advance(self, call: Update, extra_args: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """The updates, and the state after them."""
        state = self.state.get()
        if state is None:
            chosen = [(path, p) for path, p in named_params(call.model) if path in call.grads]
            state = fresh_state(self._optax.get(), with_value(chosen))
        if state is None:
            raise ValueError(call.missing("any param"))
        return call.run(self._optax.get(), state, extra_args)

    def apply_updates(self, model: Any, updates: dict[str, Any]) -> None:
        """Add updates, as `step` returns them, to the model's params."""
        apply(params_by_path(model), updates)

    def __repr__(self) -> str:
        state = self.state.get()
        return f"{type(self).__name__}({len(state.paths) if state else 0} params)"
