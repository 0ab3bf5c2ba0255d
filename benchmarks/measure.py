"""All programs on one case: first call, memory, agreement, then interleaved times."""

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks import timing
from benchmarks.cases import Case, initial_weights
from benchmarks.peers import PEERS
from benchmarks.peers.environment import NotInstalled, ensure, link_package
from benchmarks.process import Worker, WorkerFailed
from benchmarks.programs import PROGRAMS
from benchmarks.programs.matrix_product import FLOPS

# The floor of a comparison is the faster of the hand-written programs that do the full work.
FLOORS = {"pc": ("hand-scan", "hand-unroll"), "bp": ("hand-bp",), "ep": ("hand-ep",)}
PRODUCT = "matrix-product"
HELLO_FIELDS = (
    "make_s",
    "first_call_s",
    "second_call_s",
    "xla_compile_s",
    "compilations",
    "compilations_in_second_call",
    "peak_mib_since_start",
    "versions",
)


def entry_of(name: str):
    return PROGRAMS[name] if name in PROGRAMS else PEERS[name].entry


def why_not(name: str, case: Case) -> str | None:
    """Why a program has no form of the case; None when it has one."""
    if case.is_dense or not entry_of(name).dense_only:
        return None
    if name in PEERS:
        return PEERS[name].why_dense_only
    return "a loop around convolutions is 8-10 times slower on a CPU than the same steps unrolled"


def place(name: str, peers_root: Path, torch_spec: str) -> dict:
    """Where and how a program runs: here, or in the peer's own environment."""
    if name not in PEERS:
        return {}
    python = ensure(PEERS[name], peers_root, torch_spec)
    variables = PEERS[name].variables
    return {"python": python, "folder": link_package(peers_root), "variables": variables}


def update_of(worker: Worker, case: Case) -> list[np.ndarray] | None:
    """How the first steps have changed every weight matrix; None where the program does not say."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        if not worker.ask(f"weights {path}")["saved"]:
            return None
        with np.load(path) as saved:
            return [saved[f"w{i}"] - w for i, (w, _) in enumerate(initial_weights(case))]


def update_there(name: str, case: Case, where: dict) -> list[np.ndarray] | None:
    """The hand-written program's update in a peer's environment.

    Two releases of JAX round differently, and the first steps of AdamW make a rounding of a
    gradient near zero a step of full size: on VGG-5 that alone is a difference of 8 %.
    """
    hand = FLOORS[entry_of(name).learns_by][-1]
    with Worker(hand, case, **where) as worker:
        return update_of(worker, case)


def relative_difference(own: list[np.ndarray], base: list[np.ndarray]) -> float:
    """Norm of the difference of two updates over the norm of the second."""
    difference = math.sqrt(sum(float(np.sum((a - b) ** 2)) for a, b in zip(own, base, strict=True)))
    norm = math.sqrt(sum(float(np.sum(b**2)) for b in base))
    return difference / norm if norm else math.inf


def measure_case(
    case: Case,
    names: Iterable[str],
    rounds: int,
    block_s: float,
    peers_root: Path,
    torch_spec: str = "torch",
    log: Callable[[str], None] = print,
) -> dict:
    """The record of one case; a program that cannot run has a "reason" and no times."""
    workers: dict[str, Worker] = {}
    programs: dict[str, dict] = {}
    updates: dict[str, list[np.ndarray]] = {}
    expected: dict[str, list[np.ndarray]] = {}
    try:
        for name in names:
            reason = why_not(name, case)
            if reason:
                programs[name] = {"reason": reason}
                continue
            log(f"{case.name}: starting {name}")
            try:
                where = place(name, peers_root, torch_spec)
                workers[name] = Worker(name, case, **where)
                programs[name] = {key: workers[name].hello[key] for key in HELLO_FIELDS}
                update = update_of(workers[name], case)
                if update is not None:
                    updates[name] = update
                    if where:
                        expected[name] = update_there(name, case, where)
                programs[name]["memory"] = workers[name].ask("memory 3")
            except (NotInstalled, WorkerFailed) as error:
                programs[name] = {"reason": str(error)}
                if name in workers:
                    workers.pop(name).close()
        log(f"{case.name}: timing {len(workers)} programs")
        times, steps = timing.interleave(workers, rounds, block_s)
    finally:
        for worker in workers.values():
            worker.close()
    for name, values in times.items():
        programs[name] |= {
            "ms": values,
            "steps_per_block": steps[name],
            **{f"{key}_ms": value for key, value in timing.summarise(values)._asdict().items()},
        }
        programs[name].pop("count_ms")
    add_ratios(programs, times, updates, expected)
    add_shares(programs, times, case)
    return {"spec": dataclasses.asdict(case), "programs": programs}


def add_ratios(programs: dict, times: dict, updates: dict, expected: dict) -> None:
    """Against the floor: ratio of times, of first calls, and difference of the updates.

    `expected` has the updates to compare with where those are not the floor's.
    """
    for kind, candidates in FLOORS.items():
        floor = timing.fastest(times, candidates)
        if floor is None:
            continue
        for name, summary in timing.ratios(times, floor).items():
            if entry_of(name).learns_by != kind:
                continue
            own = programs[name]
            own["floor"] = floor
            own["ratio"] = summary._asdict()
            own["first_call_ratio"] = own["first_call_s"] / programs[floor]["first_call_s"]
            base = expected.get(name, updates.get(floor))
            if name in updates and base is not None:
                own["update_difference"] = relative_difference(updates[name], base)
    for pc, bp in (("pxa-pc", "pxa-bp"), ("hand-unroll", "hand-bp")):
        if pc in times and bp in times:
            programs[pc]["over_bp"] = timing.ratios({pc: times[pc], bp: times[bp]}, bp)[
                pc
            ]._asdict()


def add_shares(programs: dict, times: dict, case: Case) -> None:
    """Which share of the machine's rate of matrix products a program reaches, in the same rounds."""
    if PRODUCT not in times:
        return
    for name, summary in timing.ratios(times, PRODUCT).items():
        flops = case.flops(entry_of(name).learns_by)
        if flops is not None:
            programs[name]["share"] = flops / FLOPS / summary.median
    programs[PRODUCT]["gflops"] = FLOPS / programs[PRODUCT]["median_ms"] / 1e6
