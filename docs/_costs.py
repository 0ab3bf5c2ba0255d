"""What the tables of docs/results.md cost on a CPU: one command for each, its time and its memory."""

import math
import re
from typing import Any

from _analyses import table

COSTS = """## One command for each table

On {hardware}, one seed, all rows that keep to the protocol of the table; *time* is that of training and testing,
from the records, most of which were made beside other work on the machine; *memory* the largest that a process
needed, where it was measured. `DIR` is the folder with the data: 12 MB for MNIST, 31 MB for Fashion-MNIST, 170 MB
for CIFAR-10, 250 MB for Tiny ImageNet ([how to get them](howto/data.md#official-data-sets)). Records and figures
take 1.3 MB at the most. `--seeds` takes several."""

# an option that chooses rows of a table, and its values
OPTION = re.compile(
    r""" --(algorithms|methods|depths|dynamics|seeds)((?: (?:"[^"]*"|'[^']*'|(?!--)\S+))+)"""
)
VALUE = re.compile(r""""[^"]*"|'[^']*'|\S+""")


def section(titled: list[tuple[str, list[dict[str, Any]]]]) -> list[str]:
    """The section, from the title and the records of each table; none without a record from a CPU.

    Rows that one run measured together have one time, which counts once.
    """
    lines, hardware = [], set()
    for title, records in titled:
        own = [r for r in records if "CPU" in r["hardware"]]
        # the rows with the protocol of the table, or of a smaller one if there is no other
        if not own:
            continue
        notes = sorted({r.get("note", "") for r in own}, key=lambda n: (n != "", n))
        own = [r for r in own if r.get("note", "") == notes[0]]
        if not any("seconds" in r for r in own):
            continue
        seed = min(r["seed"] for r in own)
        first = [r for r in own if r["seed"] == seed]
        age = lambda r: (r["date"][:10], -r["epochs"])
        newest = {(r["experiment"], r["algorithm"]): r for r in sorted(first, key=age)}
        times = {(r["command"], r["seconds"]) for r in newest.values() if "seconds" in r}
        memory = max((r["peak_memory_mib"] for r in own if "peak_memory_mib" in r), default=None)
        command = together([record["command"] for record in newest.values()])
        if any(f"`{command}`" in line for line in lines):
            continue  # another metric of the same runs
        hardware |= {r["hardware"] for r in newest.values()}
        lines.append(
            [
                title + (f" ({notes[0]})" if notes[0] else ""),
                f"`{command}`",
                # exact, and so the same in whatever order the set is
                duration(math.fsum(seconds for _, seconds in times)),
                "–" if memory is None else f"{memory / 1024:.1f} GiB",
            ]
        )
    if not lines:
        return []
    text = COSTS.format(hardware=" and ".join(sorted(hardware)))
    return [text, table(["table", "command", "time", "memory"], lines)]


def together(commands: list[str]) -> str:
    """One command for what several commands made, each a part of the rows."""
    chosen: dict[str, list[str]] = {}
    for command in commands:
        for name, values in OPTION.findall(command):
            known = chosen.setdefault(name, [])
            known += [v for v in VALUE.findall(values) if v not in known]
    said = [
        f" --{name} {' '.join(values)}"
        for name, values in chosen.items()
        # a command without the option makes all rows
        if name != "seeds" and all(f" --{name} " in command for command in commands)
    ]
    return min((OPTION.sub("", command) for command in commands), key=len) + "".join(said)


def duration(seconds: float) -> str:
    """`5 min`, or `40 s` below two minutes."""
    return f"{seconds:.0f}\u00a0s" if seconds < 120 else f"{seconds / 60:.0f}\u00a0min"
