"""Train a predictive coding classifier, written out with the object API.

    python examples/classify.py                                 # scikit-learn's digits, no files
    python examples/classify.py --dataset mnist --data-dir DIR  # with DIR/mnist/train-images-...

The script is also meant to be read: everything that a PCN needs, the model, inference, learning,
evaluation, saving and plots, is below, in this order. `pxt.Trainer` with `pxa.PC` does the same in
a few lines.

It prints the test accuracy after every epoch, saves the model, loads it into a fresh one, checks
that this one is as good, and writes two plots. On MNIST and Fashion-MNIST the settings are those of
Table 1 of Pinchetti et al., "Benchmarking predictive coding networks -- made simple", 2024.
"""

import argparse
import dataclasses
import itertools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from _shared import add_data, load
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

import pcx as px
import pcx.data
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

matplotlib.use("Agg")
import matplotlib.pyplot as plt


class Classifier(pxc.EnergyModule):
    """A perceptron with a vode after every layer; the last one holds the label."""

    def __init__(self, dims, act, output_energy):
        self.act = act
        self.layers = [pxnn.Linear(m, n) for m, n in itertools.pairwise(dims)]
        self.vodes = [pxc.Vode((n,)) for n in dims[1:-1]] + [pxc.Vode((dims[-1],), output_energy)]
        # Inference must not move the label.
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(self.act(layer(x)))
        self.vodes[-1](self.layers[-1](x))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


STATES = pxc.VodeParam | pxc.VodeParam.Cache
# What a vode holds has a batch axis, 0; everything else is shared by the samples.
PER_SAMPLE = pxu.M(STATES).to((None, 0))
FREE_STATES = pxu.M_hasnot(pxc.VodeParam, frozen=True)
WEIGHTS = pxu.M(pxnn.LayerParam)


@pxf.vmap(PER_SAMPLE, in_axes=(0, 0), out_axes=0)
def forward(x, y, *, model):
    return model(x, y)


@pxf.vmap(PER_SAMPLE, in_axes=(0,), out_axes=(0, 0))
def energies(x, *, model):
    model(x)
    return model.energy(), jnp.stack([vode.energy() for vode in model.vodes])


def energy(x, *, model):
    """The energy of a batch (a sum: a state sees its own sample's), and the mean per vode."""
    total, per_vode = energies(x, model=model)
    return total.sum(), per_vode.mean(axis=0)


state_gradient = pxf.value_and_grad(FREE_STATES.to((False, True)), has_aux=True)(energy)
weight_gradient = pxf.value_and_grad(WEIGHTS.to((False, True)), has_aux=True)(energy)


def infer(T, x, y, *, model, optim_h):
    """Initialise the states by a forward pass, then descend the energy on them for T steps.

    Returns the energy per vode before each step and after the last, `(T + 1, vodes)`. Its last row
    costs a forward pass, which the compiler leaves out where nobody asks for it.
    """
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, y, model=model)
    optim_h.init(FREE_STATES(model))
    trace = []
    for _ in range(T):
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            (_, (per_vode,)), grads = state_gradient(x, model=model)
        optim_h.step(model, grads["model"])
        trace.append(per_vode)
    optim_h.clear()
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        trace.append(energy(x, model=model)[1])
    return jnp.stack(trace)


@pxf.jit(static_argnums=0)
def train_step(T, x, y, *, model, optim_w, optim_h):
    """One batch: infer the states, then one step on the weights. The batch's mean energy."""
    infer(T, x, y, model=model, optim_h=optim_h)
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        (total, _), grads = weight_gradient(x, model=model)
    optim_w.step(model, grads["model"], scale_by=1.0 / len(x))
    model.clear_params(STATES)
    return total / len(x)


@pxf.jit(static_argnums=0)
def energy_trace(T, x, y, *, model, optim_h):
    """What inference does to the energy of each vode, `(T + 1, vodes)`; nothing is learned."""
    trace = infer(T, x, y, model=model, optim_h=optim_h)
    model.clear_params(STATES)
    return trace


