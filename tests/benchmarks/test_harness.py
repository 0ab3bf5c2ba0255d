"""The harness: interleaving, ratios, workers, records and the generated page."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import accelerator, cases, measure, overhead, report, run, scaling, tables, timing
from benchmarks import machine as machines
from benchmarks.machine import describe
from benchmarks.peers import PEERS, Peer, environment
from benchmarks.process import REPOSITORY, Worker, WorkerFailed
from benchmarks.programs import PROGRAMS, Entry

TINY = cases.CASES["tiny"]


class Drifting:
    """A worker on a machine whose speed changes at every question, the same for all workers."""

    clock = 1.0

    def __init__(self, ms: float, asked: list, name: str):
        self.ms, self.asked, self.name = ms, asked, name

    def ask(self, request: str, timeout_s: float = 600) -> dict:
        _, blocks, _ = request.split()
        self.asked.append(self.name)
        return {"ms": [self.ms * Drifting.clock] * int(blocks)}


def test_ratios_taken_within_a_round_do_not_see_the_machine_drift():
    times = {"floor": [1.0, 10.0, 4.0], "ours": [2.0, 20.0, 8.0]}
    assert timing.ratios(times, "floor")["ours"] == (2.0, 2.0, 2.0, 3)


def test_every_round_asks_every_program_once():
    asked: list[str] = []
    workers = {name: Drifting(5.0, asked, name) for name in "abc"}
    times, steps = timing.interleave(workers, rounds=4, block_s=0.05)
    rounds = [asked[-12:][i : i + 3] for i in range(0, 12, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert times == {name: [5.0] * 4 for name in "abc"}
    assert steps == dict.fromkeys("abc", 10)


def test_a_summary_has_the_quartiles_of_numpy():
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]
    found = timing.summarise(values)
    np.testing.assert_allclose(found[:3], np.quantile(values, [0.5, 0.25, 0.75]))
    assert found.spread == pytest.approx(found.q3 - found.q1)
    with pytest.raises(ValueError, match="no values"):
        timing.summarise([])


def test_the_floor_is_the_fastest_measured_candidate():
    times = {"hand-scan": [2.0], "hand-unroll": [1.0], "other": [0.5]}
    assert timing.fastest(times, ("hand-scan", "hand-unroll", "absent")) == "hand-unroll"
    assert timing.fastest(times, ("absent",)) is None


def test_a_worker_times_remembers_and_saves(tmp_path):
    with Worker("hand-scan", TINY) as worker:
        assert worker.hello["ready"] == "hand-scan"
        assert worker.hello["compilations"] >= 1
        assert worker.hello["compilations_in_second_call"] == 0
        assert worker.hello["first_call_s"] > worker.hello["second_call_s"]
        reply = worker.ask("time 3 2")
        assert len(reply["ms"]) == 3
        assert all(0 < ms < 1e3 for ms in reply["ms"])
        assert reply["later_compilations"] == 0
        memory = worker.ask("memory 2")
        assert memory["peak_mib"] >= memory["before_mib"] * 0.9 > 1
        assert memory["xla_temp_mib"] > 0
        worker.ask(f"weights {tmp_path / 'w.npz'}")
        with np.load(tmp_path / "w.npz") as saved:
            assert [saved[f"w{i}"].shape for i in range(3)] == [(32, 2), (32, 32), (2, 32)]
        with pytest.raises(WorkerFailed, match="unknown request 'dance'; one of time, memory"):
            worker.ask("dance")


def test_a_worker_that_cannot_start_says_why():
    with pytest.raises(WorkerFailed, match=r"No module named '(pcn_torch|torch)'"):
        Worker("pcn-torch", TINY)


def test_a_peer_that_cannot_be_installed_is_a_reason_and_no_failure(tmp_path):
    peer = Peer((str(tmp_path / "no-such-package.whl"),), Entry("m", {}, ""))
    with pytest.raises(environment.NotInstalled, match=r"could not install: .*no-such-package"):
        environment.ensure(peer, tmp_path / "venvs")


def test_a_peer_is_installed_once(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(environment, "run", lambda command, timeout_s: commands.append(command))
    folder = tmp_path / environment.folder_name(("torch==2", "pcn-torch"))
    folder.mkdir()
    for _ in range(2):
        python = environment.ensure(PEERS["pcn-torch"], tmp_path, torch_spec="torch==2")
    assert python == folder / "bin" / "python"
    assert len(commands) == 2
    assert commands[1][-2:] == ["torch==2", "pcn-torch"]


def test_a_peer_gets_a_python_that_it_has_wheels_for(monkeypatch, tmp_path):
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert environment.interpreter(()) == sys.executable
    assert environment.interpreter(("2.7", own)) == sys.executable
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, status in (("python2.6", 1), ("python2.7", 0)):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nexit {status}\n")
        path.chmod(0o755)
    # the first is there, but does not run
    assert environment.interpreter(("2.6", "2.7")) == str(tmp_path / "python2.7")
    with pytest.raises(environment.NotInstalled, match=r"needs Python 2\.5 or 2\.6, and none is"):
        environment.interpreter(("2.5", "2.6"))


def test_a_share_is_the_time_of_the_products_over_that_of_the_step():
    # each round twice as slow as the one before: the share is taken inside of a round
    times = {measure.PRODUCT: [2.0, 4.0, 8.0], "hand-unroll": [4.0, 8.0, 16.0], "pxa-ep": [1.0] * 3}
    programs = {name: {"median_ms": ms[1]} for name, ms in times.items()}
    case = cases.mlp("a", [1024, 1024, 1024], 1024, T=1)
    measure.add_shares(programs, times, case)
    # 2 products of the first layer, 4 of the second
    assert programs["hand-unroll"]["share"] == pytest.approx(6 * 0.5)
    assert programs[measure.PRODUCT]["gflops"] == pytest.approx(2 * 1.024**3 / 4e-3)
    assert "share" not in programs["pxa-ep"]
    for program_, name in (
        (programs["hand-unroll"], "hand-unroll"),
        (programs[measure.PRODUCT], ""),
    ):
        program_ |= program(program_["median_ms"], floor=name)
    del programs["pxa-ep"]
    text = tables.case_tables({"spec": json.loads(case.to_json()), "programs": programs})
    assert "Products of two matrices of 1024 x 1024 in the same rounds: 537 GFLOP/s" in text
    assert "| `hand-unroll` (floor) | 8.00 | 2.00 | 4.00 [4.00, 4.21] | 300 % |" in text
    assert "matrix-product" not in text


def test_a_peers_process_does_not_see_the_repositorys_pcx(tmp_path):
    folder = environment.link_package(tmp_path)
    code = "import benchmarks, importlib.util as u; print(u.find_spec('pcx'))"
    # without PYTHONPATH and site-packages, as an environment that has no pcx yet
    done = subprocess.run(
        [sys.executable, "-E", "-S", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
    assert (folder / "benchmarks" / "cases.py").exists()


def test_programs_say_why_they_have_no_form_of_a_case():
    conv = cases.CASES["vgg5-t5"]
    assert measure.why_not("low-level", conv) is None
    assert "unrolled" in measure.why_not("hand-scan", conv)
    assert "no convolutional" in measure.why_not("pcn-torch", conv)
    assert all(p.why_dense_only for p in PEERS.values() if p.entry.dense_only)


def test_the_update_difference_is_zero_for_the_same_and_relative_for_another():
    base = [np.array([3.0, 0.0]), np.array([[4.0]])]
    assert measure.relative_difference(base, base) == 0
    other = [np.array([3.0, 0.5]), np.array([[4.0]])]
    assert measure.relative_difference(other, base) == pytest.approx(0.1)
    assert measure.relative_difference(base, [0 * b for b in base]) == math.inf


def machine(date: str) -> dict:
    return {
        "cpu": "CPU",
        "cores": 2,
        "memory_gib": 24.0,
        "load_average": 0.0,
        "system": "Linux",
        "device": "cpu: cpu",
        "python": "3.11",
        "versions": {"jax": "1"},
        "commit": "0123456789abcdef",
        "uncommitted_changes": False,
        "date": date,
    }


def program(ms: float, floor: str = "hand-scan", **more) -> dict:
    times = {"median_ms": ms, "q1_ms": ms, "q3_ms": ms * 1.25, "ms": [ms]}
    memory = {
        "before_mib": 100.0,
        "peak_mib": 103.0,
        "peak_is_of_the_steps": True,
        "xla_temp_mib": 0.5,
    }
    return {
        **times,
        "floor": floor,
        "ratio": {"median": ms / 2.0, "q1": ms / 2.0, "q3": ms / 1.9, "count": 3},
        "first_call_s": 0.5,
        "first_call_ratio": 1.0,
        "compilations_in_second_call": 0,
        "peak_mib_since_start": 200.0,
        "memory": memory,
        **more,
    }


def record(date: str, ms: float) -> dict:
    case = json.loads(TINY.to_json())
    over = {"median": 1.5, "q1": 1.4, "q3": 1.6, "count": 3}
    programs = {
        "hand-scan": program(2.0),
        "low-level": program(ms, over_bp=over),
        "pxa-pc": program(3.0, over_bp=over),
        "pcn-torch": {"reason": "could not install: ERROR: none"},
    }
    points = [
        {"factor": f, "value": 2 * f, "programs": {"hand-scan": {"median": f, "first_call_s": 1.0}}}
        for f in (1.0, 2.0)
    ]
    return {
        "machine": machine(date),
        "cases": {"tiny": {"spec": case, "programs": programs}},
        "overhead": {
            "rows": [
                {"params": 1, "pcx-one": 10.0, "jax-one": 4.0, "pcx-all": 11.0, "jax-all": 5.0}
            ],
            "fits_of_pcx_minus_jax": {"one": {"us_per_param": 1.0, "us_per_call": 6.0}},
        },
        "scaling": {"axes": {"L": points}},
    }


def test_the_page_has_the_newest_numbers_machine_reasons_and_plot(tmp_path):
    old, new = record("2026-01-01T00:00:00+00:00", 7.0), record("2026-02-01T00:00:00+00:00", 4.5)
    for each in (new, old):
        report.write_record(each, tmp_path)
    written = report.write_page(tmp_path, tmp_path / "docs" / "page.md")
    text = written[0].read_text()
    assert "| `low-level` | 4.50 | 1.12 | 2.25 [2.25, 2.37] |" in text
    assert "7.00" not in text
    assert "`pcn-torch` not run: could not install: ERROR: none." in text
    assert "CPU, 2 cores, 24.0 GiB" in text
    assert "commit 0123456789ab; 2026-02-01" in text
    assert "| `tiny` | 1.50 [1.40, 1.60] |" in text
    assert "6.00 µs per call and 1.00 µs per param" in text
    image = written[1]
    assert f"](images/{image.name})" in text
    assert image.read_bytes().startswith(b"\x89PNG")


def test_a_program_that_was_not_run_again_is_kept_with_its_date():
    old, new = record("2026-01-01T00:00:00+00:00", 7.0), record("2026-02-01T00:00:00+00:00", 4.5)
    del new["cases"]["tiny"]["programs"]["low-level"]
    text = report.page([old, new])
    assert "| `low-level` (2026-01-01) | 7.00 |" in text
    assert "| `pxa-pc` | 3.00 |" in text
    # another case of the same name is no older run of this one
    new["cases"]["tiny"]["spec"]["T"] += 1
    assert "low-level` (" not in report.page([old, new])


def test_a_page_without_records_says_what_to_run():
    assert "No record yet: run `python -m benchmarks.run`." in report.page([])


def test_the_page_has_the_newest_record_of_each_program_of_its_own(tmp_path):
    machine = record("2026-01-01T00:00:00+00:00", 1.0)["machine"]
    run = {"iterations": 9, "met": 16, "ms": 2.5}
    for name, load, ms in (("20260101", 0.1, 7.0), ("20260201", 8.0, 2.5)):
        chains = {"tanh": {"5": {"SGD": {**run, "ms": ms}, "Adam": {**run, "met": 3}}}}
        folder = tmp_path / "equilibrium"
        folder.mkdir(exist_ok=True)
        text = json.dumps(
            {"machine": {**machine, "load_average": load}, "batch": 16, "chains": chains}
        )
        (folder / f"{name}.json").write_text(text)
    page = report.write_page(tmp_path, tmp_path / "page.md")[0].read_text()
    assert "| SGD | 2.5 (9) |" in page
    assert "| Adam | – (3) |" in page
    assert "7.0 (9)" not in page
    assert "Load average 8: other programs ran beside it" in page
    assert "The trainer" not in page


def test_each_part_comes_from_the_newest_record_that_has_it(tmp_path):
    machine = record("2026-01-01T00:00:00+00:00", 1.0)["machine"]
    step = lambda ms: {"programs": {"PC": {"ms": {"median": ms}}}}
    networks = ("hand-bp", "pxa-bp", "hand-unroll", "hand-lazy", "pxa-pc")
    table4 = {
        "MLP, Fashion-MNIST": {
            "programs": {name: {"ms": {"median": 2.0}} for name in networks},
            "steps_per_epoch": 500,
        }
    }
    folder = tmp_path / "accelerator"
    folder.mkdir()
    for name, date, parts in (
        ("1", "2026-01-01", {"depth": {"2": step(9.0)}}),
        ("2", "2026-01-02", {"depth": {"2": step(0.5), "16": step(0.75)}}),
        ("3", "2026-01-03", {"table4": table4}),
    ):
        text = json.dumps({"machine": {**machine, "date": f"{date}T00:00:00+00:00"}, **parts})
        (folder / f"{name}.json").write_text(text)
    page = report.write_page(tmp_path, tmp_path / "page.md")[0].read_text()
    # 500 steps of 2 ms
    assert "| MLP, Fashion-MNIST | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 1.0 |" in page
    assert "| PC | 0.50 | 0.75 |" in page
    assert "9.00" not in page
    first, second = page.index("## On a GPU"), page.index("## Depth on a GPU")
    assert "2026-01-03" in page[first:second]
    assert "2026-01-02" in page[second:]


def test_the_networks_of_one_run_on_an_accelerator_are_one_record(monkeypatch, tmp_path):
    spread = {"median": 1.0, "q1": 1.0, "q3": 1.0}
    programs = {"PC": {"ms": spread, "ratio": spread, "first_call_s": 1.0}}
    in_turn = lambda section, keys, *sizes: iter([(key, programs) for key in keys])
    monkeypatch.setattr(accelerator, "in_turn", in_turn)
    monkeypatch.setattr(machines, "REPOSITORY", tmp_path)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    monkeypatch.setattr(sys, "argv", ["accelerator", "--sections", "depth", "--depths", "2", "4"])
    accelerator.main()
    (path,) = tmp_path.rglob("*.json")
    assert set(json.loads(path.read_text())["depth"]) == {"2", "4"}


def test_a_machine_without_git_is_described_without_a_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = describe()
    assert found["commit"] is found["uncommitted_changes"] is None
    assert found["cores"] >= 1


def test_records_keep_six_digits(tmp_path):
    path = report.write_record(
        {"machine": machine("2026-01-01T00:00:00+00:00"), "x": [1.23456789]}, tmp_path
    )
    assert path.name == "20260101T000000-cpu.json"
    assert json.loads(path.read_text())["x"] == [1.23457]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.04567, "0.046"),
        (1.2345, "1.23"),
        (45.67, "45.7"),
        (1234.5, "1,234"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert tables.number(value) == text


def test_scaling_multiplies_one_size_at_a_time():
    assert scaling.scaled_case("L", 4).dims == (64, *[64] * 8, 10)
    assert scaling.scaled_case("width", 4).dims == (64, 256, 256, 10)
    assert scaling.scaled_case("T", 4).T == 32
    assert scaling.scaled_case("batch", 4).batch == 128
    assert scaling.scaled_case("batch", 1).T == 8
    with pytest.raises(ValueError, match="unknown axis 'depth'; one of L, T, width, batch"):
        scaling.scaled_case("depth", 1)


def test_the_overhead_fit_is_least_squares():
    slope, intercept = overhead.slope_and_intercept([1, 2, 5], [13.0, 15.0, 21.0])
    assert (slope, intercept) == (pytest.approx(2.0), pytest.approx(11.0))


def test_overhead_of_a_jitted_call_is_measured_beside_jax():
    found = overhead.measure(counts=(1, 8), rounds=2, repeats=5)
    assert [row["params"] for row in found["rows"]] == [1, 8]
    assert all(row[key] > 0 for row in found["rows"] for key in row)


def test_the_command_line_refuses_what_does_not_exist(capsys):
    with pytest.raises(SystemExit):
        run.parse(["--cases", "huge"])
    assert "invalid choice: 'huge'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.parse(["--rounds", "0"])
    assert "positive number of rounds, got 0" in capsys.readouterr().err
    assert run.parse(["--cases", "all"]).cases == list(cases.CASES)


def test_nothing_here_reads_what_is_outside_the_repository():
    for path in (REPOSITORY / "benchmarks").glob("**/*.py"):
        assert "shared/" not in path.read_text(), path


def test_records_of_one_second_do_not_overwrite_each_other(monkeypatch, tmp_path):
    monkeypatch.setattr(machines, "REPOSITORY", tmp_path)
    then = {"machine": machine("2026-01-31T10:00:00+00:00")}
    paths = [machines.write_record(then | {"n": n}, "kind") for n in range(3)]
    assert [path.name for path in paths] == [
        "20260131T100000.json",
        "20260131T100000-2.json",
        "20260131T100000-3.json",
    ]
    assert [json.loads(path.read_text())["n"] for path in paths] == [0, 1, 2]
    own = tmp_path / "own" / "a.json"
    for n in (1, 2):
        assert machines.write_record(then | {"n": n}, "kind", own) == own
        assert json.loads(own.read_text())["n"] == n


def test_the_peers_are_kept_outside_of_the_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.default_root() == tmp_path / "pcx-benchmarks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.default_root() == tmp_path / ".cache" / "pcx-benchmarks"
    assert REPOSITORY not in run.parse([]).peers_dir.parents


@pytest.mark.slow
def test_the_smoke_run_measures_and_leaves_no_files(tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "--smoke"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in PROGRAMS:
        assert (f"| `{name}`" in done.stdout) == (name != measure.PRODUCT)
    assert "GFLOP/s" in done.stdout
