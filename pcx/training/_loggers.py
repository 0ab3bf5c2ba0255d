"""Loggers: callbacks that pass the numbers of each epoch on to a file or a tracking service."""

import csv
import importlib
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils._files import write_atomically
from ._callbacks import Callback

if TYPE_CHECKING:
    from ._trainer import Trainer

MISSING = (
    """pxt.{cls} needs the package {package}, which is not installed: `pip install {package}`"""
)


class Logger(Callback):
    """What loggers share: after each epoch `write(epoch, numbers)`. Subclass it for another service.

    The numbers are the last row of `trainer.history`, so what other callbacks note there is in them.

    Example:
        >>> import numpy as np, optax, pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> class Say(pxt.Logger):
        ...     def write(self, trainer, epoch, numbers):
        ...         print(epoch, *numbers)
        >>> pc = pxa.PC(pxm.MLP([2, 4, 1]), T=2, weight_optim=optax.sgd(0.1))
        >>> batches = [(np.ones((8, 2)), np.ones((8, 1)))]
        >>> _ = pxt.Trainer(pc, [Say()], progress=False).fit(batches, epochs=1)
        1 energy seconds
    """

    # after the callbacks that add to the history
    priority = 1

    def on_epoch_end(self, trainer: "Trainer", epoch: int, logs: Mapping[str, float]) -> None:
        row = {name: float(column[-1]) for name, column in trainer.history.epoch.items()}
        numbers = {n: v for n, v in row.items() if n != "epoch" and not math.isnan(v)}
        self.write(trainer, epoch, numbers)

    def write(self, trainer: "Trainer", epoch: int, numbers: Mapping[str, float]) -> None:
        """Pass on the numbers of an epoch."""
        raise NotImplementedError


class CSVLogger(Logger):
    """The history as a CSV file, a row for each epoch, complete after every one.

    A resumed run goes on in the file, from the epoch of its checkpoint. What was not measured in an epoch is
    left empty.

    Args:
        path: of the file; its folder is made.

    Example:
        >>> import os, pathlib, tempfile, numpy as np, optax
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> path = os.path.join(tempfile.mkdtemp(), "run.csv")
        >>> pc = pxa.PC(pxm.MLP([2, 4, 1]), T=2, weight_optim=optax.sgd(0.1))
        >>> batches = [(np.ones((8, 2)), np.ones((8, 1)))]
        >>> _ = pxt.Trainer(pc, [pxt.CSVLogger(path)], progress=False).fit(batches, epochs=2)
        >>> pathlib.Path(path).read_text().splitlines()[0]
        'epoch,energy,seconds'
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def write(self, trainer: "Trainer", epoch: int, numbers: Mapping[str, float]) -> None:
        columns = trainer.history.epoch
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(
                "" if math.isnan(v) else int(v) if v == int(v) else float(v) for v in row
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda file: file.write(text.getvalue().encode()))


class TensorBoard(Logger):
    """Scalars for TensorBoard: `tensorboard --logdir FOLDER` shows them.

    A resumed run hides what was written after its checkpoint.

    Args:
        folder: where event files go, one folder for each run.
        **options: for `tensorboardX.SummaryWriter`.

    Raises:
        ImportError: tensorboardX is not installed.

    Example:
        >>> import pcx.training as pxt
        >>> board = pxt.TensorBoard("runs/first")  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str], **options: Any):
        self._module = _need("tensorboardX", self)
        self.folder, self.options = str(folder), options
        self._writer: Any = None

    def write(self, trainer: "Trainer", epoch: int, numbers: Mapping[str, float]) -> None:
        if self._writer is None:
            self._writer = self._module.SummaryWriter(
                self.folder, **{"purge_step": epoch, **self.options}
            )
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def on_train_end(self, trainer: "Trainer") -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WandB(Logger):
    """A run of Weights & Biases: the one that is active, else one that is begun and finished with training.

    Args:
        **options: for `wandb.init`, such as `project="mnist"`, `config={"lr": 1e-3}`, `mode="offline"`; to resume
            a run, `id=` and `resume="allow"`.

    Raises:
        ImportError: wandb is not installed.
        ValueError: options for a run that is active already.

    Example:
        >>> import pcx.training as pxt
        >>> wandb = pxt.WandB(project="mnist", config={"lr": 1e-3})  # doctest: +SKIP
    """

    def __init__(self, **options: Any):
        self._module = _need("wandb", self)
        if options and self._module.run is not None:
            raise ValueError(
                f"pxt.WandB: the run {self._module.run.name!r} is active, so {', '.join(options)} would do "
                "nothing. Leave the options out, or call `wandb.finish()` first."
            )
        self.options = options
        self._own = False

    def on_train_start(self, trainer: "Trainer") -> None:
        self._own = self._module.run is None
        if self._own:
            self._module.init(**self.options)

    def write(self, trainer: "Trainer", epoch: int, numbers: Mapping[str, float]) -> None:
        # not as wandb's step, which may only grow, where two trainings share a run
        self._module.run.log({"epoch": epoch, **numbers})

    def on_train_end(self, trainer: "Trainer") -> None:
        if self._own and self._module.run is not None:
            self._module.finish(exit_code=int(trainer.interrupted))


class MLflow(Logger):
    """A run of MLflow: the one that is active, else one that is begun and ended with training.

    Args:
        experiment: its name; None for MLflow's own choice.
        tracking_uri: where runs are kept, such as a database or a server; None for MLflow's own choice.
        params: hyper-parameters to note.
        **options: for `mlflow.start_run`, such as `run_name=`; to resume a run, `run_id=`.

    Raises:
        ImportError: mlflow is not installed.

    Example:
        >>> import pcx.training as pxt
        >>> mlflow = pxt.MLflow("mnist", params={"lr": 1e-3})  # doctest: +SKIP
    """

    def __init__(
        self,
        experiment: str | None = None,
        tracking_uri: str | None = None,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        self._module = _need("mlflow", self)
        self.experiment, self.tracking_uri = experiment, tracking_uri
        self.params, self.options = dict(params or {}), options
        self._own = False

    def on_train_start(self, trainer: "Trainer") -> None:
        if self.tracking_uri is not None:
            self._module.set_tracking_uri(self.tracking_uri)
        self._own = self._module.active_run() is None
        if self._own:
            if self.experiment is not None:
                self._module.set_experiment(self.experiment)
            self._module.start_run(**self.options)
        self._module.log_params(self.params)

    def write(self, trainer: "Trainer", epoch: int, numbers: Mapping[str, float]) -> None:
        self._module.log_metrics(dict(numbers), step=epoch)

    def on_train_end(self, trainer: "Trainer") -> None:
        if self._own and self._module.active_run() is not None:
            self._module.end_run("FAILED" if trainer.interrupted else "FINISHED")


def _need(package: str, logger: Logger) -> Any:
    """A package that only one logger needs, imported when it is made: before any training."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        message = MISSING.format(cls=type(logger).__name__, package=package)
        raise ImportError(message) from error
