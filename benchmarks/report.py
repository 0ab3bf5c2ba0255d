"""Records on disk, the plot, and `docs/benchmarks.md` made from them.

    python -m benchmarks.report            # rewrites docs/benchmarks.md and its plot

A record is one JSON file per run in `benchmarks/results/`. A run need not measure everything: the
page takes the newest measurement of every case and section, device by device, and says for each
where and when it was made.
"""

import argparse
import json
from pathlib import Path
from types import ModuleType

from benchmarks import measure, tables
from benchmarks.peers import PEERS
from benchmarks.programs import PROGRAMS
from benchmarks.sections import sections

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
PAGE = REPOSITORY / "docs" / "benchmarks.md"

PREAMBLE = """# Benchmarks

This page is generated: `python -m benchmarks.run` measures and writes a record,
`python -m benchmarks.report` rewrites the page from the records in `benchmarks/results/`.

Every program runs in a process of its own. All of them take turns, in a new random order each
round, so a machine that slows down slows them all; a ratio is taken inside a round, and the table
has the median of those ratios with their quartiles. The floor is the faster of the hand-written
JAX programs that do the full work (`hand-scan`, `hand-unroll`); back-propagation is compared with
`hand-bp`, equilibrium propagation with `hand-ep`. *Difference of the update* is the norm of the
difference between a program's weight change after two steps and the hand-written program's (a
peer's is compared in the peer's own environment), relative to the latter: below 1e-2 is float
rounding, which AdamW's first steps amplify where a gradient is close to zero; more is another
computation. *First call* is tracing, compiling and running one step. *Share of the product rate* is the time
that the case's matrix products would take at the rate at which two large matrices are multiplied in
the same rounds, over the time of a step: the limit is 100 % for a program that computes every layer at
every step, and what leaves some out can be above it. A program with a date comes from an older
run, with the ratios of that run.
"""


