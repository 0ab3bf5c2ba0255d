"""Progress: a line for each epoch, and bars for epochs and batches on a terminal or in a notebook."""

import importlib.util
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ._callbacks import Callback

if TYPE_CHECKING:
    from ._trainer import Trainer

# Room for what stands before the numbers, "epoch 100:  62%|██▌ | 580/938 [00:12<00:07]", leaves the rest of
# a line to them; tqdm cuts what does not fit.
_BAR = "{desc}: {percentage:3.0f}%|{bar:6}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
_BAR_WIDTH = 46


class Progress(Callback):
    """A line for each epoch, validation first; on a terminal and in notebooks also two tqdm bars.

    The bars, one for the epochs and one for the batches with the means so far, are gone at the end; the
    lines stay. A line that does not fit the terminal's width is continued below. The trainer adds this callback
    by itself, unless made with `progress=False`.

    Args:
        bars: True or False to draw bars or not; None draws them on a terminal, and in a notebook where
            ipywidgets is installed.

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
        self._live = has_bars() if self.bars is None else self.bars
        if self._live:
            self._epochs = make_bar(
                total=trainer.epochs, initial=trainer.epoch, desc="epochs", unit="epoch"
            )

    def on_epoch_start(self, trainer: "Trainer", epoch: int) -> None:
        if self._live:
            self._batches = make_bar(
                total=trainer.batches_per_epoch, desc=f"epoch {epoch}", bar_format=_BAR
            )

    def on_batch_end(self, trainer: "Trainer", batch: int, logs: Mapping[str, Any]) -> None:
        if self._batches is not None:
            self._batches.update()

    def on_log(self, trainer: "Trainer", batch: int, logs: Mapping[str, float]) -> None:
        if self._batches is not None:
            parts = shown(logs)
            while len(parts) > 1 and len("  ".join(parts)) > _columns() - _BAR_WIDTH:
                parts.pop()
            self._batches.set_postfix_str("  ".join(parts), refresh=False)

    def on_epoch_end(self, trainer: "Trainer", epoch: int, logs: Mapping[str, float]) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        width = len(str(trainer.epochs))
        head = f"epoch {epoch:{width}}/{trainer.epochs}"
        write_line(head, logs, f"{logs['seconds']:.1f} s", self._live)
        if self._live:
            self._epochs.update()
            self._epochs.refresh()  # tqdm leaves out what comes soon after the last it showed

    def on_train_end(self, trainer: "Trainer") -> None:
        for bar in (self._batches, self._epochs):
            if bar is not None:
                bar.close()
        self._batches = self._epochs = None


def shown(logs: Mapping[str, float]) -> list[str]:
    """`["val_accuracy 97.50%", "energy 0.0123"]`: validation first, and metrics before energies."""
    names = [name for name in logs if name not in ("seconds", "lr", "epoch")]
    names.sort(key=lambda name: (not name.startswith("val_"), name.endswith("energy"), name))
    return [f"{name} {_number(name, logs[name])}" for name in names]


def write_line(head: str, logs: Mapping[str, float], tail: str, live: bool) -> None:
    """A permanent line above the bars.

    On a terminal that it does not fit it leaves out the validation energy, if there is a validation metric;
    then it is continued on the next line.
    """
    lines = [[head, *shown(logs), tail]]
    width = _columns()
    fits = lambda parts: not live or len("  ".join(parts)) <= width
    if not fits(lines[0]) and any(n[:4] == "val_" and n != "val_energy" for n in logs):
        lines = [[head, *shown({n: v for n, v in logs.items() if n != "val_energy"}), tail]]
    while not fits(lines[-1]) and len(lines[-1]) > 2:
        count = next(n for n in range(len(lines[-1]) - 1, 1, -1) if n == 2 or fits(lines[-1][:n]))
        lines[-1:] = [lines[-1][:count], [" " * len(head), *lines[-1][count:]]]
    tqdm.write("\n".join("  ".join(parts) for parts in lines))


def has_bars() -> bool:
    """Whether bars can be drawn: on a terminal, or in a notebook with ipywidgets."""
    return sys.stderr.isatty() or (
        _in_notebook() and importlib.util.find_spec("ipywidgets") is not None
    )


def make_bar(**options: Any) -> Any:
    """A tqdm bar, a widget in a notebook, that leaves no trace."""
    cls = tqdm
    if _in_notebook():
        # only there, since elsewhere it is the class above after a second's search
        from tqdm.auto import tqdm as cls  # type: ignore[no-redef]
    return cls(leave=False, dynamic_ncols=True, **options)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    shell = shell and shell.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _number(name: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in name else f"{value:.4g}"


class MembersBar:
    """The progress of a population: a line for each epoch, and on a terminal a bar for those of all groups."""

    def __init__(self, wanted: bool, groups: int, epochs: int):
        self._wanted, self._groups, self._epochs = wanted, groups, epochs
        self._bar: Any = None
        if wanted and has_bars():
            self._bar = make_bar(total=groups * epochs, unit="epoch")
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
        logs = {name: statistics.fmean(h.last(name) for h in alive) for name in names}
        of = f"group {number + 1}/{self._groups}  " if self._groups > 1 else ""
        tail = f"{seconds:.1f} s"
        if len(alive) < len(members):
            tail = f"{len(members) - len(alive)} of {len(members)} diverged  {tail}"
        write_line(f"{of}epoch {epoch}/{self._epochs}", logs, tail, self._bar is not None)
        if self._bar is not None:
            self._bar.update(number * self._epochs + epoch - self._bar.n)

    def close(self) -> None:
        """No more epochs."""
        if self._bar is not None:
            self._bar.close()
