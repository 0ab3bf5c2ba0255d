"""The scripts in examples/ run, and do what they say."""

import json
import math
import pickle
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg

import pcx.data

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
    "autoencoder.py",
    "classify.py",
    "compare_algorithms.py",
    "depth.py",
    "energy_propagation.py",
    "generation.py",
    "linear_theory.py",
    "memory.py",
    "out_of_distribution.py",
    "scoreboard.py",
    "stability.py",
    "sweep.py",
    "tune.py",
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
        assert "--download" in error


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_missing_is_fetched_on_request_only(monkeypatch, capsys, tmp_path, name):
    asked = ["--dataset", "mnist", "--data-dir", tmp_path, "--download"]
    fetched = []

    def offline(name, data_dir, mirror=None):
        fetched.append((name, str(data_dir), mirror))
        raise ConnectionError(f"{name}: offline")

    monkeypatch.setattr("pcx.data._download.fetch", offline)
    with pytest.raises(SystemExit):
        run(monkeypatch, name, *asked[:-1])
    assert fetched == []
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, name, *asked)
    assert stopped.value.code == 2
    assert fetched == [("mnist", str(tmp_path), None)]
    assert capsys.readouterr().err.endswith(f"{name}: mnist: offline\n")


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
    run(monkeypatch, "compare_algorithms.py", "--no-regime", "--out", tmp_path)
    out = capsys.readouterr().out
    rows = dict(re.findall(r"^\| (\S+) +\| (\d+\.\d+) ", out, re.M))
    assert len(rows) == 18
    assert all(float(last) > 90 for last in rows.values())
    assert all(float(last) > 97 for name, last in rows.items() if name not in ("MCPC", "Hybrid"))
    records = [json.loads(p.read_text()) for p in (tmp_path / "records").iterdir()]
    assert {r["algorithm"] for r in records} == set(rows)
    assert (tmp_path / "digits" / "accuracy.png").exists()


@pytest.mark.slow
def test_a_skip_takes_the_error_to_the_first_layer_of_vgg_19_in_two_steps(monkeypatch, tmp_path):
    (tmp_path / "cifar10").mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {
            "data": rng.integers(0, 256, (32, 3072)).astype(np.uint8),
            "labels": [*range(10)] * 3 + [0, 1],
        }
        (tmp_path / "cifar10" / name).write_bytes(pickle.dumps(batch))
    arguments = ["--data-dir", tmp_path, "--width", 1 / 64, "--T", 2, "--epochs", 1]
    run(
        monkeypatch,
        "skip_connections.py",
        *arguments,
        "--methods",
        "PC",
        "PC, skip",
        "--out",
        tmp_path,
    )
    ratios = {r["algorithm"]: r["regime"]["error_ratio"] for r in records_in(tmp_path)}
    # from the output to the state of the second convolution, from there to the first
    assert ratios["PC, skip"]["layers[0]"] > 0
    assert ratios["PC"]["layers[0]"] == ratios["PC"]["layers[13]"] == 0
    assert ratios["PC"]["layers[15]"] > 0
    assert (tmp_path / "accuracy.png").exists()


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


def test_skip_connections_want_the_files_of_cifar_10(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "skip_connections.py", "--data-dir", tmp_path)
    assert stopped.value.code == 2
    assert "data_batch_1" in capsys.readouterr().err


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


@pytest.mark.parametrize("program", [("sweep.py", "--optuna", 2), ("tune.py",)])
def test_a_search_without_optuna_says_what_to_install(monkeypatch, capsys, program):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *program)
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


def records_in(folder):
    return [json.loads(path.read_text()) for path in (folder / "records").iterdir()]


def test_autoencoders_learn_and_no_linear_map_is_better_than_pca(monkeypatch, tmp_path):
    arguments = ["--images", 400, "--epochs", 12, "--T", 8, "--batch-size", 50, "--out", tmp_path]
    run(monkeypatch, "autoencoder.py", *arguments)
    found = {r["algorithm"]: r for r in records_in(tmp_path)}
    assert set(found) == {"PC", "iPC", "BP", "PCA"}
    for name in ("PC", "iPC", "BP"):
        curve = list(found[name]["settings"]["mse_after_epoch"].values())
        assert curve[-1] < 0.8 * curve[0]
    # an oracle for PCA: the singular vectors of the centred images
    data = pcx.data.load_digits(normalize=False).flat()
    train, test = data.x_train[:400].astype(np.float64), data.x_test.astype(np.float64)
    mean = train.mean(axis=0)
    V = np.linalg.svd(train - mean, full_matrices=False)[2][:16]
    projected = np.clip((test - mean) @ V.T @ V + mean, 0, 1)
    expected = 1e3 * np.mean((projected - test) ** 2)
    assert found["PCA"]["last"] == pytest.approx(expected, rel=1e-3)
    assert (tmp_path / "digits.png").exists()


@pytest.fixture
def scores():
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / "_scores.py")))


def test_the_frechet_distance_of_gaussians_has_its_closed_forms(scores):
    # covariances that commute: |m - m'|^2 + sum (sqrt(a) - sqrt(b))^2
    m, a, b = np.array([1.0, -2.0]), np.array([4.0, 1.0]), np.array([9.0, 0.25])
    distance = scores.frechet(m, np.diag(a), np.zeros(2), np.diag(b))
    assert distance == pytest.approx(5 + 1 + 0.25)
    # and that do not: the square root of the product, by SciPy
    rng = np.random.default_rng(0)
    A, B = (M @ M.T for M in rng.normal(size=(2, 3, 3)))
    expected = np.trace(A + B - 2 * np.real(scipy.linalg.sqrtm(A @ B)))
    assert scores.frechet(np.zeros(3), A, np.zeros(3), B) == pytest.approx(expected)
    # of samples: moved by 2 in each of 3 directions, with the same covariance
    x = rng.normal(size=(50, 3))
    assert scores.fid(x, x + 2) == pytest.approx(12)


