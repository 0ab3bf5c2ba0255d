"""Learning curves as SVG: the figures of docs/results.md, drawn by docs/_generate.py.

A figure says in its description which values it shows, so that a test can tell whether it is up to
date without drawing it, which another version of matplotlib would do a little differently.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

Curves = dict[str, list[list[float]]]  # {algorithm: a curve for each seed}


def digest(curves: Any) -> str:
    return hashlib.sha256(json.dumps(curves, sort_keys=True).encode()).hexdigest()


def shows(path: Path, curves: Any) -> bool:
    """Whether the file is a figure of these values."""
    return path.exists() and digest(curves) in path.read_text()


def draw(path: Path, curves: Curves) -> None:
    """Mean of the seeds after each epoch, from their lowest to their highest value in pale."""
    import matplotlib
    import numpy as np

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    look = {"svg.fonttype": "none", "svg.hashsalt": path.name, "font.size": 9}
    with plt.style.context(["pcx.figures", look]):
        figure, axes = plt.subplots(figsize=(7.2, 3.2))
        lowest, dashes = [], ("-", "--", "-.", ":")
        for k, (name, runs) in enumerate(curves.items()):
            values = np.array([run[: min(map(len, runs))] for run in runs])
            epochs = np.arange(1, values.shape[1] + 1)
            # six colours: what comes after them differs in its dashes
            line = {"color": f"C{k % 6}", "linestyle": dashes[k // 6], "linewidth": 1.5}
            axes.plot(epochs, values.mean(axis=0), label=name, **line)
            low, high = values.min(axis=0), values.max(axis=0)
            axes.fill_between(epochs, low, high, color=line["color"], alpha=0.12, linewidth=0)
            lowest.append(low[len(low) // 8])
        # the first epochs fall out of the picture, or nobody could tell the later ones apart
        axes.set_ylim(bottom=min(lowest))
        axes.set(xlabel="epoch", ylabel="test accuracy (%)")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Description": digest(curves)})
        plt.close(figure)


def draw_scoreboard(path: Path, shown: dict[str, Any]) -> None:
    """The figure of examples/scoreboard.py, from records."""
    import matplotlib

    matplotlib.use("agg")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    from scoreboard import plot

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
        figure = plot(shown, "One network, all algorithms")
        figure.savefig(path, metadata={"Date": None, "Description": digest(shown)})
