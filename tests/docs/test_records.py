"""Tables made from records."""

import json
from pathlib import Path

import pytest

from tests.docs.test_site import load

DOCS = Path(__file__).resolve().parents[2] / "docs"
generate = load(DOCS / "_generate.py")
curves = load(DOCS / "_curves.py")
analyses = load(DOCS / "_analyses.py")
reliability = load(DOCS / "_reliability.py")


def record(**changes):
    return {
        "experiment": "MLP",
        "dataset": "MNIST",
        "algorithm": "PC-SE",
        "seed": 0,
        "best": 98.0,
        "last": 97.0,
        "epochs": 25,
        "hardware": "2-core CPU",
        "versions": {"pcx": "0.1"},
        "date": "2026-01-31",
        "command": "python train.py",
        **changes,
    }


def row_of(page: str, start: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_has_no_record_is_named_and_has_no_cell():
    line = (
        "No record yet of these cases of Table 1: MLP, MNIST; MLP, FashionMNIST; VGG-5, CIFAR-10;"
    )
    assert line in generate.results_page([])
    page = generate.results_page([record()])
    assert line.replace(" MLP, MNIST;", "") in page
    assert [row.split(" | ")[0] for row in page.splitlines() if row.startswith("|")] == [
        "| algorithm",
        "| ---",
        "| PC-SE",
    ]


def test_a_case_has_a_figure_of_the_runs_with_curves_that_keep_to_the_protocol():
    runs = [
        record(curve=[90.0, 98.0]),
        record(curve=[91.0, 97.0], seed=1),
        record(algorithm="BP-SE", curve=[95.0, 96.0], note="half of the data"),
        record(algorithm="BP-CE"),
    ]
    page = generate.results_page(runs)
    assert "![Test accuracy after each epoch](images/results-mlp-mnist.svg)" in page
    (path,) = shown = generate.pictures(runs)
    assert path.name == "results-mlp-mnist.svg"
    assert shown[path] == {"PC-SE": [[90.0, 98.0], [91.0, 97.0]]}
    assert "![" not in generate.results_page(runs[2:])


def test_a_figure_of_curves_is_out_of_date_when_a_value_changes(tmp_path):
    path, values = tmp_path / "curves.svg", {"PC": [[90.0, 98.0], [91.0, 97.0]]}
    assert not curves.shows(path, values)
    curves.draw(path, values)
    assert curves.shows(path, values)
    assert not curves.shows(path, {"PC": [[90.0, 98.0], [91.0, 97.1]]})


def test_seeds_are_averaged_with_the_sample_standard_deviation():
    page = generate.results_page([record(), record(seed=1, best=99.0, last=95.0)])
    row = row_of(page, "PC-SE")
    assert row == ["PC-SE", "98.26 ± 0.04", "98.50 ± 0.71", "96.00 ± 1.41", "25", "0, 1"]


def test_the_newer_of_two_runs_of_a_seed_counts(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(record(date="2026-02-02", best=90.0)))
    (tmp_path / "b.json").write_text(json.dumps([record(date="2026-02-01", best=80.0)]))
    page = generate.results_page(generate.read_records(tmp_path))
    assert row_of(page, "PC-SE")[2] == "90.00"


REGIME = {"relaxed_fraction": 0.98, "total_cosine": 0.6, "effective_depth": 3, "alignment": None}
REGIME |= {"cosine": dict.fromkeys("abcd", 1.0), "stable": False}


def test_the_regime_is_beside_the_accuracy_where_it_was_measured():
    page = generate.results_page([record(), record(seed=1, regime=REGIME)])
    assert row_of(page, "PC-SE")[4:] == ["0.98", "0.60", "3 of 4", "no", "25", "0, 1"]
    assert "| relaxed | cosine | depth | stable |" in page


def test_a_scoreboard_compares_seed_by_seed_with_back_propagation():
    runs = [
        ("PC-SE", 95.0, 0),
        ("PC-SE", 94.0, 1),
        ("BP-SE", 94.0, 0),
        ("BP-SE", 96.0, 1),
        ("BP-CE", 99.0, 0),
    ]
    page = generate.results_page(
        [
            record(
                experiment="Scoreboard",
                algorithm=name,
                last=last,
                seed=seed,
                relative_time=2 + seed,
            )
            for name, last, seed in runs
        ]
    )
    assert row_of(page, "PC-SE")[3:5] == ["-0.50 ± 2.12", "2.0"]
    assert row_of(page, "BP-CE")[3] == "–"


def test_another_number_of_epochs_or_another_note_is_another_row():
    page = generate.results_page([record(), record(epochs=2), record(note="1000 samples")])
    rows = [line for line in page.splitlines() if line.startswith("| PC-SE")]
    assert len(rows) == 3


def test_a_smaller_run_is_neither_compared_with_the_paper_nor_counts_as_its_case():
    small = record(experiment="VGG-5", dataset="CIFAR-10", note="1000 samples")
    page = generate.results_page([record(), small])
    # no column for the paper's values, as there is none to compare with
    assert row_of(page, "PC-SE (1000 samples)")[1] == f"{record()['best']:.2f}"
    assert row_of(page, "PC-SE |")[1] == "98.26 ± 0.04"
    assert "Table 1: MLP, FashionMNIST; VGG-5, CIFAR-10;" in page


def test_an_algorithm_the_paper_has_not_comes_after_those_it_has():
    page = generate.results_page([record(algorithm="ePC-SE"), record(algorithm="BP-SE")])
    assert row_of(page, "ePC-SE")[1] == "–"
    assert page.index("| BP-SE |") < page.index("| ePC-SE |")


def test_a_published_value_outside_table_1_comes_with_the_record():
    page = generate.results_page([record(algorithm="MCPC", metric="fid", paper="2.53 ± 0.17")])
    assert row_of(page, "MCPC")[1] == "2.53 ± 0.17"


def test_a_case_the_paper_has_not_gets_a_table():
    page = generate.results_page([record(experiment="MLP", dataset="digits")])
    assert "## MLP, digits" in page


def test_the_study_of_depth_is_one_table_with_a_column_for_each_depth():
    runs = [("16", "PC", 60.0), ("4", "PC", 78.0), ("4", "BP", 85.0), ("64", "BP", 10.0)]
    page = generate.results_page(
        [
            record(experiment=f"{d} hidden layers of 128", algorithm=a, last=last)
            for d, a, last in runs
        ]
    )
    assert "## Depth (hidden layers of 128), MNIST" in page
    assert "| 4 layers | 16 layers | 64 layers |" in page
    assert row_of(page, "BP") == ["BP", "85.00", "", "10.00"]
    assert row_of(page, "PC") == ["PC", "78.00", "60.00", ""]
    assert page.index("| BP |") < page.index("| PC |")
    assert "## 4 hidden" not in page


def test_the_readme_table_leaves_out_runs_that_differ_from_the_protocol():
    text = generate.readme_accuracy([record(note="1 epoch only", best=50.0)])
    assert "50.00" not in text
    assert "98.00" in generate.readme_accuracy([record()])


def test_hardware_date_and_command_are_on_the_page():
    page = generate.results_page([record()])
    assert "2-core CPU; 2026-01-31; pcx 0.1; `python train.py`" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best": "98"}, "'best' is '98', of type str"),
        ({"date": "yesterday"}, "'date' is 'yesterday', not an ISO date"),
        ({"accuracy": 1.0}, "'accuracy' is not a field; known: experiment"),
        ({"seed": True}, "'seed' is True, of type bool"),
    ],
)
def test_a_bad_record_is_refused_with_every_problem(changes, message):
    with pytest.raises(ValueError, match=message):
        generate.check_record(record(**changes))


