"""The figure of a history."""

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _style
from ._style import BLUE, ORANGE, legend, series

if TYPE_CHECKING:
    from ._history import History


def plot_history(history: "History", title: str = "") -> Any:
    """Panels side by side: each metric, the energy, the learning rate, energies during
    inference."""
    own = {"epoch", "energy", "lr", "seconds"}
    bases = {name.removeprefix("val_") for name in history.epoch}
    panels: list[Any] = [(_metric, name) for name in sorted(bases - own)]
    panels.append((_energy, "energy"))
    if "lr" in history:
        panels.append((_learning_rate, "lr"))
    if history.inference:
        panels.append((_inference, "inference"))
    columns = min(len(panels), 2)
    figure, grid = _style.panels(-(-len(panels) // columns), columns, title)
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (draw, name) in zip(grid, panels, strict=False):
        draw(axes, history, name)
    return figure


def _lines(axes: Any, history: "History", name: str, scale: float = 1.0) -> None:
    for key, label, colour in ((name, "training", BLUE), (f"val_{name}", "validation", ORANGE)):
        if key in history:
            _over_epochs(axes, scale * history[key], colour, label)
    if f"val_{name}" in history:
        legend(axes)


def _over_epochs(axes: Any, values: Any, colour: str, label: str | None) -> None:
    # what is measured every few epochs only is drawn as one line
    epochs, values = np.arange(1, len(values) + 1), np.asarray(values)
    known = ~np.isnan(values)
    axes.plot(
        epochs[known],
        values[known],
        color=colour,
        linestyle="--" if colour == ORANGE else "-",
        label=label,
        **_marks(len(values)),
    )
    axes.set_xlabel("epoch")
    _whole_numbers(axes)


def _metric(axes: Any, history: "History", name: str) -> None:
    percent = "accuracy" in name
    _lines(axes, history, name, 100 if percent else 1)
    axes.set_ylabel(f"{name.replace('_', ' ')}{' (%)' if percent else ''}")


def _energy(axes: Any, history: "History", name: str) -> None:
    _lines(axes, history, name)
    axes.set_ylabel("energy per sample (nats)")
    values = [history[key] for key in (name, f"val_{name}") if key in history]
    # less than a decade is read more easily on a linear scale
    if values and 0 < 10 * np.nanmin(values) < np.nanmax(values):
        axes.set_yscale("log")


def _learning_rate(axes: Any, history: "History", name: str) -> None:
    _over_epochs(axes, history[name], BLUE, None)
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))


def _inference(axes: Any, history: "History", name: str) -> None:
    energies = history.inference_energies()
    # rounding of a state that has not moved yet is no energy
    shown = np.where(energies > 1e-12 * np.max(energies), energies, np.nan)
    names = history.vode_names or tuple(f"vode {i}" for i in range(shown.shape[1]))
    lines = series(len(names))
    many = len(names) > 8
    for index, vode in enumerate(names):
        label = vode if not many or index in (0, len(names) - 1) else None
        axes.plot(shown[:, index], label=label, **lines[index], **_marks(len(shown)))
    axes.set_yscale("log")
    axes.set_xlabel("inference step (last epoch)")
    axes.set_ylabel("energy per sample (nats)")
    _whole_numbers(axes)
    legend(axes, fontsize="small")


def _marks(count: int) -> dict[str, Any]:
    return {"linewidth": 1.8, "marker": "o", "markersize": 3.5 if count <= 40 else 0}


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
