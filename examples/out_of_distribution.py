"""Does the energy of a classifier tell what it was not trained on, better than its softmax does?

    python examples/out_of_distribution.py --data-dir DIR              # MNIST against three others
    python examples/out_of_distribution.py --dataset digits            # against noise, no files

Fig. 19 to 25 of Pinchetti et al., "Benchmarking predictive coding networks - made simple" (settings in
appendix F.1: three hidden layers of 512, GELU, cross entropy, T = 10 in training and 100 in testing, state
rate 0.01, weights by SGD with rate 0.01 and momentum 0.9; 75 epochs there, for which `--weights adamw` is
a substitute in short runs). The most probable label of each image is clamped. Before inference its energy
is then -log of the largest softmax probability: the two scores are one, and what differs is what inference
makes of it. Besides after 100 steps of the paper's rate the energy is measured after 100 steps of ten times
that rate, nearer to the equilibrium.

Scores of the lowest 25 % are those of the quarter of each data set with the lowest score ("the samples that
the network is least confident about"). Writes a JSON record and a figure.
"""

import argparse
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from _shared import (
    NAMES,
    add_arguments,
    batches,
    colour,
    command,
    first,
    load,
    save,
    styled,
    table,
    write_analysis,
)

import pcx as px
import pcx.algorithms as pxa
import pcx.analysis as pxan
import pcx.data
import pcx.models as pxm
import pcx.predictive_coding as pxc
import pcx.training as pxt

OTHERS = ("fashion-mnist", "kmnist", "notmnist")
TITLES = NAMES | {"kmnist": "KMNIST", "notmnist": "notMNIST", "noise": "noise"}
HIDDEN, T, T_TEST, BATCH_SIZE, RATE = [512, 512, 512], 10, 100, 64, 0.01
WEIGHTS = {"sgd": optax.sgd(RATE, momentum=0.9), "adamw": optax.adamw(1e-3)}
SCORES = ("softmax", "energy before", "energy after", "nearer equilibrium")
BINS, POINTS = 40, 101


def train(data, arguments):
    """The trained classifier and its test accuracy in percent."""
    px.RKG.seed(arguments.seeds[0])
    model = pxm.MLP([data.shape[0], *arguments.hidden, data.classes], jax.nn.gelu, pxc.ce_energy)
    weights = WEIGHTS[arguments.weights]
    pc = pxa.PC(model, T, optax.sgd(RATE), weights)
    train_batches, test = batches(data, BATCH_SIZE, arguments.seeds[0])
    history = pxt.Trainer(pc, steps_per_call=20).fit(train_batches, arguments.epochs, val=test)
    return pc, 100 * history.last("val_accuracy")


def others(parser, arguments, shape):
    """Images of other kinds, normalised as those of training are."""
    if arguments.dataset == "digits":
        noise = np.random.default_rng(0).normal(size=(arguments.test, *shape))
        return {"noise": noise.astype(np.float32)}
    found = {}
    for name in OTHERS:
        if name == arguments.dataset:
            name = "mnist"
        data = load(parser, arguments, name, flat=True, normalize=arguments.dataset)
        found[name] = data.x_test[: arguments.test]
    return found


def scores(pc, x):
    """Each score of each image; the higher, the more familiar."""
    nearer = pxa.PC(pc.model, T, optax.sgd(10 * RATE))
    return {
        "softmax": pxan.softmax_score(pc, x),
        "energy before": pxan.energy_score(pc, x, 0),
        "energy after": pxan.energy_score(pc, x, T_TEST),
        "nearer equilibrium": pxan.energy_score(nearer, x, T_TEST),
    }


def lowest(values, share):
    """The given share of the values, from the lowest on, at least one."""
    return np.sort(values)[: max(1, round(share * len(values)))]


def rank_correlation(a, b):
    """Spearman's: the correlation of the ranks, equal values sharing theirs."""
    ranks = []
    for values in (a, b):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    return float(np.corrcoef(*ranks)[0, 1])


def compare(inside, outside):
    """How well each score tells two data sets apart: AUROC and ROC, of all and of the lowest quarter."""
    found = {}
    for name in SCORES:
        found[name] = {}
        for share in (1.0, 0.25):
            a, b = lowest(inside[name], share), lowest(outside[name], share)
            x, y = pxan.roc_curve(a, b)
            found[name][f"{share:.0%}"] = {
                "auroc": pxan.roc_auc(a, b),
                "roc": np.interp(np.linspace(0, 1, POINTS), x, y),
            }
    return found


def describe(found):
    """Of one data set: energies in nats, how the ranks agree with those of softmax, and samples to draw."""
    energies = {name: -found[name] for name in SCORES[1:]}
    uncertain = found["softmax"] <= np.quantile(found["softmax"], 0.25)
    return {
        "nll": {name: float(np.mean(values)) for name, values in energies.items()},
        "quantiles": {
            name: np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
            for name, values in energies.items()
        },
        "rank_correlation": {
            name: rank_correlation(found["softmax"], found[name]) for name in SCORES[2:]
        },
        "rank_correlation_lowest": {
            name: rank_correlation(found["softmax"][uncertain], found[name][uncertain])
            for name in SCORES[2:]
        },
        "samples": {
            name: found[name][:150] for name in ("softmax", "energy after", "nearer equilibrium")
        },
    }


def histograms(found):
    """Counts of the energies of all data sets, in equal bins of their logarithm."""
    out = {}
    for name in SCORES[1:]:
        logs = {key: np.log10(np.maximum(-values[name], 1e-6)) for key, values in found.items()}
        both = np.concatenate([*logs.values()])
        edges = np.linspace(both.min(), both.max() + 1e-9, BINS + 1)
        counts = {key: np.histogram(values, edges)[0] for key, values in logs.items()}
        out[name] = {"edges": edges, "counts": counts}
    return out


