"""`OptimTree`: independent optimisers for the parts of a model."""

from collections.abc import Callable
from typing import Any

from jax.tree_util import tree_flatten_with_path

from ..core import is_param, named_params, path_str, static
from ._fingerprint import ByContent
from ._optim import NOTHING, Optim
from ._update import (
    OptimState,
    Update,
    fresh_state,
    with_value,
)

NOT_INITIALISED = """OptimTree.step: not initialised; give it params, as in \
`OptimTree(optax.sgd(1e-2), leaf_fn, pxu.M(pxnn.LayerParam)(model))`."""


class OptimTree(Optim):
    """One independent optimiser for each node that `leaf_fn` selects.

    A group whose params all lack gradients is skipped, and its state does not advance: so layers
    can learn at different times, as in zero-divergence inference learning. In a group with
    gradients for some of its params, the others are treated as in `Optim.step`.

    Args:
        optax: an optax transformation, or a function that makes one, as for `Optim`; or an `Optim`, for
            one made as it was.
        leaf_fn: `f(node) -> bool`: where a group begins (a layer, a param). Params outside any
            selected node get an optimiser each.
        params: a masked model, as for `Optim`; or call `init` later.
        **numbers: arguments of `optax`, as for `Optim`; all groups have the same.

    Raises:
        TypeError: `optax` is no optimiser.

    Example:
        >>> import jax.numpy as jnp, optax, pcx as px, pcx.nn as pxnn, pcx.utils as pxu
        >>> model = pxnn.Sequential(pxnn.Linear(2, 2), pxnn.Linear(2, 2))
        >>> optim = pxu.OptimTree(
        ...     optax.adam(0.1), lambda node: isinstance(node, pxnn.Linear), pxu.M(px.Param)(model)
        ... )
        >>> optim
        OptimTree(2 groups)
    """

    def __init__(
        self, optax: Any, leaf_fn: Callable[[Any], bool], params: Any = None, **numbers: Any
    ):
        self._leaf_fn = static(ByContent(leaf_fn))
        if isinstance(optax, Optim):
            numbers = {**(optax.numbers.get() if optax.numbers is not None else {}), **numbers}
            optax = optax._given.get().value
        super().__init__(optax, params, **numbers)

    def init(self, params: Any) -> "OptimTree":
        """Start with fresh state for every group in `params`.

        Raises:
            ValueError: there is no param with a value.
        """
        leaf_fn = self._leaf_fn.get().value
        groups = tree_flatten_with_path(params, is_leaf=lambda x: is_param(x) or leaf_fn(x))[0]
        self._made.set(None)
        optax = self.optax
        states: dict[str, OptimState] = {}
        seen: set[int] = set()
        for path, node in groups:
            name = path_str(path)
            members = [
                (_join(name, inner), p) for inner, p in named_params(node) if id(p) not in seen
            ]
            seen.update(id(p) for _, p in members)
            state = fresh_state(optax, with_value(members))
            if state is not None:
                states[name] = state
        if not states:
            raise ValueError(NOTHING.format(cls=type(self).__name__))
        self.state.set(states)
        self._note_params(named_params(params))
        return self

    def _advance(self, call: Update, extra_args: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        if not self.state.get():
            raise ValueError(NOT_INITIALISED)
        states = dict(self.state.get())
        updates: dict[str, Any] = {}
        for name, state in states.items():
            if any(path in call.grads for path in state.paths):
                new, states[name] = call.run(self.optax, state, extra_args)
                updates |= new
        return updates, states

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.state.get() or ())} groups)"


def _join(name: str, inner: str) -> str:
    return f"{name}.{inner}" if name and inner and not inner.startswith("[") else name + inner
