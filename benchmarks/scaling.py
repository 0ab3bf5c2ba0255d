"""Cost against depth L, steps T, width and batch, each varied alone (the paper's Fig. 8).

The base is the paper's (Appendix G): 2 hidden layers of 64, batches of 32 of random noise, T = 8.
Every axis multiplies one of the four by 1, 2, 4, ...; the first call is recorded as well, because
a loop should keep its compile time flat in T.
"""

import dataclasses

from benchmarks import timing
from benchmarks.cases import Case, mlp
from benchmarks.process import Worker, WorkerFailed

BASE = {"L": 2, "T": 8, "width": 64, "batch": 32}
FACTORS = (1, 2, 4, 8, 16)
PROGRAMS = ("hand-scan", "hand-lazy", "low-level", "low-level-scan", "pxa-pc", "hand-bp")


def scaled_case(axis: str, factor: int) -> Case:
    """The base with one of its four sizes multiplied."""
    if axis not in BASE:
        raise ValueError(f"unknown axis {axis!r}; one of {', '.join(BASE)}")
    size = {**BASE, axis: BASE[axis] * factor}
    dims = [64] + [size["width"]] * size["L"] + [10]
    # A small state learning rate keeps the widest and deepest of them finite.
    return mlp(f"{axis}-x{factor}", dims, size["batch"], T=size["T"], state_lr=0.01)


def measure_point(case: Case, programs, rounds: int, block_s: float) -> dict:
    """Median, quartiles and first-call time of every program on one case."""
    workers: dict[str, Worker] = {}
    found: dict[str, dict] = {}
    try:
        for program in programs:
            try:
                workers[program] = Worker(program, case)
            except WorkerFailed as error:
                found[program] = {"reason": str(error)}
        times, _ = timing.interleave(workers, rounds, block_s)
        for program, values in times.items():
            hello = workers[program].hello
            found[program] = {
                **timing.summarise(values)._asdict(),
                "first_call_s": hello["first_call_s"],
                "xla_compile_s": hello["xla_compile_s"],
            }
    finally:
        for worker in workers.values():
            worker.close()
    return found


def measure(
    axes=tuple(BASE),
    factors=FACTORS,
    programs=PROGRAMS,
    rounds: int = 7,
    block_s: float = 0.1,
    log=print,
) -> dict:
    """{"axes": {axis: [{"factor", "value", "programs": {...}}, ...]}} for all axes."""
    points: dict[tuple, dict] = {}
    result: dict[str, list] = {}
    for axis in axes:
        result[axis] = []
        for factor in factors:
            case = scaled_case(axis, factor)
            # The unscaled case is the first point of every axis: measured once.
            key = (case.layers, case.T, case.batch)
            if key not in points:
                log(f"scaling: {case.name}")
                points[key] = measure_point(case, programs, rounds, block_s)
            result[axis].append(
                {"factor": factor, "value": BASE[axis] * factor, "programs": points[key]}
            )
    return {"base": BASE, "case": dataclasses.asdict(scaled_case("L", 1)), "axes": result}
