"""`Population`: seeds and hyper-parameters trained together, many members in one compiled program."""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

from ..core import RKG, RandomKeyGenerator
from ..utils import _mesh
from ..utils._files import with_suffix
from . import _population_checkpoint as checkpoints
from ._calls import usable
from ._group import Group, Member
from ._history import better
from ._interrupt import Interrupts
from ._population_epoch import Order, evaluate, train_epoch
from ._progress import MembersBar
from ._stacking import own_key
from ._trainable import check_trainable

UNKNOWN = """Population: structure={given} names settings that change the structure, and {name!r} is none of the \
settings: {known}."""

UNEQUAL = (
    """Population: every member needs the same settings; the first has {first}, another {other}."""
)

BY_TRAINING = """Population.best chooses by a quantity of validation, such as "val_accuracy"; got {name!r}. What \
training reaches says little of other data. Give validation batches: `fit(..., val=...)`."""

PROCESSES = """Population: the devices of mesh= belong to several processes. Members do not need each other: give \
each process a part of the grid, and a mesh of its own devices, `jax.local_devices()`"""

NO_CHECKPOINT = (
    """fit(resume=True) needs the file: `fit(..., checkpoint="run.npz", resume=True)`."""
)


@dataclass
class Result:
    """What the members of one setting reached, one for each seed.

    Attributes:
        settings: the setting.
        members: those who have it.
        values: one number of each member; NaN where it diverged.

    Example:
        >>> import pcx.training as pxt
        >>> result = pxt.Result({"lr": 0.1}, [], [0.9, 0.8, float("nan")])
        >>> round(result.mean, 2), round(result.sd, 2), result.diverged
        (0.85, 0.07, 1)
    """

    settings: dict[str, Any]
    members: list[Member]
    values: list[float]

    @property
    def finite(self) -> list[float]:
        """The values of the members that did not diverge."""
        return [value for value in self.values if not math.isnan(value)]

    @property
    def mean(self) -> float:
        """Mean over the members that did not diverge; NaN if all did."""
        return statistics.fmean(self.finite) if self.finite else math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation over them; NaN for fewer than two."""
        return statistics.stdev(self.finite) if len(self.finite) > 1 else math.nan

    @property
    def diverged(self) -> int:
        """How many members diverged."""
        return len(self.values) - len(self.finite)


class Population:
    """Trains many members at once: every setting with every seed, in one compiled program.

    Members differ in their weights, their random keys and any number. What changes the program itself (a
    width, T, an activation) is named in `structure`: members with the same values of these are a group,
    and groups are trained one after another. Each member trains as in a `Trainer` of its own after
    `px.RKG.seed(seed)`, to the rounding of float32 (XLA may sum the products of a batch of matrices in
    another order). A member that diverges stays as it was before that batch, and the others go on.

    Args:
        make: `make(seed, **settings) -> algorithm`, called for each member after `px.RKG.seed(seed)`.
            Rates are to be numbers of the optimiser: `pxu.Optim(optax.adamw, learning_rate=lr)`.
            Floats that the algorithm or the model keeps as attributes may differ as they are.
        grid: `{name: values}`, of which every combination is a setting; or a list of settings, dicts with
            the same names. None for none: only seeds.
        seeds: one member of each setting for each.
        structure: names of the settings that change the structure.
        metrics, classes, steps_per_call, augment: as for `Trainer`.
        progress: show a tqdm bar on a terminal, or else a line for each epoch; False for neither.
        mesh: a `jax.sharding.Mesh` whose devices divide the members of each group.

    Attributes:
        members: `Member`s with `seed`, `settings`, `algorithm`, `history`, `diverged`.

    Raises:
        ValueError: members of one group are different programs (the message says in what).

    Example:
        >>> import numpy as np, optax
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt, pcx.utils as pxu
        >>> x = np.random.default_rng(0).normal(size=(96, 2)).astype(np.float32)
        >>> y = np.eye(2, dtype=np.float32)[(x[:, 0] > 0).astype(int)]
        >>> def make(seed, lr, momentum):
        ...     state = pxu.Optim(optax.sgd, learning_rate=0.1, momentum=momentum)
        ...     weight = pxu.Optim(optax.adam, learning_rate=lr)
        ...     return pxa.PC(pxm.MLP([2, 8, 2]), 4, state, weight)
        >>> grid = {"lr": [1e-4, 3e-2], "momentum": [0.0, 0.5]}
        >>> population = pxt.Population(make, grid, seeds=range(2), progress=False)
        >>> val = pxt.batches(x[64:], y[64:], 32)
        >>> population.fit(pxt.batches(x[:64], y[:64], 16, shuffle=True), epochs=3, val=val)
        >>> population.best("val_accuracy").settings["lr"]
        0.03
    """

    def __init__(
        self,
        make: Callable[..., Any],
        grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]] | None = None,
        *,
        seeds: Iterable[int] = (0,),
        structure: Sequence[str] = (),
        metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
        classes: int | None = None,
        steps_per_call: int = 1,
        augment: Callable[[Any, Any], Any] | None = None,
        progress: bool = True,
        mesh: Mesh | None = None,
    ):
        if mesh is not None:
            mesh = _mesh.checked(mesh, "Population", axes=None)
            if _mesh.processes(mesh) > 1:
                raise ValueError(PROCESSES)
        if steps_per_call < 1:
            raise ValueError(f"Population: steps_per_call must be at least 1, got {steps_per_call}")
        settings, seeds = _settings(grid), list(seeds)
        if not settings or not seeds:
            raise ValueError("Population: there is no member; give at least one value and one seed")
        structure = (structure,) if isinstance(structure, str) else tuple(structure)
        for name in structure:
            if name not in settings[0]:
                known = ", ".join(settings[0]) or "none"
                raise ValueError(UNKNOWN.format(given=structure, name=name, known=known))
        self.members = [_member(make, seed, own) for own in settings for seed in seeds]
        if metrics is not None:
            for member in self.members:
                member.algorithm.metrics = dict(metrics)
        k = usable(steps_per_call, self.members[0].algorithm)
        groups: list[tuple[list[Any], list[Member]]] = []
        for member in self.members:
            values = [member.settings[name] for name in structure]
            found = next((mine for own, mine in groups if own == values), None)
            if found is None:
                groups.append((values, [member]))
            else:
                found.append(member)
        self._groups = [Group(mine, classes, k, mesh, augment) for _, mine in groups]
        self._settings, self._progress = settings, progress

    def fit(
        self,
        train_batches: Any,
        epochs: int,
        val: Iterable[Any] | None = None,
        *,
        steps_per_epoch: int | None = None,
        checkpoint: str | Path | None = None,
        every: int = 1,
        resume: bool = False,
    ) -> None:
        """Train all members; their algorithms are changed in place, their histories begin anew.

        Args:
            train_batches: batches for all, as for `Trainer.fit`; or a function `seed -> batches`, for
                an order of its own for each seed.
            epochs: how many there are in all, those before a resumed checkpoint included.
            val: batches to evaluate after each epoch.
            steps_per_epoch: let an epoch have at most so many batches.
            checkpoint: a file to save everything in after every so many epochs (`every`).
            resume: go on from that file, if it exists.

        Ctrl-C ends training between two calls, as in `Trainer.fit`.

        Raises:
            ValueError, TypeError: the batches cannot be used; the file is of another population.
        """
        if resume and checkpoint is None:
            raise ValueError(NO_CHECKPOINT)
        path = None if checkpoint is None else with_suffix(checkpoint)
        for member in self.members:
            member.history, member.diverged = type(member.history)(), None
        for group in self._groups:
            group.load()
        begin = getattr(train_batches, "epoch", None)
        position, epoch, saved = 0, 0, None
        with Interrupts() as interrupts:
            if resume and path is not None and path.exists():
                saved = checkpoints.load(path, self._groups)
                position, epoch = saved["group"], saved["epoch"]
            bar = MembersBar(self._progress, len(self._groups), epochs)
            try:
                for number, group in enumerate(self._groups[position:], start=position):
                    order = Order(train_batches, group, begin, steps_per_epoch)
                    if path is not None and saved is not None:
                        checkpoints.resume(path, saved, order)
                    saved = None
                    while epoch < epochs and any(m.diverged is None for m in group.members):
                        start = time.perf_counter()
                        train_epoch(group, epoch + 1, order, val, interrupts, bar.count)
                        epoch += 1
                        if path is not None and (epoch % every == 0 or epoch == epochs):
                            checkpoints.save(path, self._groups, number, epoch, order.loaders[0])
                        bar.epoch(number, epoch, group.members, time.perf_counter() - start)
                        interrupts.release()
                    epoch = 0
            finally:
                interrupts.busy = True
                bar.close()
                for group in self._groups:
                    group.unload()

    def evaluate(self, batches: Iterable[Any]) -> list[dict[str, float]]:
        """Mean energy and metrics of each member's forward prediction, in the order of `members`."""
        found: dict[int, dict[str, float]] = {}
        for group in self._groups:
            group.load()
            results = evaluate(group, batches, "batches", 1)
            found |= {id(m): result for m, result in zip(group.members, results, strict=True)}
        return [found[id(member)] for member in self.members]

    def summary(self, name: str, epoch: Literal["last", "best"] = "last") -> list[Result]:
        """What each setting reached, in the order of the grid.

        Args:
            name: a quantity of the histories, such as "val_accuracy".
            epoch: each member's value after the last epoch, or in its best one.
        """
        value = lambda m: m.history.last(name) if epoch == "last" else m.history.best(name)[1]
        results = []
        for settings in self._settings:
            mine = [member for member in self.members if member.settings is settings]
            values = [value(m) if m.diverged is None else math.nan for m in mine]
            results.append(Result(settings, mine, values))
        return results

    def best(
        self,
        name: str,
        epoch: Literal["last", "best"] = "last",
        mode: Literal["auto", "min", "max"] = "auto",
    ) -> Result:
        """The setting with the best mean over its seeds; first those of which no member diverged.

        Args:
            name: a quantity of validation, such as "val_accuracy": never choose on test data.
            epoch: as for `summary`.
            mode: whether small or large is good; "auto" is "max" for names with "acc" in them.

        Raises:
            ValueError: `name` is not of validation, or all members diverged.
        """
        if not name.startswith("val_"):
            raise ValueError(BY_TRAINING.format(name=name))
        results = [result for result in self.summary(name, epoch) if result.finite]
        if not results:
            raise ValueError("Population.best: all members diverged; try smaller rates")
        sign = -1.0 if better(name, mode)(1.0, 0.0) else 1.0
        return min(results, key=lambda result: (result.diverged, sign * result.mean))

    def __repr__(self) -> str:
        diverged = sum(member.diverged is not None for member in self.members)
        end = f", {diverged} diverged" if diverged else ""
        programs = "1 program" if len(self._groups) == 1 else f"{len(self._groups)} programs"
        return f"Population({len(self.members)} members, {programs}{end})"


def _settings(grid: Any) -> list[dict[str, Any]]:
    if grid is None:
        return [{}]
    if isinstance(grid, Mapping):
        return [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
    settings = [dict(own) for own in grid]
    for own in settings:
        if own.keys() != settings[0].keys():
            first, other = (", ".join(map(repr, s)) or "none" for s in (settings[0], own))
            raise ValueError(UNEQUAL.format(first=first, other=other))
    return settings


def _member(make: Callable[..., Any], seed: int, settings: dict[str, Any]) -> Member:
    with own_key(RandomKeyGenerator(seed).key.get()):
        algorithm = make(seed, **settings)
        check_trainable(algorithm, "Population")
        return Member(seed, settings, algorithm, key=RKG.key.get())
