"""Back-propagation on the same model, as the baseline."""

from typing import Any

import jax
from jaxtyping import PyTree

from ..nn import statistics
from ..predictive_coding import STATUS, EnergyModule
from ..utils import step
from ._loop import Record
from ._options import StateOptim
from ._pc import PC, Trained


class Backprop(PC):
    """Back-propagation: theta <- opt(theta, d loss / d theta), with the output vode's energy as the loss.

    In a forward pass every hidden error is zero, so the energy is that of the output vode: cross entropy
    (BP-CE) with `ce_energy`, half the squared error (BP-SE) with `se_energy`.

    Args:
        model, weight_optim, metrics, compute_dtype, donate, mesh: see `PC`.
        T, state_optim: not used, nor what else concerns inference.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> bp = pxa.Backprop(pxm.MLP([2, 8, 2]), weight_optim=optax.sgd(0.1))
        >>> x, y = jnp.eye(2), jnp.eye(2)
        >>> loss = 0.5 * jnp.mean(jnp.sum((bp.predict(x) - y) ** 2, axis=1))
        >>> bool(jnp.allclose(bp.train_step(x, y)["energy"], loss))
        True
    """

    default_T = 0
    descends = False

    def __init__(
        self,
        model: EnergyModule,
        T: int = 0,
        state_optim: StateOptim | None = None,
        *args: Any,
        **options: Any,
    ):
        super().__init__(model, T, None, *args, **options)
        self.T = 0

    def train(self, x: PyTree, y: PyTree) -> Trained:
        """One step on the weights."""
        prediction = self.initialise(x, y) if self.metrics else None
        return Trained(prediction, self.step_weights(x, y), Record(0))

    def passes(self, phase: str) -> Any:
        """The pass of the loss moves running statistics."""
        return statistics(self.model, update=phase == "learning")

    def learning_energy(self, x: PyTree, y: PyTree, *, model: Any) -> jax.Array:
        """The energy right after a forward pass, summed over the batch: the loss of the output vode."""
        with step(model, STATUS.INIT):
            return super().learning_energy(x, y, model=model)
