"""Many members at once against the same members one after another.

    python -m benchmarks.population

`pxt.Population.fit` and one `pxt.Trainer.fit` for each member take the same training steps: the same
seeds, settings and batches, with single steps and with several in a call; in turn, so that all meet the
same machine. Everything is compiled before. Reported are medians over the rounds of the time in which all
members take one step, and of the ratio of the trainers' time to the population's in the same round.
Writes a JSON record.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.training as pxt
import pcx.utils as pxu
from benchmarks import machine

# sizes, batch, steps in an epoch, epochs
CASES = {
    "tiny": ([2, 32, 32, 2], 32, 200, 4),
    "mlp": ([784, 128, 128, 128, 10], 128, 40, 2),
}
MEMBERS = (8, 32)
STEPS_PER_CALL = 40
# small, because the rounds train on and on
LR = (1e-4, 2e-4)


def programs(
    sizes: list[int],
    batch: int,
    steps: int,
    epochs: int,
    members: int,
    in_a_call: tuple[int, ...],
) -> dict[str, Callable[[], object]]:
    """The epochs of all members, each way; half of them have another learning rate."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * batch, sizes[0])).astype(np.float32)
    classes = np.argmax(x @ rng.normal(size=(sizes[0], sizes[-1])), axis=1)
    y = np.eye(sizes[-1], dtype=np.float32)[classes]
    data = pxt.batches(x, y, batch)
    seeds = range(members // len(LR))

    def make(seed: int, lr: float) -> pxa.Algorithm:
        state = pxu.Optim(optax.sgd, learning_rate=0.05)
        weight = pxu.Optim(optax.adam, learning_rate=lr)
        return pxa.PC(pxm.MLP(sizes), 8, state, weight)

    def alone(k: int) -> Callable[[], object]:
        trainers = []
        for lr in LR:
            for seed in seeds:
                px.RKG.seed(seed)
                trainers.append(pxt.Trainer(make(seed, lr), progress=False, steps_per_call=k))
        return lambda: [trainer.fit(data, epochs) for trainer in trainers]

    def together(k: int) -> Callable[[], object]:
        population = pxt.Population(make, {"lr": LR}, seeds=seeds, progress=False, steps_per_call=k)
        return lambda: population.fit(data, epochs)

    runs: dict[str, Callable[[], object]] = {}
    for k in (1, *in_a_call):
        suffix = "" if k == 1 else f", {k} in a call"
        runs |= {f"one after another{suffix}": alone(k), f"population{suffix}": together(k)}
    return runs


def measure(
    sizes: list[int],
    batch: int,
    steps: int,
    epochs: int,
    members: int,
    rounds: int,
    in_a_call: tuple[int, ...] = (STEPS_PER_CALL,),
) -> dict:
    """Milliseconds for a step of all members, and how many times faster the population is."""
    runs = programs(sizes, batch, steps, epochs, members, in_a_call)
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) / (steps * epochs) * 1e3)
    ratio = lambda name: statistics.median(
        a / b
        for a, b in zip(
            times[name.replace("population", "one after another")], times[name], strict=True
        )
    )
    return {
        "sizes": sizes,
        "batch": batch,
        "steps": steps,
        "epochs": epochs,
        "members": members,
        "seeds": members // len(LR),
        "learning_rates": LR,
        "rounds": rounds,
        "programs": {
            name: {
                "ms_per_step": round(statistics.median(times[name]), 3),
                "ms_per_step_min": round(min(times[name]), 3),
                "times_faster": round(ratio(name), 2),
            }
            for name in runs
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--members", nargs="+", type=int, default=list(MEMBERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="where the record goes")
    arguments = parser.parse_args()
    record: dict = {"machine": machine.describe(), "cases": []}
    for name, members in itertools.product(arguments.cases, arguments.members):
        case = measure(*CASES[name], members, arguments.rounds)
        record["cases"].append({"name": name, **case})
        print(f"\n{name}: {members} members of {'-'.join(map(str, case['sizes']))}\n")
        print("| program | ms for a step of all | least | times faster |")
        print("| --- | --- | --- | --- |")
        for program, row in case["programs"].items():
            print(
                f"| {program} | {row['ms_per_step']:.2f} | {row['ms_per_step_min']:.2f} | "
                f"{row['times_faster']:.2f} |",
                flush=True,
            )
        # after each case, so that a run that is stopped leaves what it has measured
        out = machine.write_record(record, "population", arguments.out)
    print(f"\n{out}")


if __name__ == "__main__":
    main()