def test_a_missing_field_and_the_file_are_named(tmp_path):
    bad = record()
    del bad["hardware"]
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    with pytest.raises(ValueError, match=r"bad\.json: .*'hardware' is missing"):
        generate.read_records(tmp_path)


def test_a_written_record_is_read_back(tmp_path):
    path = generate.write_record(record(), tmp_path)
    assert path.name == "mlp-mnist-pcse-e25-s0-20260131.json"
    assert generate.read_records(tmp_path) == [record()]


def test_the_speed_table_has_the_newest_ratio_of_each_case():
    def speed(date, ratio, **peers):
        programs = {"hand-bp": {"ratio": {"median": 1.0}}, "pxa-pc": {"ratio": {"median": ratio}}}
        programs |= {name: {"ratio": {"median": r}} for name, r in peers.items()}
        machine = {"date": date, "device": "cpu: x", "cpu": "a CPU"}
        return {"machine": machine, "cases": {"deep": {"programs": programs}}}

    text = generate.readme_speed([speed("2026-02-01", 0.5), speed("2026-01-01", 9.0)])
    assert "| pcx, `pxa.PC` | 0.50 |" in text
    assert "hand-bp" not in text
    assert "a CPU, 2026-02-01" in text
    # a peer that was not run again keeps its ratio, and its date is told
    text = generate.readme_speed([speed("2026-02-01", 0.5), speed("2026-01-01", 9.0, fabricpc=3.0)])
    assert "| pcx, `pxa.PC` | 0.50 |" in text
    assert "| FabricPC | 3.00 |" in text
    assert "a CPU, 2026-01-01; a CPU, 2026-02-01" in text


def test_the_page_of_analyses_has_nothing_without_a_record():
    assert "|" not in analyses.page([])
    assert "##" not in analyses.page([])
    with pytest.raises(ValueError, match="seconds"):
        analyses.check({"analysis": "stability"})