def test_the_inception_score_has_its_values_by_hand(scores):
    assert scores.inception_score(np.eye(4)) == pytest.approx(4)
    assert scores.inception_score(np.full((5, 10), 0.1)) == pytest.approx(1)
    # p(y) = (3/4, 1/4)
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    kl = np.log(4 / 3), 0.5 * np.log(2 / 3) + 0.5 * np.log(2)
    assert scores.inception_score(p) == pytest.approx(np.exp(np.mean(kl)), rel=1e-6)


def test_the_energy_distance_of_two_points_is_twice_theirs(scores):
    a, b = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])
    assert scores.energy_distance(a, b) == 10
    assert scores.energy_distance(a, a) == 0


def test_samples_of_iris_are_near_its_density(monkeypatch, tmp_path):
    given = ["--steps", 30, "--T", 40, "--burn-in", 300, "--dynamics", "heavy ball"]
    run(monkeypatch, "generation.py", "--dataset", "iris", *given, "--out", tmp_path)
    (record,) = records_in(tmp_path)
    # two Gaussians one standard deviation apart in both features have about 0.6
    assert 0 < record["last"] < 0.3
    assert (tmp_path / "iris.png").exists()


def test_digits_are_generated_and_scored(monkeypatch, capsys, tmp_path):
    given = ["--images", 200, "--steps", 20, "--burn-in", 50, "--classifier-epochs", 20]
    run(monkeypatch, "generation.py", *given, "--out", tmp_path)
    assert float(re.search(r"test accuracy: (\S+) %", capsys.readouterr().out)[1]) > 90
    found = {(r["algorithm"], r["metric"]): r["last"] for r in records_in(tmp_path)}
    assert len(found) == 8
    # images of the data themselves are the nearest to it, and score near the number of classes
    fids = {name: value for (name, metric), value in found.items() if metric == "FID"}
    assert min(fids, key=fids.get) == "training images"
    assert 7 < found["training images", "IS"] <= 10
    assert (tmp_path / "digits.png").exists()


def small(monkeypatch, tmp_path, name, *arguments):
    """The record of a run of a script, which has drawn a figure as well."""
    run(monkeypatch, name, *arguments, "--epochs", 1, "--out", tmp_path)
    (path,) = tmp_path.glob("*.json")
    assert path.with_suffix(".png").exists()
    return json.loads(path.read_text())


def test_stability_counts_what_diverged_as_chance(monkeypatch, tmp_path):
    arguments = ["--widths", 4, "--rates", 0.01, 1e4, "--seeds", 0]
    record = small(monkeypatch, tmp_path, "stability.py", *arguments)
    for name in ("SGD", "AdamW"):
        (kept,), (lost,) = record["accuracy"][name]["4"]
        assert 0 <= kept <= 100
        assert lost == 50
        assert {"optimiser": name, "width": 4, "state_rate": 1e4, "seed": 0} in record["diverged"]
    bp = record["back_propagation"]
    assert bp["SGD"]["4"] != bp["AdamW"]["4"]


def test_energy_reaches_a_layer_further_down_with_each_step(monkeypatch, tmp_path):
    arguments = ["--width", 4, "--rates", 0.01, "--seeds", 0, "--steps", 2]
    record = small(monkeypatch, tmp_path, "energy_propagation.py", *arguments)
    first, second, third = record["energies"]
    assert first[:2] == [0, 0] and first[2] > 0  # noqa: PT018
    assert second[0] == 0 < second[1]
    assert third[0] > 0
    (((ratio, _),),) = record["ratios"]
    assert math.isclose(ratio, first[-1] / second[-1], rel_tol=1e-2)
    assert set(record["inits"]) == {"forward", "zero", "normal"}


def test_the_energy_before_inference_is_the_softmax_score(monkeypatch, tmp_path):
    arguments = ["--dataset", "digits", "--images", 64, "--test", 40, "--hidden", 8]
    record = small(monkeypatch, tmp_path, "out_of_distribution.py", *arguments)
    scores = record["apart"]["noise"]
    for share in ("100%", "25%"):
        assert scores["energy before"][share]["auroc"] == scores["softmax"][share]["auroc"]
    assert (
        record["data"]["digits"]["nll"]["energy after"]
        < record["data"]["digits"]["nll"]["energy before"]
    )


def test_rank_correlation_and_the_lowest_quarter(monkeypatch):
    from scipy.stats import spearmanr

    monkeypatch.syspath_prepend(str(EXAMPLES))
    script = runpy.run_path(str(EXAMPLES / "out_of_distribution.py"), run_name="script")
    a, b = np.random.default_rng(0).integers(0, 6, size=(2, 50))  # with many ties
    assert math.isclose(script["rank_correlation"](a, b), spearmanr(a, b).statistic, abs_tol=1e-12)
    assert script["lowest"](np.array([3.0, 1.0, 4.0, 2.0, 9.0, 8.0, 7.0, 6.0]), 0.25).tolist() == [
        1,
        2,
    ]


def test_inference_never_gets_below_the_closed_form(monkeypatch, tmp_path):
    arguments = ["--images", 128, "--width", 6, "--times", 1, 25, "--depths"]
    record = small(monkeypatch, tmp_path, "linear_theory.py", *arguments)
    for own in record["energies"].values():
        assert all(n >= t * 0.999 for n, t in zip(own["numerical"], own["theory"], strict=True))
    # the first steps have the same weights: longer inference gets nearer
    short, long = (own["numerical"][0] for own in record["energies"].values())
    assert record["energies"]["25.0"]["theory"][0] <= long * 1.001 < short * 1.001
