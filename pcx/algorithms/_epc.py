"""Error-based predictive coding: inference descends the errors instead of the states.

The loop, the optimisers and the recording are those of any other algorithm: all that changes is the function
that inference descends, the energy of the states that follow from the errors (`_errors.py`).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..predictive_coding import free_states
from ._errors import (
    NOT_FEED_FORWARD,
    curvature,
    find_early_read,
    to_errors,
    to_states,
    unrolled_energy,
)
from ._gradient import gradient, grads_of
from ._lazy import is_additive
from ._loop import Record
from ._options import SOLVER
from ._pc import PC

NOT_A_SUM = """EPC(step="scaled") measures its step from the energies of the vodes, so the model's \
energy must be their sum; {model} has an `energy` of its own. Use step="fixed"."""

NO_RATE = """EPC: rate is that of plain steps on the errors, which scaled steps and solvers have not. Leave it \
out, or use step="fixed" with an optax transformation as `state_optim`"""


class EPC(PC):
    """Predictive coding on the errors: the states are those of a forward pass with errors added.

        h_l = u_l + eps_l,    u_l = f_l(h_{l-1}),    eps = 0 at first; the output has none
        E(eps) = 1/2 sum_{l<L} |eps_l|^2 + loss(u_L, y)
        T times: eps <- opt(eps, dE/deps);    once: theta <- opt(theta, dF/dtheta) at these h

    E is the model's own energy, whatever its nodes' energies are. Its gradient runs through the
    whole network (reverse mode), so the target reaches every layer in one step. The weight
    gradients are local, those of PC in the same states: at convergence EPC and PC are the same.
    After few steps EPC is close to back-propagation: after one step of size eta the gradients of
    the hidden layers are eta times those of back-propagation (to first order), and those of the
    output layer, whose error is not free, 1 times. An optimiser of the weights that normalises each
    param, such as Adam, hides the factor. `distance=True` tells how far from equilibrium inference
    ended.

    Args:
        state_optim: as for `PC`, but it works on the errors. None for `optax.sgd(0.05)`.
        lazy: has no effect, since there is nothing to skip.
        model, T, weight_optim, and all other options: see `PC`.
        step: "fixed" for steps of the state optimiser; "scaled" for steps along the gradient whose
            size is measured for each sample, from the curvature along d = -g = -dE/deps, with J the
            Jacobian of the network's output in the errors and H the Hessian of its energy:

                alpha = damping * g'g / (g'g + (J d)' H (J d))

            With damping 1 this minimises the Gauss-Newton model of E along d. It needs one pass
            forward (`jax.jvp`) more per step, no tuning, and no state optimiser.
        damping: the factor of a scaled step.
        rate: divide the weight gradients by min(1, rate * T). With plain steps of this size the
            gradients of the hidden layers then have about the size of back-propagation's, however
            few the steps; those of the output layer are larger by the same factor. None: by 1. Not for
            scaled steps or a solver, which have no such rate.
        distance: add "distance" to what `train_step` gives: |dE/deps| at the end of inference
            relative to the start, averaged over the batch. 1: nothing was inferred, the errors are
            those of back-propagation; 0: equilibrium, where PC would end.

    Raises:
        ValueError: an unknown `step`, damping <= 0 or rate <= 0; "scaled" for a model whose energy is not the
            sum of its vodes'.

    Example:
        >>> import jax, jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> model = pxm.MLP([2, 16, 16, 2])
        >>> epc = pxa.EPC(model, T=4, step="scaled", damping=0.5, distance=True)
        >>> x, y = jnp.eye(2), jnp.eye(2)
        >>> sorted(epc.train_step(x, y))
        ['distance', 'energy']

    References:
        Goemaere, Oliviers, Bogacz & Demeester, "Error optimization: overcoming exponential signal
        decay in deep predictive coding networks", 2025.
    """

    steps_states = False

    def __init__(
        self,
        *args: Any,
        step: Literal["fixed", "scaled"] = "fixed",
        damping: float = 1.0,
        rate: float | None = None,
        distance: bool = False,
        **options: Any,
    ):
        super().__init__(*args, **options)
        if step not in ("fixed", "scaled"):
            raise ValueError(f'EPC: step must be "fixed" or "scaled"; got {step!r}')
        if not damping > 0:
            raise ValueError(f"EPC: damping must be positive; got {damping!r}")
        if rate is not None and not rate > 0:
            raise ValueError(f"EPC: rate is that of the steps on the errors, above 0; got {rate!r}")
        if rate is not None and (step == "scaled" or self.solver is not None):
            raise ValueError(NO_RATE)
        if step == "scaled" and not is_additive(self.model):
            raise ValueError(NOT_A_SUM.format(model=type(self.model).__name__))
        if step == "scaled" and self.solver is not None:
            why = 'step="scaled" measures the size of steps of its own'
            raise ValueError(SOLVER.format(cls="EPC", solver=type(self.solver).__name__, why=why))
        self.step, self.damping, self.distance = step, damping, distance
        self.rate = rate

    def infer_states(self, x: PyTree, y: PyTree, **watch: bool) -> Record:
        """States to errors, T steps on the errors, and back; in place."""
        model = self.model
        to_errors(x, y, model, zero=self.init == "forward")
        if (found := find_early_read(x, y, model)) is not None:
            who, node = (self.vode_names[k] for k in found)
            raise ValueError(NOT_FEED_FORWARD.format(cls=type(self).__name__, who=who, node=node))
        if not self.distance:
            record = super().infer_states(x, y, **watch)
        else:
            before = self._slopes(x, y)[1]
            record = super().infer_states(x, y, **watch)
            ratio = jnp.sqrt(_squared(self._slopes(x, y)[1]) / _squared(before))
            distance = jnp.where(jnp.isfinite(ratio), ratio, 0.0)  # no gradient: nothing to infer
            info = {**(record.info or {}), "distance": jnp.mean(distance)}
            record = record._replace(info=info)
        to_states(x, y, model)
        return record

    def to_stepped(self, x: PyTree, y: PyTree) -> None:
        """States to errors."""
        to_errors(x, y, self.model)

    def weight_gradients(self, x: PyTree, y: PyTree) -> tuple[jax.Array, Any]:
        """As `PC.weight_gradients`, divided by min(1, rate * T)."""
        F, grads = super().weight_gradients(x, y)
        if self.rate is not None and self.T:
            divisor = min(1.0, self.rate * self.T)
            grads = jax.tree_util.tree_map(lambda g: g / divisor, grads)
        return F, grads

    def inference_energy(self, x: PyTree, y: PyTree, *, model: Any) -> jax.Array:
        """The batch's total energy as a function of the errors."""
        return jnp.sum(unrolled_energy(x, y, model=model))

    def step_states(self, x: PyTree, y: PyTree, t: Any) -> tuple[jax.Array, Any]:
        """One step on the errors; see `PC.step_states`."""
        free = free_states(self.model)
        if self.step == "fixed" or not free:
            return super().step_states(x, y, t)
        energy, grads = self._slopes(x, y)
        squared = _squared(grads)
        total = curvature(x, y, self.model, [-g for g in grads])
        alpha = self.damping * jnp.where(total > 0, squared / total, 0.0)
        for h, g in zip(free, grads, strict=True):
            h.set(h.get() - alpha.reshape(-1, *[1] * (g.ndim - 1)).astype(g.dtype) * g)
        return energy, grads

    def watch(self, x: PyTree, y: PyTree, energies: bool, states: bool) -> tuple[Any, Any]:
        """What is recorded are the states, not the errors."""
        if not (energies or states):
            return None, None
        errors = [(h, h.get()) for h in free_states(self.model)]
        to_states(x, y, self.model)
        seen = super().watch(x, y, energies, states)
        for h, error in errors:
            h.set(error)
        return seen

    def _slopes(self, x: PyTree, y: PyTree) -> tuple[jax.Array, list[jax.Array]]:
        """The total energy, and its gradient in the errors of each free vode."""
        free = free_states(self.model)
        energy, grads = gradient(self.inference_energy, x, y, self.model, free)
        return energy, grads_of(free, self.model, grads)


def _squared(arrays: list[jax.Array]) -> jax.Array:
    """Sum of squares over all nodes, for each sample, shape (batch,)."""
    total: Any = 0.0
    for a in arrays:
        total = total + jnp.sum(jnp.square(a).reshape(a.shape[0], -1), axis=-1)
    return jnp.asarray(total)
