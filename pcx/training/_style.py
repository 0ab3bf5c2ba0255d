"""Figures in the style of pcx/figures.mplstyle, which fits light and dark pages.

Lines differ in dashes or marks as well, for print without colours. What a user's own matplotlib style
says of colours is left out, since it may not fit these.
"""

import functools
import io
from typing import Any

import numpy as np

# about equally far from white and from black; the ink is that of the style
INK, BLUE, ORANGE = "#7a7a7a", "#3b82f6", "#ea580c"
_PURPLE = "#a855f7"
DASHES = ("-", "--", "-.", ":")

MISSING = """plots need matplotlib, which is not installed; install the extra that has it: \
`pip install "pcx-networks[examples]"`"""


def panels(
    rows: int, columns: int, title: str = "", size: tuple[float, float] = (5.2, 3.7)
) -> tuple[Any, Any]:
    """A figure with a grid of axes, `size` inches each; `(figure, flat array of axes)`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING) from error
    with style.context("pcx.figures"):
        # a figure of its own: pyplot would keep it alive, and would want a display
        figure = _shown(Figure)(figsize=(size[0] * columns, size[1] * rows), dpi=150)
        grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    return figure, grid


@functools.cache
def _shown(figure: Any) -> Any:
    """A figure that shows itself at the end of a notebook's cell, also where pyplot is not in use."""

    def png(self: Any) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()

    return type("Figure", (figure,), {"_repr_png_": png, "__doc__": figure.__doc__})


def legend(axes: Any, **options: Any) -> None:
    """A legend without a frame."""
    axes.legend(frameon=False, labelcolor=INK, **options)


def series(count: int) -> list[dict[str, Any]]:
    """Options of lines for layers in order: colours from blue to orange, dashes by turns."""
    from matplotlib.colors import LinearSegmentedColormap

    ramp = LinearSegmentedColormap.from_list("layers", [BLUE, _PURPLE, ORANGE])
    return [
        {"color": ramp(place), "linestyle": DASHES[k % len(DASHES)]}
        for k, place in enumerate(np.linspace(0, 1, max(count, 2))[:count])
    ]