@pxf.jit()
def count_correct(x, labels, *, model):
    with pxu.step(model, pxc.STATUS.INIT, clear_params=STATES):
        scores = forward(x, None, model=model)
    return (scores.argmax(axis=-1) == labels).sum()


def accuracy(test_batches, model):
    """Share of samples whose largest output is at the label."""
    correct = sum(count_correct(x, labels, model=model) for x, labels in test_batches)
    return int(correct) / len(test_batches.x)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train: the paper's for the two MNISTs."""

    T: int
    lr_w: float
    weight_decay: float
    lr_h: float
    momentum_h: float
    epochs: int = 25
    batch_size: int = 128


SETTINGS = {
    ("digits", "pc-se"): Settings(8, 2e-3, 1e-3, 0.02, 0.5, epochs=30, batch_size=64),
    ("digits", "pc-ce"): Settings(8, 2e-3, 1e-3, 0.02, 0.5, epochs=30, batch_size=64),
    ("mnist", "pc-se"): Settings(8, 2.97e-4, 3.55e-4, 0.01053, 0.65),
    ("mnist", "pc-ce"): Settings(5, 3.00e-4, 3.31e-3, 0.01828, 0.35),
    ("fashion-mnist", "pc-se"): Settings(5, 2.97e-4, 1.84e-3, 0.02607, 0.10),
    ("fashion-mnist", "pc-ce"): Settings(5, 2.77e-4, 8.4e-4, 0.01313, 0.40),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data(parser, ["digits", "mnist", "fashion-mnist"])
    parser.add_argument(
        "--algorithm",
        choices=["pc-se", "pc-ce"],
        default="pc-se",
        help="predictive coding with squared error or cross entropy at the output",
    )
    parser.add_argument("--epochs", type=int, help="default: 30 for digits, 25 otherwise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/classify"), help="folder for results"
    )
    arguments = parser.parse_args()
    if arguments.epochs is not None and arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {arguments.epochs}")
    return arguments, load(parser, arguments)


INK, MUTED, BLUE, ORANGE = "#222222", "#888888", "#2563eb", "#ea580c"


