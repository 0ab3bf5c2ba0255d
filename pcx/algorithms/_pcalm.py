"""Predictive coding with an augmented Lagrangian."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import Param
from ..functional import vmap
from ..predictive_coding import vodes, zero_energy
from ..utils import step
from ._energies import AXIS, BATCHED, CACHE
from ._lazy import lazy_safe
from ._pc import PC


class Multiplier(Param):
    """The multiplier of one vode, of the shape of its state."""

    __slots__ = ()


@lazy_safe
class PCALM(PC):
    """Predictive coding by the augmented Lagrangian: each node has a multiplier beside its state.

        A = loss(u_L, y) + sum_l rho/2 |h_l - u_l + lam_l / rho|^2        over the free nodes l
        T times:  h <- opt_h(h, dA/dh);   then  lam_l <- lam_l + alpha (h_l - u_l), with the new h, u
        once:     theta <- opt_theta(theta, dA/dtheta), with lam before its last update

    lam starts at zero. The multipliers integrate the errors until these vanish: where inference
    settles, h = u, and lam carries the gradients of back-propagation, while everything stays local.
    alpha = 0 and rho = 1 is PC. A node with another energy E_l has
    rho E_l + lam_l (h_l - u_l) + |lam_l|^2 / (2 rho).

    Inference settles there, from nearby and with SGD, if rho and the rate are right (squared errors
    in the hidden nodes, 0 < alpha):

        rho > -min eigenvalue of d2 loss / deps2 at eps = 0,     lr < 4 / |2 H + alpha D'D|

    with eps an error added to each hidden node, so that u_L = u_L(eps), H the Hessian of A in the
    states at h = u, and D'D that of sum_l 1/2 |h_l - u_l|^2. On a linear network with a convex loss,
    the first holds for every rho, and settling does not depend on the start; at alpha = rho = 1 the
    second is about 2/3 of PC's bound 2 / |H|. Curved activations can make the loss concave along some
    errors: with a rho below that curvature, inference may end elsewhere, oscillate or diverge.

    Every free node with an energy gets a multiplier, so each should be predicted from the others.

    Args:
        T: number of inference steps; None for 64, as the authors have it.
        state_optim: an optax transformation (or `pxu.Optim`) for the states; the authors use `optax.sgd(0.25)`.
            None for `optax.sgd(0.05)`.
        model, weight_optim, and all other options: see `PC`.
        alpha: step size of the multipliers.
        rho: weight of the penalty; large enough for the condition above.

    Attributes:
        multipliers: for each vode a param with lam, (batch, *event), while a call runs.

    Raises:
        ValueError: alpha < 0 or rho <= 0; a solver in place of a state optimiser.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> pcalm = pxa.PCALM(pxm.MLP([2, 8, 8, 2]), T=16, state_optim=optax.sgd(0.25))
        >>> sorted(pcalm.train_step(jnp.eye(2), jnp.eye(2)))
        ['energy']

    References:
        Seely & Gould, arXiv 2605.31022, 2026.
    """

    default_T = 64
    no_solver = "it steps its multipliers between steps on the states"
    descends = False

    def __init__(self, *args: Any, alpha: float = 1.0, rho: float = 1.0, **options: Any):
        if alpha < 0 or not rho > 0:
            raise ValueError(
                f"PCALM needs alpha >= 0 and rho > 0; got alpha={alpha!r}, rho={rho!r}"
            )
        super().__init__(*args, **options)
        self.alpha, self.rho = float(alpha), float(rho)
        self.multipliers = [Multiplier() for _ in vodes(self.model)]

    def start_states(self) -> None:
        """Fresh optimiser state for every free state, and multipliers of zero."""
        super().start_states()
        for vode, lam in zip(vodes(self.model), self.multipliers, strict=True):
            constrained = not vode.is_frozen and vode.energy_fn not in (None, zero_energy)
            lam.set(jnp.zeros_like(vode.h.get()) if constrained else None)

    def step_states(self, x: PyTree, y: PyTree, t: Any) -> tuple[jax.Array, Any]:
        """The multipliers' update that the last step left open, then one step on the states.

        The update is made here because it needs the predictions in the new states, which this step
        computes anyway; and learning wants the multipliers before the last one.
        """
        rate = self.alpha * (t > 0)
        errors = self._errors(x, y)
        for lam, error in zip(self.multipliers, errors, strict=True):
            if lam.get() is not None:
                lam.set(lam.get() + jnp.asarray(rate, error.dtype) * error)
        return super().step_states(x, y, t)

    def sample_energies(self, x: PyTree, y: PyTree, *, model: Any) -> jax.Array:
        """A of each sample, with the present multipliers; F where there are none."""
        lams = [lam.get() for lam in self.multipliers]
        if all(lam is None for lam in lams):
            return super().sample_energies(x, y, model=model)
        rho = self.rho

        @vmap(BATCHED, in_axes=(0, 0, 0), axis_name=AXIS)
        def energies(lams: Any, x: PyTree, y: PyTree, *, model: Any) -> Any:
            model(x, y)
            total = model.energy()
            for vode, lam in zip(vodes(model), lams, strict=True):
                if lam is not None:
                    total = total + (rho - 1) * vode.energy() + jnp.sum(lam * _error(vode))
                    total = total + jnp.sum(lam * lam) / (2 * rho)
            return total

        return energies(lams, x, y, model=model)

    def _errors(self, x: PyTree, y: PyTree) -> list[Any]:
        """h - u of each vode with a multiplier in the present states, None for the others."""
        chosen = [lam.get() is not None for lam in self.multipliers]

        @vmap(BATCHED, in_axes=(0, 0), axis_name=AXIS)
        def errors(x: PyTree, y: PyTree, *, model: Any) -> Any:
            model(x, y)
            pairs = zip(vodes(model), chosen, strict=True)
            return [_error(vode) if wanted else None for vode, wanted in pairs]

        with step(self.model, clear_params=(CACHE, CACHE)):
            return errors(x, y, model=self.model)

    def _clear(self) -> None:
        super()._clear()
        for lam in self.multipliers:
            lam.set(None)


def _error(vode: Any) -> Any:
    return vode.get("h") - vode.get("u")
