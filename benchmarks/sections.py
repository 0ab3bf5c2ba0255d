"""The sections of docs/benchmarks.md that come from a program of their own: the newest record as a table."""

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


# seconds of an epoch of back-propagation and of PC in the paper's Table 4
PAPER = {
    "MLP, Fashion-MNIST": (1.82, 1.94),
    "AlexNet, CIFAR-10": (1.04, 3.86),
    "VGG-5, CIFAR-100": (1.61, 5.33),
    "VGG-7, Tiny ImageNet": (7.59, 54.60),
}


def table_4(record: dict) -> str:
    """Table 4 of the paper."""
    rows = []
    for name, network in record["table4"].items():
        ms = {n: p["ms"]["median"] for n, p in network["programs"].items()}
        steps, (bp, pc) = network["steps_per_epoch"], PAPER[name]
        programs = ("hand-bp", "pxa-bp", "hand-unroll", "hand-lazy", "pxa-pc")
        seconds = [f"{ms[n] * steps / 1e3:.2f}" for n in programs]
        own = f"{ms['pxa-pc'] / ms['pxa-bp']:.1f}"
        rows.append([name, *seconds, own, f"{bp:.2f}", f"{pc:.2f}", f"{pc / bp:.1f}"])
    return _table(["s / epoch", *programs, "PC / BP", "paper: BP", "PC", "PC / BP"], rows)


def depth(record: dict) -> str:
    """The time of a step by depth."""
    depths = sorted(record["depth"], key=int)
    rows = [
        [n, *(f"{record['depth'][L]['programs'][n]['ms']['median']:.2f}" for L in depths)]
        for n in record["depth"][depths[0]]["programs"]
    ]
    return _table(["ms / step", *(f"L = {L}" for L in depths)], rows)


# by the folder of the records and the part of them that is shown
SECTIONS: dict[tuple[str, str], tuple[str, str, Callable[[dict], str]]] = {
    ("accelerator", "table4"): (
        "On a GPU",
        "`python -m benchmarks.accelerator --sections table4`: seconds of an epoch of the networks in the paper's "
        "Table 4 (batches of 128 of noise, T = 8; an epoch is as many steps as there are whole batches), beside "
        "what the paper measured on an A100 with its data loaders and a T that it does not state. A step of the "
        "MLP, some tenths of a millisecond, takes pcx about twice the time of a hand-written one. "
        "`Trainer(..., steps_per_call=...)` takes many steps in one call.",
        table_4,
    ),
    ("accelerator", "depth"): (
        "Depth on a GPU",
        "`python -m benchmarks.accelerator --sections depth`: milliseconds of a step with L hidden layers of 128, "
        "whose equal layers a `pxc.Stack` computes at once.",
        depth,
    ),
    ("trainer", "cases"): (
        "The trainer",
        "`python -m benchmarks.trainer`: microseconds per training step (and the ratio to a bare loop over "
        "`train_step`), with logging and a history. *In a call*: `Trainer(..., steps_per_call=...)`.",
        trainer,
    ),
    ("population", "cases"): (
        "Populations",
        "`python -m benchmarks.population`: members that differ in seed and learning rate, trained together by "
        "`pxt.Population` and one after another by a `Trainer`.",
        population,
    ),
    ("equilibrium", "chains"): (
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
    for (kind, part), (title, text, render) in SECTIONS.items():
        records = [json.loads(p.read_text()) for p in sorted((results / kind).glob("*.json"))]
        if records := [record for record in records if part in record]:
            record = records[-1]
            measured = f"Measured on: {tables.machine_line(record['machine'])}."
            if record["machine"].get("load_average", 0) > record["machine"]["cores"]:
                measured += (
                    f" Load average {record['machine']['load_average']:.0f}: other programs ran "
                    "beside it, so that only ratios mean something."
                )
            if "note" in record:
                measured += f" {record['note']}"
            parts += [f"## {title}", text, render(record), measured]
    return "\n\n".join(parts)
