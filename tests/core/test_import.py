"""`import pcx` alone: the other packages are there, and are imported when asked for."""

import subprocess
import sys

PROGRAM = """
import sys
import pcx

later = ["algorithms", "analysis", "data", "models", "training"]
assert not [name for name in later if f"pcx.{name}" in sys.modules]
assert set(later) <= set(dir(pcx))
for name in later:
    assert getattr(pcx, name) is sys.modules[f"pcx.{name}"]
try:
    pcx.algorithm
except AttributeError as error:
    assert "'pcx' has no attribute 'algorithm'" in str(error)
else:
    raise AssertionError
print("whole")
"""


def test_a_package_is_imported_at_its_first_use():
    run = [sys.executable, "-c", PROGRAM]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "whole\n"