def new_figure(title, subtitle, xlabel, ylabel):
    figure, axes = plt.subplots(figsize=(7.0, 4.2), dpi=150, layout="constrained")
    axes.set_title(f"{title}\n", loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, fontsize=9, color=MUTED)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def plot_accuracy(accuracies, subtitle, path):
    figure, axes = new_figure("Test accuracy", subtitle, "epoch", "test accuracy (%)")
    percent = 100 * np.array(accuracies)
    epochs = np.arange(1, len(percent) + 1)
    axes.plot(epochs, percent, color=BLUE, linewidth=2, marker="o", markersize=3.5)
    best = int(percent.argmax())
    axes.plot(epochs[best], percent[best], "o", color=ORANGE, markersize=7, zorder=3)
    axes.annotate(
        f"best {percent[best]:.2f}",
        (epochs[best], percent[best]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=ORANGE,
    )
    axes.margins(y=0.15)
    axes.set_xlim(0, len(percent) + 1)
    figure.savefig(path)
    plt.close(figure)


def plot_energies(before, after, subtitle, path):
    figure, axes = new_figure(
        "Energy during inference", subtitle, "inference step", "energy per sample (nats)"
    )
    steps, vodes = after.shape
    # A state starts at its prediction: its energy is 0, or rounding, until the error arrives there.
    before, after = (np.where(energy > 1e-12, energy, np.nan) for energy in (before, after))
    colours = plt.colormaps["viridis"](np.linspace(0, 0.85, vodes))
    for i in range(vodes):
        name = "output" if i == vodes - 1 else f"layer {i + 1}"
        line = {"color": colours[i], "marker": "o", "markersize": 3.5}
        axes.plot(after[:, i], linewidth=2, label=name, **line)
        axes.plot(before[:, i], linewidth=1.2, linestyle=":", **line)
    axes.set_yscale("log")
    axes.plot([], [], color=MUTED, linewidth=2, label="trained")
    axes.plot([], [], color=MUTED, linewidth=1.2, linestyle=":", label="before training")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_xlim(-0.2, steps - 0.8)
    figure.savefig(path)
    plt.close(figure)


def main():
    arguments, data = parse_arguments()
    settings = SETTINGS[arguments.dataset, arguments.algorithm]
    epochs = arguments.epochs or settings.epochs
    output_energy = pxc.ce_energy if arguments.algorithm == "pc-ce" else pxc.se_energy

    def new_model():
        return Classifier([data.shape[0], 128, 128, 128, data.classes], jax.nn.gelu, output_energy)

    px.RKG.seed(arguments.seed)
    model = new_model()
    train_batches = pcx.data.batches(
        data.x_train,
        pcx.data.one_hot(data.y_train, data.classes),
        settings.batch_size,
        shuffle=True,
        rkg=arguments.seed,
        drop_last=True,
    )
    test_batches = pcx.data.batches(data.x_test, data.y_test, min(1000, len(data.x_test)))

    total_steps = epochs * len(train_batches)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=settings.lr_w,
        peak_value=1.1 * settings.lr_w,
        warmup_steps=round(0.1 * total_steps),
        decay_steps=total_steps,
        end_value=0.1 * settings.lr_w,
    )
    optim_w = pxu.Optim(optax.adamw(schedule, weight_decay=settings.weight_decay), WEIGHTS(model))
    optim_h = pxu.Optim(optax.sgd(settings.lr_h, momentum=settings.momentum_h))

    T = settings.T
    x_probe, y_probe = train_batches.x[:128], train_batches.y[:128]
    before = energy_trace(T, x_probe, y_probe, model=model, optim_h=optim_h)

    label = f"{arguments.dataset}, {arguments.algorithm.upper()}, T = {T}, seed {arguments.seed}"
    print(
        f"{label}: {len(data.x_train)} training samples, {len(data.x_test)} test samples, "
        f"{epochs} epochs"
    )
    start, accuracies = time.perf_counter(), []
    # Without a terminal there is no bar, and `bar.write` prints its lines as usual.
    with tqdm(total=total_steps, unit="step", disable=None, dynamic_ncols=True, leave=False) as bar:
        for epoch in range(1, epochs + 1):
            bar.set_description(f"epoch {epoch}/{epochs}")
            total = jnp.zeros(())
            for x, y in train_batches:
                # Added up on the device, so that the host never waits for a step.
                total += train_step(T, x, y, model=model, optim_w=optim_w, optim_h=optim_h)
                bar.update()
            mean_energy = float(total) / len(train_batches)
            accuracies.append(accuracy(test_batches, model))
            bar.write(
                f"epoch {epoch:3d}   energy {mean_energy:.5f}   test accuracy {accuracies[-1]:.2%}"
                f"   {time.perf_counter() - start:6.1f} s"
            )
    best = int(np.argmax(accuracies))
    print(
        f"test accuracy: last epoch {accuracies[-1]:.2%}, "
        f"best epoch {accuracies[best]:.2%} (epoch {best + 1})"
    )
    print("(the best epoch is chosen on the test set, as in the paper's Table 1)")

    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{arguments.dataset}-{arguments.algorithm}.npz"
    pxu.save_params(model, file)
    reloaded = new_model()
    pxu.load_params(reloaded, file)
    again = accuracy(test_batches, reloaded)
    if again != accuracies[-1]:
        raise SystemExit(
            f"the reloaded model has {again:.2%}, the saved one had {accuracies[-1]:.2%}"
        )
    print(f"saved to {file}; loaded into a fresh model: {again:.2%}")

    after = energy_trace(T, x_probe, y_probe, model=model, optim_h=optim_h)
    plots = [arguments.out / "accuracy.png", arguments.out / "energy.png"]
    plot_accuracy(accuracies, label, plots[0])
    plot_energies(np.array(before), np.array(after), label, plots[1])
    print(f"plots: {plots[0]}, {plots[1]}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nstopped by Ctrl-C; nothing was saved") from None
