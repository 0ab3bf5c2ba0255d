"""What an editor shows of the named layers is what equinox's constructors say."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import pytest

import pcx.nn as pxnn

ROOT = Path(__file__).resolve().parents[2]
STUB = (ROOT / "pcx" / "nn" / "_layers" / "__init__.pyi").read_text()
CLASSES = {node.name: node for node in ast.parse(STUB).body if isinstance(node, ast.ClassDef)}
MADE_FROM = tuple(map(int, re.search(r"equinox (\d+)\.(\d+)\.(\d+)", STUB).groups()))
INSTALLED = tuple(int(part) for part in eqx.__version__.split(".")[:3])
# ours where equinox has theirs; and a default of our own
RENAMED = {"Linear": {"use_bias": "bias"}}
OWN = {("BatchNorm", "mode"): "batch"}

older = pytest.mark.skipif(INSTALLED < MADE_FROM, reason="the stubs are of a newer equinox")


def constructor(name):
    """`{argument: (positional, default)}` of a class in the stub; `...` for no default."""
    (method,) = CLASSES[name].body
    assert method.name == "__init__"
    arguments = method.args
    plain = arguments.args[1:]
    missing = [None] * (len(plain) - len(arguments.defaults))
    found = {}
    for kind, names, defaults in (
        (True, plain, [*missing, *arguments.defaults]),
        (False, arguments.kwonlyargs, arguments.kw_defaults),
    ):
        for argument, default in zip(names, defaults, strict=True):
            known = argument.arg == "rkg" or default is None
            found[argument.arg] = (kind, ... if known else ast.literal_eval(default))
    return found


def test_every_layer_of_the_package_has_a_static_signature():
    layers = {n for n, v in vars(pxnn).items() if isinstance(v, type) and hasattr(v, "wraps")}
    assert len(layers) > 25
    assert set(CLASSES) == (layers - {"NamedLayer"}) | {"BatchNorm"}


@older
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_arguments_and_defaults_are_equinox_s(name):
    theirs = inspect.signature(getattr(eqx.nn, name)).parameters.values()
    expected = {
        RENAMED.get(name, {}).get(p.name, p.name): (
            p.kind is p.POSITIONAL_OR_KEYWORD,
            OWN.get((name, p.name), ... if p.default is p.empty else p.default),
        )
        for p in theirs
        if p.name != "key" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    assert constructor(name) == {**expected, "rkg": (False, ...)}


@older
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_argument_has_no_type_only_where_equinox_gives_none(name):
    (method,) = CLASSES[name].body
    theirs = inspect.signature(getattr(eqx.nn, name)).parameters
    ours = {new: old for old, new in RENAMED.get(name, {}).items()}
    untyped = [
        a.arg
        for a in [*method.args.args[1:], *method.args.kwonlyargs]
        if ast.unparse(a.annotation) == "Any"
    ]
    empty = inspect.Parameter.empty
    assert [a for a in untyped if theirs[ours.get(a, a)].annotation is not empty] == []


def test_help_shows_types_and_no_internals():
    for name in (*CLASSES, "Layer", "StatefulLayer"):
        text = str(inspect.signature(getattr(pxnn, name)))
        assert "rkg: pcx.core._random.RandomKeyGenerator = px.RKG" in text
        assert "\n" not in text
    assert "bias: bool = True" in str(inspect.signature(pxnn.Linear))


@pytest.mark.slow
def test_a_type_checker_knows_the_arguments_of_a_layer(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "import pcx.nn as pxnn\n"
        "pxnn.Linear(3, 2, bias=False)\n"
        "pxnn.Conv2d(3, 8, kernel_size=3, padding='SAME')\n"
        "pxnn.Linear('three', 2)\n"
        "pxnn.Conv2d(3, 8, kernel_size=3, strides=2)\n"
        "pxnn.Dropout(rate=0.1)\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(program)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    wrong = {int(line) for line in re.findall(r"program\.py:(\d+): error", out)}
    assert wrong == {4, 5, 6}
