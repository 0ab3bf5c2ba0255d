"""The first call of a training step: tracing and compiling, without and with a compilation cache on disk.

    python -m benchmarks.first_call

Every call is in a process of its own. "cold" has no cache, "warm" one that an earlier process filled.
Programs take turns; reported are medians of wall time and of CPU time, which other programs on the
machine disturb less. Writes a JSON record.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.cases import CASES
from benchmarks.programs import make

PROGRAMS = ("hand-scan", "hand-lazy", "pxa-pc")


def first_call(case: str, program: str, cache: str) -> dict[str, float]:
    """Seconds of the first step, in this process."""
    import jax

    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    made = make(program, CASES[case])
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(made.step())
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def in_a_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.first_call", "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: str, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """`{program: {"cold" or "warm": medians}}`."""
    seen: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for program in PROGRAMS:
            in_a_process(case, program, cache)  # fills the cache
        for _ in range(rounds):
            for program in PROGRAMS:
                for name, where in (("cold", ""), ("warm", cache)):
                    seen.setdefault((program, name), []).append(in_a_process(case, program, where))
    return {
        program: {
            name: {
                key: round(statistics.median(call[key] for call in seen[program, name]), 3)
                for key in ("wall_s", "cpu_s")
            }
            for name in ("cold", "warm")
        }
        for program in PROGRAMS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=3, metavar=("CASE", "PROGRAM", "CACHE"))
    parser.add_argument("--cases", nargs="+", default=["tiny", "deep"], choices=CASES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where the record goes")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(first_call(*arguments.child)))
        return
    record = {"machine": machine.describe(), "rounds": arguments.rounds}
    record["cases"] = {case: measure(case, arguments.rounds) for case in arguments.cases}
    print(json.dumps(record["cases"], indent=1))
    print(f"wrote {machine.write_record(record, 'first_call', arguments.out)}")


if __name__ == "__main__":
    main()
