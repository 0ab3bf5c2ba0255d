"""Pages and figures from records: docs/results.md, analyses.md, reliability.md, and the marked parts of README.md.

    python docs/_generate.py            # rewrite them
    python docs/_generate.py --check    # exit status 1 if a file is not what the records say

No number in these tables is written by hand, and what has no record has no cell. A later run adds it:
write a record, run this script, commit both.

The record of a training run, one JSON object (a file may also hold a list of them), anywhere below
`examples/results/`:

    {
      "experiment": "MLP",            network, as in the paper's Table 1: MLP, VGG-5, VGG-7, VGG-9,
                                      ResNet-18; any other name gets a table of its own
      "dataset": "MNIST",             MNIST, FashionMNIST, CIFAR-10, CIFAR-100, digits, ...
      "algorithm": "PC-SE",           PC-CE, PC-SE, PN, NN, CN, iPC, BP-CE, BP-SE, ePC-SE, ...
      "seed": 0,
      "best": 98.31,                  best test value over the epochs (accuracy in percent)
      "last": 98.22,                  test value after the last epoch
      "epochs": 25,
      "hardware": "2-core x86 CPU",   what it ran on, in words
      "versions": {"pcx": "0.1.0", "jax": "0.10.2"},
      "date": "2026-01-31",           ISO, the time after the day may follow
      "command": "python examples/classify.py --dataset mnist --seed 0"
    }

and, optionally,

      "metric": "accuracy",           default; or top5, mse, fid, ... (any other name)
      "best_epoch": 19,
      "curve": [93.1, 95.0],          the test value after each epoch, drawn where all seeds have it
      "seconds": 71.2,                wall time of training
      "note": "10 000 training samples"   what differs from the paper's protocol, shown in the table
      "settings": {"T": 8}            hyper-parameters, not shown
      "paper": "2.53 ± 0.17"          a published value to compare with; not needed for Table 1
      "regime": {...}                 `pxan.regime(...)._asdict()` after training
      "relative_time": 1.6            time of an epoch over that of back-propagation in the same run
      "peak_memory_mib": 812          the largest memory of the process, in MiB

Runs that differ only in their seed are one row, mean ± standard deviation; of two runs of one seed
the newer counts. `write_record(record, folder)` checks and writes one.
"""

import argparse
import datetime
import json
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import _analyses
import _costs
import _curves
import _reliability
from _analyses import table

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "examples" / "results"
SPEED_RECORDS = ROOT / "benchmarks" / "results"

REQUIRED: dict[str, type | tuple[type, ...]] = {
    "experiment": str,
    "dataset": str,
    "algorithm": str,
    "seed": int,
    "best": (int, float),
    "last": (int, float),
    "epochs": int,
    "hardware": str,
    "versions": dict,
    "date": str,
    "command": str,
}
OPTIONAL: dict[str, type | tuple[type, ...]] = {
    "metric": str,
    "best_epoch": int,
    "curve": list,
    "seconds": (int, float),
    "note": str,
    "settings": dict,
    "paper": (int, float, str),
    "regime": dict,
    "relative_time": (int, float),
    "peak_memory_mib": (int, float),
}

# Pinchetti et al., "Benchmarking predictive coding networks - made simple", Table 1: test accuracy
# in percent, the best over the epochs, mean and standard deviation of 5 seeds.
PAPER_ALGORITHMS = ("PC-CE", "PC-SE", "PN", "NN", "CN", "iPC", "BP-CE", "BP-SE")
TABLE_1 = Path(__file__).with_name("_paper_table_1.txt")

SCOREBOARD = "Scoreboard"
REGIME = ("relaxed", "cosine", "depth", "aligned", "stable")

Case = tuple[str, str, str]  # experiment, dataset, metric

