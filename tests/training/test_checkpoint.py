"""A run that was broken off and resumed is the run that was not."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.core
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt
import pcx.utils as pxu
from tests.training.helpers import LeastSquares, regression


class Crash(pxt.Callback):
    """Breaks off in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch, self.now = epoch, None

    def on_epoch_start(self, trainer, epoch):
        self.now = epoch

    def on_batch_start(self, trainer, batch):
        if self.now == self.epoch and batch == 2:
            raise KeyboardInterrupt


def everything(algorithm):
    """All arrays that training changes, as bytes."""
    params = {**dict(pcx.core.named_params(algorithm)), "rkg": px.RKG.key}
    return {
        path: [np.asarray(leaf).tobytes() for leaf in jax.tree_util.tree_leaves(param.get())]
        for path, param in params.items()
    }


def without_times(history):
    data = history.to_dict()
    del data["epochs"]["seconds"]
    return data


def least_squares():
    return LeastSquares(noise=0.01, optim=optax.adam(1e-2))


def predictive_coding():
    model = pxm.MLP([3, 6, 2], rkg=px.RandomKeyGenerator(1))
    return pxa.PC(model, T=3, weight_optim=optax.adam(1e-2))


def incremental():
    model = pxm.MLP([3, 6, 2], energy_fn=pxc.ce_energy, rkg=px.RandomKeyGenerator(1))
    return pxa.IPC(model, T=2, weight_optim=optax.adam(1e-2))


def persistent():
    # the states are part of the state, too
    model = pxm.MLP([3, 6, 2], rkg=px.RandomKeyGenerator(1))
    return pxa.PC(model, T=2, init="persistent", weight_optim=optax.adam(1e-2))


def batches():
    return pxt.batches(*regression(24), 8, shuffle=True, rkg=3)


def callbacks(path):
    return [pxt.EarlyStopping("energy", 10, restore_best=True), pxt.Checkpoint(path)]


@pytest.mark.parametrize(
    "make", [least_squares, predictive_coding, incremental, persistent], ids=lambda f: f.__name__
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, make):
    px.RKG.seed(11)
    straight = make()
    trainer = pxt.Trainer(straight, callbacks(tmp_path / "a.npz"), progress=False)
    expected = trainer.fit(batches(), 5)
    arrays = everything(straight)

    px.RKG.seed(11)
    broken = pxt.Trainer(make(), [*callbacks(tmp_path / "b.npz"), Crash(4)], progress=False)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(batches(), 5)
    px.RKG.seed(99)
    resumed = make()
    trainer = pxt.Trainer(resumed, callbacks(tmp_path / "b.npz"), progress=False)
    history = trainer.fit(batches(), 5, resume=True)
    assert without_times(history) == without_times(expected)
    assert everything(resumed) == arrays
    assert (trainer.epoch, trainer.step) == (5, 15)


def test_the_first_half_is_not_repeated(tmp_path):
    path = tmp_path / "run.npz"
    pxt.Trainer(least_squares(), [pxt.Checkpoint(path)], progress=False).fit(batches(), 2)
    algorithm = least_squares()
    pxt.Trainer(algorithm, [pxt.Checkpoint(path)], progress=False).fit(batches(), 5, resume=True)
    assert algorithm.log.epochs == [2, 3, 4]


def test_a_finished_run_resumed_does_nothing(tmp_path):
    path = tmp_path / "run.npz"
    pxt.Trainer(least_squares(), [pxt.Checkpoint(path)], progress=False).fit(batches(), 2)
    algorithm = least_squares()
    history = pxt.Trainer(algorithm, progress=False).fit(batches(), 2, resume=path)
    assert algorithm.log.epochs == []
    assert len(history) == 2


def test_resume_true_starts_afresh_without_a_file(tmp_path):
    trainer = pxt.Trainer(least_squares(), [pxt.Checkpoint(tmp_path / "run")], progress=False)
    assert len(trainer.fit(batches(), 1, resume=True)) == 1
    assert (tmp_path / "run.npz").exists()


def test_resume_true_needs_a_checkpoint_callback():
    with pytest.raises(ValueError, match=r"looks for the file of a `pxt\.Checkpoint` callback"):
        pxt.Trainer(least_squares(), progress=False).fit(batches(), 1, resume=True)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("none.npz")):
        pxt.Trainer(least_squares(), progress=False).fit(batches(), 1, resume=tmp_path / "none")


def test_a_file_of_params_is_no_checkpoint(tmp_path):
    pxu.save_params(least_squares(), tmp_path / "w.npz")
    with pytest.raises(
        ValueError, match=r"has the weights of a model, written by `pxu\.save_params`"
    ):
        pxt.Trainer(least_squares(), progress=False).fit(batches(), 1, resume=tmp_path / "w.npz")


def test_early_stopping_remembers_across_a_resume(tmp_path):
    class Scripted(LeastSquares):
        def eval_step(self, x, y):
            return {"energy": np.float32([5, 1, 2, 3, 0, 0, 0, 0][self.log.epochs[-1]])}

    def run(epochs, resume):
        callbacks = [pxt.EarlyStopping("val_energy", 2), pxt.Checkpoint(tmp_path / "run.npz")]
        trainer = pxt.Trainer(Scripted(), callbacks, progress=False)
        return len(trainer.fit(batches(), epochs, [regression()], resume=resume))

    assert run(3, False) == 3
    # the best was epoch 2, so it ends after epoch 4 and not after 3 + 2
    assert run(8, True) == 4
    # and a run that has ended does not begin again
    assert run(8, True) == 4


