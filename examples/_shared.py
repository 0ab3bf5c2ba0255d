"""What the scripts that compare algorithms share: data, records of runs, and the look of figures."""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path

import jax
import matplotlib
import numpy as np

import pcx
import pcx.analysis as pxan
import pcx.data
import pcx.training as pxt

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NAMES = {
    "digits": "digits",
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR-10",
    "two-moons": "Two Moons",
    "two-circles": "Two Circles",
}
PLANE = {"two-moons": pcx.data.two_moons, "two-circles": pcx.data.two_circles}
FLAT = ("digits", "mnist", "fashion-mnist")
ON_REQUEST = "Here: --data-dir DIR, and --download to fetch what is missing there.\n"
NO_OPTUNA = "{prog}: this search needs Optuna, which is not installed: pip install optuna\n"

INK, MUTED = "#222222", "#8a8a8a"


def add_arguments(parser, out, datasets=FLAT):
    """The options that all of these scripts have."""
    add_data(parser, datasets)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("outputs", out), help="folder for results")


def add_data(parser, datasets):
    """The options of a script that reads a data set."""
    parser.add_argument("--dataset", choices=datasets, default="digits")
    parser.add_argument("--data-dir", type=Path, help="where the files of the other data sets are")
    parser.add_argument(
        "--download",
        nargs="?",
        const=True,
        default=False,
        metavar="ADDRESS",
        help="fetch missing files into DATA_DIR, from the official server or this one",
    )


def load(parser, arguments, name=None, flat=None, **options):
    """The data set that was asked for, or a message on what is missing.

    Args:
        name: another one.
        flat: images as vectors; None for those that a perceptron gets.
        options: what `pcx.data.load` takes.
    """
    name = name or arguments.dataset
    if name in PLANE:
        return PLANE[name](test_samples=1000)
    options = {"download": arguments.download, **options}
    try:
        data = pcx.data.load(name, arguments.data_dir or ".", **options)
    except (OSError, ValueError, ImportError) as error:
        hint = ON_REQUEST if isinstance(error, FileNotFoundError) else ""
        parser.exit(2, f"{parser.prog}: {error}\n{hint}")
    return data.flat() if (name in FLAT if flat is None else flat) else data


def first(data, size):
    """The first `size` training samples, and a fifth as many to test on."""
    return dataclasses.replace(
        data,
        x_train=data.x_train[:size],
        y_train=data.y_train[:size],
        x_test=data.x_test[: size // 5],
        y_test=data.y_test[: size // 5],
    )


def some(parser, data, number):
    """So many training samples, drawn at random and always the same; all of them for None."""
    if number is None:
        return data
    if not 0 < number <= len(data.x_train):
        parser.error(f"--train {number}: there are {len(data.x_train)} training images")
    kept = np.random.default_rng(0).permutation(len(data.x_train))[:number]
    return dataclasses.replace(data, x_train=data.x_train[kept], y_train=data.y_train[kept])


def mean_and_deviation(values, signed=False):
    """`98.26 ± 0.04`: the standard deviation where there are several values."""
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):{'+' if signed else ''}.2f}{deviation}"


def trained(data, make, grid, structure, arguments, batch_size):
    """A population trained on the data, and the test accuracy in percent of each member: chance if it diverged."""
    y_train, y_test = (pcx.data.one_hot(y, data.classes) for y in (data.y_train, data.y_test))
    order = lambda seed: pxt.batches(
        data.x_train, y_train, batch_size, shuffle=True, drop_last=True, rkg=seed
    )
    population = pxt.Population(make, grid, seeds=arguments.seeds, structure=structure)
    population.fit(order, arguments.epochs)
    tested = population.evaluate(pxt.batches(data.x_test, y_test, len(y_test)))
    members = zip(population.members, tested, strict=True)
    return population, [
        100 * (1 / data.classes if m.diverged else t["accuracy"]) for m, t in members
    ]


def add_study(parser, what):
    """The options of a search by Optuna."""
    parser.add_argument("--storage", help="URL of Optuna's database, instead of an SQLite file")
    parser.add_argument("--resume", action="store_true", help=f"go on with {what}")


def studied(parser, arguments, name, objective, trials, first=None, warmup=0):
    """A study by Optuna of so many trials in all: a new one, or with `--resume` one that exists.

    A study in an SQLite file, which is for one process, goes on after a kill as if it had not been killed. With
    `--storage` several machines may work on one at the same time.

    Args:
        name: of the study; one of that name is not started again.
        objective: `objective(trial) -> value`, the larger the better.
        first: parameters to try first.
        warmup: from which epoch on a trial may be stopped that is behind the median, if it reports its epochs.

    Returns:
        The best trial, and all that ended: completed, or stopped for being behind.
    """
    try:
        import optuna
    except ImportError:
        parser.exit(2, NO_OPTUNA.format(prog=parser.prog))
    arguments.out.mkdir(parents=True, exist_ok=True)
    alone = arguments.storage is None
    storage = _storage(
        optuna, f"sqlite:///{arguments.out}/study.db" if alone else arguments.storage
    )
    try:
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            load_if_exists=arguments.resume,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup),
        )
        states = optuna.trial.TrialState
        ended = lambda: study.get_trials(states=(states.COMPLETE, states.PRUNED))
        if alone:  # what still runs was killed
            for trial in study.get_trials(states=(states.RUNNING,)):
                study.tell(trial.number, state=states.FAIL)
        waiting = study.get_trials(deepcopy=False, states=(states.WAITING, states.RUNNING))
        if first is not None and not ended() and not waiting:
            study.enqueue_trial(first)
        while len(ended()) < trials:
            # a sampler for each trial: it proposes the same whether or not the study was stopped before
            study.sampler = optuna.samplers.TPESampler(seed=len(ended()) if alone else None)
            study.optimize(objective, n_trials=1)
        found = ended()
        if all(trial.state != states.COMPLETE for trial in found):
            parser.exit(1, f"{parser.prog}: every trial diverged\n")
        return study.best_trial, found
    except optuna.exceptions.DuplicatedStudyError:
        parser.exit(2, f"{parser.prog}: there is a study {name!r}: go on with --resume\n")
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _storage(optuna, url):
    """A database of Optuna's; two processes that make its tables at the same moment get in each other's way."""
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for _ in range(4):
        try:
            return optuna.storages.RDBStorage(url)
        except (IntegrityError, ProgrammingError):
            time.sleep(1)
    return optuna.storages.RDBStorage(url)


