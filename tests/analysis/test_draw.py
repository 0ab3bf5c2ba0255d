"""Pictures of graphs, and the style that all figures share."""

import sys

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import pcx.analysis as pxan
import pcx.models as pxm
import pcx.training as pxt
from pcx.training import _style
from tests.predictive_coding.test_summary import Skips


def parts(figure):
    patches = figure.axes[0].patches
    arrows = [p for p in patches if isinstance(p, FancyArrowPatch)]
    return arrows, [p for p in patches if isinstance(p, FancyBboxPatch)]


def test_every_node_and_every_dependency_is_drawn():
    figure = pxan.draw(Skips(), jnp.ones(4), title="skips")
    arrows, boxes = parts(figure)
    assert len(boxes) == 5  # the input, too
    assert len(arrows) == 6
    curved = [a for a in arrows if a.get_connectionstyle().rad]
    assert len(curved) == 2  # h_1 to h_3, x to h_4
    colours = {to_hex(arrow.get_edgecolor()) for arrow in curved}
    assert len(colours) == 1
    assert not colours & {to_hex(arrow.get_edgecolor()) for arrow in arrows if arrow not in curved}
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"x", "vodes[0]", "vodes[3]", "(4,)  ce_energy"} <= texts


def test_what_is_clamped_is_filled():
    boxes = parts(pxan.draw(Skips(), jnp.ones(4)))[1]
    assert [box.get_facecolor()[3] > 0 for box in boxes] == [False, False, False, True, True]


def test_boxes_do_not_overlap_and_arrows_stay_inside():
    for figure in (
        pxan.draw(Skips(), jnp.ones(4)),
        pxan.draw(pxm.Hierarchy([8, 6, 4], 3), jnp.ones(8)),
    ):
        figure.canvas.draw()
        arrows, boxes = parts(figure)
        extents = [box.get_window_extent() for box in boxes]
        assert not any(a.overlaps(b) for k, a in enumerate(extents) for b in extents[:k])
        frame = figure.bbox
        for arrow in arrows:
            (x0, y0), (x1, y1) = arrow.get_window_extent().get_points()
            assert min(x0, y0) >= -1
            assert x1 <= frame.width + 1
            assert y1 <= frame.height + 1


def contrast(a, b):
    """WCAG 2, of two colours."""
    light = [
        np.dot([0.2126, 0.7152, 0.0722], [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
                                           for c in to_rgb(colour)])
        for colour in (a, b)
    ]  # fmt: skip
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_ink_and_colours_read_on_white_and_on_black():
    for colour in (_style.INK, *(line["color"] for line in _style.series(6))):
        assert min(contrast(colour, "white"), contrast(colour, "black")) > 3  # for graphics
    assert min(contrast(_style.INK, "white"), contrast(_style.INK, "black")) > 4


def test_the_colours_of_the_style_read_on_both_backgrounds_of_the_site():
    import matplotlib.style

    with matplotlib.style.context("pcx.figures"):
        cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
        inks = {mpl.rcParams[name] for name in ("text.color", "axes.edgecolor", "xtick.color")}
        assert mpl.rcParams["figure.facecolor"] == mpl.rcParams["axes.facecolor"] == "none"
    assert {f"#{ink.lstrip('#')}" for ink in inks} == {_style.INK}
    for colour in (_style.INK, *(f"#{c.lstrip('#')}" for c in cycle)):
        assert min(contrast(colour, "white"), contrast(colour, "#1e2129")) > 3


def test_a_figure_shows_itself_in_a_notebook_that_has_not_used_pyplot():
    shown = pxan.draw(pxm.MLP([3, 2]), jnp.ones(3))._repr_png_()
    assert shown.startswith(b"\x89PNG\r\n\x1a\n")


def test_neighbouring_lines_differ_without_colour():
    dashes = [line["linestyle"] for line in _style.series(9)]
    assert all(a != b for a, b in zip(dashes, dashes[1:], strict=False))


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_a_style_of_the_user_changes_no_colour(style):
    history = pxt.History()
    for k in range(3):
        history.add_epoch({"energy": 1.0 + k, "val_energy": 2.0 + k})
    import matplotlib.style

    with mpl.rc_context():
        matplotlib.style.use(style)
        for figure in (pxan.plot_energies(np.ones((3, 2)), title="t"), history.plot(title="t")):
            axes = figure.axes[0]
            texts = [axes.xaxis.label, *axes.get_xticklabels(), *axes.get_legend().get_texts()]
            assert {to_hex(text.get_color()) for text in texts} == {_style.INK}
            assert figure.get_facecolor()[3] == 0
            assert axes.get_facecolor()[3] == 0


def test_a_picture_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "pcx-networks\[examples\]"'):
        pxan.draw(Skips(), jnp.ones(4))
