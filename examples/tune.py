"""Searches for better settings of one algorithm of Table 1, by validation, with Optuna.

    python examples/tune.py --algorithm iPC --trials 20                      # digits, no files
    python examples/tune.py --dataset mnist --data-dir DIR --algorithm PN --trials 40
    python examples/tune.py ... --resume                                     # go on with a study

The network and the training are those of `compare_algorithms.py`. A sixth of the training data is for
validation; the value of a trial is the validation accuracy after its last epoch. The first trial has the
settings of `examples/settings/`. Trials that are behind the median after a third of their epochs are stopped.
The study is in an SQLite file, or wherever `--storage` says: several machines with one URL share the trials.

Writes the best settings to a file that `compare_algorithms.py --settings` takes. The test set is not looked at.
"""

import argparse
import dataclasses
import json

import jax
import numpy as np
from _shared import FLAT, add_arguments, add_study, load, provenance, studied
from compare_algorithms import (
    ACTIVATIONS,
    BATCH_SIZE,
    EPOCHS,
    TABLE_1,
    Settings,
    make,
    settings_for,
)

import pcx as px
import pcx.data
import pcx.training as pxt

# where to look: the least and the largest value
NUMBERS = {"lr_w": (1e-4, 2e-3), "weight_decay": (1e-5, 1e-1), "lr_h": (3e-3, 1.0)}
TRIED = (*NUMBERS, "act", "T", "momentum", "beta")


class Pruned(pxt.Callback):
    """Tells a trial the validation accuracy of each epoch, and ends it if it is behind the others."""

    def __init__(self, trial):
        self.trial, self.pruned = trial, False

    def on_epoch_end(self, trainer, epoch, logs):
        self.trial.report(float(logs["val_accuracy"]), epoch)
        if self.trial.should_prune():
            self.pruned = trainer.stopping = True


def suggested(trial, name, published):
    """The settings that Optuna tries."""
    back_propagation = name.startswith("BP")
    numbers = [key for key in NUMBERS if not (back_propagation and key == "lr_h")]
    own = {key: trial.suggest_float(key, *NUMBERS[key], log=True) for key in numbers}
    own["act"] = trial.suggest_categorical("act", list(ACTIVATIONS))
    if back_propagation:
        return dataclasses.replace(published, **own)
    own["T"] = trial.suggest_int("T", 4, 10)
    own["momentum"] = trial.suggest_float("momentum", 0.0, 0.9)
    if name in ("PN", "NN", "CN"):
        own["beta"] = trial.suggest_float("beta", 0.1, 1.0)
    return dataclasses.replace(published, **own)


def split(data, batch_size, seed):
    """Batches for training and for validation, with one-hot targets."""
    y = pcx.data.one_hot(data.y_train, data.classes)
    val, train = np.split(np.random.default_rng(0).permutation(len(y)), [len(y) // 6])
    return (
        pxt.batches(data.x_train[train], y[train], batch_size, True, rkg=seed, drop_last=True),
        pxt.batches(data.x_train[val], y[val], min(1000, len(val))),
    )


def value_of(settings, trial, name, data, arguments, epochs):
    """The mean validation accuracy over the seeds.

    Raises:
        optuna.TrialPruned: the trial was stopped, or it diverged.
    """
    import optuna

    values = []
    try:
        for seed in arguments.seeds:
            px.RKG.seed(seed)
            train, val = split(data, BATCH_SIZE[arguments.dataset], seed)
            algorithm, _ = make(name, settings, data, pxt.total_steps(train, epochs))
            watch = Pruned(trial)
            callbacks = [watch] if seed == arguments.seeds[0] else []
            trainer = pxt.Trainer(algorithm, callbacks, progress=False)
            history = trainer.fit(train, epochs, val=val)
            if watch.pruned:
                raise optuna.TrialPruned
            values.append(history.last("val_accuracy"))
    except pxt.Diverged:
        raise optuna.TrialPruned from None
    finally:
        jax.clear_caches()  # each trial is a program of its own
    return float(np.mean(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser, "tune", FLAT)
    parser.add_argument("--algorithm", choices=TABLE_1, default="PC-SE")
    parser.add_argument("--trials", type=int, default=40, help="how many there are to be in all")
    add_study(parser, "the study of that name")
    arguments = parser.parse_args()
    data, name = load(parser, arguments), arguments.algorithm
    epochs = arguments.epochs or EPOCHS[arguments.dataset]
    published = settings_for(name, arguments.dataset)
    seeds = "-".join(map(str, arguments.seeds))
    label = f"{arguments.dataset}-{name.lower()}-e{epochs}-s{seeds}"

    def objective(trial):
        settings = suggested(trial, name, published)
        trial.set_user_attr("settings", dataclasses.asdict(settings))
        return value_of(settings, trial, name, data, arguments, epochs)

    first = {key: value for key, value in dataclasses.asdict(published).items() if key in TRIED}
    best, ended = studied(
        parser, arguments, label, objective, arguments.trials, first, warmup=epochs // 3
    )
    chosen = Settings(**best.user_attrs["settings"])
    whole = [trial for trial in ended if trial.state.name == "COMPLETE"]
    begun = [t.value for t in whole if t.user_attrs["settings"] == dataclasses.asdict(published)]
    beside = f", of the settings it began with {100 * begun[0]:.2f} %" if begun else ""
    where = "" if arguments.dataset == "digits" else " --data-dir DIR"
    command = (
        f"python examples/tune.py --dataset {arguments.dataset}{where} --algorithm {name} "
        f"--epochs {epochs} --trials {arguments.trials} --seeds {' '.join(map(str, arguments.seeds))}"
    )
    settings = {k: v for k, v in dataclasses.asdict(chosen).items() if k != "paper"}
    record = {
        "source": f"`{command}`: the best of {len(ended)} trials, of which {len(whole)} ran to the end; "
        f"validation accuracy {100 * best.value:.2f} %{beside}.",
        "algorithms": {name: settings},
    } | provenance()
    path = arguments.out / f"{label}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{record['source']}\n{settings}\nsettings: {path}")


if __name__ == "__main__":
    main()
