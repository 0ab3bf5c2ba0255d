"""Interleaved timing: every round asks every program in a fresh random order.

A shared machine drifts: clocks, other processes, temperature. Two programs measured minutes apart
differ by that drift; two measured within one round hardly do. So ratios are taken inside each
round, and what is reported is the median of the ratios, not the ratio of the medians.
"""

import random
import statistics
from collections.abc import Iterable
from typing import NamedTuple, Protocol

BLOCKS_PER_ROUND = 3


class Answers(Protocol):
    def ask(self, request: str, timeout_s: float = 600) -> dict: ...


class Summary(NamedTuple):
    """Median and quartiles of a sample."""

    median: float
    q1: float
    q3: float
    count: int

    @property
    def spread(self) -> float:
        """Interquartile range."""
        return self.q3 - self.q1


def summarise(values: Iterable[float]) -> Summary:
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values to summarise")
    if len(ordered) == 1:
        return Summary(ordered[0], ordered[0], ordered[0], 1)
    q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
    return Summary(median, q1, q3, len(ordered))


def steps_per_block(worker: Answers, block_s: float, most: int = 5000) -> int:
    """How many steps fill a block, from a short trial that is then thrown away."""
    steps = 1
    while True:
        ms = statistics.median(worker.ask(f"time 1 {steps}")["ms"])
        enough = max(1, round(block_s * 1e3 / max(ms, 1e-6)))
        # A trial as short as a few steps overestimates; go on until it is of the block's order.
        if enough <= 4 * steps or steps >= most:
            return min(enough, most)
        steps = min(enough, 10 * steps)


def interleave(
    workers: dict[str, Answers], rounds: int, block_s: float, seed: int = 0
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Milliseconds per step, one value per round and program; and the steps in a block."""
    steps = {name: steps_per_block(worker, block_s) for name, worker in workers.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    order = list(workers)
    rng = random.Random(seed)
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            reply = workers[name].ask(f"time {BLOCKS_PER_ROUND} {steps[name]}")
            times[name].append(statistics.median(reply["ms"]))
    return times, steps


def ratios(times: dict[str, list[float]], reference: str) -> dict[str, Summary]:
    """Each program's time over the reference's, taken round by round."""
    return {
        name: summarise(own / base for own, base in zip(values, times[reference], strict=True))
        for name, values in times.items()
    }


def fastest(times: dict[str, list[float]], candidates: Iterable[str]) -> str | None:
    """The candidate with the smallest median; None when none of them was measured."""
    measured = [name for name in candidates if times.get(name)]
    return min(measured, key=lambda name: statistics.median(times[name]), default=None)
