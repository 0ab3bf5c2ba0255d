"""Training on an accelerator: the networks of the paper's Table 4, and depth with and without `pxc.Stack`.

    python -m benchmarks.accelerator
    python -m benchmarks.accelerator --sections depth --smoke      # seconds, also on a CPU

`table4`: the step of predictive coding beside that of back-propagation, ours and hand-written, on batches of
128 of noise; an epoch is as many steps as the data set has whole batches. `depth`: one step of
networks of L hidden layers. All programs of one comparison live in one process, are compiled at
once, and take turns in random order; a ratio is the median of the rounds' ratios. Writes a JSON record.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
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


def networks(depth: int, width: int = WIDTH) -> dict[str, Callable[[], Any]]:
    """One training step of each program, on `depth` hidden layers."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((BATCH, width)), jnp.float32)
    y = jnp.eye(10)[jnp.arange(BATCH) % 10]
    plain = lambda: pxm.MLP([width] * (depth + 1) + [10])
    options = {"state_optim": optax.sgd(0.01), "weight_optim": optax.adamw(1e-3)}
    algorithms = {
        "PC": pxa.PC(plain(), T, **options),
        "PC, all layers at every step": pxa.PC(plain(), T, lazy=False, **options),
        "PC, Stack": pxa.PC(Stacked(depth, width, 10), T, **options),
        "BP": pxa.Backprop(plain(), weight_optim=options["weight_optim"]),
    }
    return {
        name: (lambda algorithm=algorithm: algorithm.train_step(x, y)["energy"])
        for name, algorithm in algorithms.items()
    }


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


def compiled(groups: dict[str, dict[str, Callable[[], Any]]]) -> dict[str, dict[str, Local]]:
    """The programs of all groups after their first calls, which threads make at once."""
    keys = [(group, name) for group, steps in groups.items() for name in steps]
    with ThreadPoolExecutor(max_workers=12) as pool:
        ready = list(pool.map(lambda key: Local(groups[key[0]][key[1]]), keys))
    found: dict[str, dict[str, Local]] = {group: {} for group in groups}
    for (group, name), local in zip(keys, ready, strict=True):
        found[group][name] = local
    return found


def measured(programs: dict[str, Local], reference: str, rounds: int, block_s: float) -> dict:
    """Times of the programs of one group, and their ratios to one of them."""
    times, _ = timing.interleave(programs, rounds, block_s)
    return {
        name: {
            "ms": timing.summarise(times[name])._asdict(),
            "ratio": ratio._asdict(),
            "first_call_s": programs[name].first_call_s,
        }
        for name, ratio in timing.ratios(times, reference).items()
    }


def table4(names: Iterable[str], rounds: int, block_s: float, batch: int = BATCH) -> dict:
    """Every program on every network, against hand-written back-propagation."""
    chosen = {
        name: dataclasses.replace(TABLE_4[name][0], batch=batch, T=min(T, batch)) for name in names
    }
    groups = {
        name: {program: make(program, case).step for program in PROGRAMS}
        for name, case in chosen.items()
    }
    result = {}
    for name, programs in compiled(groups).items():
        steps = TABLE_4[name][1] // BATCH
        rows = measured(programs, "hand-bp", rounds, block_s)
        for row in rows.values():
            row["epoch_s"] = row["ms"]["median"] * steps / 1e3
        result[name] = {"spec": dataclasses.asdict(chosen[name]), "programs": rows}
        print(f"\n## {name}: batch {batch}, {steps} steps in an epoch\n")
        print(
            "| program | ms of a step | s of an epoch | over hand-bp |\n| --- | --- | --- | --- |"
        )
        for program, row in rows.items():
            ms, over = row["ms"]["median"], row["ratio"]["median"]
            print(f"| {program} | {ms:.3f} | {row['epoch_s']:.2f} | {over:.2f} |", flush=True)
    return result


def depth(depths: Iterable[int], rounds: int, block_s: float, width: int = WIDTH) -> dict:
    """Every program at every depth, against back-propagation at that depth."""
    groups = {str(L): networks(L, width) for L in depths}
    result = {}
    print(f"\n## Hidden layers of {width}, batch {BATCH}, T = {T}: ms of a step (s of the first)\n")
    for number, (L, programs) in enumerate(compiled(groups).items()):
        if not number:
            print(f"| L | {' | '.join(programs)} |\n| --- |{' --- |' * len(programs)}")
        result[L] = measured(programs, "BP", rounds, block_s)
        cells = (f"{r['ms']['median']:.3f} ({r['first_call_s']:.0f})" for r in result[L].values())
        print(f"| {L} | {' | '.join(cells)} |", flush=True)
    return {"width": width, "batch": BATCH, "T": T, "depths": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sections = ("table4", "depth")
    parser.add_argument("--sections", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--cases", nargs="+", choices=TABLE_4, default=list(TABLE_4))
    parser.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--block-ms", type=float, default=60)
    parser.add_argument("--smoke", action="store_true", help="small sizes, no record")
    parser.add_argument("--out", type=Path, help="where the record goes")
    arguments = parser.parse_args()
    small, width, batch = arguments.smoke, WIDTH, BATCH
    if small:
        arguments.cases, arguments.depths = arguments.cases[:1], [2, 4]
        arguments.rounds, arguments.block_ms, width, batch = 2, 5, 16, 8
    record: dict = {"machine": machine.describe()}
    block_s = arguments.block_ms / 1e3
    if "table4" in arguments.sections:
        record["table4"] = table4(arguments.cases, arguments.rounds, block_s, batch)
    if "depth" in arguments.sections:
        record["depth"] = depth(arguments.depths, arguments.rounds, block_s, width)
    if not small:
        print(f"\n{machine.write_record(record, 'accelerator', arguments.out)}")


if __name__ == "__main__":
    main()
