"""Figures of energies and scores. For training curves see `History.plot`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..algorithms import Record
from ._energies import _table
from ._ood import roc_auc, roc_curve

MISSING = """plots need matplotlib, which is not installed; install the extra that has it: \
`pip install "pcx[examples]"`"""


def plot_energies(
    energies: Record | Mapping[str, Any] | Any,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Any:
    """Energy of each vode over inference steps, and the total.

    Args:
        energies: what `layer_energies` gives, a `Record` with energies, or an array (T + 1, vodes).
        names: names of the vodes.
        title: above the figure.

    Returns:
        The matplotlib figure; `figure.savefig(path)` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: not one name for each vode.

    Example:
        >>> import numpy as np, pcx.analysis as pxan
        >>> figure = pxan.plot_energies(np.ones((5, 3)), names=["a", "b", "c"])
    """
    figure, axes = _figure(1, title)
    if isinstance(energies, Mapping):
        names = tuple(energies) if names is None else names
        energies = np.stack([np.asarray(e) for e in energies.values()], -1)
    table = _table(energies)
    names = [f"vode {k}" for k in range(table.shape[-1])] if names is None else names
    if len(names) != table.shape[-1]:
        raise ValueError(f"one name for each of the {table.shape[-1]} vodes; got {len(names)}")
    from matplotlib import colormaps

    colours = colormaps["viridis"](np.linspace(0, 0.85, len(names)))
    steps = np.arange(len(table))
    for k, name in enumerate(names):
        # what has not moved yet has no energy, which a logarithm cannot show
        axes[0].plot(
            steps, np.where(table[:, k] > 0, table[:, k], np.nan), color=colours[k], label=name
        )
    axes[0].plot(steps, table.sum(-1), color="#222222", linestyle="--", label="total")
    axes[0].set(xlabel="inference step", ylabel="energy per sample (nats)", yscale="log")
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def plot_scores(
    scores: Mapping[str, tuple[Any, Any]], labels: tuple[str, str] = ("inside", "outside")
) -> Any:
    """Histograms of each score for familiar and unfamiliar samples, and the ROC curves.

    Args:
        scores: `{name: (inside, outside)}`, such as
            `{"energy": (energy_score(pc, digits), energy_score(pc, letters))}`.
        labels: of the two kinds of samples.

    Returns:
        The matplotlib figure; `figure.savefig(path)` writes it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no scores.

    Example:
        >>> import numpy as np, pcx.analysis as pxan
        >>> figure = pxan.plot_scores({"energy": (np.arange(9.0), np.arange(5.0))})
    """
    if not scores:
        raise ValueError("plot_scores: no scores given")
    figure, axes = _figure(len(scores) + 1)
    for panel, (name, (inside, outside)) in zip(axes, scores.items(), strict=False):
        both = np.concatenate([np.ravel(inside), np.ravel(outside)])
        bins = np.linspace(both.min(), both.max(), 41)
        for values, label, colour in zip((inside, outside), labels, COLOURS, strict=True):
            panel.hist(np.ravel(values), bins, density=True, alpha=0.6, color=colour, label=label)
        panel.set(xlabel=f"{name} score", ylabel="density")
        panel.legend(frameon=False)
        curve = roc_curve(inside, outside)
        axes[-1].plot(*curve, label=f"{name} (AUC {roc_auc(inside, outside):.3f})")
    axes[-1].plot([0, 1], [0, 1], color="#8a8a8a", linestyle=":")
    axes[-1].set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axes[-1].legend(frameon=False)
    return figure


COLOURS = ("#2563eb", "#ea580c")


def _figure(panels: int, title: str = "") -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING) from error
    # a Figure of its own: pyplot would keep it alive, and would want a display
    figure = Figure(figsize=(5.2 * panels, 3.7), dpi=150, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure, axes
