"""Every algorithm on one network: accuracy, time, and the regime in which it trained.

    python examples/scoreboard.py                                               # digits, no files
    python examples/scoreboard.py --dataset fashion-mnist --data-dir DIR        # 10 000 images

All start from the same weights and see the same batches, seed by seed, so accuracies are compared
in pairs. Back-propagation has its learning rate tuned on a fifth of the training data; the others
take that rate, and have their other settings from hand, not tuned. Accuracy is that after the last
epoch. Time is that of the fastest epoch over back-propagation's.

An accuracy near that of back-propagation says little if the weight gradients are those of
back-propagation. So the regime (`pxan.regime`, first seed, on test images after training) is beside
it: relaxed, below 0.1 like back-propagation and above 0.9 like the equilibrium of inference; the
cosine of the weight gradient with that of back-propagation; layers that learn (effective depth);
and target alignment.
"""

import argparse
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from _shared import (
    MUTED,
    add_arguments,
    batches,
    colour,
    command,
    first,
    load,
    mean_and_deviation,
    regime_of,
    save,
    styled,
    table,
    write_record,
)

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt

HIDDEN, BATCH_SIZE, ACT = [128, 128, 128], 64, jax.nn.gelu
EPOCHS = {"digits": 10, "mnist": 5, "fashion-mnist": 5}
RATES = (1e-3, 2e-3, 4e-3)
STATES, FLAT = optax.sgd(0.05, momentum=0.5), optax.sgd(0.25)
NOISY = pxa.langevin(0.01, sigma2=1e-4)


def bidirectional(model, **options):
    dims = [model.layers[0].nn.in_features, *(vode.shape[0] for vode in model.vodes)]
    backward = [pxnn.Linear(n, m) for m, n in itertools.pairwise(dims)]
    return pxa.BidirectionalPC(model, 8, STATES, backward=backward, alpha_b=1e-3, **options)


class Predict(px.Module):
    """One layer of a model as a function, which is what `pxa.pc_gradients` takes."""

    def __init__(self, model, index):
        self.model, self.index = model, index

    def __call__(self, h):
        return self.model.predict(self.index, h)


class FixedPrediction(pxa.Backprop):
    """Predictions and Jacobians stay those of the forward pass (Rosenbaum, 2022, algorithm 2)."""

    def weight_gradients(self, x, y):
        layers = [Predict(self.model, k) for k in range(len(self.model.layers))]
        found = pxa.pc_gradients(layers, x, y, half_squared_error, "fixed_pred", eta=0.1, n=20)
        # every layer holds the whole model, and so does its gradient
        return found.loss / len(x), found.gradients[0].model


def half_squared_error(u, y):
    return 0.5 * jnp.sum((u - y) ** 2)


# An algorithm of your own is one more line: a function of a model and the weights' optimiser. Its
# optimiser of the states is made once, so that the next seed finds what was compiled.
ALGORITHMS = {
    "BP-SE": pxa.Backprop,
    "BP-CE": pxa.Backprop,
    "PC-SE": functools.partial(pxa.PC, T=8, state_optim=STATES),
    "PC-CE": functools.partial(pxa.PC, T=8, state_optim=STATES),
    "PC-SE T=64": functools.partial(pxa.PC, T=64, state_optim=FLAT),
    "PN": functools.partial(pxa.NudgedPC, T=8, state_optim=STATES, beta=0.5, mode="positive"),
    "CN": functools.partial(pxa.NudgedPC, T=8, state_optim=STATES, beta=0.5, mode="centred"),
    "EP": pxa.EquilibriumProp,
    "iPC": functools.partial(pxa.IPC, T=4, state_optim=FLAT),
    "ePC": functools.partial(pxa.EPC, T=4, step="scaled", damping=0.5),
    "ePC T=1": functools.partial(pxa.EPC, T=1, state_optim=STATES, rate=0.05),
    "PCALM": functools.partial(pxa.PCALM, T=16, state_optim=FLAT),
    "Z-IL": pxa.ZIL,
    "FixedPred": FixedPrediction,
    "MCPC": functools.partial(pxa.MCPC, T=20, state_optim=NOISY),
    "Bidirectional": bidirectional,
}


@functools.cache
def optimiser(rate):
    return optax.adamw(rate, weight_decay=1e-3)


def train(name, data, rate, seed, epochs):
    """The trained algorithm, and its history."""
    px.RKG.seed(seed)
    energy_fn = pxc.ce_energy if name.endswith("-CE") else pxc.se_energy
    model = pxm.MLP([data.shape[0], *HIDDEN, data.classes], ACT, energy_fn)
    algorithm = ALGORITHMS[name](model, weight_optim=optimiser(rate))
    train_batches, test = batches(data, BATCH_SIZE, seed)
    trainer = pxt.Trainer(algorithm, progress=False)
    return algorithm, trainer.fit(train_batches, epochs, val=test)


def tuned_rate(name, data, epochs):
    """The learning rate with which back-propagation is best on a fifth of the training data."""
    n = len(data.x_train) * 4 // 5
    held_out = dataclasses.replace(
        data,
        x_train=data.x_train[:n],
        y_train=data.y_train[:n],
        x_test=data.x_train[n:],
        y_test=data.y_train[n:],
    )
    score = {r: train(name, held_out, r, 0, epochs)[1].last("val_accuracy") for r in RATES}
    return max(score, key=score.get)


def baseline_of(name):
    """Back-propagation with the same energy at the output."""
    return "BP-CE" if name.endswith("-CE") else "BP-SE"


