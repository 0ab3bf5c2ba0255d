"""Time this library, hand-written JAX, back-propagation and the peers, in turn.

    python -m benchmarks.run                           # tiny, mlp, deep; all programs, peers
    python -m benchmarks.run --cases wide-deep vgg5-t7 --no-peers
    python -m benchmarks.run --sections overhead scaling
    python -m benchmarks.run --smoke                        # seconds: does it all still work?

Prints tables; with --out (default benchmarks/results, nothing for --smoke) writes the JSON record
there and rewrites docs/benchmarks.md.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from benchmarks import machine, measure, overhead, report, scaling, tables
from benchmarks.cases import CASES, DEFAULT_CASES
from benchmarks.peers import PEERS, environment
from benchmarks.programs import PROGRAMS

SECTIONS = ("cases", "overhead", "scaling")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=[*CASES, "all"], default=list(DEFAULT_CASES))
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS), default=list(PROGRAMS))
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=["cases", "overhead"])
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peer", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--block-ms", type=float, default=100, help="length of one timed block")
    parser.add_argument("--out", type=Path, help="folder for the JSON record")
    parser.add_argument("--page", type=Path, help="the page to rewrite; default docs/benchmarks.md")
    parser.add_argument(
        "--peers-dir", type=Path, default=environment.default_root(), help="their venvs"
    )
    parser.add_argument("--torch-spec", default="torch", help="what pip installs for torch")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, no peers, no files kept")
    arguments = parser.parse_args(argv)
    if "all" in arguments.cases:
        arguments.cases = list(CASES)
    if arguments.rounds < 1:
        parser.error(f"--rounds is a positive number of rounds, got {arguments.rounds}")
    if arguments.smoke:
        arguments.cases, arguments.peers = ["tiny"], False
        arguments.rounds, arguments.block_ms = 2, 5
        arguments.sections = list(SECTIONS)
    return arguments


def measure_all(arguments: argparse.Namespace) -> dict:
    """The record of one run."""
    smoke = arguments.smoke
    record: dict = {
        "machine": machine.describe(),
        "settings": {"rounds": arguments.rounds, "block_ms": arguments.block_ms, "order_seed": 0},
    }
    block_s = arguments.block_ms / 1e3
    if "cases" in arguments.sections:
        names = [*arguments.programs, *(arguments.peer if arguments.peers else ())]
        record["cases"] = {}
        for name in arguments.cases:
            record["cases"][name] = measure.measure_case(
                CASES[name],
                names,
                arguments.rounds,
                block_s,
                arguments.peers_dir,
                arguments.torch_spec,
            )
            print(f"\n## {name}\n\n{tables.case_tables(record['cases'][name])}\n", flush=True)
    if "overhead" in arguments.sections:
        few = {"counts": (1, 20), "rounds": 2, "repeats": 20}
        record["overhead"] = overhead.measure(**(few if smoke else {}))
        print(f"\n## Overhead\n\n{tables.overhead_table(record['overhead'])}\n", flush=True)
    if "scaling" in arguments.sections:
        few = {"axes": ("T",), "factors": (1,), "programs": ("hand-scan",)}
        record["scaling"] = scaling.measure(
            rounds=min(arguments.rounds, 7), block_s=block_s, **(few if smoke else {})
        )
        print(f"\n## Scaling\n\n{tables.scaling_tables(record['scaling'])}\n", flush=True)
    return record


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    # This process only asks; it must leave an accelerator's memory to the workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    start = time.perf_counter()
    record = measure_all(arguments)
    print(f"took {time.perf_counter() - start:.0f} s on {tables.machine_line(record['machine'])}")
    if arguments.smoke and arguments.out is None:
        with tempfile.TemporaryDirectory() as folder:
            report.write_record(record, Path(folder))
            report.write_page(Path(folder), Path(folder) / "benchmarks.md")
    else:
        out = arguments.out or report.RESULTS
        print(f"wrote {report.write_record(record, out)}")
        # A record kept elsewhere gets its page there; only the repository's own feed its docs.
        page = arguments.page or (out / "benchmarks.md" if arguments.out else report.PAGE)
        for path in report.write_page(out, page):
            print(f"wrote {path}")
    failed = [
        f"{case}/{name}: {program['reason']}"
        for case, found in record.get("cases", {}).items()
        for name, program in found["programs"].items()
        if "reason" in program and name in PROGRAMS and measure.why_not(name, CASES[case]) is None
    ]
    for line in failed:
        print(f"FAILED {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
