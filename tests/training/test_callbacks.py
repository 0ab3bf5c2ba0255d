"""Callbacks, early stopping, learning rates, progress."""

import functools
import re

import numpy as np
import optax
import pytest
from tqdm import tqdm

import pcx.training as pxt
from pcx.training import _progress
from tests.training.helpers import LeastSquares, regression


class Spy(pxt.Callback):
    """Notes every call."""

    def __init__(self):
        self.calls = []

    def on_train_start(self, trainer):
        self.calls.append("train start")

    def on_train_end(self, trainer):
        self.calls.append("train end")

    def on_epoch_start(self, trainer, epoch):
        self.calls.append(f"epoch {epoch} start")

    def on_epoch_end(self, trainer, epoch, logs):
        self.calls.append(f"epoch {epoch} end")

    def on_batch_start(self, trainer, batch):
        self.calls.append(f"batch {batch} start")

    def on_batch_end(self, trainer, batch, logs):
        self.calls.append(f"batch {batch} end")


def fit(*callbacks, algorithm=None, epochs=2, val=None, **options):
    trainer = pxt.Trainer(algorithm or LeastSquares(), callbacks, progress=False, **options)
    return trainer.fit(pxt.batches(*regression(), 10), epochs, val=val)


def scripted(values):
    """An algorithm whose validation energies are given."""

    class Scripted(LeastSquares):
        def eval_step(self, x, y):
            return {"energy": np.float32(values[len(self.log.epochs) - 1])}

    return Scripted()


def test_hooks_are_called_in_order():
    spy = Spy()
    fit(spy)
    epoch = ["batch 1 start", "batch 1 end", "batch 2 start", "batch 2 end"]
    assert spy.calls == [
        "train start",
        *["epoch 1 start", *epoch, "epoch 1 end"],
        *["epoch 2 start", *epoch, "epoch 2 end"],
        "train end",
    ]


def test_training_ends_also_after_an_error():
    class Failing(LeastSquares):
        def train_step(self, x, y):
            raise RuntimeError("no")

    spy = Spy()
    trainer = pxt.Trainer(Failing(), [spy], progress=False)
    with pytest.raises(RuntimeError, match="no"):
        trainer.fit([regression()], 1)
    assert spy.calls[-1] == "train end"
    assert trainer.interrupted


def test_epoch_logs_are_what_the_history_holds():
    seen = []

    class Note(pxt.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            seen.append(dict(logs))

    history = fit(Note(), val=[regression()])
    assert [row["val_energy"] for row in seen] == history["val_energy"].tolist()


def test_a_callback_can_stop_training():
    class Stop(pxt.Callback):
        def on_batch_end(self, trainer, batch, logs):
            trainer.stop()

    history = fit(Stop(), epochs=5)
    assert len(history) == 1
    assert len(history.batch["energy"]) == 2


def test_inference_steps_are_seen_one_by_one_on_request():
    seen = []

    class Watch(pxt.Callback):
        def on_inference_step(self, trainer, batch, step, energies):
            seen.append((batch, step, energies))

    algorithm = LeastSquares()
    history = fit(Watch(), algorithm=algorithm, epochs=1)
    assert [(batch, step) for batch, step, _ in seen] == [(b, t) for b in (1, 2) for t in range(3)]
    energy = history.batch["energy"]
    assert seen[5][2] == pytest.approx({"first": 2 * energy[1], "second": energy[1]})
    # recording was only for the callback
    assert algorithm.record is False


def test_nothing_is_recorded_without_request():
    assert fit(Spy()).inference == []


def test_logs_during_an_epoch_are_means_so_far():
    seen = []

    class Note(pxt.Callback):
        def on_log(self, trainer, batch, logs):
            seen.append((batch, logs["energy"]))

    history = fit(Note(), epochs=1, log_every=1)
    a, b = history.batch["energy"]
    assert seen == [(1, pytest.approx(a)), (2, pytest.approx((a + b) / 2))]


# early stopping


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "epochs"),
    [
        ([5, 4, 3, 2, 1, 0], 1, 0.0, 6),
        ([5, 4, 4, 3, 3, 3], 2, 0.0, 6),
        ([5, 4, 4, 4, 1, 1], 2, 0.0, 4),
        ([5.0, 4.9, 4.8, 4.7, 4.6, 4.5], 2, 0.5, 3),
        ([1, 2, 3, 0, 0, 0], 1, 0.0, 2),
    ],
)
def test_early_stopping_waits_for_its_patience(values, patience, min_delta, epochs):
    stopping = pxt.EarlyStopping("val_energy", patience, min_delta=min_delta)
    history = fit(stopping, algorithm=scripted(values), epochs=6, val=[regression()])
    assert len(history) == epochs


