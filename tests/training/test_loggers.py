"""Loggers, each read back by the package it writes for, where that is installed."""

import csv
import importlib
import importlib.util
import sys

import numpy as np
import pytest

import pcx.training as pxt
from tests.training.helpers import LeastSquares, regression


def fit(*callbacks, epochs=3, **options):
    trainer = pxt.Trainer(LeastSquares(), callbacks, progress=False)
    return trainer.fit(pxt.batches(*regression(), 10), epochs, val=[regression()], **options)


def read(path):
    with open(path) as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}


def test_the_csv_file_is_the_history_with_what_other_callbacks_note(tmp_path):
    class Note(pxt.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            if epoch > 1:
                trainer.history.note({"extra": 1.5 * epoch})

    path = tmp_path / "new" / "run.csv"
    history = fit(pxt.CSVLogger(path), Note())
    found = read(path)
    assert found.pop("extra") == pytest.approx([np.nan, 3.0, 4.5], nan_ok=True)
    for name in ("epoch", "energy", "accuracy", "val_energy", "val_accuracy", "lr", "seconds"):
        if name in history.epoch:
            np.testing.assert_array_equal(found[name], history.epoch[name])
    assert found["epoch"] == [1, 2, 3]


def test_a_resumed_run_goes_on_in_its_csv_file(tmp_path):
    def run(epochs, name):
        logger, checkpoint = (
            pxt.CSVLogger(tmp_path / name),
            pxt.Checkpoint(tmp_path / f"{name}.npz"),
        )
        return fit(logger, checkpoint, epochs=epochs, resume=True)

    run(2, "stopped")
    run(4, "stopped")
    run(4, "through")
    stopped, through = read(tmp_path / "stopped"), read(tmp_path / "through")
    assert stopped["epoch"] == [1, 2, 3, 4]
    assert stopped["energy"] == through["energy"]


def test_a_logger_of_ones_own_gets_the_numbers_of_each_epoch():
    seen = []

    class Mine(pxt.Logger):
        def write(self, trainer, epoch, numbers):
            seen.append((epoch, numbers["val_energy"]))

    history = fit(Mine())
    assert seen == list(zip([1, 2, 3], history.epoch["val_energy"], strict=True))


@pytest.mark.parametrize(
    ("name", "package"), [("TensorBoard", "tensorboardX"), ("WandB", "wandb"), ("MLflow", "mlflow")]
)
def test_a_missing_package_is_told_when_the_logger_is_made(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pxt\.{name} needs.*`pip install {package}`"):
        getattr(pxt, name)("runs") if name == "TensorBoard" else getattr(pxt, name)()


def need(name):
    """The package, without its warnings, which are not ours."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_was_logged(tmp_path):
    need("tensorboardX")
    need("tensorboard")
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    history = fit(pxt.TensorBoard(tmp_path / "run"))
    events = accumulator.EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert {"energy", "val_accuracy", "seconds"} <= set(events.Tags()["scalars"])
    scalars = events.Scalars("val_energy")
    assert [event.step for event in scalars] == [1, 2, 3]
    np.testing.assert_allclose([e.value for e in scalars], history.epoch["val_energy"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_has_what_was_logged_offline(tmp_path, monkeypatch):
    wandb = need("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    history = fit(pxt.WandB(mode="offline", project="p", config={"lr": 0.1}, dir=str(tmp_path)))
    assert wandb.run is None  # its own run is finished
    run = wandb.init(mode="offline", dir=str(tmp_path))
    logged = []
    monkeypatch.setattr(type(run), "log", lambda self, data, *_: logged.append(data))
    history = fit(pxt.WandB())
    assert wandb.run is run  # one that was active goes on
    assert [row["epoch"] for row in logged] == [1, 2, 3]
    assert [row["val_energy"] for row in logged] == list(history.epoch["val_energy"])
    with pytest.raises(ValueError, match="is active, so project would do nothing"):
        pxt.WandB(project="q")
    run.finish()
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_what_was_logged(tmp_path, monkeypatch):
    mlflow = need("mlflow")
    # mlflow-skinny has files only, which it refuses without this
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    whole = importlib.util.find_spec("sqlalchemy") and importlib.util.find_spec("alembic")
    uri = f"sqlite:///{tmp_path}/mlflow.db" if whole else (tmp_path / "runs").as_uri()
    logger = pxt.MLflow("digits", uri, params={"lr": 0.1}, run_name="first")
    history = fit(logger)
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params == {"lr": "0.1"}
    found = client.get_metric_history(run.info.run_id, "val_energy")
    assert [(m.step, m.value) for m in found] == list(enumerate(history.epoch["val_energy"], 1))

    class Stop(pxt.Callback):
        def on_batch_end(self, trainer, batch, logs):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(pxt.MLflow("broken", uri), Stop())
    (run,) = client.search_runs([client.get_experiment_by_name("broken").experiment_id])
    assert run.info.status == "FAILED"
