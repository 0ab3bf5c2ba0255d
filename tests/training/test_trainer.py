"""The trainer on an algorithm that is not part of pcx, against loops written out by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.data
import pcx.predictive_coding as pxc
import pcx.training as pxt
from pcx.training._fetch import fetch
from tests.training.helpers import LeastSquares, regression


def quiet(algorithm, **options):
    return pxt.Trainer(algorithm, progress=False, **options)


def by_hand(x, y, weight, batch_size, epochs, lr=0.1, momentum=0.9):
    """Momentum SGD in NumPy; the energies before each step, and the final weights."""
    velocity, energies = np.zeros_like(weight), []
    for _ in range(epochs):
        for i in range(0, len(x), batch_size):
            xb, yb = x[i : i + batch_size], y[i : i + batch_size]
            error = yb - xb @ weight.T
            energies.append(0.5 * (error**2).sum(axis=1).mean())
            velocity = momentum * velocity - error.T @ xb / len(xb)
            weight = weight - lr * velocity
    return energies, weight


def test_fit_makes_the_steps_of_a_loop_written_by_hand():
    x, y = regression()
    algorithm = LeastSquares()
    history = quiet(algorithm).fit(pxt.batches(x, y, 8), epochs=3)
    energies, weight = by_hand(x, y, np.zeros((2, 3)), 8, 3)
    np.testing.assert_allclose(history.batch["energy"], energies, rtol=1e-4)
    np.testing.assert_allclose(algorithm.model.weight.get(), weight, rtol=1e-4, atol=1e-6)
    assert history.batch["epoch"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_epoch_means_count_every_sample_once():
    # 20 samples in batches of 8, 8 and 4
    x, y = regression()
    history = quiet(LeastSquares()).fit(pxt.batches(x, y, 8), epochs=1)
    expected = np.average(history.batch["energy"], weights=[8, 8, 4])
    assert history["energy"][0] == pytest.approx(expected)


def test_evaluate_gives_the_means_over_all_samples():
    x, y = regression()
    algorithm = LeastSquares()
    weight = np.array([[0.5, -1.0, 0.0], [0.1, 0.3, 0.2]])
    algorithm.model.weight.set(jnp.asarray(weight, jnp.float32))
    results = quiet(algorithm).evaluate(pxt.batches(x, y, 8))
    prediction = x @ weight.T
    assert results["energy"] == pytest.approx(0.5 * ((y - prediction) ** 2).sum(1).mean(), rel=1e-5)
    assert results["accuracy"] == pytest.approx((prediction.argmax(1) == y.argmax(1)).mean())
    assert all(isinstance(value, float) for value in results.values())


def test_validation_follows_each_epoch_and_learns_nothing():
    x, y = regression()
    with_val, without = LeastSquares(), LeastSquares()
    history = quiet(with_val).fit(pxt.batches(x, y, 8), 2, val=pxt.batches(x, y, 5))
    quiet(without).fit(pxt.batches(x, y, 8), 2)
    np.testing.assert_array_equal(with_val.model.weight.get(), without.model.weight.get())
    assert history["val_accuracy"].shape == (2,)
    assert history.last("val_energy") == pytest.approx(quiet(with_val).evaluate([(x, y)])["energy"])


def test_algorithms_are_told_the_epoch_from_0():
    algorithm = LeastSquares()
    quiet(algorithm).fit([regression()], epochs=3)
    assert algorithm.log.epochs == [0, 1, 2]


def test_the_model_trains_in_train_mode_and_evaluates_in_eval_mode():
    seen = []

    class Watching(LeastSquares):
        def train_step(self, x, y):
            seen.append(("train", self.model.is_train))
            return super().train_step(x, y)

        def eval_step(self, x, y):
            seen.append(("eval", self.model.is_eval))
            return super().eval_step(x, y)

        def predict(self, x):
            seen.append(("predict", self.model.is_eval))
            return super().predict(x)

    batch = regression()
    trainer = quiet(Watching())
    trainer.fit([batch], 2, val=[batch])
    trainer.predict(batch[0])
    assert [name for name, _ in seen] == ["train", "eval", "train", "eval", "predict"]
    assert all(right for _, right in seen)


def test_predict_in_batches_is_predict():
    x, _ = regression()
    algorithm = LeastSquares()
    algorithm.model.weight.set(jnp.ones((2, 3)))
    trainer = quiet(algorithm)
    np.testing.assert_allclose(trainer.predict(x, batch_size=7), x @ np.ones((3, 2)), rtol=1e-5)
    np.testing.assert_allclose(trainer.predict(x), x @ np.ones((3, 2)), rtol=1e-5)


# metrics


def test_one_hot_targets_are_measured_by_accuracy():
    history = quiet(LeastSquares()).fit([regression()], 1)
    assert "accuracy" in history


def test_other_targets_are_not():
    x, y = regression()
    history = quiet(LeastSquares()).fit([(x, 2.5 * y)], 1)
    assert "accuracy" not in history


def test_metrics_of_the_algorithm_are_left_alone():
    algorithm = LeastSquares()
    algorithm.metrics = {"error": pxt.squared_error}
    assert set(quiet(algorithm).fit([regression()], 1).epoch) == {
        "epoch",
        "energy",
        "error",
        "seconds",
    }


def test_metrics_of_the_trainer_go_to_the_algorithm():
    x, y = regression()
    history = quiet(LeastSquares(), metrics={"error": pxt.squared_error}).fit([(x, y)], 1)
    # before the first step the prediction is 0
    assert history.last("error") == pytest.approx((y**2).mean())


@pytest.fixture
def fetches(monkeypatch):
    """How many batches each wait for the device brought."""
    counts = []

    def counting(logs):
        counts.append(len(logs))
        return fetch(logs)

    monkeypatch.setattr("pcx.training._epoch.fetch", counting)
    return counts


def test_steps_do_not_wait_for_the_device(fetches):
    x, y = regression(120)
    quiet(LeastSquares(), log_every=25).fit(pxt.batches(x, y, 2), epochs=1)
    assert fetches == [25, 25, 10]


@pytest.mark.parametrize(
    ("room", "counts"), [(0, [100, 20]), (110 * 40, [110, 10]), (2**24, [120])]
)
def test_as_many_batches_wait_as_there_is_room_for(fetches, monkeypatch, room, counts):
    monkeypatch.setattr("pcx.training._epoch.SECONDS", 1e9)
    monkeypatch.setattr("pcx.training._epoch.BYTES", room)
    x, y = regression(240)
    # a batch has 2 * (3 + 2) numbers of 4 bytes
    quiet(LeastSquares()).fit(pxt.batches(x, y, 2), epochs=1)
    assert fetches == counts


# what batches may be


class Loader:
    """Like a torch DataLoader: lists of tensors, which are arrays only through `__array__`."""

    class Tensor:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        for i in range(0, len(self.x), 10):
            yield [self.Tensor(self.x[i : i + 10]), self.Tensor(self.y[i : i + 10])]


def test_a_loader_of_tensors_trains_like_arrays():
    x, y = regression()
    a, b = LeastSquares(), LeastSquares()
    quiet(a).fit(Loader(x, y), 2)
    quiet(b).fit(pxt.batches(x, y, 10), 2)
    np.testing.assert_array_equal(a.model.weight.get(), b.model.weight.get())


def test_a_generator_serves_for_one_epoch_and_is_refused_for_two():
    batch = regression()
    quiet(LeastSquares()).fit((batch for _ in range(2)), 1)
    with pytest.raises(ValueError, match=r"epoch 2 got no batch: `train_batches` is a generator,"):
        quiet(LeastSquares()).fit((batch for _ in range(2)), 2)


def test_an_endless_generator_serves_with_steps_per_epoch():
    def forever():
        while True:
            yield regression()

    trainer = quiet(LeastSquares())
    history = trainer.fit(forever(), 2, steps_per_epoch=3)
    assert history.batch["epoch"].tolist() == [1, 1, 1, 2, 2, 2]
    assert trainer.step == 6


def test_a_used_up_validation_generator_is_named():
    batch = regression()
    with pytest.raises(ValueError, match="epoch 2 got no batch: `val` is a generator"):
        quiet(LeastSquares()).fit([batch], 2, val=(batch for _ in range(1)))


def test_an_empty_list_is_no_generator():
    with pytest.raises(ValueError, match="`train_batches` is an empty list"):
        quiet(LeastSquares()).fit([], 1)
    with pytest.raises(ValueError, match="`batches` is an empty list"):
        quiet(LeastSquares()).evaluate([])


@pytest.mark.parametrize(
    ("batch", "shown"),
    [
        ({"image": 1, "label": 2}, "a dict with 'image', 'label'"),
        ((1, 2, 3), "a tuple of 3"),
        (np.zeros((2, 3)), r"a ndarray of shape \(2, 3\)"),
        (5, "a int"),
        ((None, None), r"\(None, None\)"),
    ],
)
def test_batches_that_are_no_pairs_are_shown(batch, shown):
    with pytest.raises(TypeError, match=f"must give pairs `\\(x, y\\)`; batch 1 is {shown}"):
        quiet(LeastSquares()).fit([batch], 1)


def test_class_numbers_become_one_hot_on_request():
    x, y = regression()
    a, b = LeastSquares(), LeastSquares()
    quiet(a, classes=2).fit([(x, y.argmax(1))], 2)
    quiet(b).fit([(x, y)], 2)
    np.testing.assert_array_equal(a.model.weight.get(), b.model.weight.get())


def test_class_numbers_without_request_are_explained():
    class Strict(LeastSquares):
        def train_step(self, x, y):
            raise ValueError("h and u have different shapes")

    x, y = regression()
    with pytest.raises(ValueError, match="h and u") as raised:
        quiet(Strict()).fit([(x, y.argmax(1))], 1)
    assert "pxt.Trainer(..., classes=n)" in raised.value.__notes__[0]
    with pytest.raises(ValueError, match="h and u") as raised:
        quiet(Strict()).fit([(x, y)], 1)
    assert not hasattr(raised.value, "__notes__")


def test_a_lr_schedule_is_noted_in_the_history():
    batches = pxt.batches(*regression(), 5)
    schedule = optax.linear_schedule(1.0, 0.0, 8)
    algorithm = LeastSquares(optim=optax.sgd(schedule))
    history = quiet(algorithm, schedule=schedule).fit(batches, 2)
    np.testing.assert_allclose(history["lr"], [0.5, 0.0], atol=1e-6)


def test_log_every_must_be_positive():
    with pytest.raises(ValueError, match="log_every must be at least 1, got 0"):
        quiet(LeastSquares(), log_every=0)


@pytest.mark.wrong_types
def test_a_callback_must_be_one():
    with pytest.raises(TypeError, match=r"a callback is a `pxt\.Callback`, got 3"):
        pxt.Trainer(LeastSquares(), [3])


@pytest.mark.wrong_types
def test_what_is_no_algorithm_is_told_what_it_lacks():
    model = LeastSquares().model
    with pytest.raises(TypeError, match=r"`pxa\.PC\(model\)`; [\s\S]*lacks model, .*train_step"):
        pxt.Trainer(model)


def test_a_second_fit_starts_a_new_history():
    trainer = quiet(LeastSquares())
    trainer.fit([regression()], 2)
    assert len(trainer.fit([regression()], 1)) == 1
    assert trainer.epoch == 1


@pytest.mark.parametrize("name", ["PC", "Backprop"])
def test_algorithms_of_pcx_train(name):
    import pcx.algorithms as pxa
    import pcx.models as pxm

    px.RKG.seed(0)
    data = pcx.data.two_moons(samples=64, seed=0)
    y = pcx.data.one_hot(data.y_train, 2)
    model = pxm.MLP([2, 16, 2], energy_fn=pxc.se_energy)
    algorithm = getattr(pxa, name)(model, T=4, weight_optim=optax.adam(1e-2))
    trainer = quiet(algorithm)
    history = trainer.fit(pxt.batches(data.x_train, y, 32, shuffle=True), 20)
    assert history["energy"][-1] < 0.7 * history["energy"][0]
    assert history.last("accuracy") > 0.8
