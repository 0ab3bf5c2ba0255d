"""Python overhead of one jitted call against the number of params in the model.

The function does next to nothing to n params of four floats each, so the time of a call is the
cost of walking the objects, of the dispatch and of writing back. Beside it, `jax.jit` on a tuple
of the same n arrays: the part that is JAX's. "one" changes a single param, "all" changes every
one, as training does.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.process import REPOSITORY, WorkerFailed, environment

COUNTS = (1, 5, 10, 20, 50, 100, 200, 400)


def with_pcx(count: int, change: str) -> Callable[[], object]:
    import jax.numpy as jnp

    import pcx as px
    import pcx.functional as pxf

    class Model(px.Module):
        def __init__(self):
            super().__init__()
            self.params = [px.Param(jnp.ones(4)) for _ in range(count)]

    @pxf.jit()
    def touch(*, model):
        for param in model.params if change == "all" else model.params[:1]:
            param.set(param.get() + 1.0)

    model = Model()

    def call():
        touch(model=model)
        return model.params[0].get()

    return call


def with_jax(count: int, change: str) -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def touch(values):
        changed = count if change == "all" else 1
        return tuple(v + 1.0 for v in values[:changed])

    values = tuple(jnp.ones(4) for _ in range(count))

    def call():
        nonlocal values
        new = touch(values)
        values = new + values[len(new) :]
        return values[0]

    return call


def microseconds(calls: dict[str, Callable], rounds: int, repeats: int) -> dict[str, float]:
    """Median over interleaved rounds of the time of a call, each awaited before the next."""
    import jax

    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats):
                jax.block_until_ready(call())
            found[name].append((time.perf_counter() - start) / repeats * 1e6)
    return {name: statistics.median(values) for name, values in found.items()}


def slope_and_intercept(counts: list[int], values: list[float]) -> tuple[float, float]:
    """Least squares: microseconds per param, microseconds of a call without params."""
    slope, intercept = statistics.linear_regression(counts, values)
    return slope, intercept


def measure_here(counts: list[int], rounds: int, repeats: int) -> dict:
    rows = []
    for count in counts:
        calls = {
            f"{library}-{change}": make(count, change)
            for library, make in (("pcx", with_pcx), ("jax", with_jax))
            for change in ("one", "all")
        }
        times = microseconds(calls, rounds, repeats)
        rows.append({"params": count, **{name: round(value, 3) for name, value in times.items()}})
    fits = {}
    if len(counts) > 1:
        for change in ("one", "all"):
            own = [row[f"pcx-{change}"] - row[f"jax-{change}"] for row in rows]
            slope, intercept = slope_and_intercept(counts, own)
            fits[change] = {"us_per_param": slope, "us_per_call": intercept}
    return {"rows": rows, "fits_of_pcx_minus_jax": fits}


def measure(counts=COUNTS, rounds: int = 15, repeats: int = 200) -> dict:
    """`measure_here` in a fresh process; {"reason": ...} where it cannot run."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--counts", *map(str, counts)]
    command += ["--rounds", str(rounds), "--repeats", str(repeats)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"reason": said[-1] if said else str(WorkerFailed(f"status {done.returncode}"))}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    print(json.dumps(measure_here(arguments.counts, arguments.rounds, arguments.repeats)))


if __name__ == "__main__":
    main()
