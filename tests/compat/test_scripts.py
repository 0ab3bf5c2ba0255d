"""Programs as users of PCX have them, in both spellings, run as they are.

Each script checks its own result: an accuracy, a difference from backprop, a deviation from a
closed form.
"""

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_and_its_result_is_right(script, capsys):
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_there_are_as_many_scripts_as_there_should_be():
    assert len(SCRIPTS) == 7
