"""One epoch of training.

The host never waits for a training step. What steps give stays on the device and is fetched all at
once, at most a few times a second; then the history is filled, the progress shown, and divergence
looked for.
"""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from . import _batches
from ._callbacks import HOOKS, Callback
from ._divergence import GROWTH, Diverged, is_bad, report
from ._schedules import learning_rate
from ._snapshot import Snapshot

if TYPE_CHECKING:
    from ._trainer import Trainer

# Fetch when this many seconds have passed since the last time, or when so many batches wait.
SECONDS, BATCHES = 0.5, 100


class Hooks:
    """The callbacks' hooks that are overridden, so that the others cost nothing."""

    def __init__(self, trainer: "Trainer"):
        self._trainer = trainer
        self._hooks: dict[str, list[Callable[..., None]]] = {
            name: [
                getattr(callback, name)
                for callback in trainer.callbacks
                if getattr(type(callback), name) is not getattr(Callback, name)
            ]
            for name in HOOKS
        }
        self.on_inference_step = self._hooks["on_inference_step"]

    def call(self, name: str, *args: Any) -> None:
        for hook in self._hooks[name]:
            hook(self._trainer, *args)


class Epoch:
    """One epoch of training."""

    def __init__(self, trainer: "Trainer", hooks: Hooks):
        self.trainer, self.hooks = trainer, hooks
        self.algorithm = trainer.algorithm
        self.number = trainer.epoch + 1
        self.waiting: list[tuple[Any, Any, int, dict[str, Any]]] = []
        self.rows: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.fetched = time.perf_counter()
        self.snapshot: Snapshot | None = None

    def run(self, val: Iterable[Any] | None) -> None:
        trainer, hooks = self.trainer, self.hooks
        start = time.perf_counter()
        # algorithms count epochs from 0
        self.algorithm.start_epoch(trainer.epoch)
        self.algorithm.model.train()
        hooks.call("on_epoch_start", self.number)
        self.keep()
        batches = _batches.pairs(
            trainer.train_batches, "train_batches", trainer.classes, trainer.steps_per_epoch
        )
        for batch, (x, y, size) in enumerate(batches, start=1):
            if not trainer.prepared:
                trainer.prepare(y)
            hooks.call("on_batch_start", batch)
            logs = self.step(x, y)
            trainer.step += 1
            self.waiting.append((x, y, size, logs))
            hooks.call("on_batch_end", batch, logs)
            if self.is_time():
                self.fetch()
        self.fetch()
        if not self.rows:
            raise _batches.nothing(trainer.train_batches, "train_batches", self.number)
        self.finish(val, start)

    def step(self, x: Any, y: Any) -> dict[str, Any]:
        try:
            return self.algorithm.train_step(x, y)
        except ValueError as error:
            if _batches.is_class_numbers(y):
                shape = tuple(np.shape(y))
                error.add_note(_batches.CLASS_NUMBERS.format(dtype=y.dtype, shape=shape))
            raise

    def is_time(self) -> bool:
        every = self.trainer.log_every
        if every is not None:
            return len(self.waiting) >= every
        late = time.perf_counter() - self.fetched > SECONDS
        return late or len(self.waiting) >= BATCHES or bool(self.hooks.on_inference_step)

    def keep(self) -> None:
        if self.trainer.diagnose:
            self.snapshot = Snapshot(self.algorithm)

    def fetch(self) -> None:
        """Get what waits on the device, all at once; note it, and look for divergence."""
        if not self.waiting:
            return
        history = self.trainer.history
        fetched = jax.device_get([logs for *_, logs in self.waiting])
        for position, row in enumerate(fetched):
            self.check(position, row)
            energies = row.pop("energies", None)
            if energies is not None and not history.vode_names:
                history.vode_names = tuple(self.algorithm.vode_names)
            row = {name: float(value) for name, value in row.items()}
            history.add_batch({"epoch": self.number, **row}, energies)
            self.rows.append(row)
            self.sizes.append(self.waiting[position][2])
            if energies is not None and self.hooks.on_inference_step:
                for t, values in enumerate(energies):
                    named = dict(zip(history.vode_names, map(float, values), strict=True))
                    self.hooks.call("on_inference_step", len(self.rows), t, named)
        self.waiting.clear()
        self.keep()
        self.hooks.call("on_log", len(self.rows), means(self.rows, self.sizes))
        self.fetched = time.perf_counter()

    def check(self, position: int, row: dict[str, Any]) -> None:
        """Raise if this batch diverged."""
        trainer, energy = self.trainer, float(row["energy"])
        if trainer.first_energy is None and np.isfinite(energy):
            trainer.first_energy = abs(energy)
        limit = GROWTH * max(trainer.first_energy or 0.0, 1.0)
        if is_bad(energy, limit):
            raise self.diverged(position, row, limit)

    def diverged(self, position: int, row: dict[str, Any], limit: float) -> Diverged:
        """The error that says where and why; the state before the batch is restored."""
        x, y, *_ = self.waiting[position]
        energies = row.get("energies")
        if self.snapshot is not None:
            recorded = self.repeat(position)
            energies = recorded if energies is None else energies
        return report(
            epoch=self.number,
            batch=len(self.rows) + 1,
            step=self.trainer.step - len(self.waiting) + position + 1,
            energy=float(row["energy"]),
            limit=limit,
            x=x,
            y=y,
            algorithm=self.algorithm,
            energies=energies,
            kept=self.snapshot is not None,
        )

    def repeat(self, position: int) -> np.ndarray | None:
        """Go back to before the batch and repeat it with recording; leave the state before it."""
        assert self.snapshot is not None
        algorithm = self.algorithm
        self.snapshot.restore(algorithm)
        for x, y, *_ in self.waiting[:position]:
            algorithm.train_step(x, y)
        before, recording = Snapshot(algorithm), algorithm.record
        algorithm.record = True
        try:
            x, y, *_ = self.waiting[position]
            energies = algorithm.train_step(x, y).get("energies")
        except ValueError:
            # an inference that stops early cannot be recorded
            energies = None
        finally:
            algorithm.record = recording
            before.restore(algorithm)
        return None if energies is None else np.asarray(energies)

    def finish(self, val: Iterable[Any] | None, start: float) -> None:
        trainer = self.trainer
        logs = means(self.rows, self.sizes)
        # what was fetched above waited for the last step, so this is the time of the whole epoch
        seconds = time.perf_counter() - start
        if val is not None:
            results = trainer.evaluate_on(val, "val", self.number)
            logs |= {f"val_{name}": value for name, value in results.items()}
        lr = learning_rate(self.algorithm.weight_optim, trainer.schedule)
        logs |= {"seconds": seconds} if lr is None else {"lr": lr, "seconds": seconds}
        trainer.history.add_epoch(logs)
        trainer.epoch = self.number
        self.hooks.call("on_epoch_end", self.number, logs)


def means(rows: list[dict[str, Any]], sizes: list[int]) -> dict[str, float]:
    """Means over all samples of the batch means in `rows`."""
    weights = np.asarray(sizes, np.float64)
    names = [name for name in rows[0] if name != "energies"]
    return {
        name: float(np.average([float(row[name]) for row in rows], weights=weights))
        for name in names
    }