# the study of examples/depth.py: one table, a column for each depth
DEPTH = re.compile(r"(?P<depth>\d+) hidden layers of (?P<width>\d+)")
DEPTH_METHODS = ("BP", "PC", "ePC", "muPC", "muPC network, ePC", "muPC network, BP")
# what is said above the tables of other studies, by the beginning of their names
STUDIES = {
    "linear autoencoder": """Mean squared error of test images made from their codes (`examples/autoencoder.py`,
pixels and reconstructions in 0..1; the columns *best* and *last* are the same number, after the last epoch).
PCA is the best that a linear map can do with as many numbers, and has no epochs. With all images, the paper's
protocol, PC comes near PCA and iPC, which learns at each of the 20 steps of inference, nearer or below it. With a
part of the images there are fewer weight steps, and PC lags: at its published rate of the states 20 steps are far
from equilibrium, in training and on test images. Codes that are inferred for longer are much better then, and so
is PC that was trained at a rate of 0.15.""",
    "deconvolutional autoencoder": """As for the linear autoencoders, with deconvolutions from a code of
8 x 4 x 4 numbers. So few images and epochs are 100 steps of the weights for BP and PC, and 2000 for iPC, which
takes one at each step of inference.""",
    "associative memory": """Mean squared error in 1e-4 of images recalled from a noisy one (*noise*) or from their
upper half (*mask*; `examples/memory.py`), at the end of recall. The paper trains for 500 epochs and recalls for
50,000 steps or more from a mask. Here recall from a mask takes 10,000 steps after 500 epochs, and 50,000 after
1000.""",
    "density of iris": """Energy distance between samples of a network that learned by `MCPC` and the data, 0
where both have one density (`examples/generation.py --dataset iris`). *epochs* are weight steps. The second-order
form of the dynamics (eqs 5-6 of the paper) forgets its velocity in 1000 steps at these settings, the heavy ball in
10; after the 500 of a weight step it is far from the density it should sample. No form separates the clusters as
the paper's figure does; its weight rate and number of weight steps are not legible in our copy.""",
    "Scoreboard": """Every algorithm on one network (three hidden layers of 128), from the same weights and in
the same batches (`examples/scoreboard.py`). The weight rate is the one with which back-propagation is best on a
fifth of the training data; other settings are chosen by hand. *over BP* is the mean difference to back-propagation
with the same seed and energy. On Fashion-MNIST `ePC T=1` diverged in epoch 5 of its first seed: it has no row.""",
    "generation": """Images drawn by `MCPC`, and by a variational autoencoder with the same decoder, compared
with test images (`examples/generation.py`). FID and inception score come from a small classifier that the script
trains: they compare these rows with each other, and not with the paper's values. *epochs* are weight steps: on all
images at once by MCPC, on 100 by the autoencoder.""",
}
DEPTH_TEXT = """Test accuracy after the last epoch, in percent, of `examples/depth.py`, whose first lines describe
the methods: back-propagation, predictive coding and error-based predictive coding on a plain network,
then on a network with skips in the µPC parameterisation."""


def paper_table() -> dict[Case, dict[str, tuple[float, float]]]:
    """The paper's Table 1: `{(experiment, dataset, metric): {algorithm: (mean, s.d.)}}`."""
    table = {}
    for line in TABLE_1.read_text().splitlines()[1:]:
        experiment, dataset, metric, *cells = (part.strip() for part in line.split("|"))
        values = [tuple(map(float, cell.split())) for cell in cells]
        table[experiment, dataset, metric] = dict(zip(PAPER_ALGORITHMS, values, strict=True))
    return table


# what README.md shows of the benchmark's programs, all of which do the same predictive coding step
# (the last three one of their own)
SPEED_PROGRAMS = {
    "pxa-pc": "pcx, `pxa.PC`",
    "low-level": "pcx, step written by hand with `pxf` and `pxu`",
    "pcx-0.6.3": "PCX 0.6.3",
    "fabricpc": "FabricPC",
    "deepity": "Deepity (C++)",
    "ngc-learn": "ngc-learn",
    "pcn-torch": "pcn-torch",
}
SPEED_TEXT = """Below 1 is faster. Medians of interleaved rounds; the hand-written program computes every
gradient at every step. What Deepity, ngc-learn and pcn-torch compute differs
([how](docs/benchmarks.md))."""


