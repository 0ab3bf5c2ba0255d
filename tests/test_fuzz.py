"""The short form of tests/fuzz.py, and that it sees a defect."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pcx.core
import pcx.predictive_coding as pxc
from tests.fuzzing import masks, rules

ROOT = Path(__file__).resolve().parents[1]


def fuzz(*arguments, defect=""):
    """Run the script, with a line of Python before it."""
    script = (
        f"{defect}; import sys; sys.argv[1:] = {arguments!r}; from tests.fuzz import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script.lstrip("; ")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_random_programs_masks_and_rules_mean_what_plain_programs_mean():
    code, text = fuzz("--programs", "12")
    assert code == 0, text
    tried = re.findall(r"^(\w+): (\d+) tried, 0 wrong", text, re.M)
    assert tried == [("programs", "12"), ("masks", "500"), ("rules", "500")]


@pytest.mark.slow
def test_a_param_that_a_loop_does_not_write_back_is_seen():
    defect = "import pcx.functional._carry as c; c.Carried.write_back = lambda self, values: None"
    code, text = fuzz("--programs", "40", "--masks", "0", "--rules", "0", defect=defect)
    assert code == 1, text
    assert "WRONG: other values" in text


def test_a_mask_that_forgets_an_attribute_is_seen(monkeypatch):
    monkeypatch.setattr(pcx.core._filter, "_matches", lambda param, attributes: [True])
    assert any(masks.judge(seed) for seed in range(50))


def test_a_rule_that_stores_in_one_target_only_is_seen(monkeypatch):
    store = pxc.Vode._store
    monkeypatch.setattr(pxc.Vode, "_store", lambda s, k, v: None if k == "y" else store(s, k, v))
    assert any(rules.judge(seed) for seed in range(50))
