"""Figures of energies and scores. For training curves see `History.plot`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..algorithms import Record
from ..training._style import BLUE, INK, ORANGE, legend, panels, series
from ._energies import _table
from ._ood import roc_auc, roc_curve


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
    figure, axes = panels(1, 1, title)
    if isinstance(energies, Mapping):
        names = tuple(energies) if names is None else names
        energies = np.stack([np.asarray(e) for e in energies.values()], -1)
    table = _table(energies)
    names = [f"vode {k}" for k in range(table.shape[-1])] if names is None else names
    if len(names) != table.shape[-1]:
        raise ValueError(f"one name for each of the {table.shape[-1]} vodes; got {len(names)}")
    lines = series(len(names))
    steps = np.arange(len(table))
    for k, name in enumerate(names):
        # what has not moved yet has no energy, which a logarithm cannot show
        axes[0].plot(steps, np.where(table[:, k] > 0, table[:, k], np.nan), label=name, **lines[k])
    axes[0].plot(steps, table.sum(-1), color=INK, linewidth=4, alpha=0.5, zorder=1, label="total")
    axes[0].set(xlabel="inference step", ylabel="energy per sample (nats)", yscale="log")
    legend(axes[0], fontsize="small")
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
    figure, axes = panels(1, len(scores) + 1)
    lines = series(len(scores))
    for panel, (name, (inside, outside)), line in zip(axes, scores.items(), lines, strict=False):
        both = np.concatenate([np.ravel(inside), np.ravel(outside)])
        bins = np.linspace(both.min(), both.max(), 41)
        for values, label, colour in zip((inside, outside), labels, (BLUE, ORANGE), strict=True):
            panel.hist(np.ravel(values), bins, density=True, alpha=0.6, color=colour, label=label)
        panel.set(xlabel=f"{name} score", ylabel="density")
        legend(panel)
        curve = roc_curve(inside, outside)
        axes[-1].plot(*curve, label=f"{name} (AUC {roc_auc(inside, outside):.3f})", **line)
    axes[-1].plot([0, 1], [0, 1], color=INK, linestyle=":")
    axes[-1].set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    legend(axes[-1])
    return figure