@pytest.mark.parametrize(("every", "kept"), [(1, 5), (2, 5), (3, 5)])
def test_the_last_epoch_is_always_saved(tmp_path, every, kept):
    checkpoint = pxt.Checkpoint(tmp_path / "run.npz", every=every)
    pxt.Trainer(least_squares(), [checkpoint], progress=False).fit(batches(), 5)
    trainer = pxt.Trainer(least_squares(), progress=False)
    pxt.load_checkpoint(trainer, checkpoint.path)
    assert trainer.epoch == kept


def test_every_saves_only_so_often(tmp_path):
    checkpoint = pxt.Checkpoint(tmp_path / "run.npz", every=2)
    with pytest.raises(KeyboardInterrupt):
        pxt.Trainer(least_squares(), [checkpoint, Crash(4)], progress=False).fit(batches(), 5)
    trainer = pxt.Trainer(least_squares(), progress=False)
    pxt.load_checkpoint(trainer, checkpoint.path)
    assert trainer.epoch == 2
    with pytest.raises(ValueError, match="every must be at least 1"):
        pxt.Checkpoint("x", every=0)


def test_a_monitored_checkpoint_keeps_the_best_epoch(tmp_path):
    class Scripted(LeastSquares):
        def eval_step(self, x, y):
            return {"energy": np.float32([5, 1, 2, 0.5, 3][self.log.epochs[-1]])}

    checkpoint = pxt.Checkpoint(tmp_path / "best.npz", monitor="val_energy")
    pxt.Trainer(Scripted(), [checkpoint], progress=False).fit(batches(), 5, [regression()])
    trainer = pxt.Trainer(Scripted(), progress=False)
    pxt.load_checkpoint(trainer, checkpoint.path)
    assert trainer.epoch == 4


def test_a_checkpoint_of_another_model_changes_nothing_and_says_what_differs(tmp_path):
    path = tmp_path / "run.npz"
    pxt.Trainer(LeastSquares(inputs=3), [pxt.Checkpoint(path)], progress=False).fit(batches(), 1)
    other = LeastSquares(inputs=4)
    before = everything(other)
    with pytest.raises(
        ValueError, match=r"model\.weight: float32\[2, 3\] in the file, float32\[2, 4\]"
    ):
        pxt.Trainer(other, progress=False).fit(batches(), 2, resume=path)
    assert everything(other) == before
    with pytest.raises(ValueError, match=r"bias: only in the algorithm[\s\S]*\n  and 4 more"):
        pxt.Trainer(predictive_coding(), progress=False).fit(batches(), 2, resume=path)
    with pytest.raises(ValueError, match=r"weight_optim\.state: \d arrays in the file, \d in the"):
        pxt.Trainer(LeastSquares(optim=optax.sgd(1.0)), progress=False).fit(
            batches(), 2, resume=path
        )


def test_batches_of_another_size_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    pxt.Trainer(least_squares(), [pxt.Checkpoint(path)], progress=False).fit(batches(), 1)
    other = pxt.batches(*regression(24), 6, shuffle=True, rkg=4)
    with pytest.raises(ValueError, match=r"batch_size 8 \(here 6\), seed \[3\] \(here \[4\]\)"):
        pxt.Trainer(least_squares(), progress=False).fit(other, 2, resume=path)


def test_batches_that_do_not_know_their_position_are_warned_about(tmp_path):
    path = tmp_path / "run.npz"

    class Loader:
        def __iter__(self):
            yield regression()

    pxt.Trainer(least_squares(), [pxt.Checkpoint(path)], progress=False).fit(Loader(), 1)
    with pytest.warns(UserWarning, match="a Loader does not know its position"):
        pxt.Trainer(least_squares(), progress=False).fit(Loader(), 2, resume=path)


class Odd(LeastSquares):
    """Params that `.npz` files have no name for."""

    def __init__(self):
        super().__init__()
        self.half = px.Param(jnp.array([1.5, -2.25], jnp.bfloat16))
        self.key = px.Param(jax.random.key(7))
        self.running = pxnn.StateParam({"mean": jnp.ones(2), "count": jnp.array(3)})


def test_types_unknown_to_numpy_survive(tmp_path):
    trainer = pxt.Trainer(Odd(), progress=False)
    pxt.save_checkpoint(trainer, tmp_path / "odd")
    loaded = Odd()
    loaded.half.set(jnp.zeros(2, jnp.bfloat16))
    loaded.key.set(jax.random.key(0))
    loaded.running.set({"mean": jnp.zeros(2), "count": jnp.array(0)})
    pxt.load_checkpoint(pxt.Trainer(loaded, progress=False), tmp_path / "odd.npz")
    assert loaded.half.dtype == jnp.bfloat16
    assert loaded.half.get().tolist() == [1.5, -2.25]
    assert jax.random.key_data(loaded.key.get()).tolist() == [0, 7]
    assert int(loaded.running.get()["count"]) == 3


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    trainer = pxt.Trainer(least_squares(), [pxt.Checkpoint(path)], progress=False)
    trainer.fit(batches(), 1)
    old = path.read_bytes()

    def fail(file, array, **options):
        file.write(b"half a fi")
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        pxt.save_checkpoint(trainer, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