def check_record(record: Any) -> dict[str, Any]:
    """The record, if it has the format above.

    Raises:
        ValueError: it has not; the message says every problem.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a record is a JSON object, got {type(record).__name__}")
    known = {**REQUIRED, **OPTIONAL}
    problems = [f"{name!r} is missing" for name in REQUIRED if name not in record]
    for name, value in record.items():
        kind = known.get(name)
        if kind is None:
            problems.append(f"{name!r} is not a field; known: {', '.join(known)}")
        elif not isinstance(value, kind) or isinstance(value, bool):
            problems.append(f"{name!r} is {value!r}, of type {type(value).__name__}")
    try:
        datetime.datetime.fromisoformat(str(record.get("date")))
    except ValueError:
        problems.append(f"'date' is {record.get('date')!r}, not an ISO date such as 2026-01-31")
    if problems:
        raise ValueError(f"not a valid record: {'; '.join(problems)}. See docs/record_format.md")
    return record


def write_record(record: dict[str, Any], folder: Path | str = RECORDS) -> Path:
    """Check a record and write it to `folder` under a name made from what it is a record of."""
    check_record(record)
    parts = [record[k] for k in ("experiment", "dataset", "algorithm")]
    parts += [record.get("metric", "accuracy")] * ("metric" in record)
    parts += [f"e{record['epochs']}", f"s{record['seed']}", record["date"][:10]]
    name = "-".join("".join(c for c in str(p).lower() if c.isalnum()) for p in parts)
    path = Path(folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def read_records(folder: Path = RECORDS) -> list[dict[str, Any]]:
    """All records below `folder`, oldest first.

    Raises:
        ValueError: a file that is no record, with its name.
    """
    records = []
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text())
        for record in content if isinstance(content, list) else [content]:
            try:
                records.append(check_record(record))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
    return sorted(records, key=lambda record: record["date"])


class Row:
    """Runs that differ in their seed only."""

    def __init__(self, records: Iterable[dict[str, Any]]):
        by_seed = {record["seed"]: record for record in records}  # the newest of each seed
        self.records = [by_seed[seed] for seed in sorted(by_seed)]
        first = self.records[0]
        self.algorithm, self.epochs = first["algorithm"], first["epochs"]
        self.note = first.get("note", "")

    def value(self, which: str) -> str:
        """Mean and, for several seeds, standard deviation of "best" or "last"."""
        return show([record[which] for record in self.records])

    @property
    def seeds(self) -> str:
        return ", ".join(str(record["seed"]) for record in self.records)

    @property
    def time(self) -> float | None:
        """Time of an epoch over that of back-propagation, the smallest of the seeds."""
        return min((r["relative_time"] for r in self.records if "relative_time" in r), default=None)

    @property
    def regime(self) -> dict[str, Any] | None:
        """How it trained, of the first seed for which it was measured."""
        return next((record["regime"] for record in self.records if "regime" in record), None)

    @property
    def published(self) -> str:
        """The published value that the newest record names, if any."""
        return str(max(self.records, key=lambda r: r["date"]).get("paper", "–"))

    @property
    def hardware(self) -> str:
        return "; ".join(dict.fromkeys(record["hardware"] for record in self.records))

    @property
    def dates(self) -> str:
        return span(self.records)

    @property
    def versions(self) -> str:
        newest = self.records[-1]["versions"]
        return ", ".join(f"{name} {version}" for name, version in newest.items())


def span(records: Iterable[dict[str, Any]]) -> str:
    """The days from the first record to the last."""
    days = sorted({record["date"][:10] for record in records})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def show(values: list[float], signed: bool = False) -> str:
    """`98.26 ± 0.04`, with as many digits as the size of the numbers asks for."""
    mean = statistics.fmean(values)
    digits = 2 if abs(mean) >= 1 or signed else 5
    text = f"{mean:{'+' if signed else ''}.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def rows_by_case(records: list[dict[str, Any]]) -> dict[Case, list[Row]]:
    """Rows of each case, in the order of the algorithms in the paper, others after them."""
    groups: dict[tuple[Case, tuple[Any, ...]], list[dict[str, Any]]] = {}
    for record in records:
        case = (record["experiment"], record["dataset"], record.get("metric", "accuracy"))
        run = (record["algorithm"], record["epochs"], record.get("note", ""))
        groups.setdefault((case, run), []).append(record)
    out: dict[Case, list[Row]] = {}
    for (case, _), members in groups.items():
        out.setdefault(case, []).append(Row(members))
    for rows in out.values():
        rows.sort(key=lambda r: (algorithm_order(r.algorithm), r.note != "", r.note, -r.epochs))
    return out


def algorithm_order(name: str) -> tuple[int, str]:
    known = name in PAPER_ALGORITHMS
    return (PAPER_ALGORITHMS.index(name), "") if known else (len(PAPER_ALGORITHMS), name)


RESULTS = """# Results

<!-- Generated by `python docs/_generate.py` from the records in examples/results/. Do not edit. -->

Test results of the training runs whose records are in the repository, beside those of Table 1 of
Pinchetti et al., *Benchmarking predictive coding networks – made simple*.

