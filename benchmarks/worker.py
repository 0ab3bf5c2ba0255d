"""One program on one case, in its own process, answering questions line by line.

Every program, ours and the peers', runs behind this: the first call is then a real first call,
peak memory is the program's own, and the parent can take rounds in turn. On start it makes the
program, runs two steps and writes one JSON line; then for each line on standard input it writes
one JSON line:

    time BLOCKS STEPS    {"ms": [milliseconds per step of each block]}
    memory STEPS         {"before_mib", "peak_mib", "xla_temp_mib"}: memory around the steps
    weights PATH         {"saved": bool}: the weights, as an .npz of w0, b0, w1, ...
    quit
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.peers import PEERS
from benchmarks.programs import PROGRAMS

MIB = 1024.0 * 1024.0
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
REPORTED_PACKAGES = ("pcx", "jax", "jaxlib", "optax", "equinox", "fabricpc", "pcn-torch", "torch")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def peak_mib() -> float:
    """High-water mark of resident memory since `reset_peak`, or since the start."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def block(result) -> None:
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready(result)


def count_compilations() -> list[float]:
    """A list that grows by one duration for every XLA compilation from now on."""
    durations: list[float] = []
    if "jax" in sys.modules:
        jax = sys.modules["jax"]

        def listen(event: str, duration: float, **_) -> None:
            if event == COMPILE_EVENT:
                durations.append(duration)

        jax.monitoring.register_event_duration_secs_listener(listen)
    return durations


def xla_temp_mib() -> float | None:
    """Scratch memory of the largest compiled program as XLA planned it, if it says."""
    if "jax" not in sys.modules:
        return None
    backend = importlib.import_module("jax.extend.backend").get_backend()
    sizes = []
    for executable in backend.live_executables():
        with contextlib.suppress(Exception):  # Not every backend has the statistics.
            sizes.append(executable.get_compiled_memory_stats().temp_size_in_bytes / MIB)
    return max(sizes, default=None)


def timed(step: Callable, steps: int) -> float:
    """Seconds for `steps` steps, dispatched one after the other and awaited once."""
    start = time.perf_counter()
    for _ in range(steps):
        result = step()
    block(result)
    return time.perf_counter() - start


def answer(request: list[str], program, compilations: list[float], first_compilations: int) -> dict:
    command, *arguments = request
    if command == "time":
        blocks, steps = int(arguments[0]), int(arguments[1])
        timed(program.step, max(1, steps // 10))
        times = [timed(program.step, steps) / steps * 1e3 for _ in range(blocks)]
        return {"ms": times, "later_compilations": len(compilations) - first_compilations}
    if command == "memory":
        before, was_reset = resident_mib(), reset_peak()
        timed(program.step, int(arguments[0]))
        return {
            "before_mib": before,
            "peak_mib": peak_mib(),
            "peak_is_of_the_steps": was_reset,
            "xla_temp_mib": xla_temp_mib(),
        }
    if command == "weights":
        weights = program.read_weights()
        if weights is None:
            return {"saved": False}
        numpy = importlib.import_module("numpy")
        arrays = {
            f"{n}{i}": a for i, pair in enumerate(weights) for n, a in zip("wb", pair, strict=True)
        }
        numpy.savez(arguments[0], **arrays)
        return {"saved": True}
    raise ValueError(f"unknown request {command!r}; one of time, memory, weights, quit")


def serve(name: str, case: Case, write: Callable[[dict], None], lines) -> None:
    entry = PROGRAMS[name] if name in PROGRAMS else PEERS[name].entry
    start = time.perf_counter()
    program = importlib.import_module(entry.module).make(case, **entry.arguments)
    make_s = time.perf_counter() - start
    baseline_mib = resident_mib()
    compilations = count_compilations()
    first_s = timed(program.step, 1)
    first_compilations = len(compilations)
    second_s = timed(program.step, 1)
    write(
        {
            "ready": name,
            "make_s": make_s,
            "first_call_s": first_s,
            "second_call_s": second_s,
            "xla_compile_s": sum(compilations[:first_compilations]),
            "compilations": first_compilations,
            "compilations_in_second_call": len(compilations) - first_compilations,
            "rss_before_first_call_mib": baseline_mib,
            "peak_mib_since_start": peak_mib(),
            "steps_done": 2,
            "versions": versions(),
        }
    )
    for line in lines:
        request = line.split()
        if not request or request[0] == "quit":
            break
        write(answer(request, program, compilations, first_compilations))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, choices=[*PROGRAMS, *PEERS])
    parser.add_argument("--case", required=True, type=Case.from_json)
    arguments = parser.parse_args()
    # What a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def write(reply: dict) -> None:
        answers.write(json.dumps(reply) + "\n")

    try:
        serve(arguments.program, arguments.case, write, sys.stdin)
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        write({"error": f"{type(error).__name__}: {text}"})
        raise


if __name__ == "__main__":
    main()
