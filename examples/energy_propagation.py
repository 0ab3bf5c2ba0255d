"""How far the energy of the output gets into the network, by state rate and by initialisation.

    python examples/energy_propagation.py                                          # Two Moons, no files
    python examples/energy_propagation.py --dataset two-circles
    python examples/energy_propagation.py --dataset fashion-mnist --data-dir DIR   # 2 000 images

Fig. 6, 14 and 15 of Pinchetti et al., "Benchmarking predictive coding networks - made simple" (settings in
appendix D.1), on networks of two hidden layers with HardTanh:

* the energy of each layer in the steps of inference, on the last samples of training, of the most accurate
  network trained by AdamW;
* test accuracy by the rate of the states, weights by SGD with momentum 0.9 and by AdamW;
* the energy of each layer over that of the next after inference, by the rate of the states;
* test accuracy by the number of steps, states initialised by a forward pass, by zeros, by noise.

All rates and seeds are members of a `pxt.Population`. Writes a JSON record and a figure.
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
import pcx.analysis as pxan
import pcx.data
import pcx.models as pxm
import pcx.utils as pxu

RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]
INITS = ("forward", "zero", "normal")
T, BATCH_SIZE = 8, 64
OPTIMISERS = {"SGD": functools.partial(optax.sgd, momentum=0.9), "AdamW": optax.adamw}
WEIGHT_RATE = {"SGD": 0.01, "AdamW": 0.001}


def train(data, arguments, grid, structure):
    """The trained population, accuracy of each member in percent, and the last samples."""
    dims = [math.prod(data.shape), arguments.width, arguments.width, data.classes]

    def make(seed, optimiser, state_rate, init, steps):
        return pxa.PC(
            pxm.MLP(dims, jax.nn.hard_tanh),
            steps,
            pxu.Optim(optax.sgd, learning_rate=state_rate),
            OPTIMISERS[optimiser](WEIGHT_RATE[optimiser]),
            init=init,
        )

    population, accuracy = trained(data, make, grid, structure, arguments, BATCH_SIZE)
    last = pcx.data.one_hot(data.y_train[-BATCH_SIZE:], data.classes)
    return population, accuracy, (data.x_train[-BATCH_SIZE:], last)


def by_rate(data, arguments):
    """Accuracy and ratios of energies by state rate, and energies by step of the best network."""
    grid = {
        "optimiser": list(OPTIMISERS),
        "state_rate": arguments.rates,
        "init": ["forward"],
        "steps": [T],
    }
    population, accuracy, batch = train(data, arguments, grid, ("optimiser", "init", "steps"))
    scores = {name: [[] for _ in arguments.rates] for name in OPTIMISERS}
    ratios = [[] for _ in arguments.rates]
    for member, value in zip(population.members, accuracy, strict=True):
        row = arguments.rates.index(member.settings["state_rate"])
        scores[member.settings["optimiser"]][row].append(value)
        if member.settings["optimiser"] == "AdamW" and not member.diverged:
            energies = pxan.layer_energies(member.algorithm, *batch)
            ratios[row].append(pxan.energy_ratios(np.stack([*energies.values()], -1))[-1])
    best = int(np.argmax([np.mean(values) for values in scores["AdamW"]]))
    curves = [
        np.stack([*pxan.layer_energies(m.algorithm, *batch).values()])
        for m in population.members
        if m.settings["optimiser"] == "AdamW"
        and m.settings["state_rate"] == arguments.rates[best]
        and not m.diverged
    ]
    return {
        "accuracy": scores,
        "ratios": ratios,
        "best_rate": arguments.rates[best],
        "energies": np.mean(curves, 0),
    }


def by_init(data, arguments):
    """Accuracy by initialisation and number of steps, weights by AdamW."""
    grid = [
        {"optimiser": "AdamW", "state_rate": arguments.init_rate, "init": init, "steps": steps}
        for init in INITS
        for steps in arguments.steps
    ]
    population, accuracy, _ = train(data, arguments, grid, ("init", "steps"))
    found = {init: [[] for _ in arguments.steps] for init in INITS}
    for member, value in zip(population.members, accuracy, strict=True):
        row = arguments.steps.index(member.settings["steps"])
        found[member.settings["init"]][row].append(value)
    return found


@styled
def plot(record):
    """The figure of a record."""
    with_inits = bool(record["steps"])
    figure, panels = plt.subplots(1, 3 + with_inits, figsize=(3.9 * (3 + with_inits), 3.3))
    rates, marks = record["rates"], "os^"
    for layer, energies in enumerate(record["energies"]):
        shown = [
            value if value else np.nan for value in energies
        ]  # no energy yet: not on a log scale
        panels[0].plot(shown, marker=marks[layer], markersize=4, label=f"layer {layer + 1}")
    panels[0].set(yscale="log", xlabel="inference step", ylabel="energy (nats)")
    panels[0].set_title(f"best by AdamW (rate {record['best_rate']:g})", fontsize=10)
    for name, mark in zip(record["accuracy"], marks, strict=False):
        spread(panels[1], rates, record["accuracy"][name], mark, name)
    panels[1].set(xscale="log", xlabel="state rate", ylabel="test accuracy (%)")
    for layer in range(len(record["energies"]) - 1):
        values = [[own[layer] for own in row] for row in record["ratios"]]
        label = f"layer {layer + 1} over {layer + 2}"
        spread(panels[2], rates, values, marks[layer], label)
    panels[2].set(xscale="log", yscale="log", xlabel="state rate", ylabel="ratio of energies")
    panels[2].set_title("after inference, AdamW", fontsize=10)
    if with_inits:
        for (name, values), mark in zip(record["inits"].items(), marks, strict=True):
            spread(panels[3], record["steps"], values, mark, name)
        panels[3].set(xscale="log", xlabel="T", ylabel="test accuracy (%)")
        panels[3].set_xticks(record["steps"], record["steps"])
        panels[3].minorticks_off()
        panels[3].set_title(f"initialisation (rate {record['init_rate']:g})", fontsize=10)
    for axes in panels:
        axes.legend(fontsize=8)
    figure.suptitle(record["dataset"], x=0.01, ha="left", fontweight="bold")
    return figure


def spread(axes, x, values, mark, label):
    """Mean over the seeds, and from the lowest to the highest of them in pale; gaps where there is none."""
    known = [[v for v in row if v is not None] or [np.nan] for row in values]
    mean, low, high = ([f(row) for row in known] for f in (np.mean, np.min, np.max))
    (line,) = axes.plot(x, mean, marker=mark, markersize=4, label=label)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser, "energy_propagation", (*PLANE, *FLAT))
    parser.set_defaults(dataset="two-moons", epochs=8, seeds=[0, 1, 2])
    parser.add_argument("--images", type=int, default=2000, help="at most so many to train on")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[4, 12, 36], help="T by initialisation"
    )
    parser.add_argument("--init-rate", type=float, default=0.1, help="state rate of those")
    arguments = parser.parse_args()
    data = load(parser, arguments)
    if arguments.dataset not in PLANE:
        data = first(data, arguments.images)
    start = time.perf_counter()
    results = by_rate(data, arguments)
    results["inits"] = by_init(data, arguments) if arguments.steps else {}
    record, path = write_analysis(
        arguments.out,
        analysis="energy-propagation",
        dataset=arguments.dataset,
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        images=len(data.x_train),
        settings={
            "T": T,
            "batch_size": BATCH_SIZE,
            "activation": "HardTanh",
            "hidden_layers": 2,
            "width": arguments.width,
            "weight_rate": WEIGHT_RATE,
        },
        rates=arguments.rates,
        steps=arguments.steps,
        init_rate=arguments.init_rate,
        **results,
        seconds=time.perf_counter() - start,
        command=command(
            arguments, "images", "epochs", "width", "rates", "steps", "init_rate", "seeds"
        ),
    )
    rows = []
    for k, rate in enumerate(record["rates"]):
        scores = [f"{np.mean(record['accuracy'][name][k]):.1f}" for name in OPTIMISERS]
        ratios = np.mean(record["ratios"][k], 0) if record["ratios"][k] else [np.nan, np.nan]
        rows.append([f"{rate:g}", *scores, *(f"{ratio:.2g}" for ratio in ratios)])
    print(table(["state rate", *OPTIMISERS, "E1 / E2", "E2 / E3"], rows))
    for name, values in record["inits"].items():
        print(
            f"{name}: ",
            ", ".join(
                f"T={t} {np.mean(v):.1f} %" for t, v in zip(record["steps"], values, strict=True)
            ),
        )
    save(plot(record), path.with_suffix(".png"))
    print(f"record and figure: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