@styled
def plot(record):
    """The figure of a record: energies of all data sets, softmax against energy, and ROC curves."""
    sets = record["sets"]
    inside, *rest = sets
    figure, panels = plt.subplots(2, 3, figsize=(12.5, 6.6))
    for axes, name in zip(panels[0], ("energy before", "energy after"), strict=False):
        shown = record["histograms"][name]
        for k, key in enumerate(sets):
            counts = np.array(shown["counts"][key]) / np.sum(shown["counts"][key])
            axes.stairs(
                counts,
                10 ** np.array(shown["edges"]),
                color=colour(k),
                linewidth=1.8,
                label=TITLES[key],
            )
        axes.set(xscale="log", xlabel=f"{name} inference (nats)", ylabel="share of the images")
    panels[0, 0].legend(fontsize=8)
    for k, key in enumerate(sets):
        samples = record["data"][key]["samples"]
        panels[0, 2].scatter(
            samples["softmax"], -np.array(samples["energy after"]), s=7, color=colour(k), alpha=0.6
        )
    panels[0, 2].set(
        yscale="log", xlabel="largest softmax probability", ylabel="energy after (nats)"
    )
    styles = {"softmax": ":", "energy after": "-", "nearer equilibrium": "--"}
    grid = np.linspace(0, 1, POINTS)
    for axes, share in zip(panels[1], ("100%", "25%"), strict=False):
        for k, key in enumerate(rest, start=1):
            for name, dashes in styles.items():
                curve = record["apart"][key][name][share]["roc"]
                axes.plot(grid, curve, dashes, color=colour(k), linewidth=1.5)
        axes.plot([], [], color="#7a7a7a", linestyle=":", label="softmax")
        axes.plot([], [], color="#7a7a7a", label="energy after")
        axes.plot([], [], color="#7a7a7a", linestyle="--", label="nearer equilibrium")
        axes.set(
            xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01)
        )
        axes.set_title(
            f"{TITLES[inside]} against the others, "
            + ("all" if share == "100%" else "lowest 25 %"),
            fontsize=10,
        )
    panels[1, 0].legend(fontsize=8)
    boxes = panels[1, 2]
    for k, key in enumerate(sets):
        for j, name in enumerate(("energy before", "energy after")):
            q = record["data"][key]["quantiles"][name]
            box = dict(zip(("whislo", "q1", "med", "q3", "whishi"), q, strict=True)) | {
                "fliers": []
            }
            ink = {"color": colour(k)}
            boxes.bxp(
                [box], [k + 0.36 * j - 0.18], widths=0.28, boxprops=ink, medianprops=ink, whiskerprops=ink,
                capprops=ink, showfliers=False, manage_ticks=False,
            )  # fmt: skip
    boxes.set_xticks(range(len(sets)), [TITLES[key] for key in sets], fontsize=8)
    boxes.set(yscale="log", ylabel="energy (nats)")
    boxes.set_title("before (left) and after: 5, 25, 50, 75, 95 %", fontsize=10)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser, "out_of_distribution")
    parser.set_defaults(dataset="mnist", epochs=2)
    parser.add_argument("--images", type=int, default=60_000, help="at most so many to train on")
    parser.add_argument("--test", type=int, default=2000, help="images of each data set to score")
    parser.add_argument("--weights", choices=WEIGHTS, default="sgd", help="their optimiser")
    parser.add_argument("--hidden", type=int, nargs="+", default=HIDDEN)
    arguments = parser.parse_args()
    data = load(parser, arguments)
    start = time.perf_counter()
    unknown = others(parser, arguments, data.shape)
    pc, accuracy = train(first(data, arguments.images), arguments)
    trained = time.perf_counter() - start
    images = {arguments.dataset: data.x_test[: arguments.test], **unknown}
    found = {key: scores(pc, x) for key, x in images.items()}
    inside, *rest = found
    everything = {n: np.concatenate([own[n] for own in found.values()]) for n in SCORES}
    record, path = write_analysis(
        arguments.out,
        analysis="out-of-distribution",
        dataset=arguments.dataset,
        seeds=arguments.seeds[:1],
        epochs=arguments.epochs,
        images=min(arguments.images, len(data.x_train)),
        test_images=arguments.test,
        settings={
            "hidden": arguments.hidden,
            "T": T,
            "T_test": T_TEST,
            "state_rate": RATE,
            "weights": arguments.weights,
            "batch_size": BATCH_SIZE,
        },
        accuracy=accuracy,
        sets=list(found),
        apart={key: compare(found[inside], found[key]) for key in rest},
        data={key: describe(own) for key, own in found.items()},
        all_sets=describe(everything)["rank_correlation"],
        histograms=histograms(found),
        seconds_training=trained,
        seconds=time.perf_counter() - start,
        command=command(arguments, "images", "epochs", "test", "weights", "hidden", "seeds"),
    )
    rows = [
        [
            TITLES[key],
            name,
            *(f"{record['apart'][key][name][s]['auroc']:.3f}" for s in ("100%", "25%")),
        ]
        for key in rest
        for name in SCORES
    ]
    print(f"\ntest accuracy {record['accuracy']:.2f} %\n")
    print(table(["against", "score", "AUROC, all", "AUROC, lowest 25 %"], rows))
    for key, own in record["data"].items():
        print(f"{TITLES[key]}: rank correlation with softmax {own['rank_correlation']}")
    save(plot(record), path.with_suffix(".png"))
    print(f"record and figure: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
