"""Autoencoders: images from a code of 64, or of 8 x 4 x 4, numbers (Table 2).

    python examples/autoencoder.py                                          # digits, no files, a minute
    python examples/autoencoder.py --dataset mnist --data-dir DIR           # linear layers
    python examples/autoencoder.py --dataset cifar10 --data-dir DIR         # deconvolutions

By predictive coding there is no encoder. A decoder of three layers learns with its code free and its output
clamped, `train_step(None, images)`, and inference finds the code of an image; the reconstruction is a forward
pass from that code (`algorithm.reconstruct`). By back-propagation three layers of encoder stand before the same
decoder. What is reported is the mean squared error on test images, pixels in 0..1, reconstructions clipped
to 0..1, in 1e-3. T = 20, batches of 200, 30 epochs, AdamW; the settings of PC and iPC are those published by
Pinchetti et al. (Appendix C.1), those of BP are not known to us and lie in their search range.

As a yardstick: PCA with as many components, the best that linear maps can do.

With few images, PC at its published rate of the states lags far behind, since 20 steps at 0.02 are far from
equilibrium, in training and on test images (`--T-test 100`). At 0.15, still stable, most of that is gone:
`--algorithms PC --lr-h 0.15 --momentum 0.05`. iPC learns at each of the T steps, T times as often as PC and BP.
"""

import argparse
import dataclasses
import itertools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from _shared import (
    INK,
    MUTED,
    NAMES,
    add_arguments,
    hardware,
    load,
    mean_and_deviation,
    save,
    table,
    tidy,
)
from _shared import write_value as write
from matplotlib.ticker import LogLocator

import pcx as px
import pcx.algorithms as pxa
import pcx.data
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.training as pxt

