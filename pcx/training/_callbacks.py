"""`Callback`, the hooks into training, and callbacks that act on it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from ..core import Mask, named_params
from ..nn import LayerParam, StateParam
from ._history import better
from ._schedules import set_learning_rate

if TYPE_CHECKING:
    from ._trainer import Trainer

HOOKS = (
    "on_train_start",
    "on_train_end",
    "on_epoch_start",
    "on_epoch_end",
    "on_batch_start",
    "on_batch_end",
    "on_inference_step",
    "on_log",
)


class Callback:
    """Hooks into training; override those you need. Epochs and batches are counted from 1.

    Through `trainer` a callback sees everything: `trainer.algorithm`, `trainer.algorithm.model`,
    `trainer.history`; and `trainer.stop()` ends training after the present epoch.

    Example:
        >>> import pcx.training as pxt
        >>> class Shout(pxt.Callback):
        ...     def on_epoch_end(self, trainer, epoch, logs):
        ...         if logs.get("val_accuracy", 0) > 0.99:
        ...             trainer.stop()
    """

    # callbacks run in the order given, those with a larger priority after the others
    priority = 0

    def on_train_start(self, trainer: "Trainer") -> None:
        """Before the first epoch (of this call of `fit`)."""

    def on_train_end(self, trainer: "Trainer") -> None:
        """After the last epoch, and also when training was broken off by an error."""

    def on_epoch_start(self, trainer: "Trainer", epoch: int) -> None:
        """Before an epoch."""

    def on_epoch_end(self, trainer: "Trainer", epoch: int, logs: Mapping[str, float]) -> None:
        """After an epoch and its validation, with their means."""

    def on_batch_start(self, trainer: "Trainer", batch: int) -> None:
        """Before a training step."""

    def on_batch_end(self, trainer: "Trainer", batch: int, logs: Mapping[str, jax.Array]) -> None:
        """After a training step was started. The values are on the device: reading one waits for
        it."""

    def on_inference_step(
        self, trainer: "Trainer", batch: int, step: int, energies: Mapping[str, float]
    ) -> None:
        """Once for each inference step, with the energy of each vode before it; after the last,
        too.

        Called after the batch. A callback that overrides it makes the algorithm record, and the
        host wait for every batch.
        """

    def on_log(self, trainer: "Trainer", batch: int, logs: Mapping[str, float]) -> None:
        """When values were fetched from the device, with the means of the epoch so far."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to resume this callback: JSON values and arrays, also
        nested."""
        return {}

    def load_state(self, trainer: "Trainer", state: Mapping[str, Any]) -> None:
        """The inverse of `state`; called after `on_train_start` when a checkpoint is resumed."""


class EarlyStopping(Callback):
    """Stop when a quantity has not become better for some epochs.

    Args:
        monitor: name of the quantity, such as "val_accuracy" or "energy".
        patience: how many epochs in a row may pass without a new best.
        min_delta: how much better counts as better.
        mode: whether "min" or "max" is good; "auto" is "max" for names with "acc" in them.
        restore_best: give the model the weights of the best epoch at the end of training.

    Attributes:
        best: the best value so far, and
        best_epoch: its epoch.

    Example:
        >>> import numpy as np, optax
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> frozen = pxa.PC(pxm.MLP([2, 4, 1]), weight_optim=optax.sgd(0.0))  # never gets better
        >>> stopping = pxt.EarlyStopping("energy", patience=2)
        >>> trainer = pxt.Trainer(frozen, [stopping], progress=False)
        >>> _ = trainer.fit([(np.ones((8, 2)), np.ones((8, 1)))], epochs=50)
        >>> stopping.best_epoch, trainer.epoch
        (1, 3)
    """

    def __init__(
        self,
        monitor: str = "val_accuracy",
        patience: int = 5,
        *,
        min_delta: float = 0.0,
        mode: Literal["auto", "min", "max"] = "auto",
        restore_best: bool = False,
    ):
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.restore_best = restore_best
        self._better = better(monitor, mode)
        self._start()

    def _start(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self._params: dict[str, Any] = {}

    def on_train_start(self, trainer: "Trainer") -> None:
        check_monitor(self, self.monitor, trainer)
        self._start()

    def on_epoch_end(self, trainer: "Trainer", epoch: int, logs: Mapping[str, float]) -> None:
        value = monitored(self, self.monitor, logs)
        margin = self.min_delta if self._better(1.0, 0.0) else -self.min_delta
        if self.best is None or self._better(value, self.best + margin):
            self.best, self.best_epoch = value, epoch
            if self.restore_best:
                self._params = weights_of(trainer.algorithm.model)
        elif epoch - self.best_epoch >= self.patience:
            trainer.stop()

    def on_train_end(self, trainer: "Trainer") -> None:
        if self._params and not trainer.interrupted:
            for path, param in named_params(trainer.algorithm.model):
                if path in self._params:
                    param.set(self._params[path])

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "params": self._params}

    def load_state(self, trainer: "Trainer", state: Mapping[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._params = dict(state["params"])
        if trainer.epoch - self.best_epoch >= self.patience:
            trainer.stop()


class LearningRate(Callback):
    """Change the weight optimiser's learning rate before each epoch.

    The optimiser must keep it as a number: `pxu.Optim(optax.adamw, learning_rate=1e-3)`. For a rate
    that changes at every update use a schedule, such as `warmup_cosine`, instead.

    Args:
        rate: a function from the number of the epoch (from 1) to the learning rate.

    Example:
        >>> import pcx.training as pxt
        >>> halve = pxt.LearningRate(lambda epoch: 1e-3 * 0.5 ** (epoch // 10))
    """

    def __init__(self, rate: Callable[[int], float]):
        self.rate = rate

    def on_epoch_start(self, trainer: "Trainer", epoch: int) -> None:
        set_learning_rate(trainer.algorithm.weight_optim, self.rate(epoch))


def check_monitor(callback: Callback, name: str, trainer: "Trainer") -> None:
    """Before the first epoch: refuse to watch a validation quantity where nothing is validated."""
    if name.startswith("val_") and trainer.val_batches is None:
        raise ValueError(
            f"{type(callback).__name__} watches {name!r}, and `fit` has no validation batches. Give it some, "
            f"`fit(..., val=batches)`, or watch a quantity of training: `monitor={name[4:]!r}`."
        )


def monitored(callback: Callback, name: str, logs: Mapping[str, float]) -> float:
    """The value a callback watches; an error that says what there is otherwise."""
    if name not in logs:
        raise ValueError(
            f"{type(callback).__name__} watches {name!r}, but the epoch has only "
            f"{', '.join(sorted(logs))}."
        )
    return logs[name]


def weights_of(model: Any) -> dict[str, Any]:
    """Copies of what a model has learned (weights, running statistics), by path."""
    mask = Mask(LayerParam | StateParam)
    return {
        path: jax.tree_util.tree_map(jnp.copy, param.get())
        for path, param in named_params(model)
        if mask.select(param)
    }