def test_the_table_of_stability_has_the_means_of_the_seeds():
    found = {
        "rates": [0.1],
        "accuracy": {"SGD": {"8": [[50.0, 60.0]]}},
        "back_propagation": {"SGD": {"8": [90.0, 95.0]}},
        "diverged": [{}],
        "chance": 50.0,
    }
    assert row_of(analyses.stability(found), "SGD") == ["SGD", "8", "55.0", "92.5"]


def test_the_page_of_faults_adds_the_records_up_and_names_what_was_wrong():
    machine = {"date": "2026-01-31T10:00:00"}
    first = {"kill -9": {"outcomes": {"killed": 3, "WRONG: lost": 1}}}
    since = {"WRONG: late": "test_late"}
    second = {"kill -9": {"outcomes": {"killed": 5, "ended": 2, "WRONG: late": 3}, "since": since}}
    second["kill -9"]["wrong_seeds"] = [7, 8]
    third = {"kill -9": {"outcomes": {"WRONG: odd": 1}, "since": {"WRONG: odd": "of the test"}}}
    found = [{"machine": machine, "faults": faults} for faults in (first, second, third)]
    text = reliability.tried(found, "faults")
    assert "| kill -9 | 15 | 5 | killed 8; ended 2 |" in text
    assert "- kill -9: 1 × WRONG: lost (2026-01-31)\n" in text
    assert "- kill -9: 3 × WRONG: late (2026-01-31); fixed, held by `test_late`" in text
    assert "- kill -9: 1 × WRONG: odd (2026-01-31); of the test" in text
    assert "- kill -9: seeds 7, 8 (2026-01-31)" in text


def test_the_share_of_planted_defects_that_were_noticed_counts_the_survivors():
    survivor = {"module": "pcx/a.py", "defect": "line 3: < -> <=", "since": "test_a"}
    equal = {"module": "pcx/b.py", "defect": "line 4: 1 -> 2", "equivalent": "any number will do"}
    alive = {"module": "pcx/c.py", "defect": "line 5: + -> -"}
    outcomes = {"noticed": 6, "out of time": 1, "SURVIVED": 3}
    record = {"outcomes": outcomes, "survived": [survivor, equal, alive]}
    text = reliability.mutants([record | {"machine": {"date": "2026-01-31T10:00:00"}}])
    # 7 of 8: the defect that changes nothing does not count, nor the one without an end
    assert "| 10 | 6 | 1 | 1 | 1 | 88 % | 1 |" in text
    assert (
        "- `pcx/b.py`, line 4: 1 -> 2 (2026-01-31); changes no number: any number will do" in text
    )
    assert "- `pcx/a.py`, line 3: < -> <= (2026-01-31); noticed since by `test_a`" in text


def test_a_long_run_that_was_not_flat_stays_on_the_page_beside_the_longest():
    intervals = [{"done": n, "memory_mib": m} for n, m in ((1, 90.0), (5, 100.0), (50, 180.0))]
    part = {"flat": False, "intervals": intervals, "compiled_again": 2}
    longer = [*intervals, {"done": 900, "memory_mib": 100.0}]
    records = [
        {"machine": {"date": date}, "parts": {"steps": own}}
        for date, own in (
            ("2026-01-31T10", part),
            ("2026-02-28T10", part | {"flat": True, "intervals": longer, "compiled_again": 0}),
        )
    ]
    text = reliability.long_run(records)
    assert "| steps | 900 | yes | 100 → 100 | 0 | 2026-02-28 |" in text
    assert "| steps | 50 | no | 100 → 180 | 2 | 2026-01-31 |" in text


def test_one_command_makes_a_table_and_its_rows_are_added_up():
    command = "python train.py --algorithms {} --epochs 25 --seeds 0 1 --width 2"
    rows = [
        record(algorithm=name, seconds=seconds, command=command.format(f"'{name}'"))
        for name, seconds in (("PC-SE", 90.0), ("BP, too", 60.0))
    ]
    rows[0]["peak_memory_mib"] = 2560
    rows += [
        # another seed, another protocol, other hardware
        rows[0] | {"seed": 1, "seconds": 1000.0},
        rows[0] | {"note": "half of the data", "seconds": 2000.0, "command": "python other.py"},
        rows[0] | {"hardware": "NVIDIA H200", "algorithm": "iPC", "seconds": 3000.0},
        # one run that measured two things
        *(
            record(experiment="memory", algorithm=a, seconds=30.0, command="python memory.py")
            for a in ("noise", "mask")
        ),
    ]
    page = generate.results_page(rows)
    assert row_of(page, "MLP, MNIST")[1:] == [
        "`python train.py --epochs 25 --width 2 --algorithms 'PC-SE' 'BP, too'`",
        "2\u00a0min",
        "2.5 GiB",
    ]
    assert row_of(page, "memory, MNIST")[1:] == ["`python memory.py`", "30\u00a0s", "–"]
    assert "On 2-core CPU, one seed" in page
    assert "One command" not in generate.results_page([record()])