# the digits have 64 pixels only
CODE = {"digits": 16, "mnist": 64, "fashion-mnist": 64, "cifar10": 128}
ALGORITHMS = ("PC", "iPC", "BP", "PCA")
HYPER = ("act", "lr", "decay", "lr_h", "momentum", "kernel")
OPTIONS = ("images", "test_images", "epochs", "T", "batch_size", *HYPER)
COLOURS = {"PC": "#2563eb", "iPC": "#ea580c", "BP": MUTED}
# legible in our copy of the paper: this one value of Table 2
PAPER = {("cifar10", "iPC"): "5.50 ± 0.01"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Hyper-parameters of a run."""

    act: str
    lr: float
    decay: float
    lr_h: float = 0.0
    momentum: float = 0.0
    kernel: int = 4


SETTINGS = {
    ("mnist", "PC"): Setting("hard_tanh", 3.4e-4, 1.3e-5, 0.0199, 0.15),
    ("mnist", "iPC"): Setting("hard_tanh", 3e-5, 4.5e-2, 0.171, 0.05),
    ("mnist", "BP"): Setting("tanh", 1e-3, 1e-5),
    ("fashion-mnist", "PC"): Setting("hard_tanh", 5.15e-4, 7.4e-5, 0.0119, 0.45),
    ("fashion-mnist", "iPC"): Setting("gelu", 5.5e-5, 1.9e-3, 0.882, 0.6),
    ("fashion-mnist", "BP"): Setting("tanh", 1e-3, 1e-5),
    ("cifar10", "PC"): Setting("hard_tanh", 9e-4, 9.9e-3, 0.0167, 0.05),
    ("cifar10", "iPC"): Setting("tanh", 8.6e-4, 5.4e-4, 0.528, 0.25, kernel=7),
    ("cifar10", "BP"): Setting("gelu", 1e-3, 1e-5),
}


def setting(dataset, algorithm, arguments):
    """The published setting, with what the command line replaces; the digits take MNIST's."""
    found = SETTINGS["mnist" if dataset == "digits" else dataset, algorithm]
    given = {k: getattr(arguments, k) for k in HYPER if getattr(arguments, k) is not None}
    return dataclasses.replace(found, **given)


class Autoencoder(pxm.Chain):
    """An encoder and a decoder, for back-propagation: no activation on the code and the output."""

    def __init__(self, layers, shapes, act):
        super().__init__(layers, shapes)
        self.act = act

    def predict(self, index, h):
        u = self.layers[index](h)
        return u if index in (2, 5) else self.act(u)


def make(algorithm, shape, code, chosen, T):
    """An algorithm on the network for images of this shape."""
    act = getattr(jnp if chosen.act == "tanh" else jax.nn, chosen.act)
    if len(shape) == 1:
        decoder = pxm.LinearDecoder([code, 128, 256, *shape], act)
        encoder = [pxnn.Linear(m, n) for m, n in ((*shape, 256), (256, 128), (128, code))]
    else:
        decoder = pxm.ConvDecoder(shape, act=act, kernel=chosen.kernel)
        pairs = itertools.pairwise((shape[0], 32, 64, 8))
        encoder = [pxnn.Conv2d(m, n, 3, stride=2, padding=1) for m, n in pairs]
    weight_optim = optax.adamw(chosen.lr, weight_decay=chosen.decay)
    if algorithm == "BP":
        sizes = [vode.shape for vode in decoder.vodes]
        layers = [*encoder, *decoder.layers[1:]]
        model = Autoencoder(layers, [*sizes[2::-1], *sizes[1:]], act)
        return pxa.Backprop(model, weight_optim=weight_optim)
    cls = pxa.PC if algorithm == "PC" else pxa.IPC
    state_optim = optax.sgd(chosen.lr_h, momentum=chosen.momentum)
    # twenty unrolled steps take long to compile, and are faster with convolutions only, on a CPU
    unroll = False if len(shape) == 1 else "auto"
    return cls(decoder, T, state_optim, weight_optim, unroll=unroll)


def reconstruct(algorithm, images, T=None):
    """Images from their codes, clipped to 0..1."""
    parts = []
    for k in range(0, len(images), 1000):
        y = images[k : k + 1000]
        backprop = isinstance(algorithm, pxa.Backprop)
        parts.append(algorithm.predict(y) if backprop else algorithm.reconstruct(y, T=T))
    return np.clip(np.concatenate(parts), 0.0, 1.0)


def error(made, images):
    """Mean squared error in 1e-3."""
    return 1e3 * float(np.mean(np.square(made - images), dtype=np.float64))


class Score(pxt.Callback):
    """The error on some test images, after every few epochs."""

    def __init__(self, images, every):
        self.images, self.every, self.curve = images, every, {}

    def on_epoch_end(self, trainer, epoch, logs):
        if epoch % self.every == 0 or epoch == trainer.epochs:
            mse = error(reconstruct(trainer.algorithm, self.images), self.images)
            self.curve[epoch] = round(mse, 3)
            print(f"  after epoch {epoch}: MSE {mse:.2f}e-3", flush=True)


def principal(train, test, components):
    """Test images from as many principal components of the training images."""
    train, shape = train.reshape(len(train), -1), test.shape
    mean = train.mean(axis=0)
    basis = np.linalg.eigh(np.cov((train - mean).T))[1][:, -components:]
    projected = (test.reshape(len(test), -1) - mean) @ basis @ basis.T + mean
    return np.clip(projected, 0, 1).reshape(shape)


def read(parser, arguments):
    """Training and test images, pixels in 0..1."""
    data = load(parser, arguments, normalize=False)
    train = np.asarray(data.x_train[: arguments.images], np.float32)
    return train, np.asarray(data.x_test[: arguments.test_images], np.float32)


def run(name, seed, train, test, arguments):
    """Train once, with a record; the error, the curve, and some reconstructions."""
    chosen = setting(arguments.dataset, name, arguments)
    print(f"--- {name}, seed {seed}: {chosen}", flush=True)
    px.RKG.seed(seed)
    algorithm = make(name, train.shape[1:], CODE[arguments.dataset], chosen, arguments.T)
    score = Score(test[:1000], max(1, arguments.epochs // 6))
    x = train if name == "BP" else None
    batches = pcx.data.batches(
        x, train, arguments.batch_size, shuffle=True, rkg=seed, drop_last=True
    )
    start = time.perf_counter()
    pxt.Trainer(algorithm, [score]).fit(batches, arguments.epochs)
    seconds = round(time.perf_counter() - start, 1)
    made = reconstruct(algorithm, test)
    by_T = {}
    for T in arguments.T_test if name != "BP" else ():
        by_T[T] = error(reconstruct(algorithm, test, T), test)
        print(f"  inferred for {T} steps instead: MSE {by_T[T]:.2f}e-3", flush=True)
    settings = dataclasses.asdict(chosen) | {"T": arguments.T, "mse_after_epoch": score.curve}
    # incremental PC changes the weights at every inference step
    settings["weight_steps"] = (
        len(batches) * arguments.epochs * (arguments.T if name == "iPC" else 1)
    )
    rest = {"seconds": seconds, "settings": settings}
    for T, value in [(None, error(made, test)), *by_T.items()]:
        record(name, seed, value, arguments, len(train), T, **rest)
    return error(made, test), score.curve, made[:8]


def record(name, seed, value, arguments, images, T=None, **rest):
    """Write the record of a number."""
    dataset = arguments.dataset
    rest.setdefault("epochs", arguments.epochs)
    kind = "deconvolutional" if dataset == "cifar10" else "linear"
    given = {k: v for k, v in vars(arguments).items() if k in OPTIONS and v is not None}
    options = "".join(f" --{k.replace('_', '-')} {v}" for k, v in given.items())
    if T is not None:
        options += f" --T-test {T}"
    where = "" if dataset == "digits" else " --data-dir DIR"
    # what differs from the protocol
    notes = [f"{images} images"] if "images" in given else []
    notes += [f"{given['test_images']} test images"] if "test_images" in given else []
    usual = {"T": 20, "batch_size": 200}
    notes += [f"{k} {given[k]}" for k in (*usual, *HYPER) if given.get(k) != usual.get(k)]
    write(
        arguments.out / "records",
        experiment=f"{kind} autoencoder, code of {CODE[dataset]}",
        dataset=NAMES[dataset],
        algorithm=name if T is None else f"{name}, codes inferred for {T} steps",
        metric="MSE, 1e-3",
        value=round(value, 3),
        seed=seed,
        command=f"python examples/autoencoder.py --dataset {dataset}{where}{options} "
        f"--algorithms {name} --seeds {seed}",
        **({"paper": PAPER[dataset, name]} if (dataset, name) in PAPER else {}),
        note=", ".join(notes),
        **rest,
    )


def draw(test, rows, curves, floor, path):
    """Curves of the error, and reconstructions under the images."""
    figure = plt.figure(figsize=(9.2, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    axes = left.subplots()
    for name, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), color=COLOURS[name], label=name, linewidth=2)
    if floor is not None:
        axes.axhline(floor, color=INK, linewidth=1, linestyle=":", label="PCA")
    axes.set(xlabel="epoch", ylabel="test MSE (1e-3)", yscale="log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter("{x:g}")
    axes.legend(frameon=False)
    tidy(axes)
    named = [("image", test), *rows.items()]
    grid = right.subplots(len(named), 8, squeeze=False)
    side = int(np.sqrt(test[0].size // (3 if test.ndim == 4 else 1)))
    for (name, images), panels in zip(named, grid, strict=True):
        for image, panel in zip(images, panels, strict=False):
            picture = np.reshape(image, (-1, side, side)).transpose(1, 2, 0)
            panel.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center")
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_arguments(parser, "autoencoder", tuple(CODE))
    parser.set_defaults(epochs=30)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--images", type=int, help="train on so many (all, if not given)")
    parser.add_argument("--test-images", type=int, help="test on so many (all, if not given)")
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--T", type=int, default=20, help="inference steps")
    parser.add_argument("--T-test", type=int, nargs="*", default=[], help="other numbers to try")
    parser.add_argument("--act", help="this and the next ones instead of the published settings")
    for name in ("lr", "decay", "lr-h", "momentum"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--kernel", type=int)
    arguments = parser.parse_args()
    arguments.out = Path(arguments.out)
    train, test = read(parser, arguments)
    floor, rows, curves, errors = None, {}, {}, {}
    for name in arguments.algorithms:
        if name == "PCA":
            if train.ndim == 2:
                made = principal(train, test, CODE[arguments.dataset])
                floor = error(made, test)
                errors["PCA"], rows["PCA"] = [floor], made[:8]
                record(name, 0, floor, arguments, len(train), epochs=0)
            continue
        runs = [run(name, seed, train, test, arguments) for seed in arguments.seeds]
        errors[name] = [value for value, _, _ in runs]
        _, curves[name], rows[name] = runs[0]
    draw(test, rows, curves, floor, arguments.out / f"{arguments.dataset}.png")
    shown = [
        [name, mean_and_deviation(e), PAPER.get((arguments.dataset, name), "–")]
        for name, e in errors.items()
    ]
    header = [f"MSE in 1e-3: {arguments.dataset}", f"{len(arguments.seeds)} seeds", "paper"]
    print(f"\n{table(header, shown)}\n\n{hardware()}; records and picture: {arguments.out}")


if __name__ == "__main__":
    main()
