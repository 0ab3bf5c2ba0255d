"""Searches by Optuna: stopped and gone on with, and shared between processes through a database."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
optuna = pytest.importorskip("optuna")


@pytest.fixture
def tune(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    sys.modules.pop("tune", None)
    import tune

    return tune


def search(tune, monkeypatch, folder, *arguments):
    monkeypatch.setattr(sys, "argv", ["tune.py", *map(str, arguments), "--out", str(folder)])
    tune.main()
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


@contextlib.contextmanager
def opened(url):
    """The only study of a database; on some versions of Python one left open is a warning later."""
    storage = optuna.storages.RDBStorage(url)
    try:
        (name,) = optuna.get_all_study_names(storage)
        yield optuna.load_study(study_name=name, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def trials(folder):
    with opened(f"sqlite:///{folder}/study.db") as study:
        return [t for t in study.get_trials() if t.state.name != "FAIL"]


def distance(settings, *others):
    """A value that is largest at lr_w = 5e-4 and momentum 0.4."""
    return -abs(np.log(settings.lr_w / 5e-4)) - abs(settings.momentum - 0.4)


def test_a_study_that_was_killed_goes_on_as_if_it_had_not_been(tune, monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "value_of", distance)
    whole = search(tune, monkeypatch, tmp_path / "whole", "--trials", 14)
    calls = []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) in (1, 9):
            raise KeyboardInterrupt
        return distance(*arguments)

    monkeypatch.setattr(tune, "value_of", killed)
    for more in ([], ["--resume"]):
        with pytest.raises(KeyboardInterrupt):
            search(tune, monkeypatch, tmp_path / "parts", "--trials", 14, *more)
    # `kill -9` leaves a trial that seems to run
    with opened(f"sqlite:///{tmp_path}/parts/study.db") as study:
        left = study.ask().number
    parts = search(tune, monkeypatch, tmp_path / "parts", "--trials", 14, "--resume")
    with opened(f"sqlite:///{tmp_path}/parts/study.db") as study:
        assert study.trials[left].state.name == "FAIL"
    a, b = trials(tmp_path / "whole"), trials(tmp_path / "parts")
    assert [(t.params, t.value) for t in a] == [(t.params, t.value) for t in b]
    assert len(a) == 14
    assert parts["algorithms"] == whole["algorithms"]
    assert parts["source"] == whole["source"]
    assert "the best of 14 trials, of which 14 ran to the end" in whole["source"]
    assert whole["source"].endswith(f"began with {100 * a[0].value:.2f} %.")
    # the first has the published settings, and the best is the best
    published = tune.settings_for("PC-SE", "digits")
    assert a[0].params["lr_w"] == published.lr_w
    best = max(a, key=lambda t: t.value)
    assert whole["algorithms"]["PC-SE"]["lr_w"] == best.params["lr_w"] != published.lr_w


def test_back_propagation_has_no_rate_of_the_states_to_search(tune, monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "value_of", lambda settings, *others: settings.lr_w)
    found = search(tune, monkeypatch, tmp_path, "--algorithm", "BP-SE", "--trials", 3)
    assert found["algorithms"]["BP-SE"]["lr_w"] == max(t.value for t in trials(tmp_path))
    assert set(trials(tmp_path)[1].params) == {"lr_w", "weight_decay", "act"}


def test_the_settings_it_began_with_are_left_out_if_they_diverged(tune, monkeypatch, tmp_path):
    seen = []

    def first_diverges(settings, *others):
        seen.append(settings)
        if len(seen) == 1:
            raise optuna.TrialPruned
        return 0.5

    monkeypatch.setattr(tune, "value_of", first_diverges)
    found = search(tune, monkeypatch, tmp_path, "--trials", 3)
    assert found["source"].endswith(
        "the best of 3 trials, of which 2 ran to the end; validation accuracy 50.00 %."
    )


def test_a_study_of_which_every_trial_diverged_says_so(tune, monkeypatch, capsys, tmp_path):
    def diverges(*arguments):
        raise optuna.TrialPruned

    monkeypatch.setattr(tune, "value_of", diverges)
    with pytest.raises(SystemExit) as stopped:
        search(tune, monkeypatch, tmp_path, "--trials", 2)
    assert stopped.value.code == 1
    assert "tune.py: every trial diverged" in capsys.readouterr().err


def test_a_study_is_not_started_twice(tune, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tune, "value_of", distance)
    search(tune, monkeypatch, tmp_path, "--trials", 1)
    with pytest.raises(SystemExit):
        search(tune, monkeypatch, tmp_path, "--trials", 1)
    assert "there is a study 'digits-pc-se-e30-s0': go on with --resume" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_search_finds_can_be_trained(tune, monkeypatch, tmp_path):
    arguments = ["--algorithm", "PN", "--trials", 3, "--epochs", 2]
    found = search(tune, monkeypatch, tmp_path, *arguments)
    assert found["algorithms"]["PN"]["beta"] > 0
    assert 0.1 < max(t.value for t in trials(tmp_path)) <= 1
    (settings,) = tmp_path.glob("*.json")
    sys.modules.pop("compare_algorithms", None)
    import compare_algorithms

    options = {"algorithms": "PN", "settings": settings, "epochs": 1, "out": tmp_path / "out"}
    words = [w for name, value in options.items() for w in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["compare_algorithms.py", "--no-regime", *words])
    compare_algorithms.main()
    (path,) = (tmp_path / "out/records").glob("*.json")
    record = json.loads(path.read_text())
    assert record["note"] == "settings of digits-pn-e2-s0, 1 epoch"
    own = found["algorithms"]["PN"]
    assert {name: record["settings"][name] for name in own} == own


@pytest.fixture
def postgresql():
    """The URL of a database on a PostgreSQL server of the test's own, which listens on no port."""
    pytest.importorskip("psycopg2")
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("there is no PostgreSQL")
    # it refuses to run as root; and the name of a socket is a short one
    who = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pcx-pg-", dir="/tmp"))
    if who:
        shutil.chown(folder, "postgres", "postgres")
    run = lambda *words: subprocess.run(
        words, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who
    )
    try:
        run("initdb", "-D", folder / "data", "-U", "pcx", "--auth=trust")
        options = f"-k {folder} -c listen_addresses="
        run("pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start")
        try:
            yield f"postgresql+psycopg2://pcx@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_processes_share_a_study_in_postgresql(postgresql, tmp_path):
    arguments = ["--trials", "6", "--epochs", "1", "--storage", postgresql, "--resume"]
    words = [sys.executable, EXAMPLES / "tune.py", *arguments, "--out"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    both = [subprocess.Popen([*words, tmp_path / n], env=environment) for n in "ab"]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    with opened(postgresql) as study:
        ended = [t for t in study.get_trials() if t.state.is_finished()]
    # each may have begun one when the other finished the last
    assert 6 <= len(ended) <= 7
    assert all(t.state.name in ("COMPLETE", "PRUNED") for t in ended)
    # both took part: some trial began before an earlier one ended
    assert any(
        b.datetime_start < a.datetime_complete for a, b in zip(ended, ended[1:], strict=False)
    )
