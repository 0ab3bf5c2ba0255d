"""What the trainer costs beside bare training steps.

    python -m benchmarks.trainer

The same steps on the same batches, as a loop over `train_step`, as `Trainer.fit`, and as
`Trainer.fit` with several steps in a call; in turn, so that all meet the same machine. Reported are
medians over the rounds of the time of a step, and of its ratio to the bare loop of the same round;
beside them the CPU time of the main thread, which other programs on the machine disturb less. Writes
a JSON record.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.training as pxt
from benchmarks import machine

# sizes, batch, steps in an epoch
CASES = {
    "tiny": ([2, 32, 32, 2], 32, 1000),
    "mlp": ([784, 128, 128, 128, 10], 128, 200),
}
STEPS_PER_CALL = (10, 100)


def programs(
    sizes: list[int], batch: int, steps: int, in_a_call: tuple[int, ...]
) -> dict[str, Callable[[], object]]:
    """One epoch, each way; the data and its conversion are the same."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * batch, sizes[0])).astype(np.float32)
    y = np.eye(sizes[-1], dtype=np.float32)[rng.integers(0, sizes[-1], steps * batch)]
    data = pxt.batches(x, y, batch)

    def algorithm() -> pxa.Algorithm:
        model = pxm.MLP(sizes, rkg=px.RandomKeyGenerator(0))
        metrics = {"accuracy": pxt.accuracy}
        return pxa.PC(model, T=8, weight_optim=optax.adam(1e-3), metrics=metrics)

    pc = algorithm()

    def bare() -> None:
        pc.start_epoch(0)
        pc.model.train()
        logs = None
        for inputs, targets in data:
            logs = pc.train_step(inputs, targets)
        jax.block_until_ready(logs)

    def fit(k: int) -> Callable[[], object]:
        trainer = pxt.Trainer(algorithm(), progress=False, steps_per_call=k)
        return lambda: trainer.fit(data, 1)

    return {"bare": bare, "fit": fit(1), **{f"fit, {k} in a call": fit(k) for k in in_a_call}}


def measure(
    sizes: list[int], batch: int, steps: int, rounds: int, in_a_call: tuple[int, ...]
) -> dict:
    """Microseconds of a step, and ratios to the bare loop."""
    runs = programs(sizes, batch, steps, in_a_call)
    for run in runs.values():
        run()
        run()
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start, thread = time.perf_counter(), time.thread_time()
            run()
            wall[name].append((time.perf_counter() - start) / steps * 1e6)
            cpu[name].append((time.thread_time() - thread) / steps * 1e6)
    ratios = {
        name: statistics.median(a / b for a, b in zip(times, wall["bare"], strict=True))
        for name, times in wall.items()
    }
    return {
        "sizes": sizes,
        "batch": batch,
        "steps": steps,
        "rounds": rounds,
        "programs": {
            name: {
                "us_per_step": round(statistics.median(wall[name]), 2),
                "us_per_step_min": round(min(wall[name]), 2),
                "main_thread_us": round(statistics.median(cpu[name]), 2),
                "ratio": round(ratios[name], 3),
            }
            for name in runs
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, help="steps in an epoch, instead of the case's own")
    parser.add_argument("--out", type=Path, help="where the record goes")
    arguments = parser.parse_args()
    record: dict = {"machine": machine.describe(), "cases": {}}
    for name in arguments.cases:
        sizes, batch, steps = CASES[name]
        steps = arguments.steps or steps
        case = measure(sizes, batch, steps, arguments.rounds, STEPS_PER_CALL)
        record["cases"][name] = case
        print(f"\n{name}: {'-'.join(map(str, sizes))}, batch {batch}\n")
        print("| program | µs of a step | least | main thread | ratio to bare |")
        print("| --- | --- | --- | --- | --- |")
        for program, row in case["programs"].items():
            print(
                f"| {program} | {row['us_per_step']:.1f} | {row['us_per_step_min']:.1f} | "
                f"{row['main_thread_us']:.1f} | {row['ratio']:.2f} |",
                flush=True,
            )
    print(f"\n{machine.write_record(record, 'trainer', arguments.out)}")


if __name__ == "__main__":
    main()