def rounded(value):
    """Six significant digits: what is beyond is noise, and makes records hard to compare by eye."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def write_record(record: dict, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    machine = record["machine"]
    stamp = machine["date"][:19].replace(":", "").replace("-", "")
    path = folder / f"{stamp}-{machine['device'].split(':')[0]}.json"
    path.write_text(json.dumps(rounded(record), indent=1, ensure_ascii=False) + "\n")
    return path


def read_records(folder: Path) -> list[dict]:
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(records, key=lambda record: record["machine"]["date"])


def device_title(machine: dict) -> str:
    """The heading of a device: "CPU · AMD EPYC", or an accelerator's name with its host's."""
    platform, _, name = machine["device"].partition(": ")
    return f"{'CPU' if platform == 'cpu' else name} · {machine['cpu']}"


def newer_case(old: dict | None, case: dict, machine: dict) -> dict:
    """A measured case, with the programs that only an older run had; these have a "date"."""
    programs = dict(case["programs"])
    # records from before cases had an activation
    spec = lambda case: {"act": "leaky_relu"} | case["spec"]
    if old is not None and spec(old) == spec(case):
        date = old["machine"]["date"][:10]
        for name, program in old["programs"].items():
            programs.setdefault(name, {"date": date, **program})
    return {**case, "programs": programs, "machine": machine}


def merge(records: list[dict]) -> dict[str, dict]:
    """By device: the newest record of every case and section, each with its own "machine"."""
    devices: dict[str, dict] = {}
    for record in records:
        machine = record["machine"]
        merged = devices.setdefault(device_title(machine), {"cases": {}})
        for name, case in record.get("cases", {}).items():
            old = merged["cases"].get(name)
            merged["cases"][name] = newer_case(old, case, machine)
        for section in ("overhead", "scaling"):
            if section in record:
                merged[section] = {**record[section], "machine": machine}
    return devices


def program_list(names) -> str:
    lines = []
    for name in names:
        if name in PEERS:
            peer = PEERS[name]
            caveat = f" ({peer.caveat})" if peer.caveat else ""
            lines.append(f"* `{name}`: {peer.entry.description}{caveat}.")
        else:
            lines.append(f"* `{name}`: {PROGRAMS[name].description}.")
    return "\n".join(lines)


def measured_on(section: dict) -> str:
    return "Measured on: " + tables.machine_line(section["machine"]) + "."


def device_section(title: str, merged: dict, plot: str | None) -> str:
    parts = [f"## {title}"]
    if plot:
        parts.append(f"![Ratios to the floor, and cost against size]({plot})")
    for name, case in merged["cases"].items():
        parts += [f"### Case `{name}`", tables.case_tables(case), measured_on(case)]
    ratio = tables.pc_over_bp(merged["cases"])
    if ratio:
        parts += ["### PC against back-propagation, time per step", ratio]
    if "overhead" in merged:
        parts += [
            "### Python overhead of a jitted call",
            "A function that does next to nothing to n params, each call awaited; beside it "
            "`jax.jit` on a tuple of n arrays.",
            tables.overhead_table(merged["overhead"]),
            measured_on(merged["overhead"]),
        ]
    if "scaling" in merged:
        parts += [
            "### Cost against depth, inference steps, width and batch",
            "The paper's Fig. 8: 2 hidden layers of 64, batch 32, T = 8, one size varied at a "
            "time. Milliseconds per step, and in parentheses seconds of the first call.",
            tables.scaling_tables(merged["scaling"]),
            measured_on(merged["scaling"]),
        ]
    return "\n\n".join(parts)


def page(records: list[dict], plots: dict[str, str] | None = None, more: str = "") -> str:
    """The whole page as Markdown; `more`: what stands at its end."""
    devices = merge(records)
    names = {n for m in devices.values() for c in m["cases"].values() for n in c["programs"]}
    known = [name for name in (*PROGRAMS, *PEERS) if name in names and name != measure.PRODUCT]
    parts = [PREAMBLE.rstrip()]
    if known:
        parts.append(program_list(known))
    if not devices:
        parts.append("No record yet: run `python -m benchmarks.run`.")
    for title, merged in devices.items():
        parts.append(device_section(title, merged, (plots or {}).get(title)))
    return "\n\n".join([*parts, more] if more else parts) + "\n"


def draw(merged: dict, path: Path) -> bool:
    """The plot of one device; False where matplotlib is not installed."""
    try:
        import matplotlib

        matplotlib.use("agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    with plt.style.context("pcx.figures"):
        draw_panels(merged, path, plt)
    return True


def draw_panels(merged: dict, path: Path, plt: ModuleType) -> None:
    """Ratios over the whole width, then what costs depend on."""
    scaling = merged.get("scaling", {}).get("axes", {})
    # two panels to a row
    rows = [["ratios", "ratios"]]
    for first in range(0, len(scaling), 2):
        pair = [*scaling][first : first + 2]
        rows.append(pair if len(pair) == 2 else pair * 2)
    heights = [4.6, *[3.2] * (len(rows) - 1)]
    fig, panels = plt.subplot_mosaic(
        rows, figsize=(9, sum(heights)), height_ratios=heights, layout="constrained"
    )
    draw_ratios(panels["ratios"], merged["cases"])
    for axis, points in scaling.items():
        draw_cost(panels[axis], axis, points)
    if scaling:
        panels[rows[1][0]].legend(fontsize=8, frameon=False, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def draw_cost(panel, axis: str, points: list[dict]) -> None:
    """Milliseconds per step against one size, a line for each program."""
    for name in points[0]["programs"]:
        line = [(p["value"], p["programs"].get(name, {}).get("median")) for p in points]
        line = [(x, y) for x, y in line if y is not None]
        if line:
            panel.loglog(*zip(*line, strict=True), marker="o", markersize=3, label=name)
    values = [p["value"] for p in points]
    panel.set_xticks(values, map(str, values))
    panel.set_xticks([], minor=True)
    panel.grid(alpha=0.3)
    panel.set(xlabel=axis, ylabel="ms per step", title=f"cost against {axis}")


def draw_ratios(panel, cases: dict) -> None:
    """One point with quartiles per program and case."""
    names = [
        n
        for n in (*PROGRAMS, *PEERS)
        if any("ratio" in c["programs"].get(n, {}) for c in cases.values())
    ]
    for row, name in enumerate(names):
        for index, case in enumerate(cases):
            ratio = cases[case]["programs"].get(name, {}).get("ratio")
            if ratio is None:
                continue
            height = -row - 0.6 * (index + 0.5) / len(cases) + 0.3
            panel.plot(
                [ratio["q1"], ratio["q3"]], [height] * 2, color=f"C{index % 6}", lw=3, alpha=0.5
            )
            label = case if case not in panel.get_legend_handles_labels()[1] else None
            # six colours: the cases after them have another marker
            look = {"color": f"C{index % 6}", "marker": "os^"[index // 6 % 3], "linestyle": "none"}
            panel.plot(ratio["median"], height, markersize=4, label=label, **look)
    panel.axvline(1, color="gray", lw=0.8)
    panel.set_xscale("log", subs=[2, 5])
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("{x:g}")
    panel.set_yticks([-row for row in range(len(names))], names)
    panel.set(xlabel="time per step over the floor's", title="ratio to hand-written JAX")
    if names:
        panel.legend(fontsize=8)


def write_page(results: Path, path: Path) -> list[Path]:
    """`path` and its plots, from the records in `results`; returns what was written."""
    records = read_records(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    plots: dict[str, str] = {}
    written = [path]
    for index, (title, merged) in enumerate(merge(records).items()):
        image = path.parent / "images" / f"benchmarks-{index}.png"
        if draw(merged, image):
            plots[title] = f"images/{image.name}"
            written.append(image)
    path.write_text(page(records, plots, sections(results)))
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    for path in write_page(arguments.results, arguments.page):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
