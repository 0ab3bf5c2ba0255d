"""A skip connection in VGG-19: does the error reach the early layers? (Appendix E, Table 11, Figure 18)

    python examples/skip_connections.py --data-dir DIR                 # 30 epochs, on a GPU
    python examples/skip_connections.py --data-dir DIR --width 0.0625 --train 2000 --epochs 5    # on a CPU

VGG-19 on CIFAR-10 by predictive coding, without and with one skip connection: the flattened state of an early
layer, through a linear layer of its own, is added to the input of the classifier. Settings are those that
Pinchetti et al. found best for each of the two (T = 24, 128 images a batch, AdamW); which layer they skip from is
not said, here it is the last one before the first pooling. Their images are flipped and rotated, ours flipped and
shifted. Back-propagation on the same two networks stands beside them: what it gains by the skip is not due to
predictive coding.

*reach* is what a layer has of the error of the output after inference on 64 test images, |e_l| / |e_L|
(`pxan.regime`), of the first convolution and of the one that has least: where it is next to nothing, the layer
does not learn.
"""

import argparse
import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from _shared import (
    add_arguments,
    batches,
    colour,
    command,
    load,
    mean_and_deviation,
    regime_of,
    save,
    some,
    styled,
    table,
    write_record,
)
from matplotlib.ticker import MaxNLocator

import pcx as px
import pcx.algorithms as pxa
import pcx.data
import pcx.models as pxm
import pcx.training as pxt

T, BATCH_SIZE, LR_W = 24, 128, 1e-4


@dataclasses.dataclass(frozen=True)
class Method:
    """A network and a way to train it; `paper` is the paper's accuracy."""

    skip: bool
    act: str
    decay: float
    lr_h: float | None = None  # None: back-propagation
    momentum: float = 0.0
    paper: str | None = None


METHODS = {
    "PC": Method(False, "gelu", 1e-4, 0.1, 0.99, "25.32"),
    "PC, skip": Method(True, "leaky_relu", 5e-4, 0.5, 0.5, "73.95"),
    "BP": Method(False, "gelu", 1e-4),
    "BP, skip": Method(True, "leaky_relu", 5e-4),
}


def make(method, data, arguments):
    """The algorithm of a method, with its network."""
    act = getattr(jax.nn, method.act)
    options = {"in_shape": data.shape, "classes": data.classes, "act": act}
    model = pxm.VGG(19, skip=method.skip, width=arguments.width, **options)
    weights = optax.adamw(LR_W, weight_decay=method.decay)
    if method.lr_h is None:
        return pxa.Backprop(model, weight_optim=weights)
    states = optax.sgd(method.lr_h, momentum=method.momentum)
    return pxa.PC(model, arguments.T, states, weights)


def run(name, seed, data, arguments):
    """Train once; the record."""
    px.RKG.seed(seed)
    method = METHODS[name]
    algorithm = make(method, data, arguments)
    train, test = batches(data, BATCH_SIZE, seed)
    augment = pcx.data.device_augmentation("cifar10")
    trainer = pxt.Trainer(algorithm, [pxt.Progress()], augment=augment)
    history = trainer.fit(train, arguments.epochs, val=test)
    notes = []
    if arguments.width != 1:
        notes.append(f"{arguments.width:g} of the channels")
    if arguments.train is not None:
        notes.append(f"{arguments.train} training images")
    write_record(
        arguments.out / "records",
        experiment="VGG-19",
        dataset=arguments.dataset,
        algorithm=name,
        seed=seed,
        history=history,
        settings=dataclasses.asdict(method) | {"T": arguments.T, "lr_w": LR_W},
        regime=(regime := regime_of(algorithm, data, samples=0)),
        command=f"{command(arguments, 'epochs', 'width', 'T')} --seeds {seed} --methods '{name}'"
        + (f" --train {arguments.train}" if arguments.train else ""),
        note=", ".join(notes),
        **({"paper": method.paper} if method.paper and not notes else {}),
    )
    return history, regime


@styled
def plot(runs):
    """Test accuracy after each epoch, seeds as a pale band."""
    figure, axes = plt.subplots(figsize=(6.2, 3.4))
    for k, (name, seeds) in enumerate(runs.items()):
        curves = 100 * np.array([history["val_accuracy"] for history, _ in seeds])
        epochs = np.arange(1, curves.shape[1] + 1)
        line = {"color": colour(k // 2), "linestyle": "-" if METHODS[name].skip else "--"}
        axes.plot(epochs, curves.mean(axis=0), label=name, **line)
        axes.fill_between(epochs, curves.min(0), curves.max(0), alpha=0.15, color=line["color"])
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", title="VGG-19, CIFAR-10")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser, "skip_connections", ("cifar10",))
    parser.set_defaults(dataset="cifar10", epochs=30)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS])
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels")
    parser.add_argument("--train", type=int, help="how many training images (all)")
    parser.add_argument("--T", type=int, default=T, help="inference steps")
    arguments = parser.parse_args()
    data = some(parser, load(parser, arguments), arguments.train)
    runs = {}
    for name in arguments.methods:
        for seed in arguments.seeds:
            print(f"--- {name}, seed {seed}", flush=True)
            try:
                runs.setdefault(name, []).append(run(name, seed, data, arguments))
            except pxt.Diverged as error:
                print(error)
    rows = []
    for name, seeds in runs.items():
        curves = [100 * history["val_accuracy"] for history, _ in seeds]
        reach = seeds[0][1]["error_ratio"]
        shown = [f"{reach['layers[0]'] or 0:.1e}", f"{min(v or 0 for v in reach.values()):.1e}"]
        rows.append(
            [
                name,
                mean_and_deviation([curve[-1] for curve in curves]),
                mean_and_deviation([curve.max() for curve in curves]),
                METHODS[name].paper or "-",
                *(["-", "-"] if METHODS[name].lr_h is None else shown),
            ]
        )
    header = ["", "last epoch (%)", "best epoch (%)", "paper (best)", "reach, first layer", "least"]
    text = table(header, rows)
    print(f"\n{text}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "table.md").write_text(text + "\n")
    if runs:
        save(plot(runs), arguments.out / "accuracy.png")
    print(f"table and figure: {arguments.out}; records: {arguments.out / 'records'}")


if __name__ == "__main__":
    main()
