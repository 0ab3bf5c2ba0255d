"""One epoch of all members of a group, and the order of their batches."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from ..data import Batches
from . import _batches
from ._calls import Call, calls, shapes, stack_trees
from ._epoch import SECONDS, means
from ._fetch import fetch
from ._group import Group
from ._interrupt import Interrupts

# fetch when so many batches wait
MOST = 1000

UNEVEN = """Population: the batches of seed {other} are not those of seed {first} in number or shape (batch \
{batch} of the epoch). All members take their steps together, so every seed needs as many batches of the same \
shapes."""


class Order:
    """The batches of a group: of all members, or of each seed its own.

    Args:
        train: batches for all members, or a function that makes those of a seed.
        group: whose members' seeds are looked at.
        begin: the number of the first epoch, for batches that know it.
        steps: at most so many batches in an epoch.
    """

    def __init__(self, train: Any, group: Group, begin: int | None, steps: int | None):
        self._group, self._steps = group, steps
        self.each = callable(train)
        self._seeds = list(dict.fromkeys(m.seed for m in group.members)) if self.each else [0]
        self.loaders: list[Iterable[Any]] = (
            [train(seed) for seed in self._seeds] if self.each else [train]
        )
        self._kept: dict[str, Any] = {}
        if begin is not None:
            self.epoch = begin

    @property
    def epoch(self) -> int | None:
        """The number of the next epoch, if the batches know it."""
        number = getattr(self.loaders[0], "epoch", None)
        return number if isinstance(number, int) else None

    @epoch.setter
    def epoch(self, number: int) -> None:
        for loader in self.loaders:
            if isinstance(getattr(loader, "epoch", None), int):
                loader.epoch = number  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Call]:
        """The calls of an epoch; with an order for each seed, batches have an axis for the members."""
        if not self.each:
            yield from self._calls(self.loaders[0], True)
            return
        # The data goes to the device once, if all seeds cut theirs from the same arrays.
        first = self.loaders[0]
        one = isinstance(first, Batches) and all(
            isinstance(b, Batches) and b.x is first.x and b.y is first.y for b in self.loaders
        )
        with contextlib.ExitStack() as stack:
            made = [self._calls(b, one) for b in self.loaders]
            for generator in made:
                stack.enter_context(contextlib.closing(generator))
            for parts in _together(made, self._seeds):
                yield self._join(parts)

    def _calls(self, loader: Iterable[Any], resident: bool) -> Any:
        batches = loader if resident else (pair for pair in loader)
        group = self._group
        return calls(
            batches, group.steps_per_call, group.classes, self._steps, False, self._kept, group.mesh
        )

    def _join(self, parts: list[Call]) -> Call:
        first = parts[0]
        members = self._group.members
        of = [self._seeds.index(members[i].seed) for i in self._group.places]
        if first.data is not None:
            steps: Any = np.stack([np.asarray(parts[i].steps) for i in of], axis=1)
        else:
            steps = [stack_trees([parts[i].steps[k] for i in of]) for k in range(len(first))]
        return Call(first.first, first.sizes, first.data, steps)


def _together(made: list[Any], seeds: list[int]) -> Iterator[list[Any]]:
    """The calls of all seeds side by side, which must agree in form."""
    number = 1
    while True:
        parts = [next(generator, None) for generator in made]
        for part, seed in zip(parts, seeds, strict=True):
            if _form(part) != _form(parts[0]):
                raise ValueError(UNEVEN.format(first=seeds[0], other=seed, batch=number))
        if parts[0] is None:
            return
        yield parts
        number = parts[0].first + len(parts[0])


def _form(call: Call | None) -> Any:
    return None if call is None else (call.sizes, shapes(call.batch(0)))


def train_epoch(
    group: Group,
    number: int,
    order: Order,
    val: Iterable[Any] | None,
    interrupts: Interrupts,
    done: Callable[[int], None],
) -> None:
    """Train the members of a group for an epoch, and write it into their histories.

    Args:
        number: of the epoch, from 1.
        done: called with the number of batches of each call.
    """
    start = time.perf_counter()
    epoch = _Epoch(group, number)
    interrupts.busy = True
    group.start_epoch(number - 1)
    interrupts.release()
    try:
        for call in order:
            interrupts.busy = True
            epoch.take(call, order.each)
            done(len(call))
            interrupts.release()
        interrupts.busy = True
        epoch.note()
    except BaseException:
        # the histories tell of every step that was taken
        interrupts.busy = True
        with contextlib.suppress(Exception):
            epoch.note()
        raise
    if not epoch.sizes:
        raise _batches.nothing(order.loaders[0], "train_batches", number)
    interrupts.release()
    # what was fetched above waited for the last step
    seconds = time.perf_counter() - start
    results = (
        evaluate(group, val, "val", number) if val is not None else [{} for _ in group.members]
    )
    interrupts.busy = True
    for member, rows, validation in zip(group.members, epoch.rows, results, strict=True):
        if member.diverged is None:
            logs = means(rows, epoch.sizes)
            logs |= {f"val_{name}": value for name, value in validation.items()}
            member.history.add_epoch({**logs, "seconds": seconds})


class _Epoch:
    """What the members' steps returned."""

    def __init__(self, group: Group, number: int):
        self.group, self.number = group, number
        self.rows: list[list[dict[str, float]]] = [[] for _ in group.members]
        self.sizes: list[int] = []
        self._waiting: list[tuple[Call, dict[str, Any]]] = []
        self._fetched = time.perf_counter()

    def take(self, call: Call, each: bool) -> None:
        group, y = self.group, None
        if not group.prepared:
            y = call.batch(0)[1]
            y = jax.tree_util.tree_map(lambda a: a[0], y) if each else y
            group.prepare(y)
        with _batches.class_numbers_noted(y):
            group.state, logs = group.program.run(group.state, call, each, group.keys)
        self._waiting.append((call, logs))
        batches = sum(len(call) for call, _ in self._waiting)
        if batches >= MOST or time.perf_counter() - self._fetched > SECONDS:
            self.note()

    def note(self) -> None:
        """Write what waits on the device into the histories, and note who diverged."""
        waiting, self._waiting = self._waiting, []
        for (call, _), logs in zip(waiting, fetch([logs for _, logs in waiting]), strict=True):
            one = len(call) == 1
            self._note(call, {name: v[None] if one else v for name, v in logs.items()})
        self._fetched = time.perf_counter()

    def _note(self, call: Call, logs: dict[str, Any]) -> None:
        alive = logs.pop("alive")
        recorded = logs.pop("energies", None)
        columns = {name: value.tolist() for name, value in logs.items()}
        self.sizes += call.sizes
        for i, member in enumerate(self.group.members):
            if member.diverged is not None:
                continue
            steps = len(call) if alive[:, i].all() else int(np.argmin(alive[:, i]))
            rows = [{name: c[k][i] for name, c in columns.items()} for k in range(steps)]
            energies = () if recorded is None else recorded[:steps, i]
            if recorded is not None and not member.history.vode_names:
                member.history.vode_names = tuple(member.algorithm.vode_names)
            member.history.add_batches(self.number, rows, energies)
            self.rows[i] += rows
            if steps < len(call):
                member.diverge(self.number, call.first + steps, columns["energy"][steps][i])


def evaluate(group: Group, batches: Iterable[Any], what: str, epoch: int) -> list[dict[str, float]]:
    """Mean energy and metrics of each member's forward prediction."""
    rows, sizes = [], []
    for x, y, size in _batches.pairs(batches, what, group.classes):
        group.prepare(y)
        rows.append(group.program.evaluate(group.state[0], x, y))
        sizes.append(size)
    if not rows:
        raise _batches.nothing(batches, what, epoch)
    fetched = fetch(rows)
    return [
        means([{name: value[i] for name, value in row.items()} for row in fetched], sizes)
        for i in range(len(group.members))
    ]
