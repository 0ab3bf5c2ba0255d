"""The sections of docs/benchmarks.md that come from a program of their own: its newest record as a table."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import tables


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def _sizes(case: dict) -> str:
    return f"{'-'.join(map(str, case['sizes']))}, batch {case['batch']}"


def trainer(record: dict) -> str:
    """`Trainer.fit` beside a bare loop over `train_step`."""
    cases = record["cases"]
    programs = dict.fromkeys(name for case in cases.values() for name in case["programs"])
    rows = []
    for name in programs:
        runs = [case["programs"].get(name) for case in cases.values()]
        rows.append(
            [name, *(f"{r['us_per_step']:.0f} ({r['ratio']:.2f})" if r else "–" for r in runs)]
        )
    return _table(["program", *map(_sizes, cases.values())], rows)


def population(record: dict) -> str:
    """Members trained together beside the same members one after another."""
    rows = []
    for case in record["cases"]:
        for name, run in case["programs"].items():
            label = f"{case['members']} of {_sizes(case)}: {name}"
            rows.append([label, f"{run['ms_per_step']:.2f}", f"{run['times_faster']:.2f}"])
    return _table(["members", "ms for a step of all", "times faster"], rows)


def equilibrium(record: dict) -> str:
    """Milliseconds and iterations to equilibrium, by depth."""
    parts = []
    for kind, by_depth in record["chains"].items():
        depths = list(by_depth)
        rows = []
        for method in by_depth[depths[0]]:
            runs = [by_depth[depth][method] for depth in depths]
            rows.append([method, *(_reached(run, record["batch"]) for run in runs)])
        head = [f"{kind} chain", *(f"L = {depth}" for depth in depths)]
        parts.append(_table(head, rows))
    return "\n\n".join(parts)


def _reached(run: dict, batch: int) -> str:
    return f"{run['ms']:.1f} ({run['iterations']})" if run["met"] == batch else f"– ({run['met']})"


SECTIONS: dict[str, tuple[str, str, Callable[[dict], str]]] = {
    "trainer": (
        "The trainer",
        "`python -m benchmarks.trainer`: microseconds per training step (and the ratio to a bare loop over "
        "`train_step`), with logging and a history. *In a call*: `Trainer(..., steps_per_call=...)`.",
        trainer,
    ),
    "population": (
        "Populations",
        "`python -m benchmarks.population`: members that differ in seed and learning rate, trained together by "
        "`pxt.Population` and one after another by a `Trainer`.",
        population,
    ),
    "equilibrium": (
        "Inference to equilibrium",
        "`python -m benchmarks.equilibrium`: milliseconds (iterations) until the gradient in the states is a "
        "thousandth of what it was after the forward pass, for all samples; a dash where the cap came "
        "first, with the number of samples that were there. Chains of L layers of 32, weights from N(0, 1/n); "
        "half of the largest stable rate.",
        equilibrium,
    ),
}


def sections(results: Path) -> str:
    """All of them, as Markdown; without those that have no record."""
    parts = []
    for kind, (title, text, render) in SECTIONS.items():
        paths = sorted((results / kind).glob("*.json"))
        if paths:
            record = json.loads(paths[-1].read_text())
            measured = f"Measured on: {tables.machine_line(record['machine'])}."
            if record["machine"].get("load_average", 0) > record["machine"]["cores"]:
                measured += (
                    f" Load average {record['machine']['load_average']:.0f}: other programs ran "
                    "beside it, so that only ratios mean something."
                )
            parts += [f"## {title}", text, render(record), measured]
    return "\n\n".join(parts)