def batches(data, batch_size, seed):
    """Training batches and test batches, with one-hot targets."""
    y_train, y_test = (pcx.data.one_hot(y, data.classes) for y in (data.y_train, data.y_test))
    return (
        pcx.data.batches(data.x_train, y_train, batch_size, shuffle=True, rkg=seed, drop_last=True),
        pcx.data.batches(data.x_test, y_test, min(1000, len(data.x_test))),
    )


def regime_of(algorithm, data, **options):
    """The regime in which an algorithm trains (`pxan.regime`), on the first 64 test images."""
    y = pcx.data.one_hot(data.y_test[:64], data.classes)
    return plain(pxan.regime(algorithm, data.x_test[:64], y, **options)._asdict())


def hardware():
    """What this runs on, in words."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    return f"{os.cpu_count()}-core {platform.machine()} CPU"


def write_record(folder, *, dataset, history, note="", **rest):
    """Write the record of a run, in the format of docs/record_format.md; its path."""
    curve = [round(100 * float(value), 3) for value in history["val_accuracy"]]
    record = {
        "dataset": NAMES[dataset],
        "best": max(curve),
        "last": curve[-1],
        "epochs": len(curve),
        "best_epoch": curve.index(max(curve)) + 1,
        "curve": curve,
        "seconds": round(float(history["seconds"].sum()), 1),
        **rest,
    }
    return _write(folder, record, note)


def write_value(folder, *, value, metric, note="", **rest):
    """Write the record of one number that is no accuracy, in the same format; its path."""
    return _write(folder, {"metric": metric, "best": value, "last": value, **rest}, note)


def write_analysis(folder, *, analysis, dataset, **rest):
    """Write the record of an analysis, in the second format of docs/record_format.md; it and its path."""
    record = {"analysis": analysis, "dataset": NAMES[dataset], **rest} | provenance()
    path = Path(folder) / f"{analysis}-{dataset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(record), ensure_ascii=False, allow_nan=False)
    # a line for each field, as most of them are long tables of numbers
    path.write_text(text.replace('], "', '],\n "').replace('}, "', '},\n "') + "\n")
    return json.loads(path.read_text()), path


def plain(value):
    """Four digits of every number, for a record; None for those that JSON does not have."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def provenance():
    """What it ran on, with which versions, and when."""
    return {
        "hardware": hardware(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "optax", "equinox")}
        | {"pcx": pcx.__version__},
        "date": datetime.date.today().isoformat(),
    }


def command(arguments, *names):
    """The command line that gives the same numbers, from the options that are named."""
    words = [f"python examples/{Path(sys.argv[0]).name} --dataset {arguments.dataset}"]
    if arguments.data_dir is not None:
        words.append("--data-dir DIR")
    for name in names:
        value = getattr(arguments, name)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        words.append(f"--{name.replace('_', '-')} {value}")
    return " ".join(words)


def peak_memory():
    """The largest memory of this process so far in MiB, as a field of a record; none where it is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return {}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_mib": round(most / (2**20 if sys.platform == "darwin" else 2**10))}


def _write(folder, record, note):
    record |= peak_memory() | provenance()
    if note:
        record["note"] = note
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = (
        record["experiment"],
        record["dataset"],
        record["algorithm"],
        record.get("metric", ""),
        f"e{record['epochs']}",
        f"s{record['seed']}",
        record["date"],
        note,
    )
    plain = ("".join(c for c in part.lower() if c.isalnum()) for part in parts)
    path = folder / f"{'-'.join(part for part in plain if part)}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def table(header, rows):
    """A Markdown table, aligned so that it reads well in a terminal, too."""
    cells = [list(map(str, row)) for row in [header, *rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    padded = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def tidy(axes):
    """No frame, a faint grid below everything."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)


def styled(draw):
    """A function that draws, in the style of pcx, which fits light and dark pages."""
    return functools.wraps(draw)(plt.style.context("pcx.figures")(draw))


def colour(k):
    """The k-th colour of the style in use. matplotlib would look "C0" up only when the figure is saved."""
    return plt.rcParams["axes.prop_cycle"].by_key()["color"][k]


def save(figure, path):
    """Write a figure and let go of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