def row_of(name, runs, regime, baseline):
    """One line of the table; `baseline` has the runs of back-propagation with the same energy."""
    last = 100 * np.array([run.last("val_accuracy") for run in runs])
    pairs = last - 100 * np.array([run.last("val_accuracy") for run in baseline])
    return [
        name,
        mean_and_deviation(last),
        "-" if runs is baseline else mean_and_deviation(pairs, signed=True),
        f"{fastest(runs) / fastest(baseline):.1f}",
        f"{regime['relaxed_fraction']:.2f}",
        f"{regime['total_cosine']:.2f}",
        f"{regime['effective_depth']} of {len(regime['cosine'])}",
        "-" if regime["alignment"] is None else f"{regime['alignment']:.2f}",
        {True: "yes", False: "NO", None: "-"}[regime["stable"]],
    ]


def fastest(runs):
    """Seconds of the fastest epoch; the first one compiles."""
    return min(np.min(run["seconds"][1:]) if len(run) > 1 else run["seconds"][0] for run in runs)


@styled
def plot(shown, title):
    """The figure of accuracy, regime and time, algorithms ordered by accuracy.

    Args:
        shown: for each algorithm "last" (accuracies in percent), "relaxed", "cosine", "time".
    """
    order = sorted(shown, key=lambda name: np.mean(shown[name]["last"]))
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(10, 0.24 * len(order) + 1.4), layout="constrained", sharey=True
    )
    for row, name in enumerate(order):
        own = shown[name]
        line = {"color": MUTED if name.startswith("BP") else colour(0)}
        left.plot(own["last"], [row] * len(own["last"]), "o", **line, markersize=4, alpha=0.7)
        left.plot(np.mean(own["last"]), row, "|", **line, markersize=11, markeredgewidth=1.8)
        middle.plot(own["relaxed"], row, "o", **line, markersize=5)
        middle.plot(own["cosine"], row, "D", color=colour(1), markersize=5, fillstyle="none")
        right.plot(own["time"], row, "o", **line, markersize=5)
    left.set_yticks(range(len(order)), order)
    left.set_ylim(-0.6, len(order) - 0.4)
    left.set_xlabel("test accuracy after the last epoch (%)\ndots: seeds, bar: mean")
    middle.plot([], [], "o", color=colour(0), label="relaxed")
    middle.plot([], [], "D", color=colour(1), fillstyle="none", label="cosine with BP")
    middle.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    middle.set(xlim=(-0.55, 1.1), xlabel="regime")
    right.set(xscale="log", xlabel="time of an epoch over that of BP")
    low, high = np.log2(right.get_xlim())
    ticks = 2.0 ** np.arange(np.floor(low), np.ceil(high) + 1)
    right.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    right.minorticks_off()
    for axes in (left, middle, right):
        axes.grid(axis="x")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser, "scoreboard")
    parser.set_defaults(seeds=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=[*ALGORITHMS])
    parser.add_argument("--images", type=int, default=10_000, help="at most so many to train on")
    arguments = parser.parse_args()
    data, dataset = load(parser, arguments), arguments.dataset
    data = first(data, arguments.images)
    epochs = arguments.epochs = arguments.epochs or EPOCHS[dataset]
    # back-propagation is what the others are compared with
    names = list(dict.fromkeys(["BP-SE", "BP-CE", *arguments.algorithms]))
    rates = {name: tuned_rate(name, data, epochs) for name in names[:2]}
    histories, regimes = {}, {}
    for name in names:
        rate = rates[baseline_of(name)]
        rate = rate / 4 if name == "iPC" else rate  # it makes T steps on the weights for each batch
        histories[name] = []
        for seed in arguments.seeds:
            try:
                algorithm, history = train(name, data, rate, seed, epochs)
            except pxt.Diverged as error:
                print(f"{name}, seed {seed}: {error}", flush=True)
                break
            histories[name].append(history)
            if name not in regimes:
                regimes[name] = regime_of(algorithm, data)
            print(f"{name}, seed {seed}: {history.summary()}", flush=True)
            write_record(
                arguments.out / "records",
                experiment="Scoreboard",
                dataset=dataset,
                algorithm=name,
                seed=seed,
                history=history,
                settings={"rate": rate, "hidden": HIDDEN, "images": len(data.x_train)},
                regime=regimes[name],
                relative_time=round(fastest([history]) / fastest(histories[baseline_of(name)]), 2),
                command=command(arguments, "epochs", "images")
                + f" --seeds {seed} --algorithms '{name}'",
            )
    complete = [name for name in names if len(histories[name]) == len(arguments.seeds)]
    rows = [
        row_of(
            name,
            histories[name],
            regimes[name],
            histories[baseline_of(name)],
        )
        for name in complete
    ]
    header = "algorithm, accuracy (%), over BP, time / BP, relaxed, cosine, depth, aligned, stable"
    text = table(header.split(", "), rows)
    print(f"\n{dataset}, {len(data.x_train)} images, {epochs} epochs, seeds {arguments.seeds}")
    print(f"learning rates of back-propagation, tuned: {rates}\n\n{text}")
    path = arguments.out / dataset
    path.mkdir(parents=True, exist_ok=True)
    (path / "table.md").write_text(text + "\n")
    shown = {
        name: {
            "last": [100 * run.last("val_accuracy") for run in histories[name]],
            "relaxed": regimes[name]["relaxed_fraction"],
            "cosine": regimes[name]["total_cosine"],
            "time": fastest(histories[name]) / fastest(histories[baseline_of(name)]),
        }
        for name in complete
    }
    save(plot(shown, f"{dataset}: one network, all algorithms"), path / "scoreboard.png")
    print(f"table and figure: {path}; records: {arguments.out / 'records'}")


if __name__ == "__main__":
    main()
