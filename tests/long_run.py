# ruff: noqa: T201
"""Runs for long in one process, and looks at memory, step time and compilations all the while.

    python -m tests.long_run                                             # the short form, as CI runs it
    python -m tests.long_run --minutes 60 --alternations 10000 --models 500 --record

    steps         training steps of one model
    alternations  a step in train mode and a prediction in eval mode, in turn, with dropout
    models        models of equal form, each made, trained for a few steps and dropped

Each part is looked at in 20 intervals. After the first quarter, memory and step time must stay flat and
nothing may compile again.
"""

import argparse
import gc
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
from benchmarks import machine

INTERVALS = 20
# a step may take this much longer at the end, and memory grow by so many MiB
SLOWER, MEMORY = 1.5, 16.0
COMPILED = "/jax/core/compile/backend_compile_duration"

compiled = [0]


def count_compilations(event, _duration, **_):
    compiled[0] += event == COMPILED


def memory():
    """MiB of this process in main memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def algorithm(model=None):
    model = model or pxm.MLP([8, 32, 32, 4])
    return pxa.PC(model, 4, optax.sgd(0.1), optax.adam(1e-3))


def with_dropout():
    layer = pxnn.Sequential(pxnn.Linear(8, 32), jax.nn.gelu, pxnn.Dropout(0.1))
    return pxm.Chain([layer, pxnn.Linear(32, 4)], [(32,), (4,)])


def data(n=32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 8)).astype(np.float32), rng.normal(size=(n, 4)).astype(np.float32)


def intervals(once, count=None, minutes=None):
    """Call `once` so often, or for so long; what was seen after each of 20 intervals."""
    seen = []
    done = 0
    start = time.perf_counter()
    for interval in range(1, INTERVALS + 1):
        before, at, spent = done, compiled[0], time.process_time()
        if count is not None:
            while done < count * interval // INTERVALS:
                once(done)
                done += 1
        else:
            once(done)
            done += 1
            while time.perf_counter() - start < 60 * minutes * interval / INTERVALS:
                once(done)
                done += 1
        spent = time.process_time() - spent  # of the processor: other work may keep it busy
        seen.append(
            {
                "done": done,
                "milliseconds": round(1e3 * spent / max(done - before, 1), 3),
                "memory_mib": round(memory(), 1),
                "compilations": compiled[0] - at,
            }
        )
    return seen


def verdict(seen):
    """Whether memory and time stay flat after the first quarter; what does not."""
    warm = seen[INTERVALS // 4 - 1 :]
    third = len(warm) // 3
    grown = warm[-1]["memory_mib"] - warm[0]["memory_mib"]
    early, late = (
        min(s["milliseconds"] for s in part) for part in (warm[1 : third + 1], warm[-third:])
    )
    again = sum(s["compilations"] for s in warm[1:])
    faults = []
    if grown > MEMORY:
        faults.append(f"memory grows by {grown:.1f} MiB")
    if late > SLOWER * early:
        faults.append(f"{early:.2f} ms becomes {late:.2f} ms")
    if again:
        faults.append(f"{again} further compilations")
    return {
        "flat": not faults,
        "faults": faults,
        "growth_mib": round(grown, 1),
        "compiled_again": again,
    }


def steps(minutes):
    own, batch = algorithm(), data()
    return intervals(lambda _: own.train_step(*batch), minutes=minutes)


def alternations(count):
    own, (x, y) = algorithm(with_dropout()), data()

    def once(_):
        own.model.train()
        own.train_step(x, y)
        own.model.eval()
        own.predict(x)

    return intervals(once, count)


def models(count):
    batch = data()

    def once(number):
        px.RKG.seed(number)
        own = algorithm()
        for _ in range(3):
            own.train_step(*batch)

    return intervals(once, count)


SHORT = {"minutes": 0.2, "alternations": 200, "models": 20}
PARTS = {
    "minutes": ("steps", steps),
    "alternations": ("alternations", alternations),
    "models": ("models", models),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, number in SHORT.items():
        parser.add_argument(f"--{name}", type=type(number), default=number)
    parser.add_argument(
        "--record", action="store_true", help="write benchmarks/results/long_run/DATE.json"
    )
    arguments = parser.parse_args()
    jax.monitoring.register_event_duration_secs_listener(count_compilations)
    found = {}
    for option, (name, part) in PARTS.items():
        if amount := getattr(arguments, option):
            seen = part(amount)
            found[name] = verdict(seen) | {"intervals": seen}
            first, last = seen[INTERVALS // 4 - 1], seen[-1]
            print(
                f"{name}: {last['done']} done, {'flat' if found[name]['flat'] else 'NOT FLAT'}: "
                f"{first['memory_mib']} -> {last['memory_mib']} MiB, "
                f"{first['milliseconds']} -> {last['milliseconds']} ms, "
                f"{found[name]['compiled_again']} further compilations {found[name]['faults']}",
                flush=True,
            )
    if arguments.record:
        record = {
            "machine": machine.describe(),
            "command": " ".join(["python -m tests.long_run", *sys.argv[1:]]),
            "parts": found,
        }
        print(f"\nwrote {machine.write_record(record, 'long_run')}")
    sys.exit(not all(part["flat"] for part in found.values()))


if __name__ == "__main__":
    main()
