"""`draw`: the graph of a model's nodes as a picture."""

from collections.abc import Sequence
from typing import Any

from ..predictive_coding._graph import Node, nodes
from ..training._style import BLUE, INK, ORANGE, panels

# inches; text is 8 points
BOX, ROW, COLUMN = (1.9, 0.46), 0.85, 2.5


def draw(model: Any, x: Any = None, title: str = "") -> Any:
    """A picture of a model's nodes, the input below: who predicts whom, and what is clamped.

    Arrows go from what a prediction is made of to the node that is predicted. Those that pass over
    nodes (skips) are curved; those to a node from itself or from above are dashed. Frozen nodes,
    which inference leaves alone, and the input are filled.

    Args:
        model: an `EnergyModule`; it is traced, not run.
        x: an input of one sample, or its `jax.ShapeDtypeStruct`; None for a model without input.
        title: above the picture.

    Returns:
        The matplotlib figure; `figure.savefig(path)` writes it.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> import jax.numpy as jnp, pcx.analysis as pxan, pcx.models as pxm
        >>> figure = pxan.draw(pxm.MLP([4, 16, 3]), jnp.ones(4))
    """
    graph = nodes(model, x)
    levels = _levels(graph)
    rows: dict[int, list[str]] = {}
    if any("x" in node.inputs for node in graph):
        levels["x"] = 0
    for name, level in levels.items():
        rows.setdefault(level, []).append(name)
    widest = max(map(len, rows.values()))
    place = {
        name: ((k - (len(row) - 1) / 2) * COLUMN, level * ROW)
        for level, row in rows.items()
        for k, name in enumerate(row)
    }
    edges = [(source, node.name) for node in graph for source in node.inputs]
    bends = [_bend(levels[a], levels[b]) for a, b in edges]
    middle, edge = (widest - 1) / 2 * COLUMN, BOX[0] / 2 + 0.15
    # skips pass on the left, what goes back on the right
    left = middle + edge + 0.5 * max(bends, default=0) ** 0.5
    right = middle + edge + 0.5 * any(levels[a] >= levels[b] for a, b in edges)
    height = (max(rows) + 1) * ROW
    figure, (axes,) = panels(1, 1, title, size=(left + right, height + (0.4 if title else 0)))
    axes.set(xlim=(-left, right), ylim=(-ROW / 2, height - ROW / 2), aspect="equal")
    axes.set_axis_off()
    for (source, target), bend in zip(edges, bends, strict=True):
        _arrow(axes, place[source], place[target], bend, levels[source] >= levels[target])
    for node in graph:
        shape = "" if node.shape is None else f"{node.shape}  "
        _box(axes, place[node.name], node.name, f"{shape}{node.energy}", node.frozen)
    if "x" in place:
        shape = getattr(x, "shape", "")
        _box(axes, place["x"], "x", str(tuple(shape)) if shape != "" else "", True)
    return figure


def _levels(graph: Sequence[Node]) -> dict[str, int]:
    """How far each node is from the input, by the longest way without a cycle."""
    by_name = {node.name: node for node in graph}
    levels: dict[str, int] = {}
    open_: list[str] = []

    def visit(name: str) -> int:
        if name == "x":
            return 0
        if name in open_:  # a cycle is cut where it was entered
            return -1
        if name not in levels:
            open_.append(name)
            level = 1 + max((visit(i) for i in by_name[name].inputs), default=-1)
            open_.pop()
            levels[name] = level
        return levels[name]

    for node in graph:
        visit(node.name)
    return {node.name: levels[node.name] for node in graph}


def _bend(below: int, above: int) -> int:
    """How many rows an arrow passes on its way up."""
    return max(above - below - 1, 0)


def _arrow(axes: Any, start: Any, end: Any, bend: int, back: bool) -> None:
    from matplotlib.patches import FancyArrowPatch

    (x0, y0), (x1, y1) = start, end
    options: dict[str, Any] = {"color": ORANGE if back or bend else INK, "linewidth": 1.3}
    if back:
        # from the right side of one to the right side of the other
        lower, upper = (x0 + BOX[0] / 2, y0 - 0.14), (x1 + BOX[0] / 2, y1 + 0.14)
        options |= {"linestyle": "--", "connectionstyle": "arc3,rad=1.2"}
        points = (lower, upper)
    elif bend:
        # around the left sides of the nodes that it passes
        points = ((x0 - BOX[0] / 2, y0), (x1 - BOX[0] / 2, y1))
        options["connectionstyle"] = f"arc3,rad=-{0.45 * bend**0.5 / (y1 - y0) * 2:.3f}"
    else:
        points = ((x0, y0 + BOX[1] / 2), (x1, y1 - BOX[1] / 2))
    axes.add_patch(
        FancyArrowPatch(
            *points, arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, **options
        )
    )


def _box(axes: Any, centre: Any, name: str, detail: str, filled: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = centre
    corner = (x - BOX[0] / 2, y - BOX[1] / 2)
    face = (*_rgb(BLUE), 0.13) if filled else "none"
    axes.add_patch(
        FancyBboxPatch(
            corner,
            *BOX,
            boxstyle="round,pad=0,rounding_size=0.08",
            edgecolor=BLUE if filled else INK,
            facecolor=face,
            linewidth=1.6 if filled else 1.2,
        )
    )
    name = name if len(name) <= 24 else ".." + name[-22:]
    where = {"ha": "center", "color": INK}
    axes.text(x, y + (0.03 if detail else 0), name, **where, va="bottom" if detail else "center",
              fontsize=8, fontweight="bold")  # fmt: skip
    axes.text(x, y - 0.03, detail, **where, va="top", fontsize=7)


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)
