# ruff: noqa: T201
"""Plant one-line defects and count those that no test notices.

    python -m tests.mutate pcx/utils/_step.py tests/utils
    python -m tests.mutate pcx/core/_filter.py tests/core --most 20
    python -m tests.mutate --most 300 --record      # anywhere in pcx, each with the tests of its folder
    python -m pytest -n auto --cov=pcx --cov-context=test --cov-report= --durations=0 --durations-min=0 > LOG
    python -m tests.mutate --most 300 --record --ran LOG       # each with the tests that ran its line

Works on a copy of the repository. The tests that fail are run again without a defect. A defect that
survives is a line whose behaviour no test pins down. Tests that end after `--seconds` say nothing: the
defect is counted apart.
"""

import argparse
import ast
import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import machine

ROOT = Path(__file__).resolve().parents[1]
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


class Mutator(ast.NodeTransformer):
    """Changes the `number`-th place that can be changed; counts the places."""

    def __init__(self, number: int | None):
        self.number, self.seen, self.what = number, -1, ""

    def _here(self, node: ast.AST, what: str) -> bool:
        self.seen += 1
        if self.seen == self.number:
            self.what = f"line {getattr(node, 'lineno', '?')}: {what}"
            return True
        return False

    def _swap(self, node, old):
        new = OPERATORS.get(type(old))
        if new and self._here(node, f"{type(old).__name__} -> {new.__name__}"):
            return new()
        return old

    def visit_BinOp(self, node):
        self.generic_visit(node)
        node.op = self._swap(node, node.op)
        return node

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        node.op = self._swap(node, node.op)
        return node

    def visit_Compare(self, node):
        self.generic_visit(node)
        node.ops = [self._swap(node, op) for op in node.ops]
        return node

    def visit_If(self, node):
        self.generic_visit(node)
        if self._here(node, "if not"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        return node

    def visit_Constant(self, node):
        if isinstance(node.value, bool) and self._here(node, f"{node.value} -> {not node.value}"):
            return ast.copy_location(ast.Constant(not node.value), node)
        if type(node.value) is int and self._here(node, f"{node.value} -> {node.value + 1}"):
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node

    def visit_keyword(self, node):
        # `zip(..., strict=True)` guards against what does not happen
        return node if node.arg == "strict" else self.generic_visit(node)

    def visit_Return(self, node):
        self.generic_visit(node)
        none = node.value is None or (
            isinstance(node.value, ast.Constant) and node.value.value is None
        )
        if not none and self._here(node, "return None"):
            node.value = ast.Constant(None)
        return node

    def visit_FunctionDef(self, node):
        # annotations are not behaviour
        node.body = [self.visit(part) for part in node.body]
        return node

    def visit_AnnAssign(self, node):
        if node.value is not None:
            node.value = self.visit(node.value)
        return node


# tests of a folder of pcx, besides those of the same name; what is not listed has only these
FURTHER = {
    "core": ["functional"],
    "functional": ["core"],
    "predictive_coding": ["conformance"],
    "nn": ["conformance/test_layers.py"],
    "algorithms": ["conformance/test_algorithms.py"],
    "_lazy": [
        "algorithms/test_pc.py",
        "algorithms/test_inference.py",
        "algorithms/test_search_lazy.py",
    ],
}


def tests_of(module: str) -> list[str]:
    """The tests of a module, those that most likely notice a defect first."""
    folder, stem = Path(module).parent.name, Path(module).stem.strip("_")
    own = sorted(Path(ROOT, "tests", folder).glob("test_*.py"))
    named = [test for test in own if stem in test.stem]
    mention = [test for test in own if test not in named and stem in test.read_text()]
    elsewhere = [
        test
        for test in sorted(Path(ROOT, "tests").rglob("test_*.py"))
        if test not in own and stem in test.stem
    ]
    chosen = [*named, *elsewhere, *(mention or own)]
    below = [f"tests/{name}" for name in FURTHER.get(folder, [])]
    return [module, *[str(test.relative_to(ROOT)) for test in chosen], *below]


class Ran:
    """Which tests ran a line, from pytest's coverage (`.coverage`) and its list of durations."""

    def __init__(self, log: Path):
        # of the extra `test`; CI's tests of this file do without
        from coverage import CoverageData

        self.seconds: dict[str, float] = collections.defaultdict(float)
        for took, test in re.findall(
            r"^([\d.]+)s (?:call|setup|teardown) +(.+)$", log.read_text(), re.M
        ):
            self.seconds[test] += float(took)
        data = CoverageData(str(ROOT / ".coverage"))
        data.read()
        self.lines = {}
        for file in data.measured_files():
            module = "pcx" + file.rpartition("/pcx")[2]
            self.lines[module] = data.contexts_by_lineno(file)

    def tests(self, module: str, line: int, most: float) -> list[str]:
        """The tests that ran a line, file by file, the fastest files first, up to so many seconds."""
        contexts = self.lines.get(module, {}).get(line, [])
        ran = {context.rpartition("|")[0] for context in contexts} - {""}
        files: dict[str, list[str]] = collections.defaultdict(list)
        for test in sorted(ran, key=lambda test: self.seconds[test]):
            files[test.partition("::")[0]].append(test)
        chosen, total = [], 0.0
        # a file at a time, for its tests share what they compile
        for file in sorted(files, key=lambda f: self.seconds[files[f][0]]):
            for test in files[file]:
                if total + self.seconds[test] <= most:
                    chosen.append(test)
                    total += self.seconds[test]
        return chosen


def places_of(module: str) -> list[int]:
    counter = Mutator(None)
    counter.visit(ast.parse((ROOT / module).read_text()))
    return list(range(counter.seen + 1))


def sample(count: int, seed: int) -> list[tuple[str, int]]:
    """So many places of all of pcx, each with the same probability."""
    modules = sorted(str(path.relative_to(ROOT)) for path in Path(ROOT, "pcx").rglob("*.py"))
    # an `__init__` lists names; the compatibility layer and versions are data
    modules = [m for m in modules if not Path(m).name.startswith("__")]
    places = [(module, place) for module in modules for place in places_of(module)]
    return random.Random(seed).sample(places, min(count, len(places)))


def pytest(
    copy: Path, tests: Iterable[str], *options: str, seconds: float | None = None
) -> tuple[int, list[str]]:
    """Run tests: the exit status, and which failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    # of many tests the names do not fit into a command
    names = copy.parent / "tests.txt"
    names.write_text("\n".join(tests))
    command.append(f"@{names}")
    # what is compiled once stays compiled; another computation is another entry
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(copy.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    done = subprocess.run(
        command,
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "PYTHONPATH": str(copy), **cache},
    )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return done.returncode, failed


def attempt(
    copy: Path,
    module: str,
    place: int,
    tests: list[str],
    seconds: float,
    ran: Ran | None = None,
) -> dict[str, Any]:
    """Plant one defect: its outcome, "noticed", "SURVIVED" or "out of time", and which test failed."""
    source = (ROOT / module).read_text()
    mutator = Mutator(place)
    tree = ast.fix_missing_locations(mutator.visit(ast.parse(source)))
    line = re.match(r"line (\d+)", mutator.what)
    first = ran.tests(module, int(line[1]), seconds / 2) if ran and line else []
    (copy / module).write_text(ast.unparse(tree))
    try:
        status, failed = pytest(copy, first, "-x", seconds=seconds) if first else (0, [])
        if not status:  # nor do those that start a process of their own, which no coverage sees
            status, failed = pytest(copy, tests, "-x", seconds=seconds)
        outcome = "noticed" if status else "SURVIVED"
    except subprocess.TimeoutExpired:
        outcome, failed = "out of time", []
    finally:
        (copy / module).write_text(source)
    print(f"{outcome:14} {module} {mutator.what}", flush=True)
    return {
        "module": module,
        "place": place,
        "defect": mutator.what,
        "outcome": outcome,
        "by": failed,
    }


def survivors(path: Path) -> list[tuple[str, int]]:
    """The places of the defects that survived in a record; all with one description without its place."""
    places = []
    for one in json.loads(path.read_text())["survived"]:
        module = one["module"]
        for place in [one["place"]] if "place" in one else places_of(module):
            mutator = Mutator(place)
            mutator.visit(ast.parse((ROOT / module).read_text()))
            if mutator.what == one["defect"]:
                places.append((module, place))
    return places


def check(copy: Path, found: list[dict[str, Any]]) -> None:
    """Without any defect the tests that failed must pass: else they say nothing."""
    tests = {test for one in found for test in one["by"]}
    if not tests:
        return
    status, failing = pytest(copy, tests)
    if status == 4:  # no test of some name, because pytest shortened it
        status, failing = pytest(copy, {test.partition("::")[0] for test in tests})
    for one in found:
        if status > 1 and one["by"]:
            one["outcome"] += ", not checked"
        elif {*one["by"]} & {*failing}:
            one["outcome"] = "tests fail anyway"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("module", nargs="?", help="file to change, relative to the repository")
    parser.add_argument("tests", nargs="*", help="tests to run, relative to the repository")
    parser.add_argument("--most", type=int, default=30, help="number of defects")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600, help="for the tests of one defect")
    parser.add_argument(
        "--record", action="store_true", help="write benchmarks/results/mutants/DATE.json"
    )
    parser.add_argument("--again", type=Path, help="plant what survived in this record")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for all together")
    parser.add_argument("--ran", type=Path, help="pytest's output beside .coverage, see above")
    options = parser.parse_args()
    ran = Ran(options.ran) if options.ran else None

    if options.again is not None:
        chosen = survivors(options.again)
    elif options.module is None:
        chosen = sample(options.most, options.seed)
    else:
        places = places_of(options.module)
        random.Random(options.seed).shuffle(places)
        chosen = [(options.module, place) for place in places[: options.most]]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "repo"
        ignore = shutil.ignore_patterns(".git", ".venv*", "site", "*.ipynb", "results")
        shutil.copytree(ROOT, copy, ignore=ignore)
        if options.module is not None and pytest(copy, options.tests, "-x")[0]:
            print("the tests fail without any defect", file=sys.stderr)
            return 2
        record = {"machine": machine.describe()} if options.record else {}
        start = time.monotonic()
        for number, (module, place) in enumerate(chosen, start=1):
            tests = options.tests or tests_of(module)
            found.append(attempt(copy, module, place, tests, options.seconds, ran))
            late = time.monotonic() - start > 60 * options.minutes
            if late or number == len(chosen):
                check(copy, found)
            counts = collections.Counter(f["outcome"] for f in found)
            if options.record:  # after each, because all together take hours
                record |= {
                    "command": " ".join(["python -m tests.mutate", *sys.argv[1:]]),
                    "tried": len(found),
                    "outcomes": dict(counts),
                    "survived": [f for f in found if f["outcome"] == "SURVIVED"],
                    "defects": found,
                }
                machine.write_record(record, "mutants")
            if late:
                break
    print(f"{len(found)} defects: {', '.join(f'{n} {what}' for what, n in counts.items())}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
