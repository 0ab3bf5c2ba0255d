"""A record as Markdown tables."""

from benchmarks import measure

PAPER_PC_OVER_BP = {"mlp": 1.07, "vgg5-t5": 3.3, "vgg5-t7": 3.3, "vgg7": 7.2, "alexnet": 3.7}


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, without an exponent for the sizes that occur here."""
    if value is None:
        return "–"
    if value == 0:
        return "0" + unit
    digits = 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 3
    return f"{value:,.{max(digits, 0)}f}{unit}"


def percent(value: float | None) -> str:
    return (
        "–" if value is None else f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"
    )


def small(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}" if value else "0"


def spread(summary: dict | None) -> str:
    if summary is None:
        return "–"
    return f"{number(summary['median'])} [{number(summary['q1'])}, {number(summary['q3'])}]"


def describe_case(spec: dict) -> str:
    widths = [str(layer["out"]) for layer in spec["layers"]]
    kind = "MLP" if all(layer["kind"] == "dense" for layer in spec["layers"]) else "convolutional"
    shape = "×".join(map(str, spec["input_shape"]))
    act = "" if spec.get("act", "leaky_relu") == "leaky_relu" else f"{spec['act']}, "
    energy = {"se": "squared error", "ce": "cross-entropy"}[spec["loss"]]
    return (
        f"{kind}, input {shape}, layers {'-'.join(widths)}, batch {spec['batch']}, "
        f"T = {spec['T']}, {act}{energy}, states SGD({spec['state_lr']}, momentum "
        f"{spec['momentum']}), weights AdamW({spec['weight_lr']})"
    )


def case_tables(record: dict) -> str:
    """Times and memory of one case."""
    ran = {name: p for name, p in record["programs"].items() if "ms" in p}
    product = ran.pop(measure.PRODUCT, None)
    order = sorted(ran, key=lambda name: (measure.entry_of(name).learns_by, ran[name]["median_ms"]))
    times = []
    memory = []
    for name in order:
        p = ran[name]
        floor = " (floor)" if p.get("floor") == name else ""
        if "date" in p:
            floor += f" ({p['date']})"
        times.append(
            [
                f"`{name}`{floor}",
                number(p["median_ms"]),
                number(p["q3_ms"] - p["q1_ms"]),
                spread(p.get("ratio")),
                percent(p.get("share")),
                number(p["first_call_s"]),
                number(p.get("first_call_ratio")),
                str(p["compilations_in_second_call"]),
                small(p.get("update_difference")),
            ]
        )
        m = p["memory"]
        step = m["peak_mib"] - m["before_mib"] if m["peak_is_of_the_steps"] else None
        memory.append(
            [
                f"`{name}`",
                number(p["peak_mib_since_start"]),
                number(max(step, 0) if step is not None else None),
                number(m["xla_temp_mib"]),
            ]
        )
    about = describe_case(record["spec"]) + "."
    if product is not None:
        rate = number(product["gflops"])
        about += f" Products of two matrices of 1024 x 1024 in the same rounds: {rate} GFLOP/s."
    parts = [
        about,
        table(
            [
                "program",
                "ms per step",
                "spread (IQR)",
                "ratio to the floor [quartiles]",
                "share of the product rate",
                "first call, s",
                "its ratio",
                "compilations in the 2nd call",
                "difference of the update",
            ],
            times,
        ),
        table(
            [
                "program",
                "peak memory of the process, MiB",
                "rise during a step, MiB",
                "XLA scratch, MiB",
            ],
            memory,
        ),
    ]
    missing = {name: p["reason"] for name, p in record["programs"].items() if "reason" in p}
    if missing:
        parts.append("\n".join(f"* `{name}` not run: {why}." for name, why in missing.items()))
    return "\n\n".join(parts)


def pc_over_bp(cases: dict[str, dict]) -> str | None:
    """PC's time over back-propagation's for every case that has both; None when none has."""
    rows = []
    for name, record in cases.items():
        programs = record["programs"]
        own, hand = (programs.get(key, {}).get("over_bp") for key in ("pxa-pc", "hand-unroll"))
        if own or hand:
            paper = PAPER_PC_OVER_BP.get(name)
            rows.append([f"`{name}`", spread(own), spread(hand), number(paper)])
    if not rows:
        return None
    return table(["case", "`pxa`: PC / BP", "hand-written: PC / BP", "paper (A100)"], rows)


def overhead_table(record: dict) -> str:
    if "reason" in record:
        return f"Not run: {record['reason']}."
    rows = [
        [str(row["params"])]
        + [number(row[key]) for key in ("pcx-one", "jax-one", "pcx-all", "jax-all")]
        for row in record["rows"]
    ]
    parts = [
        table(
            [
                "params",
                "`pxf.jit`, one changed, µs",
                "`jax.jit`, µs",
                "`pxf.jit`, all changed, µs",
                "`jax.jit`, µs",
            ],
            rows,
        )
    ]
    for change, fit in record["fits_of_pcx_minus_jax"].items():
        parts.append(
            f"Least squares of the difference, {change} changed: {number(fit['us_per_call'])} µs "
            f"per call and {number(fit['us_per_param'])} µs per param."
        )
    return "\n\n".join(parts)


def scaling_tables(record: dict) -> str:
    parts = []
    for axis, points in record["axes"].items():
        names = [name for name, p in points[0]["programs"].items() if "median" in p]
        rows = []
        for point in points:
            cells = [str(point["value"])]
            for name in names:
                p = point["programs"].get(name, {})
                cells.append(f"{number(p.get('median'))} ({number(p.get('first_call_s'))})")
            rows.append(cells)
        parts.append(table([axis, *(f"`{name}`" for name in names)], rows))
    return "\n\n".join(parts)


def machine_line(machine: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    commit = (machine["commit"] or "no commit")[:12]
    changed = " with uncommitted changes" if machine["uncommitted_changes"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; device "
        f"{machine['device']}; Python {machine['python']}, {versions}; commit {commit}{changed}; "
        f"{machine['date']}"
    )
