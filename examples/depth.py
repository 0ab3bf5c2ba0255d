"""Predictive coding in deep networks: what the network, and what the algorithm, contributes.

    python examples/depth.py                                            # digits, no files
    python examples/depth.py --dataset fashion-mnist --data-dir DIR     # the study itself, 3 epochs

Two networks of 4, 16 and 64 hidden layers of 128 (gelu, squared error, Adam, batches of 128; the
settings are those found for Fashion-MNIST at 16 layers, and not tuned for other depths or data):

    plain   He initialisation, no skips, weight learning rate 3e-4
    muPC    N(0, 1) weights with depth-aware factors and skip connections, learning rate 1e-2
            (Innocenti et al., 2025)

and on each of them

    BP      back-propagation
    PC      predictive coding; the error needs as many inference steps as there are layers to reach
            the first one
    ePC     error-based predictive coding (Goemaere et al., 2025): the error reaches every layer in
            one step. One step, of a tenth of the size that would minimise the energy along it

A short inference of ePC is close to back-propagation, a converged one is a different learning rule;
so its distance to equilibrium is printed, too (1: nothing inferred, the errors are those of
back-propagation; 0: converged).
"""

import argparse
import dataclasses
import json

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from _shared import INK, MUTED, add_arguments, batches, load, save, table, tidy, write_record
from matplotlib.ticker import LogFormatter, NullLocator

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.training as pxt

WIDTH, BATCH_SIZE = 128, 128
EPOCHS = {"digits": 20, "mnist": 3, "fashion-mnist": 3}


@dataclasses.dataclass(frozen=True)
class Method:
    """A network and a way to train it."""

    network: str
    algorithm: str
    lr_h: float = 0.0
    momentum: float = 0.0
    # inference steps: a number, or this many more than there are hidden layers
    T: int = 0
    T_extra: int | None = None


METHODS = {
    "BP": Method("plain", "BP"),
    "PC": Method("plain", "PC", lr_h=1e-3, T_extra=2),
    "ePC": Method("plain", "ePC", T=1),
    "muPC": Method("muPC", "PC", lr_h=0.1, momentum=0.5, T_extra=0),
    "muPC network, ePC": Method("muPC", "ePC", T=1),
    "muPC network, BP": Method("muPC", "BP"),
}
LR_W = {"plain": 3e-4, "muPC": 1e-2}
COLOURS = {"BP": MUTED, "PC": "#2563eb", "ePC": "#ea580c"}


def make(method, depth, data):
    """The algorithm of a method on a network with so many hidden layers."""
    dims = [data.shape[0], *[WIDTH] * depth, data.classes]
    if method.network == "plain":
        he = jax.nn.initializers.he_normal(in_axis=1, out_axis=0)
        model = pxm.MLP(dims, jax.nn.gelu, weight_init=he)
    else:
        model = pxm.MLP(dims, jax.nn.gelu, skips=True, parameterisation="mupc")
    weight_optim = optax.adam(LR_W[method.network])
    if method.algorithm == "BP":
        return pxa.Backprop(model, weight_optim=weight_optim)
    if method.algorithm == "ePC":
        return pxa.EPC(
            model, method.T, weight_optim=weight_optim, step="scaled", damping=0.1, distance=True
        )
    T = method.T if method.T_extra is None else depth + method.T_extra
    state_optim = optax.sgd(method.lr_h, momentum=method.momentum or None)
    # Skipping what is exactly zero means to unroll the first `depth` steps: too much to compile for
    # the deepest networks.
    return pxa.PC(model, T, state_optim, weight_optim, lazy=depth <= 16)


