"""The scripts in examples/ run, and do what they say."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [f"examples/{name}", *map(str, arguments)])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_classify_learns_saves_and_draws(monkeypatch, capsys, tmp_path):
    run(monkeypatch, "classify.py", "--epochs", 6, "--out", tmp_path)
    out = capsys.readouterr().out
    assert len(re.findall(r"^epoch +\d+ .* test accuracy \d", out, re.M)) == 6
    last, best = map(float, re.search(r"last epoch (\S+)%, best epoch (\S+)%", out).groups())
    assert 96 <= last <= best
    assert f"loaded into a fresh model: {last:.2f}%" in out
    assert {p.name for p in tmp_path.iterdir()} == {
        "accuracy.png",
        "energy.png",
        "digits-pc-se.npz",
    }


SCRIPTS = [
    "classify.py",
    "compare_algorithms.py",
    "depth.py",
    "memory.py",
    "scoreboard.py",
    "sweep.py",
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_missing_data_is_a_message_and_not_a_traceback(monkeypatch, capsys, tmp_path, name):
    for arguments in ([], ["--data-dir", tmp_path]):
        with pytest.raises(SystemExit) as stopped:
            run(monkeypatch, name, "--dataset", "mnist", *arguments)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(f"{name}: ")
        assert "train-images-idx3-ubyte" in error


def test_vgg_5_wants_the_files_of_cifar_10_and_no_algorithm_of_linear_layers(monkeypatch, capsys):
    for arguments, expected in [
        (["--dataset", "cifar10", "--data-dir", "nowhere"], "data_batch_1"),
        (["--dataset", "cifar10", "--algorithms", "Hybrid"], "there are PC-CE"),
        (["--width", 0.5], "--dataset cifar10"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            run(monkeypatch, "compare_algorithms.py", *arguments)
        assert stopped.value.code == 2
        assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_all_algorithms_learn_the_digits(monkeypatch, capsys, tmp_path):
    run(monkeypatch, "compare_algorithms.py", "--out", tmp_path)
    out = capsys.readouterr().out
    rows = dict(re.findall(r"^\| (\S+) +\| (\d+\.\d+) ", out, re.M))
    assert len(rows) == 18
    assert all(float(last) > 90 for last in rows.values())
    assert all(float(last) > 97 for name, last in rows.items() if name not in ("MCPC", "Hybrid"))
    records = [json.loads(p.read_text()) for p in (tmp_path / "records").iterdir()]
    assert {r["algorithm"] for r in records} == set(rows)
    assert (tmp_path / "digits" / "accuracy.png").exists()


@pytest.mark.slow
def test_skips_and_scales_train_where_plain_networks_do_not(monkeypatch, capsys, tmp_path):
    methods = ["PC", "muPC", "muPC network, ePC"]
    run(monkeypatch, "depth.py", "--depths", 16, "--methods", *methods, "--out", tmp_path)
    out = capsys.readouterr().out
    rows = {
        name.strip(): float(x) for name, x in re.findall(r"^\| (.+?)\| (\d+\.\d) \(", out, re.M)
    }
    assert list(rows) == methods
    assert rows["PC"] < 90 < rows["muPC"] < rows["muPC network, ePC"] + 2


def test_an_unknown_algorithm_lists_the_known_ones(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "compare_algorithms.py", "--algorithms", "pc")
    assert (
        "no algorithm for digits is called 'pc'; there are PC-CE, PC-SE" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_sweep_chooses_by_validation_and_tests_what_it_chose(monkeypatch, capsys, tmp_path):
    arguments = ["--T", 2, "--width", 8, "--epochs", 2, "--out", tmp_path]
    run(monkeypatch, "sweep.py", *arguments)
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "sweep.json").read_text())
    values = {json.dumps(s): s.pop("validation")[0] for s in record["settings"]}
    assert len(values) == 12
    assert record["chosen"] in record["settings"]
    best = record["settings"].index(record["chosen"])
    assert list(values.values())[best] == max(values.values())
    # the chosen setting was trained once more, and ended with the same numbers
    assert 100 * record["validation_accuracy"][-1] == pytest.approx(max(values.values()), abs=1e-3)
    assert f"test accuracy, last epoch: {record['test_accuracy'][0]:.2f} %" in out


def test_a_sweep_without_optuna_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "sweep.py", "--optuna", 2)
    assert stopped.value.code == 2
    assert "pip install optuna" in capsys.readouterr().err


def test_memory_recalls_what_it_has_stored(monkeypatch, capsys, tmp_path):
    arguments = {"images": 6, "hidden": 64, "epochs": 150, "T": 20, "weight-rate": 2e-3}
    arguments |= {
        "state-rate": 0.05,
        "clamped-steps": 20,
        "noise-steps": 50,
        "mask-steps": 1000,
        "out": tmp_path,
    }
    given = [part for k, v in arguments.items() for part in (f"--{k}", v)]
    run(monkeypatch, "memory.py", *given)
    out = capsys.readouterr().out
    noise, mask = (float(re.search(rf"^\| {k} +\| (\S+)", out, re.M)[1]) for k in ("noise", "mask"))
    records = [json.loads(path.read_text()) for path in (tmp_path / "records").iterdir()]
    found = {record["algorithm"]: record["last"] for record in records}
    np.testing.assert_allclose([found["PC, noise"], found["PC, mask"]], [noise, mask], rtol=0.01)
    # the noise that was added is 400, and the black half costs some 1000
    assert noise < 350
    assert mask < 500
    assert (tmp_path / "digits-8.png").exists()


@pytest.mark.slow
def test_the_scoreboard_compares_with_back_propagation(monkeypatch, capsys, tmp_path):
    arguments = ["--algorithms", "Z-IL", "--images", 400, "--epochs", 2, "--seeds", 0, 1]
    run(monkeypatch, "scoreboard.py", *arguments, "--out", tmp_path)
    rows = dict(re.findall(r"^\| (\S+) +\|(.+)\|$", capsys.readouterr().out, re.M))
    assert {"BP-SE", "BP-CE", "Z-IL"} <= set(rows)
    records = [json.loads(path.read_text()) for path in (tmp_path / "records").iterdir()]
    last = {(r["algorithm"], r["seed"]): r["last"] for r in records}
    # Z-IL makes the update of back-propagation, and both see the same batches
    for seed in (0, 1):
        assert abs(last["Z-IL", seed] - last["BP-SE", seed]) < 2
    assert [*tmp_path.rglob("*.png")]