def test_early_stopping_on_accuracy_waits_for_larger_values():
    class Scripted(LeastSquares):
        def eval_step(self, x, y):
            values = [0.1, 0.5, 0.4, 0.3]
            return {
                "energy": np.float32(1),
                "accuracy": np.float32(values[len(self.log.epochs) - 1]),
            }

    stopping = pxt.EarlyStopping(patience=2)
    fit(stopping, algorithm=Scripted(), epochs=9, val=[regression()])
    assert stopping.best_epoch == 2
    assert stopping.best == pytest.approx(0.5)


def test_the_best_weights_come_back():
    algorithm, weights = scripted([3, 1, 2, 2, 2]), []

    class Note(pxt.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            weights.append(np.array(algorithm.model.weight.get()))

    stopping = pxt.EarlyStopping("val_energy", 2, restore_best=True)
    fit(stopping, Note(), algorithm=algorithm, epochs=5, val=[regression()])
    assert len(weights) == 4
    np.testing.assert_array_equal(algorithm.model.weight.get(), weights[1])
    assert not np.array_equal(weights[1], weights[3])


def test_the_last_weights_stay_without_request():
    algorithm = scripted([3, 1, 2, 2, 2])
    fit(pxt.EarlyStopping("val_energy", 2), algorithm=algorithm, epochs=5, val=[regression()])
    other = LeastSquares()
    fit(algorithm=other, epochs=4)
    np.testing.assert_array_equal(algorithm.model.weight.get(), other.model.weight.get())


def test_a_quantity_that_does_not_exist_is_named():
    with pytest.raises(
        ValueError, match=r"watches 'val_accuracy', and `fit` has no validation batches"
    ):
        fit(pxt.EarlyStopping())


# learning rates


def test_the_learning_rate_changes_before_each_epoch():
    algorithm = LeastSquares(optim=optax.inject_hyperparams(optax.sgd)(learning_rate=1.0))
    history = fit(pxt.LearningRate(lambda epoch: 0.1 / epoch), algorithm=algorithm, epochs=3)
    np.testing.assert_allclose(history["lr"], [0.1, 0.05, 0.1 / 3], rtol=1e-6)
    by_hand = LeastSquares(
        optim=optax.sgd(optax.piecewise_constant_schedule(0.1, {2: 0.5, 4: 2 / 3}))
    )
    fit(algorithm=by_hand, epochs=3)
    np.testing.assert_allclose(algorithm.model.weight.get(), by_hand.model.weight.get(), rtol=1e-5)


# progress


def test_without_a_terminal_there_is_a_line_for_each_epoch(capsys):
    trainer = pxt.Trainer(LeastSquares())
    trainer.fit(pxt.batches(*regression(), 10), 2, val=[regression()])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(
        r"epoch 2/2  val_accuracy \S+%  val_energy \S+  accuracy \S+%  energy \S+  \d+\.\d s",
        lines[1],
    )
    assert err == ""


def test_on_a_terminal_there_are_bars_and_a_line_for_each_epoch(capsys, monkeypatch):
    # however soon epochs follow each other
    slow = functools.partialmethod(tqdm.__init__, mininterval=1e9)
    monkeypatch.setattr(tqdm, "__init__", slow)
    trainer = pxt.Trainer(LeastSquares(), [pxt.Progress(bars=True)], log_every=1)
    trainer.fit(pxt.batches(*regression(), 10), 2)
    out, err = capsys.readouterr()
    assert [line[:9] for line in out.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert "epochs: 100%" in err
    assert "2/2" in err


def test_progress_can_be_turned_off(capsys):
    pxt.Trainer(LeastSquares(), progress=False).fit([regression()], 1)
    assert capsys.readouterr() == ("", "")


def test_bars_are_closed_after_an_error(capsys):
    class Failing(LeastSquares):
        def train_step(self, x, y):
            raise RuntimeError("no")

    progress = pxt.Progress(bars=True)
    with pytest.raises(RuntimeError, match="no"):
        pxt.Trainer(Failing(), [progress]).fit([regression()], 1)
    assert progress._batches is None
    assert progress._epochs is None


@pytest.mark.parametrize("width", [30, 48, 200])
def test_a_line_that_does_not_fit_the_terminal_goes_on_below(width, monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_columns", lambda: width)
    logs = {
        "val_accuracy": 0.5,
        "val_energy": 1.25,
        "val_top5": 0.75,
        "accuracy": 0.25,
        "energy": 2.5,
    }
    _progress.write_line("epoch 1/9", logs, "3.0 s", True)
    text = capsys.readouterr().out
    lines = text.rstrip("\n").split("\n")
    assert max(map(len, lines)) <= width
    assert (len(lines) == 1) == (width == 200)
    for part in (
        "epoch 1/9",
        "val_accuracy 50.00%",
        "val_top5",
        "accuracy 25.00%",
        "energy 2.5",
        "3.0 s",
    ):
        assert part in text
