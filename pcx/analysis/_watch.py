"""`WatchRegime`: the regime while training goes on."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from ..training import Callback, Trainer
from ._regime import Regime, regime

UNSTABLE = """After epoch {epoch} the steps on the states are no longer stable: the largest curvature of the \
energy has grown to {top:.3g}, so plain gradient descent needs a state rate below {rate:.3g} (momentum and \
training call for less). Use a smaller rate in `state_optim`, or fewer steps; gradient clipping and weight \
decay slow the growth."""

RECORDED = (
    "gradient_ratio",
    "relaxed_fraction",
    "lambda_max",
    "total_cosine",
    "effective_depth",
    "alignment",
    "interference",
)


class WatchRegime(Callback):
    """Measure the `regime` on one batch every few epochs, and warn when state steps become unstable.

    The curvature of the energy grows as the weights do, so a rate of the states that was small
    enough at first may not stay so. The numbers go into the history, as "regime_lambda_max" and so
    on: "regime_gradient_ratio", "regime_relaxed_fraction", "regime_total_cosine",
    "regime_effective_depth", "regime_alignment", "regime_interference".

    Args:
        x, y: the batch, as `train_step` takes it; one that is not trained on says more.
        every: measure after every so many epochs.
        samples: see `regime`.

    Attributes:
        measured: `{epoch: Regime}`, of the last call of `fit`.

    Example:
        >>> import numpy as np, pcx.algorithms as pxa, pcx.analysis as pxan
        >>> import pcx.models as pxm, pcx.training as pxt
        >>> x, y = np.eye(4, 2, dtype=np.float32), np.eye(4, 3, dtype=np.float32)
        >>> watch = pxan.WatchRegime(x, y, every=2, samples=0)
        >>> trainer = pxt.Trainer(pxa.PC(pxm.MLP([2, 4, 3]), T=2), [watch], progress=False)
        >>> history = trainer.fit([(x, y)], epochs=2)
        >>> np.isnan(history["regime_lambda_max"]).tolist(), watch.measured[2].stable
        ([True, False], True)
    """

    def __init__(self, x: Any, y: Any = None, every: int = 1, samples: int = 8):
        if every < 1:
            raise ValueError(f"WatchRegime: every is a number of epochs, at least 1; got {every}")
        self.x, self.y, self.every, self.samples = x, y, every, samples
        self.measured: dict[int, Regime] = {}

    def on_train_start(self, trainer: Trainer) -> None:
        self.measured = {}

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Mapping[str, float]) -> None:
        if epoch % self.every:
            return
        was_stable = all(seen.stable is not False for seen in self.measured.values())
        seen = self.measured[epoch] = regime(trainer.algorithm, self.x, self.y, self.samples)  # type: ignore[arg-type]
        values = {f"regime_{name}": float(getattr(seen, name)) for name in RECORDED}
        trainer.history.note({k: v for k, v in values.items() if not math.isnan(v)})
        if was_stable and seen.stable is False:
            warnings.warn(
                UNSTABLE.format(epoch=epoch, top=seen.lambda_max, rate=seen.largest_state_rate),
                stacklevel=2,
            )