def run(name, depth, seed, data, arguments):
    """Train once; the history, or None if training diverged."""
    epochs = arguments.epochs or EPOCHS[arguments.dataset]
    px.RKG.seed(seed)
    train, test = batches(data, BATCH_SIZE, seed)
    trainer = pxt.Trainer(make(METHODS[name], depth, data))
    try:
        history = trainer.fit(train, epochs, val=test)
    except pxt.Diverged as error:
        print(error)
        return None
    where = "" if arguments.dataset == "digits" else " --data-dir DIR"
    write_record(
        arguments.out / "records",
        experiment=f"{depth} hidden layers of {WIDTH}",
        dataset=arguments.dataset,
        algorithm=name,
        seed=seed,
        history=history,
        settings=dataclasses.asdict(METHODS[name]),
        command=(
            f"python examples/depth.py --dataset {arguments.dataset}{where} --depths {depth} "
            f'--methods "{name}" --epochs {epochs} --seeds {seed}'
        ),
    )
    return history


def cell(runs):
    """Last (and best) accuracy in percent, means over the seeds."""
    done = [100 * history["val_accuracy"] for history in runs if history is not None]
    if not done:
        return "diverged" if runs else "-"
    last, best = np.mean([c[-1] for c in done]), np.mean([c.max() for c in done])
    text = f"{last:.1f} ({best:.1f})"
    return text if len(done) == len(runs) else f"{text}, {len(runs) - len(done)} diverged"


def distance(runs):
    """Mean distance to equilibrium in the last epoch."""
    found = [h.last("distance") for h in runs if h is not None and "distance" in h]
    return f"{np.mean(found):.3f}" if found else "-"


def tables(results, methods, depths):
    header = ["method", *(f"{depth} layers" for depth in depths)]
    return tuple(
        table(header, [[name, *(show(results[name, depth]) for depth in depths)] for name in rows])
        for show, rows in (
            (cell, methods),
            (distance, [name for name in methods if METHODS[name].algorithm == "ePC"]),
        )
        if rows
    )


def plot(results, methods, depths, title, path):
    figure, axes = plt.subplots(figsize=(8.0, 4.2), layout="constrained")
    errors = {
        name: [
            np.mean([100 - 100 * h.last("val_accuracy") for h in runs if h is not None] or [np.nan])
            for runs in (results[name, depth] for depth in depths)
        ]
        for name in methods
    }
    # in the order in which the lines end, worst at the top
    for name in sorted(methods, key=lambda name: -np.nan_to_num(errors[name][-1], nan=100)):
        method = METHODS[name]
        dash = "-" if method.network == "muPC" else ":"
        colour = COLOURS[method.algorithm]
        line = {"linewidth": 2, "marker": "o", "markersize": 5, "label": name}
        axes.plot(depths, errors[name], dash, color=colour, **line)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(depths, map(str, depths))
    axes.xaxis.set_minor_locator(NullLocator())
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 1)))
    axes.set_xlabel("hidden layers")
    axes.set_ylabel("test error after the last epoch (%)")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=3)
    tidy(axes)
    axes.set_title(title, loc="left", fontweight="bold", color=INK)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_arguments(parser, "depth")
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    data = load(parser, arguments)
    depths, methods = sorted(arguments.depths), arguments.methods
    results = {}
    for depth in depths:
        for name in methods:
            results[name, depth] = []
            for seed in arguments.seeds:
                print(f"--- {name}, {depth} hidden layers, seed {seed}", flush=True)
                results[name, depth].append(run(name, depth, seed, data, arguments))
    accuracies, *distances = tables(results, methods, depths)
    print(f"\nTest accuracy in percent on {arguments.dataset}: last epoch (best epoch)\n")
    print(accuracies)
    for text in distances:
        print(f"\nDistance to equilibrium at the end of inference (last epoch)\n\n{text}")
    path = arguments.out / arguments.dataset
    path.mkdir(parents=True, exist_ok=True)
    (path / "table.md").write_text("\n\n".join([accuracies, *distances]) + "\n")
    (path / "histories.json").write_text(
        json.dumps(
            [
                {"method": name, "depth": depth, "epochs": h and h.to_dict()["epochs"]}
                for (name, depth), runs in results.items()
                for h in runs
            ]
        )
    )
    title = f"Depth: {arguments.dataset}, {arguments.epochs or EPOCHS[arguments.dataset]} epochs"
    plot(results, methods, depths, title, path / "depth.png")
    print(f"\ntables, histories and figure: {path}; records: {arguments.out / 'records'}")


if __name__ == "__main__":
    main()
