"""The short form of tests/faults.py: hundreds of faults, none with a wrong outcome."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_no_fault_ends_between_before_and_after():
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tried = re.findall(r"^(.+): (\d+) tried, 0 wrong$", done.stdout, re.M)
    assert [name for name, _ in tried] == [
        "kill -9",
        "damaged files",
        "full disk",
        "exceptions inside a step",
    ]
    assert all(int(count) >= 6 for _, count in tried)
