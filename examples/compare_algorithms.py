"""One network, all algorithms: one table and one figure.

    python examples/compare_algorithms.py                                        # digits, no files
    python examples/compare_algorithms.py --dataset mnist --data-dir DIR         # Table 1's settings
    python examples/compare_algorithms.py --algorithms pc-se ipc bp-se --seeds 0 1 2
    python examples/compare_algorithms.py --dataset cifar10 --data-dir DIR       # VGG-5, on a GPU
    python examples/compare_algorithms.py --dataset cifar10 --data-dir DIR \
        --width 0.125 --train 10000 --epochs 8                                   # its CPU size
    python examples/compare_algorithms.py --dataset cifar10 --data-dir DIR --model resnet18

The network is the one of the paper's benchmarks: three hidden layers of 128, for CIFAR-10 VGG-5, or
ResNet-18 with group normalisation, with flips and crops. Except on the digits and for ResNet-18 the
settings of PC-CE, PC-SE, PN, NN, iPC, BP-CE and BP-SE are those that the authors of Pinchetti et al.,
"Benchmarking predictive coding networks -- made simple" (2024), published with their code; for CN
they published none, so it has PN's, and for back-propagation on CIFAR-10 none, so it has those of
PC. All others were chosen here by hand and not tuned. Those of Table 1 and of ResNet-18 are in
`examples/settings/`; `--settings FILE` takes others, such as those that `examples/tune.py` finds.

The table has the accuracy after the last epoch and in the best one. The paper reports the best,
which is an epoch chosen by looking at the test set.
"""

import argparse
import dataclasses
import itertools
import json
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
    batches,
    load,
    mean_and_deviation,
    regime_of,
    save,
    some,
    table,
    tidy,
    write_record,
)
from matplotlib.ticker import LogFormatter, MaxNLocator

import pcx as px
import pcx.algorithms as pxa
import pcx.data
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt

ACTIVATIONS = {
    "gelu": jax.nn.gelu,
    "leaky_relu": jax.nn.leaky_relu,
    "relu": jax.nn.relu,
    "hard_tanh": jax.nn.hard_tanh,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyper-parameters of one algorithm; `paper` is the paper's accuracy."""

    T: int
    act: str
    lr_w: float
    weight_decay: float
    lr_h: float = 0.0
    momentum: float = 0.0
    beta: float = 1.0
    beta_increase: float = 0.0
    paper: float | None = None


# Not in the paper: the settings of PC-SE, with these changes.
OTHERS = {
    "ePC": {"T": 4, "lr_h": 0.0},
    # as many sweeps as layers
    "EP-positive": {"T": 4, "beta": 0.02},
    "EP-negative": {"T": 4, "beta": 0.02},
    "EP-random": {"T": 4, "beta": 0.02},
    "EP-centred": {"T": 4, "beta": 0.02},
    "PCALM": {"T": 16, "lr_h": 0.25, "momentum": 0.0},
    "Z-IL": {"T": 0},
    "MCPC": {"T": 20, "lr_h": 0.01},
    "Bidirectional": {"lr_h": 0.05, "momentum": 0.5},
    "Hybrid": {"T": 8, "lr_h": 0.05, "momentum": 0.5},
}
TABLE_1 = ["PC-CE", "PC-SE", "PN", "NN", "CN", "iPC", "BP-CE", "BP-SE"]
ALGORITHMS = [*TABLE_1, *OTHERS]
EPOCHS = {"digits": 30, "mnist": 25, "fashion-mnist": 25, "cifar10": 50}
BATCH_SIZE = {"digits": 64, "mnist": 128, "fashion-mnist": 128, "cifar10": 128}
# those that need a backward network of linear layers
LINEAR_ONLY = ("Bidirectional", "Hybrid")
HIDDEN = [128, 128, 128]
# what layers compute in; states, weights and energies are float32 in any case
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


SETTINGS = Path(__file__).parent / "settings"


def read_settings(path):
    """The settings of each algorithm in a file, by name."""
    file = json.loads(Path(path).read_text())
    return {name: Settings(**own) for name, own in file["algorithms"].items()}


# the networks for images, and the name of each in records
IMAGES = {"vgg5": (pxm.VGG5, "VGG-5"), "resnet18": (pxm.ResNet18, "ResNet-18")}


def settings_file(dataset, network="vgg5"):
    """The file in `examples/settings/` of a data set and a network."""
    return SETTINGS / f"{dataset}{'-resnet18' if network == 'resnet18' else ''}.json"


def settings_for(name, dataset, network="vgg5"):
    """Those in `examples/settings/`; those of algorithms that are not in the paper are made from PC-SE's."""
    rows = read_settings(settings_file(dataset, network))
    if name in rows:
        return rows[name]
    return dataclasses.replace(rows["PC-SE"], paper=None, **OTHERS[name])


def layers(dims, act):
    """A linear layer and an activation between each size and the next."""
    return [pxnn.Sequential(pxnn.Linear(m, n), act) for m, n in itertools.pairwise(dims)]


def make(name, settings, data, steps, width=1.0, network="vgg5"):
    """The algorithm with its model, and the schedule of its weight optimiser.

    Args:
        steps: number of batches in the whole run.
        width: factor on the channels of VGG-5 or ResNet-18.
        network: which of them, for images.
    """
    T, act = settings.T, ACTIVATIONS[settings.act]
    # incremental PC changes the weights at every inference step
    schedule = pxt.warmup_cosine(settings.lr_w, steps * (T if name == "iPC" else 1))
    dims = [data.shape[0], *HIDDEN, data.classes]
    energy_fn = pxc.ce_energy if name.endswith("-CE") else pxc.se_energy
    optims = {
        "state_optim": optax.sgd(settings.lr_h, momentum=settings.momentum),
        "weight_optim": optax.adamw(schedule, weight_decay=settings.weight_decay),
    }
    if name == "Hybrid":
        # a generator from the label to the image, and an amortiser from the image to the label
        generator = pxm.MLP(dims[::-1], act)
        amortiser = [pxnn.Linear(dims[-2], dims[-1]), *layers(dims[:-1], act)[::-1]]
        return pxa.HybridPC(generator, T, amortiser=amortiser, **optims), schedule
    if len(data.shape) > 1:
        options = {"in_shape": data.shape, "classes": data.classes, "width": width}
        model = IMAGES[network][0](act=act, energy_fn=energy_fn, **options)
    else:
        model = pxm.MLP(dims, act, energy_fn)
    if name.startswith("PC-"):
        algorithm = pxa.PC(model, T, **optims)
    elif name in ("PN", "NN", "CN"):
        algorithm = pxa.NudgedPC(
            model,
            T,
            beta=settings.beta,
            beta_increase=settings.beta_increase,
            mode={"PN": "positive", "NN": "negative", "CN": "centred"}[name],
            **optims,
        )
    elif name == "iPC":
        algorithm = pxa.IPC(model, T, **optims)
    elif name.startswith("BP-"):
        algorithm = pxa.Backprop(model, weight_optim=optims["weight_optim"])
    elif name == "ePC":
        # without a rate of the states, steps of a measured size
        step = "fixed" if settings.lr_h else "scaled"
        algorithm = pxa.EPC(model, T, step=step, damping=0.5, **optims)
    elif name.startswith("EP-"):
        mode, optims["state_optim"] = name.removeprefix("EP-"), pxa.RedBlack()
        algorithm = pxa.EquilibriumProp(model, T, beta=settings.beta, mode=mode, **optims)
    elif name == "PCALM":
        algorithm = pxa.PCALM(model, T, **optims)
    elif name == "Z-IL":
        algorithm = pxa.ZIL(model, weight_optim=optims["weight_optim"])
    elif name == "MCPC":
        # a temperature well below 1: with the states' own unit variance labels drown in the noise
        optims["state_optim"] = pxa.langevin(settings.lr_h, sigma2=1e-4)
        algorithm = pxa.MCPC(model, T, **optims)
    else:
        backward = [pxnn.Linear(n, m) for m, n in itertools.pairwise(dims)]
        algorithm = pxa.BidirectionalPC(model, T, backward=backward, alpha_b=1e-3, **optims)
    return algorithm, schedule


def run(name, seed, data, arguments):
    """Train once; the history."""
    settings, notes, options = settings_for(name, arguments.dataset, arguments.model), [], ""
    if arguments.settings is not None:
        found = read_settings(arguments.settings)
        settings = dataclasses.replace(found[name], paper=settings.paper)
        notes.append(f"settings of {arguments.settings.stem}")
        options += f" --settings {arguments.settings}"
    px.RKG.seed(seed)
    train, test = batches(data, BATCH_SIZE[arguments.dataset], seed)
    epochs = arguments.epochs or EPOCHS[arguments.dataset]
    steps = pxt.total_steps(train, epochs)
    algorithm, schedule = make(name, settings, data, steps, arguments.width, arguments.model)
    algorithm.compute_dtype = DTYPES[arguments.compute_dtype]
    images = arguments.dataset == "cifar10"
    augment = pcx.data.device_augmentation("cifar10") if images else None
    trainer = pxt.Trainer(
        algorithm,
        [pxt.Progress()],
        schedule=schedule,
        augment=augment,
        steps_per_call=arguments.steps_per_call,
    )
    history = trainer.fit(train, epochs, val=test)
    where = "" if arguments.dataset == "digits" else " --data-dir DIR"
    if images and arguments.model != "vgg5":
        options += f" --model {arguments.model}"
    if arguments.width != 1:
        notes.append(f"{arguments.width:g} of the channels")
        options += f" --width {arguments.width:g}"
    if arguments.train is not None:
        notes.append(f"{arguments.train} training images")
        options += f" --train {arguments.train}"
    if epochs < EPOCHS[arguments.dataset]:
        notes.append("1 epoch" if epochs == 1 else f"{epochs} epochs")
    if arguments.compute_dtype != "float32":
        notes.append(f"layers in {arguments.compute_dtype}")
        options += f" --compute-dtype {arguments.compute_dtype}"
    write_record(
        arguments.out / "records",
        experiment=IMAGES[arguments.model][1] if images else "MLP",
        dataset=arguments.dataset,
        algorithm=name,
        seed=seed,
        history=history,
        settings={k: v for k, v in dataclasses.asdict(settings).items() if k != "paper"},
        **({"regime": regime_of(algorithm, data)} if arguments.regime else {}),
        command=(
            f"python examples/compare_algorithms.py --dataset {arguments.dataset}{where} "
            f"--algorithms {name} --epochs {epochs} --seeds {seed}{options}"
        ),
        note=", ".join(notes),
    )
    return history


def results_table(histories, dataset, network):
    rows = []
    for name, runs in histories.items():
        curves = [100 * history["val_accuracy"] for history in runs]
        paper = settings_for(name, dataset, network).paper
        rows.append(
            [
                name,
                mean_and_deviation([curve[-1] for curve in curves]),
                mean_and_deviation([curve.max() for curve in curves]),
                "-" if paper is None else f"{paper:.2f}",
                # the first epoch compiles
                f"{np.mean([history['seconds'][1:].mean() for history in runs]):.2f}"
                if len(curves[0]) > 1
                else "-",
            ]
        )
    return table(["algorithm", "last epoch", "best epoch", "paper (best)", "s / epoch"], rows)


def plot(histories, title, path):
    """Left: error over the epochs. Right: accuracy of each algorithm after the last and in the best."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11.5, 0.24 * len(histories) + 3.2), layout="constrained"
    )
    order = sorted(histories, key=lambda n: np.mean([h.last("val_accuracy") for h in histories[n]]))
    # back-propagation in grey, the others along a colour map by their rank
    others = [name for name in order if not name.startswith("BP")]
    shades = plt.colormaps["viridis"](np.linspace(0.9, 0.05, max(len(others), 2)))
    colours = dict(zip(others, shades, strict=False))
    for row, name in enumerate(order):
        curves = np.array([100 * h["val_accuracy"] for h in histories[name]])
        colour, dash = colours.get(name, MUTED), "-" if name in colours else ":"
        epochs = np.arange(1, curves.shape[1] + 1)
        error = np.maximum(100 - curves.mean(axis=0), 0.1)
        left.plot(epochs, error, dash, color=colour, linewidth=1.6)
        last, best = curves[:, -1], curves.max(axis=1)
        right.plot([last.mean(), best.mean()], [row, row], color=colour, linewidth=2)
        ring = {"markerfacecolor": "white", "markeredgecolor": colour}
        right.plot(best, [row] * len(best), "o", markersize=10, **ring)
        right.plot(last, [row] * len(last), "o", color=colour, markersize=6)
    left.set_yscale("log")
    left.set_xlabel("epoch (colours as on the right)")
    left.set_ylabel("test error (%)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        axis(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 1)))
    right.set_yticks(range(len(order)), order)
    for label in right.get_yticklabels():
        label.set_color(colours.get(label.get_text(), MUTED))
        label.set_fontweight("bold")
    right.set_xlabel("test accuracy (%)")
    right.plot([], [], "o", color=MUTED, markersize=6, label="last epoch")
    ring = {"markerfacecolor": "white", "markeredgecolor": MUTED}
    right.plot([], [], "o", markersize=10, label="best epoch", **ring)
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser, "compare_algorithms", [*NAMES])
    parser.add_argument(
        "--algorithms",
        nargs="+",
        metavar="NAME",
        help=f"which to run, of: {', '.join(ALGORITHMS)} (all)",
    )
    parser.add_argument("--settings", type=Path, help="a file like those in examples/settings/")
    parser.add_argument("--compute-dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--model", choices=IMAGES, default="vgg5", help="the network for --dataset cifar10 (vgg5)"
    )
    parser.add_argument("--width", type=float, default=1.0, help="factor on its channels")
    parser.add_argument("--train", type=int, help="how many training images (all)")
    parser.add_argument(
        "--steps-per-call", type=int, default=1, help="training steps in one call, for a GPU (1)"
    )
    parser.add_argument(
        "--regime",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="record in which regime each trains, which compiles for some seconds",
    )
    arguments = parser.parse_args()
    images = arguments.dataset == "cifar10"
    if (arguments.width != 1 or arguments.model != "vgg5") and not images:
        parser.error("--width and --model are for the convolutional networks of --dataset cifar10")
    fitting = [name for name in ALGORITHMS if not (images and name in LINEAR_ONLY)]
    if arguments.model == "resnet18":
        fitting = [*read_settings(settings_file(arguments.dataset, arguments.model))]
    known = {name.lower(): name for name in ALGORITHMS}
    if arguments.settings is not None:
        if not arguments.settings.is_file():
            parser.error(f"--settings: there is no file {arguments.settings}")
        found = read_settings(arguments.settings)
        fitting = [name for name in fitting if name in found]
        if not fitting:
            parser.error(f"--settings: {arguments.settings} has settings of no algorithm")
    asked = fitting if arguments.algorithms is None else arguments.algorithms
    for name in asked:
        if known.get(name.lower()) not in fitting:
            place = arguments.settings or arguments.dataset
            there_are = f"there are {', '.join(fitting)}"
            parser.error(f"no algorithm for {place} is called {name!r}; {there_are}")
    names = [known[name.lower()] for name in asked]
    data = some(parser, load(parser, arguments), arguments.train)
    histories = {name: [] for name in names}
    for name in names:
        for seed in arguments.seeds:
            print(f"--- {name}, seed {seed}", flush=True)
            try:
                histories[name].append(run(name, seed, data, arguments))
            except pxt.Diverged as error:
                print(error)
    histories = {name: runs for name, runs in histories.items() if runs}
    text = results_table(histories, arguments.dataset, arguments.model)
    print(f"\nTest accuracy in percent, {arguments.dataset}, seeds {arguments.seeds}\n\n{text}")
    print("\nThe best epoch is chosen on the test set, as in the paper; the last one is not.")
    path = arguments.out / settings_file(arguments.dataset, arguments.model).stem
    path.mkdir(parents=True, exist_ok=True)
    (path / "table.md").write_text(text + "\n")
    histories_as_data = {n: [h.to_dict()["epochs"] for h in runs] for n, runs in histories.items()}
    (path / "histories.json").write_text(json.dumps(histories_as_data))
    plot(histories, f"{arguments.dataset}: one network, all algorithms", path / "accuracy.png")
    print(f"table, histories and figure: {path}; records: {arguments.out / 'records'}")


if __name__ == "__main__":
    main()
