"""What is the same from run to run, each in a process of its own; the page is docs/howto/reproducible.md."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "reproducible_program.py"


ROOT = Path(__file__).resolve().parents[2]


def test_every_line_of_the_page_names_a_test_that_exists():
    page = (ROOT / "docs" / "howto" / "reproducible.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) >= 15
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in code} == set()


def run(*arguments, **variables):
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(sys.path),
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_program_run_again_reaches_the_same_bits():
    # the order of sets and of dicts keyed by objects differs between the two
    assert run(PYTHONHASHSEED="1") == run(PYTHONHASHSEED="2")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are chosen on Linux only")
def test_another_number_of_threads_changes_nothing_but_roundings():
    (_, energy), (_, on_one_core) = run(), run("one-core")
    assert on_one_core == pytest.approx(energy, rel=1e-4)
