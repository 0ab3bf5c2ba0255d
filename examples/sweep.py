"""A hyper-parameter search: many settings and seeds at once, chosen by validation.

    python examples/sweep.py                                   # digits, no files
    python examples/sweep.py --T 4 8 --act gelu tanh           # each is a program of its own
    python examples/sweep.py --dataset mnist --data-dir DIR --seeds 0 1 2
    python examples/sweep.py --optuna 10                       # Optuna chooses T, activation, width

The rates of states and weights, the momentum and the weight decay are numbers: all of their combinations
are members of one `pxt.Population`, one compiled program. T, the activation and the width make other
programs: groups, one after another; or, with `--optuna N`, what N trials of Optuna choose, each with the
whole grid of numbers as its inner loop. The study is in an SQLite file, or wherever `--storage` says.

A sixth of the training data is for validation, which chooses the setting; the test set is seen once, by
the chosen one. `--resume` goes on with a search that was stopped: the population from its checkpoint, the
study from its trials. Writes a JSON record of all settings that were tried in this call.
"""

import argparse
import json
import time

import jax
import numpy as np
import optax
from _shared import NAMES, add_arguments, add_study, load, provenance, studied, table

import pcx.algorithms as pxa
import pcx.data
import pcx.models as pxm
import pcx.training as pxt
import pcx.utils as pxu

GRID = {
    "lr_h": [0.02, 0.1, 0.4],
    "momentum": [0.0, 0.5],
    "lr_w": [1e-3, 3e-3],
    "weight_decay": [1e-4],
}
STRUCTURE = ("T", "act", "width")
ACTIVATIONS = {"gelu": jax.nn.gelu, "leaky_relu": jax.nn.leaky_relu, "tanh": jax.nn.tanh}
BATCH_SIZE = 64


def split(data):
    """Batches for training and validation, and the test set, with one-hot targets."""
    y_train, y_test = (pcx.data.one_hot(y, data.classes) for y in (data.y_train, data.y_test))
    order = np.random.default_rng(0).permutation(len(y_train))
    val, train = np.split(order, [len(order) // 6])
    return (
        pxt.batches(data.x_train[train], y_train[train], BATCH_SIZE, shuffle=True, drop_last=True),
        pxt.batches(data.x_train[val], y_train[val], min(1000, len(val))),
        pxt.batches(data.x_test, y_test, min(1000, len(y_test))),
    )


def population(data, grid, seeds):
    """All members, not trained yet."""

    def make(seed, lr_h, momentum, lr_w, weight_decay, T, act, width):
        model = pxm.MLP([data.shape[0], width, width, data.classes], ACTIVATIONS[act])
        state = pxu.Optim(optax.sgd, learning_rate=lr_h, momentum=momentum)
        weight = pxu.Optim(optax.adamw, learning_rate=lr_w, weight_decay=weight_decay)
        return pxa.PC(model, T, state, weight)

    return pxt.Population(make, grid, seeds=seeds, structure=STRUCTURE, steps_per_call=10)


def by_grid(data, batches, arguments, epochs):
    """Every structure that was asked for with every number."""
    train, val, _ = batches
    grid = GRID | {"T": arguments.T, "act": arguments.act, "width": arguments.width}
    members = population(data, grid, arguments.seeds)
    checkpoint = arguments.out / "sweep.npz"
    members.fit(train, epochs, val, checkpoint=checkpoint, resume=arguments.resume)
    return members.summary("val_accuracy"), members.best("val_accuracy").settings


def by_optuna(data, batches, arguments, epochs, parser):
    """The structures that Optuna tries; of each the best numbers."""
    train, val, _ = batches
    results = []

    def objective(trial):
        structure = {
            "T": trial.suggest_int("T", 3, 10),
            "act": trial.suggest_categorical("act", list(ACTIVATIONS)),
            "width": trial.suggest_categorical("width", [32, 64, 128]),
        }
        members = population(
            data, GRID | {name: [value] for name, value in structure.items()}, arguments.seeds
        )
        train.epoch = 0
        members.fit(train, epochs, val)
        results.extend(members.summary("val_accuracy"))
        try:
            best = members.best("val_accuracy")
        except ValueError:  # all diverged
            from optuna import TrialPruned

            raise TrialPruned from None
        trial.set_user_attr("settings", best.settings)
        return best.mean

    name = f"sweep-{arguments.dataset}-e{epochs}"
    best, _ = studied(parser, arguments, name, objective, arguments.optuna)
    return results, best.user_attrs["settings"]


def spread(result):
    if not result.finite:
        return "diverged"
    sd = "" if len(result.finite) < 2 else f" ± {100 * result.sd:.2f}"
    return f"{100 * result.mean:.2f}{sd}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "sweep")
    parser.add_argument("--T", type=int, nargs="+", default=[6])
    parser.add_argument("--act", nargs="+", choices=list(ACTIVATIONS), default=["gelu"])
    parser.add_argument("--width", type=int, nargs="+", default=[64])
    parser.add_argument("--optuna", type=int, metavar="N", help="let Optuna try N structures")
    add_study(parser, "a search that was stopped")
    arguments = parser.parse_args()
    data = load(parser, arguments)
    batches, epochs = split(data), arguments.epochs or 10
    start = time.perf_counter()
    if arguments.optuna:
        results, chosen = by_optuna(data, batches, arguments, epochs, parser)
    else:
        results, chosen = by_grid(data, batches, arguments, epochs)
    seconds = time.perf_counter() - start

    # once more the chosen setting alone, which ends with the same numbers, for the test set
    train, val, test = batches
    train.epoch = 0
    final = population(data, [chosen], arguments.seeds)
    final.fit(train, epochs, val)
    accuracies = [result["accuracy"] for result in final.evaluate(test)]

    results.sort(key=lambda r: (r.diverged, -r.mean if r.finite else 0))
    rows = [[*r.settings.values(), spread(r), r.diverged or ""] for r in results[:12]]
    print(f"\nThe best of {len(results)} settings, by validation accuracy (%):\n")
    print(table([*results[0].settings, "validation", "diverged"], rows) if results else "none new")
    tested = f"{100 * np.mean(accuracies):.2f}"
    if len(accuracies) > 1:
        tested += f" ± {100 * np.std(accuracies, ddof=1):.2f}"
    print(
        f"\nchosen: {chosen}\ntest accuracy, last epoch: {tested} %   ({seconds:.0f} s of search)"
    )

    where = "" if arguments.dataset == "digits" else " --data-dir DIR"
    structure = "".join(f" --{n} {' '.join(map(str, getattr(arguments, n)))}" for n in STRUCTURE)
    if arguments.optuna:
        structure = f" --optuna {arguments.optuna}"
    record = {
        "dataset": NAMES[arguments.dataset],
        "epochs": epochs,
        "seeds": arguments.seeds,
        "chosen": chosen,
        "test_accuracy": [round(100 * a, 3) for a in accuracies],
        "validation_accuracy": final.members[0].history.to_dict()["epochs"]["val_accuracy"],
        "settings": [
            {**r.settings, "validation": [None if v != v else round(100 * v, 3) for v in r.values]}
            for r in results
        ],
        "seconds": round(seconds, 1),
        "command": f"python examples/sweep.py --dataset {arguments.dataset}{where} --epochs {epochs} "
        f"--seeds {' '.join(map(str, arguments.seeds))}{structure}",
    } | provenance()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "sweep.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"record: {path}")


if __name__ == "__main__":
    main()
