"""Batches as people have them: tensors, lists, one sample, dicts; what is wrong with one is said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.data
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt
from pcx.algorithms import _batch

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[np.arange(12) % 3]


def pc(**options):
    px.RKG.seed(0)
    model = pxm.MLP([4, 8, 3])
    return pxa.PC(model, T=2, weight_optim=optax.sgd(0.1), **options)


class Foreign:
    """An array of some other library: NumPy can read it, and JAX does not know it."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_further_arguments_have_the_name_of_the_last():
    names = []
    convert = lambda value, name: names.append(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_batch, "converted", convert)
        _batch.as_batches([Foreign([1.0])] * 3, ["x", "y"])
    assert names == ["x", "y", "y"]


def weights(algorithm):
    return np.asarray(algorithm.model.layers[0].nn.weight.get())


@pytest.mark.parametrize("wrap", [Foreign, np.ndarray.tolist])
def test_what_numpy_can_read_is_what_the_array_is(wrap):
    by_array, other = pc(), pc()
    expected = by_array.train_step(X, Y)["energy"]
    assert other.train_step(wrap(X), wrap(Y))["energy"] == expected
    np.testing.assert_array_equal(weights(other), weights(by_array))
    np.testing.assert_array_equal(other.predict(wrap(X)), by_array.predict(X))


def test_a_torch_tensor_is_what_the_array_is():
    torch = pytest.importorskip("torch")
    by_array, other = pc(), pc()
    x, y = torch.tensor(X), torch.tensor(Y)
    expected = by_array.train_step(X, Y)["energy"]
    assert other.train_step(x.requires_grad_(), y)["energy"] == expected
    np.testing.assert_array_equal(weights(other), weights(by_array))
    np.testing.assert_array_equal(other.predict(x), by_array.predict(X))
    np.testing.assert_array_equal(
        pxt.Trainer(other, progress=False).predict(x, batch_size=5),
        pxt.Trainer(by_array, progress=False).predict(X, batch_size=5),
    )
    half = by_array.predict(jnp.asarray(X, jnp.bfloat16))
    np.testing.assert_array_equal(other.predict(x.to(torch.bfloat16)), half)


def test_a_torch_tensor_out_of_reach_is_refused_and_the_message_says_how_to_move_it():
    torch = pytest.importorskip("torch")
    elsewhere = torch.empty((12, 4), device="meta")
    with pytest.raises(
        TypeError, match=r"x is a torch tensor, torch\.float32 on meta.*`x\.cpu\(\)`"
    ):
        pc().predict(elsewhere)


@pytest.mark.parametrize("method", ["train_step", "eval_step", "energy", "infer"])
def test_one_sample_is_told_to_get_a_batch_axis(method):
    message = rf"PC\.{method}: x and y are one sample, of shape \(4,\) and \(3,\).*`x\[None\]` and `y\[None\]`"
    with pytest.raises(ValueError, match=message):
        getattr(pc(), method)(X[0], Y[0])


def test_what_the_message_says_works():
    algorithm = pc()
    with pytest.raises(
        ValueError, match=r"PC\.predict: x is one sample.*Write `x\[None\]`, a batch"
    ):
        algorithm.predict(X[0])
    np.testing.assert_allclose(algorithm.predict(X[0][None])[0], algorithm.predict(X)[0], atol=1e-6)
    decoder = pxa.PC(pxm.LinearDecoder([2, 8, 4]), T=2, weight_optim=optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"y is one sample, of shape \(4,\).*`y\[None\]`"):
        decoder.train_step(None, X[0])


def test_the_first_step_after_a_failed_one_is_still_looked_at():
    algorithm = pc()
    with pytest.raises(ValueError, match="one sample"):
        algorithm.train_step(X[0], Y[0])
    with pytest.warns(UserWarning, match="as pixels do before they are scaled"):
        algorithm.train_step(np.full((12, 4), 255.0, np.float32), Y)


def test_a_dict_for_a_model_that_takes_an_array_is_told_which_entry_fits():
    batch = {"image": X, "mask": np.zeros((12, 7), np.float32)}
    message = r"PC\.predict: x is a dict with 'image', 'mask', .* one array, such as `x\['image'\]`"
    with pytest.raises(TypeError, match=message):
        pc().predict(batch)
    with pytest.raises(TypeError, match=r"y is a tuple of 2.*`y\[1\]`"):
        pc().train_step(X, (np.zeros((12, 7), np.float32), Y))


