"""One epoch of training.

The host never waits for a training step. What steps return stays on the device and is fetched all at
once, at most a few times a second; then the history is filled, the progress shown, and divergence
looked for.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..core import RKG
from ..utils import _mesh
from . import _batches
from ._callbacks import HOOKS, Callback
from ._calls import Call, Each, calls, run
from ._divergence import GROWTH, Diverged, is_bad, report
from ._fetch import fetch
from ._interrupt import Interrupts
from ._schedules import learning_rate
from ._snapshot import Snapshot

if TYPE_CHECKING:
    from ._trainer import Trainer

# Fetch when this many seconds have passed since the last time, or when so many batches wait. They are
# kept until then, to be repeated after a divergence: many where they are small, never less than the
# second number.
SECONDS, BYTES, BATCHES, MOST = 0.5, 2**24, 100, 1000


class Hooks:
    """The callbacks' hooks that are overridden, so that the others cost nothing."""

    def __init__(self, trainer: "Trainer"):
        self._trainer = trainer
        self.of: dict[str, list[Callable[..., None]]] = {
            name: [
                getattr(callback, name)
                for callback in trainer.callbacks
                if getattr(type(callback), name) is not getattr(Callback, name)
            ]
            for name in HOOKS
        }

    def call(self, name: str, *args: Any) -> None:
        for hook in self.of[name]:
            hook(self._trainer, *args)

    def end(self) -> None:
        """Call every `on_train_end`, also where one fails; the first failure is raised after."""
        failure: BaseException | None = None
        for hook in self.of["on_train_end"]:
            try:
                hook(self._trainer)
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure


