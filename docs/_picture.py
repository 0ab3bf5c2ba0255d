"""Draw docs/assets/pcn-{light,dark}.svg, the picture of the README, from a real run on digits.

    python docs/_picture.py

Needs the `examples` extra. Takes well under a minute. The run's record goes to examples/results/.
"""

import datetime
import itertools
import os
import platform
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import jax
import matplotlib
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.data
import pcx.nn as pxnn
import pcx.predictive_coding as pxc

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Circle, FancyBboxPatch

ASSETS = Path(__file__).parent / "assets"
EPOCHS = 20
STYLES = {
    "light": {
        "ink": "#22303c",
        "muted": "#74818d",
        "box": "#eef3f7",
        "edge": "#9fb4c6",
        "shades": (0.1, 0.8),
    },
    "dark": {
        "ink": "#e3e8ed",
        "muted": "#93a1ae",
        "box": "#26323d",
        "edge": "#56697a",
        "shades": (0.3, 1.0),
    },
}
BLUE, ORANGE = "#3d85b8", "#e0752d"


class Net(pxc.EnergyModule):
    """The network of the README, one layer deeper."""

    def __init__(self, *dims):
        self.layers = [pxnn.Linear(m, n) for m, n in itertools.pairwise(dims)]
        self.vodes = [pxc.Vode((n,)) for n in dims[1:]]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(jax.nn.gelu(layer(x)))
        u = self.layers[-1](x)
        self.vodes[-1](u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


def run():
    """Train; give the accuracy after each epoch, and the energy per vode at each inference step."""
    px.RKG.seed(0)
    data = pcx.data.load_digits().flat()
    targets = pcx.data.one_hot(data.y_train, 10)
    batches = pcx.data.batches(data.x_train, targets, 64, shuffle=True, drop_last=True)
    pc = pxa.PC(
        Net(64, 128, 128, 128, 10),
        T=12,
        state_optim=optax.sgd(0.1),
        weight_optim=optax.adamw(1e-3),
    )
    accuracies = []
    for _ in range(EPOCHS):
        for x, y in batches:
            pc.train_step(x, y)
        accuracies.append(float((pc.predict(data.x_test).argmax(-1) == data.y_test).mean()))
    _, record = pc.infer(data.x_train[:128], targets[:128])
    return accuracies, np.asarray(record.energies)


def draw_network(axes, style):
    """x, two hidden vodes and the output vode: states, predictions, energies."""
    axes.set(xlim=(-0.75, 10.15), ylim=(-1.02, 1.3))
    axes.set_aspect("equal")
    axes.axis("off")
    ink, muted = style["ink"], style["muted"]
    names = [("u_1", "h_1"), ("u_2", "h_2"), ("u_3", "y")]
    arrow = {"arrowstyle": "-|>", "color": ink, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}

    def node(x, text, colour, filled):
        face = colour if filled else style["box"]
        axes.add_patch(Circle((x, 0), 0.36, facecolor=face, edgecolor=colour, linewidth=1.6))
        axes.text(x, -0.02, f"${text}$", ha="center", va="center", color="white" if filled else ink)

    node(-0.3, "x", BLUE, True)
    for index, (u, h) in enumerate(names):
        left = 1.35 + 3.2 * index
        start = (-0.3 if index == 0 else left - 3.2 + 1.45) + 0.36
        box = FancyBboxPatch(
            (left - 0.5, -0.56),
            2.45,
            1.12,
            boxstyle="round,pad=0.08,rounding_size=0.2",
            facecolor=style["box"],
            edgecolor=style["edge"],
            linewidth=1,
        )
        axes.add_patch(box)
        axes.annotate("", (left - 0.36, 0), (start, 0), arrowprops=arrow)
        middle = (start + left - 0.5) / 2 - 0.05
        axes.text(middle, 0.18, f"$f_{index + 1}$", ha="center", va="bottom", color=ink)
        node(left, u, muted, False)
        node(left + 1.45, h, BLUE if h == "y" else ORANGE, True)
        double = {**arrow, "arrowstyle": "<|-|>", "color": muted, "linewidth": 1}
        axes.annotate("", (left + 1.07, 0), (left + 0.38, 0), arrowprops=double)
        axes.text(left + 0.725, 0.74, f"$E_{index + 1}$", ha="center", va="bottom", color=ink)
        label = "output vode: the label" if h == "y" else "vode"
        axes.text(left + 0.725, -0.72, label, ha="center", va="top", color=muted, fontsize="small")
    axes.text(-0.3, -0.72, "input", ha="center", va="top", color=muted, fontsize="small")


def draw(path, style, accuracies, energies):
    ink, muted = style["ink"], style["muted"]
    settings = {
        "font.size": 11.5,
        "mathtext.fontset": "cm",
        "text.color": ink,
        "axes.edgecolor": muted,
        "axes.labelcolor": ink,
        "xtick.color": muted,
        "ytick.color": muted,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "pcx",
    }
    with plt.rc_context(settings):
        figure = plt.figure(figsize=(8.6, 5.3), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(2, 3.1), hspace=0.12, wspace=0.08)
        network = figure.add_subplot(grid[0, :])
        draw_network(network, style)
        network.set_title(
            "inference moves the orange states, learning the functions $f$; both descend "
            "$E_1+E_2+E_3$",
            fontsize="medium",
            color=ink,
        )

        axes = figure.add_subplot(grid[1, 0])
        shown = np.where(energies > 1e-12, energies, np.nan)
        colours = plt.colormaps["viridis"](np.linspace(*style["shades"], energies.shape[1]))
        for index, colour in enumerate(colours):
            last = index == energies.shape[1] - 1
            name = "output" if last else f"layer {index + 1}"
            axes.plot(shown[:, index], color=colour, linewidth=2, marker="o", ms=3.5, label=name)
        axes.set(yscale="log", xlabel="inference step", ylabel="energy per sample")
        axes.set_title("the error spreads from the label down", fontsize="medium", color=ink)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize="small", loc="lower right")

        axes = figure.add_subplot(grid[1, 1])
        percent = 100 * np.array(accuracies)
        axes.plot(range(1, len(percent) + 1), percent, color=BLUE, linewidth=2, marker="o", ms=3.5)
        axes.set(xlabel="epoch", ylabel="%")
        axes.set_title("test accuracy on digits, seed 0", fontsize="medium", color=ink)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        figure.savefig(path, transparent=True, metadata={"Date": None})
        plt.close(figure)


