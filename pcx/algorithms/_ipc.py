"""Incremental predictive coding."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ..core import Mask
from ..functional import cond
from ..predictive_coding import VodeParam
from ._base import Algorithm
from ._energy_fn import gradient
from ._inference import Plan, keeps_zeros, plan_loop
from ._wave import Initial


class IPC(Algorithm):
    """Incremental predictive coding: the weights learn during inference, together with the states.

        h := u (forward pass);   T times, from one gradient of F at the present (h, theta):
            h <- opt_h(h, dF/dh);   and if t >= T0 and (t - T0) is a multiple of Ti:
            theta <- opt_theta(theta, dF/dtheta)

    Args:
        model, T, state_optim, weight_optim, and all options: see `Algorithm`. Learning moves the
            predictions below it, so little is skipped after the first weight step (`lazy`): with plain
            SGD on the weights as much as in PC; with any other optimiser, which moves weights also where
            their gradient is zero, nothing.
        T0: the first step (from 0) at which the weights learn. None: they learn once, after
            inference, which is PC. T0 >= T: never.
        Ti: from T0 on they learn at every `Ti`-th step (0 and 1: every step).

    Raises:
        ValueError: T0 or Ti is negative.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> ipc = pxa.IPC(pxm.MLP([2, 8, 2]), T=4, state_optim=optax.sgd(0.1))
        >>> float(ipc.train_step(jnp.eye(2), jnp.eye(2))["energy"]) > 0
        True

    References:
        Salvatori et al., "A stable, fast, and fully automatic learning algorithm for predictive coding
        networks", 2024; Pinchetti et al., "Benchmarking predictive coding networks", Appendix B.
    """

    def __init__(
        self,
        model: Any,
        T: int = 8,
        state_optim: Any = None,
        weight_optim: Any = None,
        *,
        T0: int | None = 0,
        Ti: int = 1,
        **options: Any,
    ):
        super().__init__(model, T, state_optim, weight_optim, **options)
        if (T0 is not None and T0 < 0) or Ti < 0:
            raise ValueError(
                "IPC: the weights learn at steps T0, T0 + Ti, T0 + 2 Ti, ... of inference, with T0 >= 0 "
                f"(or None: only after it) and Ti >= 0; got T0={T0!r}, Ti={Ti!r}"
            )
        self.T0, self.Ti = T0, Ti
        self._by_gradient_only = keeps_zeros(self.weight_optim.optax, moved=True)

    def learns(self, t: Any) -> Any:
        """Whether the weights learn at step t (which may be traced) of the present call."""
        if self.T0 is None or not self._learning:
            return False
        if self.T0 == 0 and self.Ti <= 1:
            return True
        later = t - self.T0
        return (later >= 0) & (later % max(self.Ti, 1) == 0)

    def plan(self, x: Any, y: Any, initial: Initial | None) -> Plan:
        """As for PC, with the errors that learning brings about."""
        plan = super().plan(x, y, initial)
        learns = tuple(bool(self.learns(t)) for t in range(self.T))
        dependencies = replace(plan.dependencies, learns=learns, spreads=not self._by_gradient_only)
        return plan_loop(dependencies, self.T, self.unroll)

    def inference_step(
        self, x: Any, y: Any, t: Any, reached: frozenset[int]
    ) -> tuple[jax.Array, list[jax.Array]]:
        """One step on the states and, by the schedule, on the weights: from one gradient."""

        def together(*, algorithm: Any) -> Any:
            return algorithm._step_both(x, y, reached)

        def states_only(*, algorithm: Any) -> Any:
            return super(IPC, algorithm).inference_step(x, y, t, reached)

        learns = self.learns(t)
        if isinstance(learns, bool):
            return (together if learns else states_only)(algorithm=self)
        return cond(together, states_only)(learns, algorithm=self)

    def _step_both(
        self, x: Any, y: Any, reached: frozenset[int]
    ) -> tuple[jax.Array, list[jax.Array]]:
        states, weights = self.states(reached), self.weights()
        if not states and not weights:
            return jnp.zeros(()), []
        energy, grads = gradient(x, y, self.model, states + weights, self.inference_energy)
        if states:
            self.state_optim.step(self.model, grads, allow_none=True)
        if weights:
            self.step_weights(grads, x, y)
        return energy, jax.tree_util.tree_leaves(Mask(VodeParam)(grads))

    def learn(self, x: Any, y: Any, plan: Plan | None) -> jax.Array:
        """Without a schedule, the weight step of PC; the batch's mean energy after inference."""
        if self.T0 is None:
            return super().learn(x, y, plan)
        return self.mean_energy(x, y)
