# ruff: noqa: T201
"""Plant one-line defects and count those that no test notices.

    python tests/mutate.py pcx/utils/_step.py tests/utils
    python tests/mutate.py pcx/core/_filter.py tests/core --most 20

Works on a copy of the repository. A defect that survives is a line whose behaviour no test pins down.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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

    def visit_Return(self, node):
        self.generic_visit(node)
        if node.value is not None and self._here(node, "return None"):
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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("module", help="file to change, relative to the repository")
    parser.add_argument("tests", nargs="+", help="tests to run, relative to the repository")
    parser.add_argument("--most", type=int, default=30, help="number of defects")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    source = (ROOT / options.module).read_text()
    counter = Mutator(None)
    counter.visit(ast.parse(source))
    places = list(range(counter.seen + 1))
    random.Random(options.seed).shuffle(places)
    survivors = []
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "repo"
        ignore = shutil.ignore_patterns(".git", ".venv*", "site", "*.ipynb", "results")
        shutil.copytree(ROOT, copy, ignore=ignore)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            *options.tests,
        ]
        if subprocess.run(command, cwd=copy, capture_output=True).returncode:
            print("the tests fail without any defect", file=sys.stderr)
            return 2
        for place in places[: options.most]:
            mutator = Mutator(place)
            tree = ast.fix_missing_locations(mutator.visit(ast.parse(source)))
            (copy / options.module).write_text(ast.unparse(tree))
            try:
                failed = (
                    subprocess.run(command, cwd=copy, capture_output=True, timeout=600).returncode
                    != 0
                )
            except subprocess.TimeoutExpired:
                failed = True
            print(
                f"{'noticed ' if failed else 'SURVIVED'} {options.module} {mutator.what}",
                flush=True,
            )
            if not failed:
                survivors.append(mutator.what)
    tried = min(options.most, len(places))
    print(f"{tried} defects, {tried - len(survivors)} noticed, {len(survivors)} survived")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