class Epoch:
    """One epoch of training."""

    def __init__(self, trainer: "Trainer", hooks: Hooks, interrupts: Interrupts):
        self.trainer, self.hooks, self.interrupts = trainer, hooks, interrupts
        self.algorithm = trainer.algorithm
        self.number = trainer.epoch + 1
        # the batches whose results wait on the device, as (call, results)
        self.waiting: list[tuple[Call, Mapping[str, Any]]] = []
        self.waiting_batches, self.most = 0, 0
        self.rows: list[dict[str, float]] = []
        self.sizes: list[int] = []
        self.fetched = time.perf_counter()
        self.snapshot: Snapshot | None = None
        # One key for an epoch, from the generator that checkpoints hold: a resumed run sees the
        # same images.
        self.key = None if trainer.augment is None else RKG()

    def run(self, val: Iterable[Any] | None) -> None:
        trainer, hooks, interrupts = self.trainer, self.hooks, self.interrupts
        start = time.perf_counter()
        interrupts.busy = True
        # algorithms count epochs from 0
        self.algorithm.start_epoch(trainer.epoch)
        self.algorithm.model.train()
        hooks.call("on_epoch_start", self.number)
        self.keep()
        interrupts.release()
        made = calls(
            trainer.train_batches,
            trainer.steps_per_call,
            trainer.classes,
            trainer.steps_per_epoch,
            # the first step may give the algorithm its first states, and the params of a loop must
            # not change their form
            not trainer.prepared,
            trainer.kept,
            trainer.mesh,
        )
        try:
            with contextlib.closing(made):
                for call in made:
                    interrupts.busy = True
                    self.take(call)
                    interrupts.release()
            interrupts.busy = True
            self.fetch()
            interrupts.release()
        except BaseException:
            # the history tells of every step that was taken
            interrupts.busy = True
            with contextlib.suppress(Exception):
                self.note()
            raise
        if not self.rows:
            raise _batches.nothing(trainer.train_batches, "train_batches", self.number)
        self.finish(val, start)

    def take(self, call: Call) -> None:
        """Take the steps of a call, and tell the callbacks."""
        trainer, of = self.trainer, self.hooks.of
        if not trainer.prepared:
            trainer.prepare(call.batch(0)[1])
        if not self.most:
            leaves = jax.tree_util.tree_leaves(call.batch(0))
            size = sum(leaf.nbytes for leaf in leaves)
            self.most = min(max(BYTES // max(size, 1), BATCHES), MOST)
        for hook in of["on_batch_start"]:
            hook(trainer, call.first)
        logs = self.step(call) if len(call) == 1 else self.steps(call)
        self.waiting.append((call, logs))
        self.waiting_batches += len(call)
        trainer.step += len(call)
        if of["on_batch_end"]:
            for index in range(len(call)):
                hooks_logs = logs if len(call) == 1 else Each(logs, index)
                for hook in of["on_batch_end"]:
                    hook(trainer, call.first + index, hooks_logs)
        if self.is_time():
            self.fetch()

    def inputs(self, call: Call, index: int) -> tuple[Any, Any]:
        """What `train_step` is given for one batch."""
        x, y = call.batch(index)
        if self.trainer.mesh is not None:
            x, y = _mesh.place_batch(self.trainer.mesh, (x, y))
        if self.trainer.augmented is not None:
            number, x = _mesh.to_device((call.first + index, x))
            x = self.trainer.augmented(self.key, number, x)
        return x, y

    def step(self, call: Call) -> Mapping[str, Any]:
        x, y = self.inputs(call, 0)
        with _batches.class_numbers_noted(y):
            return self.algorithm.train_step(x, y)

    def steps(self, call: Call) -> Mapping[str, Any]:
        return run(
            call,
            self.key,
            algorithm=self.algorithm,
            augment=self.trainer.augment,
            mesh=self.trainer.mesh,
        )

    def is_time(self) -> bool:
        every = self.trainer.log_every
        if every is not None:
            return self.waiting_batches >= every
        if self.trainer.processes > 1:
            # all processes must do so at the same batch
            return self.waiting_batches >= min(self.most, BATCHES)
        late = time.perf_counter() - self.fetched > SECONDS
        return late or self.waiting_batches >= self.most or bool(self.hooks.of["on_inference_step"])

    def keep(self) -> None:
        if self.trainer.diagnose:
            self.snapshot = Snapshot(self.algorithm)

    def fetch(self) -> None:
        """Note what waits on the device, and look for divergence."""
        if not self.waiting:
            return
        before = len(self.rows)
        energies = self.note(check=True)
        self.keep()
        hooks = self.hooks
        if hooks.of["on_inference_step"]:
            names = self.trainer.history.vode_names
            for batch, recorded in enumerate(energies, start=before + 1):
                for t, values in enumerate(recorded):
                    named = dict(zip(names, map(float, values), strict=True))
                    hooks.call("on_inference_step", batch, t, named)
        if hooks.of["on_log"]:
            hooks.call("on_log", len(self.rows), means(self.rows, self.sizes))
        self.fetched = time.perf_counter()

    def note(self, check: bool = False) -> list[np.ndarray]:
        """Write what waits on the device into the history; returns the recorded energies."""
        waiting, self.waiting, self.waiting_batches = self.waiting, [], 0
        rows: list[dict[str, Any]] = []
        sizes: list[int] = []
        for (call, _), logs in zip(waiting, fetch([logs for _, logs in waiting]), strict=True):
            rows += [logs] if len(call) == 1 else rows_of(logs, len(call))
            sizes += call.sizes
        bad = self.first_bad(rows) if check else None
        recorded = self.note_rows(rows[:bad], sizes[:bad])
        if bad is not None:
            raise self.diverged([call for call, _ in waiting], bad, rows[bad])
        return recorded

    def note_rows(self, rows: list[dict[str, Any]], sizes: list[int]) -> list[np.ndarray]:
        history = self.trainer.history
        recorded = [row.pop("energies") for row in rows if "energies" in row]
        if recorded and not history.vode_names:
            history.vode_names = tuple(self.algorithm.vode_names)
        numbers = [{name: float(value) for name, value in row.items()} for row in rows]
        history.add_batches(self.number, numbers, recorded)
        self.rows += numbers
        self.sizes += sizes
        return recorded

    def first_bad(self, rows: list[dict[str, Any]]) -> int | None:
        """The first batch whose energy shows divergence."""
        trainer = self.trainer
        for index, row in enumerate(rows):
            energy = float(row["energy"])
            if trainer.first_energy is None and math.isfinite(energy):
                trainer.first_energy = abs(energy)
            if is_bad(energy, self.limit):
                return index
        return None

    @property
    def limit(self) -> float:
        return GROWTH * max(self.trainer.first_energy or 0.0, 1.0)

    def diverged(self, calls: list[Call], position: int, row: dict[str, Any]) -> Diverged:
        """The error that says where and why; the state before the batch is restored."""
        trainer = self.trainer
        batches = [(call, index) for call in calls for index in range(len(call))]
        before, (guilty, index) = batches[:position], batches[position]
        x, y = self.inputs(guilty, index)
        energies = row.get("energies")
        step = trainer.step - len(batches) + position + 1
        if self.snapshot is not None:
            recorded = self.repeat(before, x, y)
            energies = recorded if energies is None else energies
            trainer.step = step - 1
        return report(
            epoch=self.number,
            batch=len(self.rows) + 1,
            step=step,
            energy=float(row["energy"]),
            limit=self.limit,
            x=x,
            y=y,
            algorithm=self.algorithm,
            energies=energies,
            kept=self.snapshot is not None,
        )

    def repeat(self, before: list[tuple[Call, int]], x: Any, y: Any) -> np.ndarray | None:
        """Go back to before the batch and repeat it with recording; leave the state before it."""
        assert self.snapshot is not None
        algorithm = self.algorithm
        self.snapshot.restore(algorithm)
        for call, index in before:
            algorithm.train_step(*self.inputs(call, index))
        snapshot, recording = Snapshot(algorithm), algorithm.record
        algorithm.record = True
        try:
            energies = algorithm.train_step(x, y).get("energies")
        except ValueError:
            # an inference that stops early cannot be recorded
            energies = None
        finally:
            algorithm.record = recording
            snapshot.restore(algorithm)
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
        self.interrupts.busy = True
        trainer.history.add_epoch(logs)
        trainer.epoch = self.number
        self.hooks.call("on_epoch_end", self.number, logs)
        self.interrupts.release()


def rows_of(logs: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The results of each step of a call."""
    columns = {name: list(values) for name, values in logs.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def means(rows: list[dict[str, Any]], sizes: list[int]) -> dict[str, float]:
    """Means over all samples of the batch means in `rows`."""
    weights = np.asarray(sizes, np.float64)
    names = [name for name in rows[0] if name != "energies"]
    return {
        name: float(np.average([float(row[name]) for row in rows], weights=weights))
        for name in names
    }