**Best and last.** The paper's figure is the *best* test accuracy over the epochs, which chooses an
epoch by looking at the test set. To compare like with like, *best epoch* is computed in the same
way here; *last epoch* is the accuracy after the last epoch. See the
[questions](faq.md#which-accuracy-is-reported-the-best-epochs-or-the-last-ones). Where a value has
±, it is the standard deviation over the seeds listed.

**Names.** PC-SE and PC-CE: predictive coding with squared errors or cross entropy at the output. PN, NN, CN:
[nudged](algorithms.md#nudgedpc) towards the label (positive), away from it (negative), both in turn
(centred). iPC: [incremental](algorithms.md#ipc). BP: back-propagation on the same network. Settings are those that
the paper's authors published, where there are any (`examples/settings/` says for which);
*settings of NAME* are those of `examples/settings/NAME.json`, which
[a search](howto/search.md#optuna-and-several-machines) found on validation data, without a look at the test set.

**Regime.** What [`pxan.regime`](howto/analysis.md) measured on 64 test images after training, with the first
seed for which it was. *relaxed*: 0 like back-propagation, 1 at the equilibrium of inference. *cosine*: of the
weight gradient with that of back-propagation. *depth*: how many layers have 99 % of the gradient. *aligned*:
whether a step moves the prediction towards the label. *stable*: whether the state rate is below the largest stable
one.

[The format of a record](record_format.md) says how to add a run: write the record, run
`python docs/_generate.py`, commit both. Speed is on [its own page](benchmarks.md).
"""


def results_page(records: list[dict[str, Any]]) -> str:
    """The whole of docs/results.md."""
    paper, measured = paper_table(), rows_by_case(records)
    parts = [RESULTS.rstrip()]
    whole = {case for case, rows in measured.items() if any(not row.note for row in rows)}
    if missing := [title(case) for case in paper if case not in whole]:
        parts.append(f"No record yet of these cases of Table 1: {'; '.join(missing)}.")
    deep = {case: DEPTH.fullmatch(case[0]) for case in measured}
    cases = [case for case in paper if case in measured]
    cases += sorted(c for c in measured if c not in paper and not deep[c])
    of_case = lambda case: [record for row in measured[case] for record in row.records]
    titled = [(title(case), of_case(case)) for case in cases]
    for study in sorted({f"Depth, {case[1]}" for case in measured if deep[case]}):
        inner = [case for case in measured if deep[case] and study == f"Depth, {case[1]}"]
        titled.append((study, [record for case in inner for record in of_case(case)]))
    parts += _costs.section(titled)
    for case in cases:
        parts += [f"## {title(case)}", *about(case), *picture(case, measured[case])]
        parts.append(case_table(measured[case], paper.get(case)))
        parts += [f'??? note "How {title(case)} was run"\n\n' + provenance(measured[case])]
    studies: dict[Case, dict[int, list[Row]]] = {}
    for case, match in deep.items():
        if match:
            study = (f"Depth (hidden layers of {match['width']})", *case[1:])
            studies.setdefault(study, {})[int(match["depth"])] = measured[case]
    for study, by_depth in sorted(studies.items()):
        parts += [f"## {title(study)}", DEPTH_TEXT, depth_table(by_depth)]
        runs = "\n".join(provenance(rows) for _, rows in sorted(by_depth.items()))
        parts += [f'??? note "How {title(study)} was run"\n\n' + runs]
    return "\n\n".join(parts) + "\n"


def depth_table(by_depth: dict[int, list[Row]]) -> str:
    """Accuracy of each method, a column for each number of layers."""
    cells = {(r.algorithm, d): r.value("last") for d, rows in by_depth.items() for r in rows}
    depths = sorted(by_depth)
    methods = list(dict.fromkeys(name for name in DEPTH_METHODS if (name, depths[0]) in cells))
    methods += sorted({name for name, _ in cells} - set(methods))
    lines = [[name, *(cells.get((name, d), "") for d in depths)] for name in methods]
    return table(["", *(f"{d} layers" for d in depths)], lines)


def title(case: Case) -> str:
    experiment, dataset, metric = case
    return f"{experiment}, {dataset}" + ("" if metric == "accuracy" else f" ({metric})")


def curves(rows: list[Row]) -> dict[str, list[list[float]]]:
    """`{algorithm: a curve for each seed}` of the runs that have one and keep to the protocol."""
    out: dict[str, list[list[float]]] = {}
    for row in rows:  # of one algorithm's runs the longest comes first
        if not row.note and all("curve" in record for record in row.records):
            out.setdefault(row.algorithm, [record["curve"] for record in row.records])
    return out


def image_of(case: Case) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", title(case).lower()).strip("-")
    return ROOT / "docs" / "images" / f"results-{name}.svg"


def about(case: Case) -> list[str]:
    """What is said above a table, and the figure that the script drew, if docs/images has it."""
    said = [text for name, text in STUDIES.items() if case[0].startswith(name)]
    path = image_of((*case[:2], "accuracy")).with_suffix(".png")
    return said + [f"![{case[0]}, {case[1]}](images/{path.name})"] * path.exists()


def picture(case: Case, rows: list[Row]) -> list[str]:
    """The link to the figure of a scoreboard, or of the curves, if there are any."""
    path = image_of(case)
    if case[0] == SCOREBOARD:
        return [f"![Accuracy, regime and time](images/{path.name})"]
    return [f"![Test {case[2]} after each epoch](images/{path.name})"] if curves(rows) else []


def pictures(records: list[dict[str, Any]]) -> dict[Path, dict[str, list[list[float]]]]:
    """What each figure of curves shows."""
    return {
        image_of(case): drawn
        for case, rows in rows_by_case(records).items()
        if case[0] != SCOREBOARD and not DEPTH.match(case[0]) and (drawn := curves(rows))
    }


def scoreboards(records: list[dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """What each figure of a scoreboard shows."""
    return {
        image_of(case): {
            row.algorithm: {
                "last": [record["last"] for record in row.records],
                "relaxed": row.regime["relaxed_fraction"],
                "cosine": row.regime["total_cosine"],
                "time": row.time,
            }
            for row in rows
            if row.regime is not None and row.time is not None
        }
        for case, rows in rows_by_case(records).items()
        if case[0] == SCOREBOARD
    }


def case_table(rows: list[Row], paper: dict[str, tuple[float, float]] | None) -> str:
    """One table per network and data set; columns that no row has a value for are left out."""
    lines = []
    for row in rows:
        # what was run otherwise than in the paper is not to be compared with its value
        reference = paper.get(row.algorithm) if paper and not row.note else None
        lines.append(
            {
                "algorithm": row.algorithm + (f" ({row.note})" if row.note else ""),
                "paper (best)": f"{reference[0]:.2f} ± {reference[1]:.2f}"
                if reference
                else row.published,
                "best epoch": row.value("best"),
                "last epoch": row.value("last"),
                "over BP": over_baseline(row, rows),
                "time / BP": "–" if row.time is None else f"{row.time:.1f}",
                **regime_cells(row.regime),
                "epochs": row.epochs,
                "seeds": row.seeds,
            }
        )
    lines.sort(key=lambda line: algorithm_order(str(line["algorithm"]).split(" (")[0]))
    header = [name for name in lines[0] if any(line[name] not in ("–", "") for line in lines)]
    return table(header, ([line[name] for name in header] for line in lines))


def regime_cells(found: dict[str, Any] | None) -> dict[str, str]:
    """What a table shows of a regime."""
    if found is None:
        return dict.fromkeys(REGIME, "–")
    number = lambda value: "–" if value is None else f"{value:.2f}"
    cells = [
        number(found["relaxed_fraction"]),
        number(found["total_cosine"]),
        f"{found['effective_depth']} of {len(found['cosine'])}",
        number(found["alignment"]),
        {True: "yes", False: "no", None: "–"}[found["stable"]],
    ]
    return dict(zip(REGIME, cells, strict=True))


def over_baseline(row: Row, rows: list[Row]) -> str:
    """Last epoch less that of back-propagation with the same seed, where times are relative to it, too."""
    if row.time is None:
        return "–"
    name = "BP-CE" if row.algorithm.endswith("-CE") else "BP-SE"
    known = {
        r["seed"]: r["last"] for other in rows if other.algorithm == name for r in other.records
    }
    pairs = [r["last"] - known[r["seed"]] for r in row.records if r["seed"] in known]
    return "–" if not pairs or row.algorithm == name else show(pairs, signed=True)


def provenance(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        command = row.records[0]["command"]
        note = f" ({row.note})" if row.note else ""
        how = f"{row.hardware}; {row.dates}; {row.versions}; `{command}`"
        lines.append(f"    * {row.algorithm}{note}: {how}")
    return "\n".join(lines)


def readme_accuracy(records: list[dict[str, Any]]) -> str:
    """The short table of README.md: the paper's rows, as far as they fit on a page."""
    paper, measured = paper_table(), rows_by_case(records)
    wanted = [
        ("MLP", "MNIST", "accuracy"),
        ("MLP", "FashionMNIST", "accuracy"),
        ("VGG-5", "CIFAR-10", "accuracy"),
        ("ResNet-18", "CIFAR-10", "accuracy"),
    ]
    lines = []
    for case in wanted:
        full = [row for row in measured.get(case, []) if not row.note]
        for row in full:
            reference = paper[case].get(row.algorithm)
            shown = f"{reference[0]:.2f} ± {reference[1]:.2f}" if reference else "–"
            values = [row.value("best"), row.value("last")]
            lines.append([title(case), row.algorithm, shown, *values, row.seeds])
    header = ["network, data", "algorithm", "paper (best)", "best epoch", "last epoch", "seeds"]
    used = [row for case in wanted for row in measured.get(case, []) if not row.note]
    where = "; ".join(dict.fromkeys(row.hardware for row in used))
    days = span(record for row in used for record in row.records) if used else ""
    source = f"\n\nMeasured on: {where}; {days}." if used else ""
    return table(header, lines) + source


def readme_speed(records: list[dict[str, Any]]) -> str:
    """Time per training step over that of the hand-written program, one table for each device."""
    devices: dict[str, dict[str, dict[str, Any]]] = {}
    for record in sorted(records, key=lambda r: r["machine"]["date"]):
        machine = record["machine"]
        cases = devices.setdefault(machine["device"].split(":")[0], {})
        for name, case in record.get("cases", {}).items():
            # a program that only an older run had keeps its ratio there
            old = cases.get(name, {"programs": {}})
            kept = {k: {"date": old["machine"]["date"], **p} for k, p in old["programs"].items()}
            cases[name] = {**case, "programs": {**kept, **case["programs"]}, "machine": machine}
    parts = [speed_table(device, cases) for device, cases in devices.items() if cases]
    return "\n\n".join(parts) or "Time per training step: not measured yet."


def speed_table(device: str, cases: dict[str, dict[str, Any]]) -> str:
    lines = []
    for program, name in SPEED_PROGRAMS.items():
        ratios = [case["programs"].get(program, {}).get("ratio") for case in cases.values()]
        if any(ratios):
            lines.append([name, *(f"{r['median']:.2f}" if r else "" for r in ratios)])
    machines = {
        f"{c['machine']['cpu']}, {date}"
        for c in cases.values()
        for date in {p.get("date", c["machine"]["date"])[:10] for p in c["programs"].values()}
    }
    header = [f"time per step / hand-written JAX's, on {device.upper()}", *cases]
    where = "; ".join(sorted(machines))
    return table(header, lines) + f"\n\n{SPEED_TEXT} Measured on: {where}."


def read_speed_records(folder: Path = SPEED_RECORDS) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def replace_block(text: str, name: str, content: str) -> str:
    """Put `content` between `<!-- name:start ... -->` and `<!-- name:end -->`."""
    start, end = text.index(f"<!-- {name}:start"), text.index(f"<!-- {name}:end")
    head = text[: text.index("-->", start) + 3]
    return f"{head}\n\n{content}\n\n{text[end:]}"


def generate() -> dict[Path, str]:
    """What each generated file should contain."""
    records = read_records()
    readme = (ROOT / "README.md").read_text()
    readme = replace_block(readme, "accuracy", readme_accuracy(records))
    readme = replace_block(readme, "speed", readme_speed(read_speed_records()))
    return {
        ROOT / "docs" / "results.md": results_page(records),
        ROOT / "docs" / "analyses.md": _analyses.page(_analyses.read()),
        ROOT / "docs" / "reliability.md": _reliability.page(),
        ROOT / "README.md": readme,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    check = parser.parse_args().check
    made = generate()
    stale = [path for path in made if not path.exists() or path.read_text() != made[path]]
    drawn = pictures(read_records())
    stale += [path for path, values in drawn.items() if not _curves.shows(path, values)]
    boards = scoreboards(read_records())
    stale += [path for path, shown in boards.items() if not _curves.shows(path, shown)]
    analysed = {_analyses.image_of(record): record for record in _analyses.read()}
    stale += [path for path, record in analysed.items() if not _analyses.shows(path, record)]
    for path in stale:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check and path in made:
            path.write_text(made[path])
        elif not check and path in analysed:
            _analyses.draw(path, analysed[path])
        elif not check and path in boards:
            _curves.draw_scoreboard(path, boards[path])
        elif not check:
            _curves.draw(path, drawn[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
