"""History, its files, its figure; metrics and schedules."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.training as pxt
import pcx.utils as pxu
from tests.training.helpers import LeastSquares, regression


def example(record=True):
    algorithm = LeastSquares()
    algorithm.record = record
    trainer = pxt.Trainer(algorithm, progress=False)
    return trainer.fit(pxt.batches(*regression(), 8), 2, val=[regression(seed=1)])


def test_rows_of_different_columns_are_filled_with_nan():
    history = pxt.History()
    history.add_epoch({"a": 1.0})
    history.add_epoch({"b": 2.0})
    history.add_epoch({"a": 3.0, "b": 4.0})
    np.testing.assert_array_equal(history["a"], [1, np.nan, 3])
    np.testing.assert_array_equal(history["b"], [np.nan, 2, 4])
    assert len(history) == 3
    assert "c" not in history


def test_an_unknown_column_lists_those_there_are():
    history = pxt.History()
    history.add_epoch({"a": 1.0})
    with pytest.raises(KeyError, match="no 'b'; it has epoch, a"):
        history["b"]


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("val_accuracy", "auto", (2, 3.0)),
        ("val_energy", "auto", (3, 1.0)),
        ("val_energy", "max", (2, 3.0)),
        ("val_accuracy", "min", (3, 1.0)),
    ],
)
def test_the_best_epoch(name, mode, expected):
    history = pxt.History()
    for value in (2.0, 3.0, 1.0, np.nan, 3.0):
        history.add_epoch({name: value})
    assert history.best(name, mode) == expected
    assert history.last(name) == 3.0


@pytest.mark.wrong_types
def test_no_best_epoch_without_values():
    history = pxt.History()
    history.add_epoch({"a": np.nan})
    with pytest.raises(ValueError, match="no value of 'a'"):
        history.best("a")


@pytest.mark.wrong_types
def test_a_mode_must_be_known():
    with pytest.raises(ValueError, match='"auto", "min" or "max"; got \'most\''):
        pxt.History().best("a", "most")


def test_the_summary_says_which_epoch_is_which():
    history = pxt.History()
    assert history.summary() == "no epoch yet"
    for value in (0.5, 0.9, 0.8):
        history.add_epoch({"val_accuracy": value})
    text = "3 epochs; val_accuracy: last epoch 80.00%, best 90.00% (epoch 2)"
    assert history.summary() == text
    assert repr(history) == f"History({text})"


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_saved_history_is_the_same_when_loaded(tmp_path, suffix):
    history = example()
    file = tmp_path / f"run{suffix}"
    history.save(file)
    assert pxt.History.load(file).to_dict() == history.to_dict()
    assert list(tmp_path.iterdir()) == [file]


def test_a_history_as_a_dict_is_plain_data():
    data = example().to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["vode_names"] == ["first", "second"]
    assert np.shape(data["inference"]) == (6, 3, 2)


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"saved as \.json or \.npz, got 'run\.pkl'"):
        example(False).save(tmp_path / "run.pkl")


def test_recorded_energies_are_averaged_over_the_epoch():
    history = example()
    # the stand-in records 0, 1 and 2 times its energy for the first vode
    energy = history.batch["energy"]
    for epoch, part in ((1, energy[:3]), (2, energy[3:]), (-1, energy[3:])):
        expected = np.stack([part.mean() * np.arange(3), np.full(3, part.mean())], axis=1)
        np.testing.assert_allclose(history.inference_energies(epoch), expected, rtol=1e-5)


def test_recording_may_begin_late():
    history = pxt.History()
    history.add_batches(1, [{"energy": 1.0}])
    history.add_batches(1, [{"energy": 1.0}], [np.ones((2, 1))])
    history.add_epoch({"energy": 1.0})
    np.testing.assert_array_equal(history.inference_energies(), np.ones((2, 1)))


def test_energies_that_were_not_recorded_are_an_error():
    with pytest.raises(ValueError, match="no inference energies were recorded in epoch 2"):
        example(False).inference_energies()


def test_the_figure_has_a_panel_for_each_quantity(tmp_path):
    history = example()
    figure = history.plot(tmp_path / "run.png", title="a run")
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["accuracy (%)", "energy per sample (nats)", "energy per sample (nats)"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    np.testing.assert_allclose(lines["validation"].get_ydata(), 100 * history["val_accuracy"])
    assert (tmp_path / "run.png").stat().st_size > 10_000


@pytest.mark.parametrize(("vodes", "named"), [(8, range(8)), (9, (0, 8))])
def test_of_many_vodes_the_first_and_the_last_are_named(vodes, named):
    history = pxt.History()
    history.add_batches(1, [{"energy": 1.0}], [np.ones((4, vodes))])
    history.add_epoch({"energy": 1.0})
    legend = history.plot().axes[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"vode {k}" for k in named]


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "pcx-networks\[examples\]"'):
        example(False).plot()


# metrics


def test_accuracy_compares_the_largest_entries():
    prediction = jnp.array([[1.0, 2.0, 0.0], [5.0, 4.0, 3.0], [0.0, 0.0, 1.0]])
    target = jnp.eye(3)
    assert pxt.accuracy(prediction, target).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_by_sorting(k):
    rng = np.random.default_rng(0)
    prediction, labels = rng.normal(size=(50, 5)), rng.integers(0, 5, 50)
    expected = [
        label in np.argsort(row)[-k:] for row, label in zip(prediction, labels, strict=True)
    ]
    metric = pxt.top_k_accuracy(k)
    assert metric(jnp.asarray(prediction), jax.nn.one_hot(labels, 5)).tolist() == expected


def test_top_k_needs_a_positive_k():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        pxt.top_k_accuracy(0)


def test_squared_error_is_a_mean_over_the_event():
    a, b = jnp.zeros((2, 3, 4)), jnp.stack([jnp.ones((3, 4)), 3 * jnp.ones((3, 4))])
    assert pxt.squared_error(a, b).tolist() == [1.0, 9.0]


# schedules


def test_the_schedule_is_that_of_the_benchmarks():
    lr, total = 2e-3, 1000
    schedule = pxt.warmup_cosine(lr, total)
    step = np.arange(total + 1)
    rise = lr + 0.1 * lr * step / 100
    fall = 0.1 * lr + (1.1 - 0.1) * lr * 0.5 * (1 + np.cos(np.pi * (step - 100) / 900))
    expected = np.where(step < 100, rise, fall)
    np.testing.assert_allclose([float(schedule(s)) for s in step], expected, rtol=1e-5)


@pytest.mark.parametrize("arguments", [{"total_steps": 0}, {"total_steps": 5, "warmup": 1.0}])
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(ValueError, match="total_steps must be positive and warmup"):
        pxt.warmup_cosine(1.0, **arguments)


def test_total_steps_multiply():
    batches = pxt.batches(np.zeros((10, 1)), np.zeros((10, 1)), 4)
    assert pxt.total_steps(batches, epochs=5) == 15
    assert pxt.total_steps(batches, epochs=5, updates_per_batch=8) == 120
    with pytest.raises(TypeError, match="a generator has no length"):
        pxt.total_steps((b for b in batches), 5)


def test_a_learning_rate_in_the_state_is_read_and_changed():
    params = [px.Param(jnp.ones(2))]
    optim = pxu.Optim(
        optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)), params
    )
    assert pxt.learning_rate(optim) == pytest.approx(0.1)
    pxt.set_learning_rate(optim, 0.01)
    optim.step(params, [jnp.ones(2)])
    np.testing.assert_allclose(params[0].get(), 0.99, rtol=1e-6)


def test_a_learning_rate_that_is_not_in_the_state_cannot_be_changed():
    optim = pxu.Optim(optax.sgd(0.1), [px.Param(jnp.ones(2))])
    assert pxt.learning_rate(optim) is None
    with pytest.raises(ValueError, match=r"optax\.inject_hyperparams\(optax\.adamw\)"):
        pxt.set_learning_rate(optim, 0.01)


def test_a_schedule_is_evaluated_at_the_counted_updates():
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    params = [px.Param(jnp.ones(2))]
    optim = pxu.Optim(optax.adam(schedule), params)
    for _ in range(3):
        optim.step(params, [jnp.ones(2)])
    assert pxt.learning_rate(optim, schedule) == pytest.approx(0.7)
