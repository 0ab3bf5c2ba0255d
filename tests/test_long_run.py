"""The short form of tests/long_run.py, and that its verdict can be bad."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.long_run import INTERVALS, verdict

ROOT = Path(__file__).resolve().parents[1]


def seen(memory=lambda n: 300.0, milliseconds=lambda n: 2.0, compilations=lambda n: 0):
    return [
        {
            "done": 10 * n,
            "memory_mib": memory(n),
            "milliseconds": milliseconds(n),
            "compilations": compilations(n),
        }
        for n in range(1, INTERVALS + 1)
    ]


@pytest.mark.slow
def test_a_long_run_keeps_its_memory_and_compiles_nothing_again():
    command = [sys.executable, "-m", "tests.long_run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if " done, " in line]
    assert len(lines) == 3, done.stdout + done.stderr
    for line in lines:
        # the time of a step is that of a machine that does other work too
        assert " 0 further compilations" in line, line
        assert "memory grows" not in line, line


def test_what_is_flat_after_the_first_quarter_is_flat():
    begins = lambda n: 3 if n < 5 else 0
    assert verdict(seen(lambda n: 200.0 + min(n, 5), compilations=begins))["flat"]


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ({"memory": lambda n: 300.0 + 4 * n}, "memory grows by 60.0 MiB"),
        ({"milliseconds": lambda n: 2.0 + n}, "ms becomes"),
        ({"compilations": lambda n: int(n == 15)}, "1 further compilations"),
    ],
)
def test_what_grows_is_not_flat(what, word):
    found = verdict(seen(**what))
    assert not found["flat"]
    assert word in found["faults"][0]
