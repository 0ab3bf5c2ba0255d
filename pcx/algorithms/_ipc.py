"""Incremental predictive coding."""

from typing import Any

import jax
from jaxtyping import PyTree

from ..core import Mask
from ..functional import cond
from ..predictive_coding import VodeParam, free_states
from . import _lazy
from ._gradient import gradient
from ._lazy import lazy_safe
from ._loop import loop
from ._pc import PC, Trained


@lazy_safe
class IPC(PC):
    """Incremental predictive coding: the weights learn during inference, together with the states.

        h := u (forward pass);   T times, from one gradient of F at the present (h, theta):
            h <- opt_h(h, dF/dh);   and if t >= T0 and (t - T0) is a multiple of Ti:
            theta <- opt_theta(theta, dF/dtheta)

    Args:
        model, T, state_optim, weight_optim, and all other options: see `PC`.
        lazy: as for `PC`. Learning moves the predictions below it, so little is skipped after the first weight
            step: as much as in PC with plain SGD on the weights, nothing with an optimiser that moves weights
            whose gradient is zero.
        T0: the first step (from 0) at which the weights learn. None: they learn once, after
            inference, which is PC. T0 >= T: never.
        Ti: from T0 on they learn at every `Ti`-th step (0 and 1: every step).

    Raises:
        ValueError: T0 or Ti is negative; a solver, which has no steps at which the weights could learn.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> ipc = pxa.IPC(pxm.MLP([2, 8, 2]), T=4, state_optim=optax.sgd(0.1))
        >>> float(ipc.train_step(jnp.eye(2), jnp.eye(2))["energy"]) > 0
        True

    References:
        Salvatori et al., "A stable, fast, and fully automatic learning algorithm for predictive coding
        networks", 2024; Pinchetti et al., "Benchmarking predictive coding networks", Appendix B.
    """

    no_solver = "its weights learn at the steps on the states"
    descends = False  # the weights' steps change the energy, too

    def __init__(self, *args: Any, T0: int | None = 0, Ti: int = 1, **options: Any):
        super().__init__(*args, **options)
        if (T0 is not None and T0 < 0) or Ti < 0:
            raise ValueError(
                "IPC: the weights learn at steps T0, T0 + Ti, T0 + 2 Ti, ... of inference, with T0 >= 0 "
                f"(or None: only after it) and Ti >= 0; got T0={T0!r}, Ti={Ti!r}"
            )
        self.T0, self.Ti = T0, Ti

    def train(self, x: PyTree, y: PyTree) -> Trained:
        """One training step on a batch: the weights learn by the schedule, while inference runs."""
        if self.T0 is None:
            return super().train(x, y)
        prediction, y = self.start(x, y)
        self.start_states()
        step = IPC.step_both if self.T0 == 0 and self.Ti <= 1 else IPC.step_by_schedule
        record = loop(self, step, x, y, learns=self.learns, energies=self.record)
        return Trained(prediction, self.mean_energy(x, y), record)

    def step_both(self, x: PyTree, y: PyTree, t: Any) -> tuple[jax.Array, Any]:
        """One step on states and weights, from one gradient."""
        h = free_states(self.model)
        with self.passes("learning"):
            F, dF = gradient(self.inference_energy, x, y, self.model, [*h, *self.weights()])
        if h:
            self.state_optim.step(self.model, dF)
        self.apply_gradients(dF, x, y)
        return F, Mask(VodeParam)(dF)

    def step_by_schedule(self, x: PyTree, y: PyTree, t: Any) -> tuple[jax.Array, Any]:
        """`step_both` at the steps at which the weights learn, `step_states` at the others."""
        learns = self.learns(t)
        if isinstance(learns, bool):
            return (self.step_both if learns else self.step_states)(x, y, t)

        def arrays(step: Any) -> Any:  # what both branches return alike
            return lambda *, algorithm: jax.tree_util.tree_leaves(step(algorithm, x, y, t))

        F, *dF_dh = cond(arrays(IPC.step_both), arrays(IPC.step_states))(learns, algorithm=self)
        return F, dF_dh

    def learns(self, t: Any) -> Any:
        """Whether the weights learn at step t (which may be traced)."""
        if self.T0 is None:
            return False
        return (t >= self.T0) & ((t - self.T0) % max(self.Ti, 1) == 0)

    def learns_by_gradient_only(self) -> bool:
        """Whether a weight moves only where it has a gradient, whatever the optimiser remembers."""
        return _lazy.only_by_gradient(self.weight_optim, self.model)

    _by_gradient_only = property(learns_by_gradient_only)
