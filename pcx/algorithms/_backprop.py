"""Back-propagation on the same model, as the baseline."""

from typing import Any

import jax
import jax.numpy as jnp

from ..predictive_coding import STATUS
from ..utils import step
from ._base import Algorithm, _batch_size, _params
from ._energy_fn import gradient, sample_energies
from ._inference import Plan


def forward_energy(x: Any, y: Any, *, model: Any) -> jax.Array:
    """Total energy right after a forward pass: the loss of the output vode, as a function of the weights."""
    with step(model, STATUS.INIT):
        return jnp.sum(sample_energies(x, y, model=model)[0])


class Backprop(Algorithm):
    """Back-propagation: theta <- opt(theta, d loss / d theta), with the output vode's energy as the loss.

    In a forward pass every hidden error is zero, so the energy is that of the output vode: cross entropy
    (BP-CE) with `ce_energy`, half the squared error (BP-SE) with `se_energy`.

    Args:
        model, weight_optim, metrics, donate: see `Algorithm`; T and the state optimiser are not used.
    """

    def __init__(
        self,
        model: Any,
        T: int = 0,
        state_optim: Any = None,
        weight_optim: Any = None,
        **options: Any,
    ):
        super().__init__(model, 0, None, weight_optim, **options)

    def weight_gradients(self, x: Any, y: Any, plan: Plan | None = None) -> tuple[jax.Array, Any]:
        """Mean loss, and its gradients summed over the batch."""
        mask = self.weights_mask()
        weights = [p for p in _params(self.model) if mask.select(p)]
        energy, grads = gradient(x, y, self.model, weights, forward_energy)
        return energy / _batch_size(x, y), grads

    def _train(self, x: Any, y: Any) -> dict[str, Any]:
        prediction = None
        if self.metrics:
            prediction, _ = self.initialise(x, y)
        out = {"energy": self.learn(x, y, None), **self._metrics(prediction, y)}
        self._clear()
        return out
