"""Ctrl-C at any moment of `fit`: model, step count and history agree, and training goes on."""

import gc
import signal
import sys
import threading
import time

import jax
import numpy as np
import pytest

import pcx as px
import pcx.training as pxt
from pcx.core import named_params
from tests.training.helpers import LeastSquares, regression


class Ends(pxt.Callback):
    def __init__(self):
        self.ends = 0

    def on_train_end(self, trainer):
        self.ends += 1


def trainer_for(algorithm, *callbacks, **options):
    progress = pxt.Progress(bars=True)
    trainer = pxt.Trainer(algorithm, [progress, *callbacks], log_every=2, **options)
    return trainer, progress


def batches():
    return pxt.batches(*regression(16), 4, shuffle=True)


def assert_consistent(trainer, progress, ends, exactly=True):
    algorithm, history = trainer.algorithm, trainer.history
    # raised after the last epoch, there was nothing left to interrupt
    assert trainer.interrupted or (not exactly and trainer.epoch == trainer.epochs)
    assert ends.ends == 1
    assert progress._batches is None
    assert progress._epochs is None
    assert algorithm.record is False
    for _, param in named_params(algorithm):
        for leaf in jax.tree_util.tree_leaves(param.get()):
            assert not leaf.is_deleted()
    taken = int(algorithm.steps.get())
    noted = len(history.batch.get("energy", []))
    off = 0 if exactly else 1
    assert abs(taken - trainer.step) <= off
    # an exception that nothing can hold back may fall between the two lines that note a step
    assert noted == trainer.step or (not exactly and noted <= trainer.step + 1)
    assert abs(len(history) - trainer.epoch) <= off


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))]
)
@pytest.mark.parametrize("k", [1, 3])
def test_after_a_signal_everything_agrees_and_training_goes_on(seed, k, tmp_path, capsys):
    algorithm, ends = LeastSquares(), Ends()
    checkpoint = pxt.Checkpoint(tmp_path / "run.npz")
    trainer, progress = trainer_for(algorithm, ends, checkpoint, steps_per_call=k)
    trainer.fit(batches(), 1)
    rng, caught = np.random.default_rng(seed), 0
    handler = signal.getsignal(signal.SIGINT)
    for _ in range(15):
        ends.ends = 0
        algorithm.steps.set(algorithm.steps.get() * 0)
        old = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.05))
            trainer.fit(batches(), 200)
        except KeyboardInterrupt:
            caught += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        assert signal.getsignal(signal.SIGINT) is handler
        # unless it came before the first line of `fit`
        if ends.ends:
            assert_consistent(trainer, progress, ends)
    assert caught == 15
    # the checkpoint of the last whole epoch can be resumed, and the run ends as it would have
    history = trainer.fit(batches(), 2)
    assert len(history.batch["energy"]) == 8


@pytest.mark.slow
def test_at_every_line_of_the_trainer_an_interrupt_leaves_it_usable(capsys):
    """Raised by a trace function, which no handler can hold back."""
    algorithm, lines = LeastSquares(), 0

    def run(stop):
        ends = Ends()
        trainer, progress = trainer_for(algorithm, ends)
        count = 0

        def trace(frame, event, argument):
            nonlocal count
            name = frame.f_code.co_filename
            if not name.endswith(("_epoch.py", "_calls.py", "training/_batches.py", "_history.py")):
                return None
            if frame.f_code.co_name in ("end", "__exit__"):
                return None  # an exception within the cleaning up leaves the rest of it undone
            if event == "line":
                count += 1
                if count == stop:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        algorithm.steps.set(algorithm.steps.get() * 0)
        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            trainer.fit(batches(), 1)
        except KeyboardInterrupt:
            sys.settrace(previous)
            if ends.ends:
                assert_consistent(trainer, progress, ends, exactly=False)
        finally:
            sys.settrace(previous)
        return count

    run(0)
    lines = run(0)
    for stop in range(1, lines, 7):
        run(stop)
    trainer, _ = trainer_for(algorithm)
    assert len(trainer.fit(batches(), 2)) == 2


def test_every_callback_hears_the_end_and_the_first_failure_is_told(capsys):
    class Failing(pxt.Callback):
        def on_train_end(self, trainer):
            raise RuntimeError("first")

    ends = Ends()
    trainer, progress = trainer_for(LeastSquares(), Failing(), ends)
    with pytest.raises(RuntimeError, match="first"):
        trainer.fit(batches(), 1)
    assert ends.ends == 1
    assert progress._epochs is None


def test_an_iterator_made_for_the_epoch_is_closed_and_one_of_the_caller_is_not():
    closed = []

    class Loader:
        def __iter__(self):
            try:
                yield regression(4)
                yield regression(4)
            finally:
                closed.append(True)

    class Stop(LeastSquares):
        def train_step(self, x, y):
            raise KeyboardInterrupt

    gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt):
            pxt.Trainer(Stop(), progress=False).fit(Loader(), 1)
        assert closed == [True]
    finally:
        gc.enable()
    endless = iter(lambda: regression(4), None)
    trainer = pxt.Trainer(LeastSquares(), progress=False)
    assert len(trainer.fit(endless, 3, steps_per_epoch=2)) == 3


def test_a_step_is_finished_before_an_interrupt_is_obeyed():
    class Interrupted(LeastSquares):
        def train_step(self, x, y):
            if int(self.steps.get()) == 2:
                signal.raise_signal(signal.SIGINT)
            return super().train_step(x, y)

    algorithm, heard = Interrupted(), []

    class Note(pxt.Callback):
        def on_batch_end(self, trainer, batch, logs):
            heard.append(batch)

    trainer = pxt.Trainer(algorithm, [Note()], progress=False)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(), 3)
    assert heard == [1, 2, 3]
    assert (int(algorithm.steps.get()), trainer.step) == (3, 3)
    assert len(trainer.history.batch["energy"]) == 3


def test_what_hears_of_the_last_batches_of_an_epoch_is_finished_too():
    heard = []

    class Note(pxt.Callback):
        def on_log(self, trainer, batch, logs):
            signal.raise_signal(signal.SIGINT)
            heard.append(batch)

    trainer = pxt.Trainer(LeastSquares(), [Note()], progress=False, log_every=100)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(), 3)
    assert heard == [4]
    assert len(trainer.history.batch["energy"]) == 4


def test_a_second_interrupt_is_obeyed_at_once_if_the_first_did_nothing(monkeypatch):
    class Hanging(LeastSquares):
        def train_step(self, x, y):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.02)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached")

    monkeypatch.setattr("pcx.training._interrupt.PATIENCE", 0.01)
    with pytest.raises(KeyboardInterrupt):
        pxt.Trainer(Hanging(), progress=False).fit(batches(), 1)


def test_training_in_another_thread_leaves_signals_alone():
    results = []

    def train():
        px.RandomKeyGenerator(0)
        results.append(len(pxt.Trainer(LeastSquares(), progress=False).fit(batches(), 2)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert results == [2]


def test_a_handler_of_the_user_is_called_and_put_back():
    calls = []

    class Signalling(LeastSquares):
        def train_step(self, x, y):
            signal.raise_signal(signal.SIGINT)
            return super().train_step(x, y)

    mine = lambda *_: calls.append(1)
    old = signal.signal(signal.SIGINT, mine)
    try:
        trainer = pxt.Trainer(Signalling(), progress=False)
        trainer.fit(batches(), 1)
        assert len(calls) == 4
        assert trainer.step == 4
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, old)