def record(accuracies, seconds):
    """What the picture shows, in the format of docs/record_format.md."""
    percent = [round(100 * value, 2) for value in accuracies]
    return {
        "experiment": "MLP",
        "dataset": "digits",
        "algorithm": "PC-SE",
        "seed": 0,
        "best": max(percent),
        "last": percent[-1],
        "epochs": EPOCHS,
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "versions": {"pcx": px.__version__, "jax": jax.__version__},
        "date": datetime.date.today().isoformat(),
        "command": "python docs/_picture.py",
        "curve": percent,
        "seconds": round(seconds, 1),
        "note": "the run of the picture",
    }


def write(record):
    spec = spec_from_file_location("generate", Path(__file__).with_name("_generate.py"))
    generate = module_from_spec(spec)
    spec.loader.exec_module(generate)
    # one record of this run, whatever the day
    for old in generate.RECORDS.glob("mlp-digits-pcse-e*-picture.json"):
        old.unlink()
    path = generate.write_record(record)
    return path.rename(path.with_name(f"mlp-digits-pcse-e{EPOCHS}-picture.json"))


def main():
    start = time.perf_counter()
    accuracies, energies = run()
    print(f"wrote {write(record(accuracies, time.perf_counter() - start))}")
    for name, style in STYLES.items():
        draw(ASSETS / f"pcn-{name}.svg", style, accuracies, energies)
    print(f"test accuracy after each epoch: {', '.join(f'{a:.2%}' for a in accuracies)}")
    print(f"wrote {', '.join(str(ASSETS / f'pcn-{name}.svg') for name in STYLES)}")


if __name__ == "__main__":
    main()
