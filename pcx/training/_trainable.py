"""`Trainable`: what training asks of an algorithm."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from ..utils import Optim

NO_ALGORITHM = """{who} takes an algorithm, such as `pxa.PC(model)`; {got!r} lacks {lacking} (see \
`pxt.Trainable`)."""


@runtime_checkable
class Trainable(Protocol):
    """What the trainer asks of an algorithm; every `pxa.Algorithm` has it.

    Attributes:
        model: the `EnergyModule` that is trained.
        weight_optim: its optimiser.
        metrics: `{name: f(prediction, y) -> one number per sample}`, which the trainer may set.
        record: whether `train_step` gives "energies", the energy of each vode at each inference
            step, `(T + 1, vodes)`; the trainer may set it.
        vode_names: their paths.

    All that a training step changes must be in params that `named_params(algorithm)` finds: these
    are what checkpoints hold.

    Example:
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> model = pxm.MLP([2, 4, 1])
        >>> isinstance(pxa.PC(model), pxt.Trainable), isinstance(model, pxt.Trainable)
        (True, False)
    """

    model: Any
    weight_optim: Optim
    metrics: dict[str, Callable[[Any, Any], Any]]
    record: bool

    @property
    def vode_names(self) -> tuple[str, ...]:
        """Paths of the vodes."""

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch, with its number from 0."""

    def train_step(self, x: Any, y: Any) -> dict[str, jax.Array]:
        """Learn from a batch: "energy" and each metric, means over the batch, on the device."""

    def eval_step(self, x: Any, y: Any) -> dict[str, jax.Array]:
        """The same for the forward prediction, without learning."""

    def predict(self, x: Any) -> Any:
        """Predictions for a batch."""


def check_trainable(algorithm: Any, who: str) -> None:
    """Refuse what is no algorithm, and say what it lacks."""
    if not isinstance(algorithm, Trainable):
        names = (*Trainable.__annotations__, *vars(Trainable))
        lacking = [n for n in names if n[0] != "_" and not hasattr(algorithm, n)]
        message = NO_ALGORITHM.format(who=who, got=algorithm, lacking=", ".join(lacking))
        raise TypeError(message)
