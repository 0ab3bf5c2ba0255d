"""Progress in the terminal: bars for epochs and batches, or a line for each epoch."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ._callbacks import Callback

if TYPE_CHECKING:
    from ._trainer import Trainer


class Progress(Callback):
    """Two tqdm bars with the energy and the metrics; without a terminal, a line for each epoch.

    The trainer adds it by itself, unless made with `progress=False`.

    Args:
        bars: True or False to draw bars or not, whatever stderr is; None draws them on a terminal.

    Example:
        >>> import numpy as np, pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> pc = pxa.PC(pxm.MLP([2, 4, 1]), T=2)
        >>> trainer = pxt.Trainer(pc, [pxt.Progress(bars=False)])
        >>> _ = trainer.fit([(np.ones((8, 2)), np.ones((8, 1)))], epochs=2)
        epoch 1/2  energy ... s
        epoch 2/2  energy ... s
    """

    priority = 1

    def __init__(self, bars: bool | None = None):
        self.bars = bars
        self._epochs: Any = None
        self._batches: Any = None
        self._live = False

    def on_train_start(self, trainer: "Trainer") -> None:
        self._live = sys.stderr.isatty() if self.bars is None else self.bars
        if self._live:
            self._epochs = tqdm(
                total=trainer.epochs,
                initial=trainer.epoch,
                desc="epochs",
                unit="epoch",
                dynamic_ncols=True,
            )

    def on_epoch_start(self, trainer: "Trainer", epoch: int) -> None:
        if self._live:
            self._batches = tqdm(
                total=trainer.batches_per_epoch,
                desc=f"epoch {epoch}",
                unit="batch",
                leave=False,
                dynamic_ncols=True,
            )

    def on_batch_end(self, trainer: "Trainer", batch: int, logs: Mapping[str, Any]) -> None:
        if self._batches is not None:
            self._batches.update()

    def on_log(self, trainer: "Trainer", batch: int, logs: Mapping[str, float]) -> None:
        if self._batches is not None:
            self._batches.set_postfix_str(shown(logs, short=True), refresh=False)

    def on_epoch_end(self, trainer: "Trainer", epoch: int, logs: Mapping[str, float]) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        if self._live:
            self._epochs.set_postfix_str(shown(logs, short=True), refresh=False)
            self._epochs.update()
            return
        width = len(str(trainer.epochs))
        line = f"epoch {epoch:{width}}/{trainer.epochs}  {shown(logs)}  {logs['seconds']:.1f} s"
        tqdm.write(line)

    def on_train_end(self, trainer: "Trainer") -> None:
        for bar in (self._batches, self._epochs):
            if bar is not None:
                bar.close()
        self._batches = self._epochs = None


def shown(logs: Mapping[str, float], short: bool = False) -> str:
    """`energy 0.0123  accuracy 97.50%`: training first, and the energy first.

    Args:
        short: leave out the validation energy if there is a validation metric.
    """
    hidden = {"seconds", "lr", "epoch"}
    if short and any(name.startswith("val_") and name != "val_energy" for name in logs):
        hidden.add("val_energy")
    names = [name for name in logs if name not in hidden]
    names.sort(key=lambda name: (name.startswith("val_"), not name.endswith("energy"), name))
    return "  ".join(f"{name} {_number(name, logs[name])}" for name in names)


def _number(name: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in name else f"{value:.4g}"


class MembersBar:
    """The progress of a population: a bar for the epochs of all groups on a terminal, or else a line for each."""

    def __init__(self, wanted: bool, groups: int, epochs: int):
        self._wanted, self._groups, self._epochs = wanted, groups, epochs
        self._bar: Any = None
        if wanted and sys.stderr.isatty():
            self._bar = tqdm(total=groups * epochs, unit="epoch", dynamic_ncols=True)
        self._batches = 0

    def count(self, batches: int) -> None:
        """Batches were done."""
        self._batches += batches
        if self._bar is not None:
            self._bar.set_description(f"{self._batches} batches", refresh=False)
            self._bar.update(0)

    def epoch(self, number: int, epoch: int, members: Sequence[Any], seconds: float) -> None:
        """An epoch of a group is done."""
        if not self._wanted:
            return
        alive = [m.history for m in members if m.diverged is None]
        names = alive[0].epoch if alive else {}
        text = shown({name: statistics.fmean(h.last(name) for h in alive) for name in names})
        if len(alive) < len(members):
            text += f"  {len(members) - len(alive)} of {len(members)} diverged"
        if self._bar is not None:
            self._bar.update(number * self._epochs + epoch - self._bar.n)
            self._bar.set_postfix_str(text, refresh=False)
            return
        of = f"group {number + 1}/{self._groups}  " if self._groups > 1 else ""
        tqdm.write(f"{of}epoch {epoch}/{self._epochs}  {text}  {seconds:.1f} s")

    def close(self) -> None:
        """No more epochs."""
        if self._bar is not None:
            self._bar.close()