def test_inputs_and_targets_of_two_lengths_are_told_so():
    with pytest.raises(ValueError, match=r"PC\.train_step: x has shape \(12, 4\) and y \(5, 3\)"):
        pc().train_step(X, Y[:5])


@pytest.mark.wrong_types
def test_too_many_arguments_are_pythons_own_error():
    with pytest.raises(
        TypeError, match=r"predict\(\) takes 2 positional arguments but 3 were given"
    ):
        pc().predict(X, Y)


def test_an_error_of_the_models_own_is_left_as_it_is():
    class Broken(pxc.EnergyModule):
        def __init__(self):
            self.layer, self.vode = pxnn.Linear(4, 3), pxc.Vode((3,))

        def __call__(self, x, y=None):
            raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine"):
        pxa.PC(Broken(), weight_optim=optax.sgd(0.1)).predict(X)


# --- without x ------------------------------------------------------------------------------------


def test_batches_of_targets_alone_train_a_decoder():
    loader = pxt.batches(y=X, batch_size=5, shuffle=True)
    parts = list(loader)
    assert [x for x, _ in parts] == [None] * 3
    order = np.concatenate([y for _, y in parts])
    np.testing.assert_array_equal(np.sort(order, axis=0), np.sort(X, axis=0))
    px.RKG.seed(0)
    trainer = pxt.Trainer(
        pxa.PC(pxm.LinearDecoder([2, 4]), T=20, weight_optim=optax.adam(0.05)), progress=False
    )
    history = trainer.fit(pxt.batches(y=X, batch_size=12), epochs=30)
    # a linear decoder with a code of two numbers cannot do better than two principal components
    energy = history.epoch["energy"]
    best = 0.5 * (np.linalg.svd(X - X.mean(axis=0), compute_uv=False)[2:] ** 2).sum() / len(X)
    assert energy[-1] < 0.7 * energy[0]
    assert energy[-1] > best


# --- reconstruction ---------------------------------------------------------------------------------


def linear_decoder():
    """y = W2 W1 c with orthogonal columns, so that inference is well conditioned."""
    model = pxm.LinearDecoder([2, 3, 5], act=lambda a: a, bias=False)
    rng = np.random.default_rng(1)
    W1, W2 = (np.linalg.qr(rng.normal(size=s))[0].astype(np.float32) for s in ((3, 2), (5, 3)))
    for layer, W in zip(model.layers[1:], (W1, W2), strict=True):
        layer.nn.weight.set(jnp.asarray(W))
    data = rng.normal(size=(6, 5)).astype(np.float32)
    return model, W1.astype(np.float64), W2.astype(np.float64), data


def code_of(W1, W2, y, mask):
    """argmin over the code and the hidden state, in closed form: a Gaussian chain of two maps."""
    # h given the code has mean W1 c and covariance 1; y given h has mean W2 h and covariance 1
    out = []
    for row, known in zip(y, mask, strict=True):
        A = (W2 @ W1)[known]
        S = W2[known] @ W2[known].T + np.eye(known.sum())
        out.append(
            np.linalg.solve(A.T @ np.linalg.solve(S, A), A.T @ np.linalg.solve(S, row[known]))
        )
    return np.array(out)


def test_reconstruction_decodes_the_most_likely_code():
    model, W1, W2, data = linear_decoder()
    pc = pxa.PC(model, T=2000, state_optim=optax.sgd(0.3), weight_optim=optax.sgd(0.1))
    code = code_of(W1, W2, data, np.ones(data.shape, bool))
    np.testing.assert_allclose(pc.reconstruct(data), code @ (W2 @ W1).T, atol=2e-4)
    # nothing stays behind, and nothing is learned
    assert model.vodes[0].h.get() is None
    np.testing.assert_array_equal(model.layers[1].nn.weight.get(), W1.astype(np.float32))


def test_recall_uses_only_what_the_mask_shows_and_needs_no_unfreezing():
    model, W1, W2, data = linear_decoder()
    pc = pxa.PC(model, T=4000, state_optim=optax.sgd(0.3), weight_optim=optax.sgd(0.1))
    mask = np.array([True, True, True, False, True])
    hidden = np.where(mask, data, 1e6).astype(np.float32)
    code = code_of(W1, W2, data, np.broadcast_to(mask, data.shape))
    np.testing.assert_allclose(
        pc.reconstruct(pxc.Clamp(hidden, mask)), code @ (W2 @ W1).T, atol=1e-3
    )
    assert model.vodes[-1].is_frozen


