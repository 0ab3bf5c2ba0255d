"""Training on an accelerator: the networks of the paper's Table 4, and depth with and without `pxc.Stack`.

    python -m benchmarks.accelerator
    python -m benchmarks.accelerator --sections depth --smoke      # seconds, also on a CPU

`table4`: the step of predictive coding beside that of back-propagation, ours and hand-written, on batches of
128 of noise; an epoch is as many steps as the data set has whole batches. `depth`: one step of
networks of L hidden layers. The programs on one network live in one process; all processes compile at
once and then measure one after the other. Programs take turns in random order; a ratio is the median of
the rounds' ratios. Writes a JSON record.
"""

import argparse
import dataclasses
import fcntl
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from benchmarks import cases, machine, timing, worker
from benchmarks.programs import make

BATCH, T = 128, 8
PROGRAMS = ("hand-unroll", "hand-lazy", "pxa-pc", "hand-bp", "pxa-bp")
DEPTHS, WIDTH = (2, 4, 8, 16, 32, 64), 128


def _classes(case: cases.Case, classes: int, side: int = 32) -> cases.Case:
    last = dataclasses.replace(case.layers[-1], out=classes)
    return dataclasses.replace(
        case, layers=(*case.layers[:-1], last), input_shape=(3, side, side), batch=BATCH, T=T
    )


# the case, and the images of its data set
TABLE_4 = {
    "MLP, Fashion-MNIST": (cases.CASES["mlp"], 60_000),
    "AlexNet, CIFAR-10": (_classes(cases.CASES["alexnet"], 10), 50_000),
    "VGG-5, CIFAR-100": (_classes(cases.CASES["vgg5-t7"], 100), 50_000),
    "VGG-7, Tiny ImageNet": (_classes(cases.CASES["vgg7"], 200, 56), 100_000),
}


class Stacked(pxc.EnergyModule):
    """The perceptron of `pxm.MLP`, its equal layers in a `pxc.Stack`."""

    def __init__(self, depth: int, width: int, classes: int):
        block = lambda: pxnn.Sequential(pxnn.Linear(width, width), jax.nn.gelu)
        self.first, self.vode = block(), pxc.Vode((width,))
        self.stack = pxc.Stack(block, depth - 1, shape=(width,))
        self.last, self.output = pxnn.Linear(width, classes), pxc.Vode((classes,))
        self.output.h.frozen = True

    def __call__(self, x: Any, y: Any = None) -> Any:
        self.output(self.last(self.stack(self.vode(self.first(x)))))
        if y is not None:
            self.output.set("h", y)
        return self.output.get("u")


class Local:
    """A program in this process, with the answers of a worker."""

    def __init__(self, step: Callable[[], Any]):
        self.step = step
        start = time.perf_counter()
        worker.timed(step, 1)
        self.first_call_s = time.perf_counter() - start
        worker.timed(step, 1)

    def ask(self, request: str, timeout_s: float = 600) -> dict:
        return worker.answer(request.split(), self, [], 0)


def table4(name: str, batch: int, _: int) -> dict[str, Callable[[], Any]]:
    """One training step of each program on a network of Table 4."""
    case = dataclasses.replace(TABLE_4[name][0], batch=batch)
    return {program: make(program, case).step for program in PROGRAMS}


def depth(L: int, batch: int, width: int) -> dict[str, Callable[[], Any]]:
    """One training step of each program on L hidden layers."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, width)), jnp.float32)
    y = jnp.eye(10)[jnp.arange(batch) % 10]
    plain = lambda: pxm.MLP([width] * (L + 1) + [10])
    options = {"state_optim": optax.sgd(0.01), "weight_optim": optax.adamw(1e-3)}
    algorithms = {
        "PC": pxa.PC(plain(), T, **options),
        "PC, all layers at every step": pxa.PC(plain(), T, lazy=False, **options),
        "PC, Stack": pxa.PC(Stacked(L, width, 10), T, **options),
        "BP": pxa.Backprop(plain(), weight_optim=options["weight_optim"]),
    }
    return {
        name: (lambda algorithm=algorithm: algorithm.train_step(x, y)["energy"])
        for name, algorithm in algorithms.items()
    }


# how the programs of a section are made, and which one the others are compared with
SECTIONS = {"table4": (table4, "hand-bp"), "depth": (depth, "BP")}


def measured(
    section: str, key: Any, batch: int, width: int, rounds: int, block_s: float, lock: str
) -> dict:
    """Times of the programs on one network, and their ratios to one of them; in a process of its own."""
    programs, reference = SECTIONS[section]
    with Path(lock).open("w") as turn:
        # all hold it while they compile, so the first has it for itself when the last has compiled
        fcntl.flock(turn, fcntl.LOCK_SH)
        steps = {name: Local(step) for name, step in programs(key, batch, width).items()}
        print(f"{section}: {key} compiled", file=sys.stderr, flush=True)
        fcntl.flock(turn, fcntl.LOCK_EX)
        times, _ = timing.interleave(steps, rounds, block_s)
    ratios = timing.ratios(times, reference)
    return {
        name: {
            "ms": timing.summarise(times[name])._asdict(),
            "ratio": ratios[name]._asdict(),
            "first_call_s": step.first_call_s,
        }
        for name, step in steps.items()
    }


def in_turn(section: str, keys: list, *sizes: Any) -> Iterator[tuple[Any, dict]]:
    """The measurements of a section as they end."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(keys), mp_context=spawn) as pool:
        running = {pool.submit(measured, section, key, *sizes): key for key in keys}
        for future in as_completed(running):
            yield running[future], future.result()


def show(section: str, key: Any, programs: dict) -> None:
    """Print one network's measurements."""
    names = f"{section}: {key}", "ms of a step", "quartiles", "ratio", "s of the first step"
    print(f"\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for name, row in programs.items():
        ms = row["ms"]
        cells = (
            name,
            f"{ms['median']:.3f}",
            f"{ms['q1']:.3f}-{ms['q3']:.3f}",
            f"{row['ratio']['median']:.2f}",
            f"{row['first_call_s']:.1f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--cases", nargs="+", choices=TABLE_4, default=list(TABLE_4))
    parser.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--block-ms", type=float, default=60)
    parser.add_argument("--smoke", action="store_true", help="small sizes, no record")
    parser.add_argument("--out", type=Path, help="where the record goes")
    arguments = parser.parse_args()
    batch, width = BATCH, WIDTH
    if arguments.smoke:
        arguments.cases, arguments.depths = arguments.cases[:1], [2, 4]
        arguments.rounds, arguments.block_ms, batch, width = 2, 5, 8, 16
    # several processes share the device
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    record: dict = {"machine": machine.describe(), "batch": batch, "T": T, "width": width}
    keys, path = {"table4": arguments.cases, "depth": arguments.depths}, arguments.out
    with tempfile.NamedTemporaryFile() as file:
        timed = (arguments.rounds, arguments.block_ms / 1e3, file.name)
        for section in arguments.sections:
            record[section] = {}
            for key, programs in in_turn(section, keys[section], batch, width, *timed):
                record[section][key] = {"programs": programs}
                if section == "table4":
                    steps = TABLE_4[key][1] // BATCH
                    record[section][key] |= {
                        "steps_per_epoch": steps,
                        "spec": dataclasses.asdict(TABLE_4[key][0]),
                    }
                show(section, key, programs)
                if not arguments.smoke:
                    path = machine.write_record(record, "accelerator", path)  # the same file
    if not arguments.smoke:
        print(f"\n{path}")


if __name__ == "__main__":
    main()
