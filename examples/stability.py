"""For which state rates training is stable: width, weight optimiser, momentum, nudging.

    python examples/stability.py                                          # Two Moons, no files
    python examples/stability.py --dataset fashion-mnist --data-dir DIR   # 2 000 images
    python examples/stability.py --what momentum --dataset fashion-mnist --data-dir DIR

`--what width` trains a network of two hidden layers at every width and state rate, its weights by SGD
with momentum 0.9 or by AdamW, beside back-propagation (Fig. 7, 13, 16 of Pinchetti et al., "Benchmarking
predictive coding networks - made simple", whose appendix D has the settings). `--what momentum` compares
plain and nudged predictive coding over the momentum and the rate of the states (Fig. 9 and 10).

All rates and seeds of one width and optimiser are members of a `pxt.Population`: one compiled program. A
member that diverges counts as chance. Writes a JSON record and a figure.
"""

import argparse
import functools
import math
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from _shared import (
    FLAT,
    PLANE,
    add_arguments,
    command,
    first,
    load,
    save,
    styled,
    table,
    trained,
    write_analysis,
)

import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.utils as pxu

RATES = [1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
MOMENTA = [0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95]
T, BATCH_SIZE = 8, 64
OPTIMISERS = {"SGD": functools.partial(optax.sgd, momentum=0.9), "AdamW": optax.adamw}
# appendix D.2
WEIGHT_RATE = {"two-moons": 0.03, "two-circles": 0.03}
NUDGED = {"PC": pxa.PC, "positive": pxa.NudgedPC, "negative": pxa.NudgedPC}


def perceptron(data, width, act=jax.nn.leaky_relu):
    return pxm.MLP([math.prod(data.shape), width, width, data.classes], act)


def train(data, make, grid, structure, arguments):
    """Test accuracy in percent of each setting, one for each seed; chance where it diverged."""
    population, accuracy = trained(data, make, grid, structure, arguments, BATCH_SIZE)
    found = {}
    for member, value in zip(population.members, accuracy, strict=True):
        found.setdefault(tuple(member.settings.values()), []).append(value)
    diverged = [m.settings | {"seed": m.seed} for m in population.members if m.diverged]
    return found, diverged


def widths(data, arguments):
    """Accuracy by optimiser, width and state rate, and that of back-propagation."""
    weight_rate = WEIGHT_RATE.get(arguments.dataset, 0.01)

    def make(seed, optimiser, width, state_rate):
        states = pxu.Optim(optax.sgd, learning_rate=state_rate)
        return pxa.PC(perceptron(data, width), T, states, OPTIMISERS[optimiser](weight_rate))

    def back_propagation(seed, optimiser, width):
        weights = OPTIMISERS[optimiser](weight_rate)
        return pxa.Backprop(perceptron(data, width), weight_optim=weights)

    names = ("optimiser", "width")
    grid = {"optimiser": list(OPTIMISERS), "width": arguments.widths}
    pc, diverged = train(data, make, grid | {"state_rate": arguments.rates}, names, arguments)
    bp, _ = train(data, back_propagation, grid, names, arguments)
    accuracy = {
        name: {w: [pc[name, w, rate] for rate in arguments.rates] for w in arguments.widths}
        for name in OPTIMISERS
    }
    return {
        "settings": {
            "weight_rate": weight_rate,
            "T": T,
            "batch_size": BATCH_SIZE,
            "activation": "LeakyReLU",
            "hidden_layers": 2,
        },
        "rates": arguments.rates,
        "widths": arguments.widths,
        "accuracy": accuracy,
        "back_propagation": {
            name: {w: bp[name, w] for w in arguments.widths} for name in grid["optimiser"]
        },
        "diverged": diverged,
    }


def momenta(data, arguments):
    """Accuracy of plain and nudged predictive coding by the momentum of the states, and by their rate."""
    width, weight_rate, rate = arguments.widths[-1], 1e-3, 0.05

    def make(seed, name, state_rate, momentum):
        options = {} if name == "PC" else {"beta": 0.5, "mode": name}
        states = pxu.Optim(optax.sgd, learning_rate=state_rate, momentum=momentum)
        model = perceptron(data, width, jax.nn.gelu)
        return NUDGED[name](model, T, states, optax.adamw(weight_rate), **options)

    points = [(rate, m) for m in MOMENTA] + [(r, 0.0) for r in arguments.rates]
    points = list(dict.fromkeys(points))
    grid = [{"name": n, "state_rate": r, "momentum": m} for n in NUDGED for r, m in points]
    found, diverged = train(data, make, grid, ("name",), arguments)
    return {
        "settings": {
            "width": width,
            "hidden_layers": 2,
            "activation": "GELU",
            "T": T,
            "batch_size": BATCH_SIZE,
            "weight_rate": weight_rate,
            "beta": 0.5,
            "state_rate": rate,
        },
        "momenta": MOMENTA,
        "rates": arguments.rates,
        "by_momentum": {n: [found[n, rate, m] for m in MOMENTA] for n in NUDGED},
        "by_rate": {n: [found[n, r, 0.0] for r in arguments.rates] for n in NUDGED},
        "diverged": diverged,
    }


@styled
def plot(record):
    """The figure of a record."""
    return (plot_widths if "widths" in record else plot_momenta)(record)


def plot_widths(record):
    """A heat map for each optimiser, back-propagation in the last column."""
    names = list(record["accuracy"])
    rates, sizes = record["rates"], record["widths"]
    figure, panels = plt.subplots(
        1, len(names), figsize=(5.2 * len(names), 0.5 * len(sizes) + 1.7), sharey=True
    )
    for axes, name in zip(panels, names, strict=True):
        rows = [
            [np.mean(values) for values in record["accuracy"][name][str(w)]]
            + [np.nan, np.mean(record["back_propagation"][name][str(w)])]
            for w in sizes
        ]
        axes.imshow(rows, cmap="viridis", vmin=record["chance"], vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(rows):
            dark = value < (record["chance"] + 100) / 2 + 10
            colour = "white" if dark else "black"
            if not np.isnan(value):
                axes.text(
                    column, row, f"{value:.0f}", color=colour, ha="center", va="center", fontsize=8
                )
        ticks = [*range(len(rates)), len(rates) + 1]
        axes.set_xticks(ticks, [*(f"{rate:g}" for rate in rates), "BP"], fontsize=8)
        axes.set_yticks(range(len(sizes)), sizes)
        axes.set(
            title=f"weights by {name}",
            xlabel="state rate",
            ylabel="width" if axes is panels[0] else "",
        )
        axes.grid(False)
        axes.spines[:].set_visible(False)
    figure.suptitle(f"{record['dataset']}: test accuracy (%)", x=0.01, ha="left", fontweight="bold")
    return figure


def plot_momenta(record):
    """Curves against the momentum and the rate of the states, means and ranges of the seeds."""
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True)
    axis = {"by_momentum": record["momenta"], "by_rate": record["rates"]}
    for axes, (key, x) in zip(panels, axis.items(), strict=True):
        for (name, values), mark in zip(record[key].items(), "os^", strict=True):
            label = "PC" if name == "PC" else f"{name} nudging"
            axes.plot(x, np.mean(values, -1), marker=mark, markersize=5, label=label)
            axes.fill_between(x, np.min(values, -1), np.max(values, -1), alpha=0.15, linewidth=0)
    panels[0].set(
        xlabel=f"momentum of the states (rate {record['settings']['state_rate']:g})",
        ylabel="test accuracy (%)",
    )
    panels[1].set(xlabel="rate of the states (no momentum)", xscale="log")
    panels[0].legend()
    figure.suptitle(record["dataset"], x=0.01, ha="left", fontweight="bold")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser, "stability", (*PLANE, *FLAT))
    parser.set_defaults(dataset="two-moons", epochs=8, seeds=[0, 1, 2])
    parser.add_argument("--what", choices=("width", "momentum"), default="width")
    parser.add_argument("--images", type=int, default=2000, help="at most so many to train on")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    arguments = parser.parse_args()
    data = load(parser, arguments)
    if arguments.dataset not in PLANE:
        data = first(data, arguments.images)
    start = time.perf_counter()
    results = (widths if arguments.what == "width" else momenta)(data, arguments)
    name = "stability" if arguments.what == "width" else "momentum"
    record, path = write_analysis(
        arguments.out,
        analysis=name,
        dataset=arguments.dataset,
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        images=len(data.x_train),
        chance=100 / data.classes,
        **results,
        seconds=time.perf_counter() - start,
        command=command(arguments, "what", "images", "epochs", "widths", "rates", "seeds"),
    )
    if arguments.what == "width":
        for optimiser, rows in record["accuracy"].items():
            shown = [[w, *(f"{np.mean(v):.1f}" for v in row)] for w, row in rows.items()]
            print(f"\n{optimiser}: accuracy (%) by width and state rate\n")
            print(table(["width", *(f"{rate:g}" for rate in record["rates"])], shown))
    else:
        shown = [
            [n, *(f"{np.mean(v):.1f}" for v in row)] for n, row in record["by_momentum"].items()
        ]
        print(table(["momentum", *(f"{m:g}" for m in record["momenta"])], shown))
    save(plot(record), path.with_suffix(".png"))
    print(f"record and figure: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