def test_a_decoder_predicts_from_codes():
    model, W1, W2, _ = linear_decoder()
    codes = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    out = pxa.PC(model, weight_optim=optax.sgd(0.1)).predict(codes)
    np.testing.assert_allclose(out, codes @ (W2 @ W1).T, rtol=1e-4, atol=1e-5)


def test_more_steps_than_the_algorithms_own_can_be_asked_for():
    model, *_, data = linear_decoder()
    few = pxa.PC(model, T=3, state_optim=optax.sgd(0.3), weight_optim=optax.sgd(0.1))
    many = pxa.PC(model, T=50, state_optim=optax.sgd(0.3), weight_optim=optax.sgd(0.1))
    np.testing.assert_allclose(few.reconstruct(data, T=50), many.reconstruct(data), rtol=1e-6)


def test_a_classifier_has_no_code_to_reconstruct_from():
    with pytest.raises(ValueError, match=r"PC\.reconstruct looks for a code.*`vodes\[0\]` has x"):
        pc().reconstruct(Y, X)


# --- validation data --------------------------------------------------------------------------------


def test_a_split_moves_samples_from_training_to_validation_and_loses_none():
    data = pcx.data.two_circles(samples=80, test_samples=20)
    parts = data.split(0.25, seed=3)
    assert (len(parts.x_train), len(parts.x_val), len(parts.x_test)) == (60, 20, 20)
    rows = lambda x, y: sorted(map(tuple, np.column_stack([x, y])))
    together = rows(
        np.concatenate([parts.x_train, parts.x_val]), np.concatenate([parts.y_train, parts.y_val])
    )
    assert together == rows(data.x_train, data.y_train)
    again, other = data.split(0.25, seed=3), data.split(0.25, seed=4)
    np.testing.assert_array_equal(parts.x_val, again.x_val)
    assert not np.array_equal(parts.x_val, other.x_val)
    assert parts.flat().x_val.shape == (20, 2)
    assert "train=60, val=20, test=20" in repr(parts)


def test_a_split_that_leaves_a_part_empty_is_refused():
    data = pcx.data.two_circles(samples=80, test_samples=20)
    for fraction in (0.0, 1.0, 1e-3, -0.5, 2):
        with pytest.raises(ValueError, match=r"both parts need one at least"):
            data.split(fraction)
    with pytest.raises(ValueError, match="is split already"):
        data.split(0.5).split(0.5)


# --- before the first epoch -------------------------------------------------------------------------


class Counting(pxt.Callback):
    steps = 0

    def on_batch_end(self, trainer, batch, logs):
        self.steps += 1


@pytest.mark.parametrize("which", ["EarlyStopping", "Checkpoint"])
def test_watching_validation_without_validation_batches_fails_before_training(which, tmp_path):
    counting = Counting()
    watching = {
        "EarlyStopping": lambda: pxt.EarlyStopping(),
        "Checkpoint": lambda: pxt.Checkpoint(tmp_path / "best.npz", monitor="val_accuracy"),
    }[which]()
    trainer = pxt.Trainer(pc(), [watching, counting], progress=False)
    with pytest.raises(
        ValueError, match=rf"{which} watches 'val_accuracy'.*`fit\(\.\.\., val=batches\)`"
    ):
        trainer.fit([(X, Y)], 2)
    assert counting.steps == 0
    trainer.fit([(X, Y)], 2, val=[(X, Y)])
    assert counting.steps == 2


def test_files_of_weights_and_of_runs_are_told_apart(tmp_path):
    import pcx.utils as pxu

    algorithm = pc()
    trainer = pxt.Trainer(algorithm, [pxt.Checkpoint(tmp_path / "run.npz")], progress=False)
    trainer.fit([(X, Y)], 1)
    pxu.save_params(algorithm.model, tmp_path / "weights.npz")
    with pytest.raises(
        ValueError, match=r"run\.npz is a checkpoint of a whole run.*load_checkpoint"
    ):
        pxu.load_params(pxm.MLP([4, 8, 3]), tmp_path / "run.npz")
    with pytest.raises(ValueError, match=r"has the weights of a model.*`pxu\.load_params"):
        trainer.fit([(X, Y)], 1, resume=tmp_path / "weights.npz")
    # what the first message says
    other = pc()
    pxt.load_checkpoint(pxt.Trainer(other, progress=False), tmp_path / "run.npz")
    jax.tree_util.tree_map(np.testing.assert_array_equal, weights(other), weights(algorithm))
