"""`Trainer`: epochs, validation, callbacks, history, checkpoints, progress."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ..algorithms import Algorithm
from ..data._samples import sample_count
from ..utils import _mesh
from . import _batches, _calls
from ._callbacks import Callback
from ._checkpoint import Checkpoint, load_callbacks, load_checkpoint
from ._epoch import Epoch, Hooks, means
from ._fetch import fetch
from ._history import History
from ._interrupt import Interrupts
from ._metrics import accuracy
from ._progress import Progress
from ._trainable import Trainable, check_trainable

BEFORE_EACH = """steps_per_call={k} takes {k} training steps in one compiled call, so nothing can be done \
before each of them, and {cls}.on_batch_start asks for that. Leave out `steps_per_call=`, or move what it \
does to `on_batch_end`, which is called for each batch after the call, or to `on_epoch_start`."""


STOPPED = """Ctrl-C in epoch {next} of {epochs}, after {step} training steps.
The model is as the last of them left it."""

SAVED = """
{path} holds epoch {epoch}:
`fit(..., resume=True)` with the same arguments goes on from there."""

UNSAVED = """
{path} is not written yet{older}."""

OLDER = """; the file of that name is of an earlier run,
from which `fit(..., resume=True)` would go on"""

NO_CHECKPOINT = """
Nothing was saved. With the callback `pxt.Checkpoint("run.npz")`,
`fit(..., resume=True)` goes on from the last whole epoch."""

NO_MESH = """Trainer: mesh= is for algorithms of `pcx.algorithms`; {cls} has to place its arrays itself, see \
docs/howto/devices.md"""


class Trainer:
    """Trains an algorithm's model: epochs, validation, callbacks, history, checkpoints, progress.

    Args:
        algorithm: a `pxa.Algorithm`, or anything else that has what `Trainable` lists.
        callbacks: `Callback`s, called in this order.
        progress: print a line for each epoch, and show tqdm bars on a terminal or in a notebook; False for
            neither.
        metrics: `{name: f(prediction, y) -> one number per sample}`. None for those of the
            algorithm; if it has none, and targets are one-hot vectors, `{"accuracy":
            pxt.accuracy}`. For several heads prediction and target are tuples: `{"accuracy": lambda
            p, y: pxt.accuracy(p[0], y[0])}`.
        classes: turn integer targets into one-hot vectors of this length.
        schedule: the schedule that the weight optimiser was made with, to note the learning rate in
            the history. Not needed with `optax.inject_hyperparams`.
        log_every: fetch values from the device after so many batches; None for about twice a
            second.
        diagnose: keep a copy of the training state between two fetches, so that after a divergence
            the guilty batch can be repeated, its layer be named, and the state before it be
            restored.
        steps_per_call: take so many training steps in one compiled call, a loop over batches of one
            shape: the same numbers with less time between two steps. Batches of `pxt.batches` without
            a transform stay on the device as a whole; others are stacked for each call. Callbacks hear
            of each batch after its call.
        augment: `f(key, x) -> x` for the inputs of each training batch, on the device, such as
            `pcx.data.device_augmentation("cifar10")`; the key depends on the epoch and the batch.
        mesh: a `jax.sharding.Mesh` whose devices divide each batch, as for `pxa.PC`; None for that of the
            algorithm. Several processes give `fit` their own part of each batch.

    Attributes:
        algorithm: as given.
        history: of the last call of `fit`.
        epoch: number of epochs done; epochs: how many there are to be.
        step: number of training steps done.
        stopping: whether training ends with the present epoch.
        interrupted: whether the last call of `fit` ended with an error.

    Example:
        >>> import jax, numpy as np, optax
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
        >>> y = np.eye(2, dtype=np.float32)[(x[:, 0] * x[:, 1] > 0).astype(int)]
        >>> algorithm = pxa.PC(pxm.MLP([2, 16, 2]), T=4, weight_optim=optax.adam(1e-2))
        >>> trainer = pxt.Trainer(algorithm, progress=False)
        >>> history = trainer.fit(pxt.batches(x, y, 32, shuffle=True), epochs=2)
        >>> sorted(history.epoch)
        ['accuracy', 'energy', 'epoch', 'seconds']
        >>> sorted(trainer.evaluate(pxt.batches(x, y, 32)))
        ['accuracy', 'energy']
    """

    def __init__(
        self,
        algorithm: Trainable,
        callbacks: Iterable[Callback] = (),
        progress: bool = True,
        *,
        metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
        classes: int | None = None,
        schedule: Callable[[Any], Any] | None = None,
        log_every: int | None = None,
        diagnose: bool = True,
        steps_per_call: int = 1,
        augment: Callable[[Any, Any], Any] | None = None,
        mesh: Mesh | None = None,
    ):
        for name, value in (("log_every", log_every), ("steps_per_call", steps_per_call)):
            if value is not None and value < 1:
                raise ValueError(f"Trainer: {name} must be at least 1, got {value}")
        self.algorithm = algorithm
        check_trainable(algorithm, "Trainer")
        if mesh is not None:
            if not isinstance(algorithm, Algorithm):
                raise TypeError(NO_MESH.format(cls=type(algorithm).__name__))
            algorithm.mesh = mesh
        self.mesh: Mesh | None = getattr(algorithm, "mesh", None)
        self.processes = 1 if self.mesh is None else _mesh.processes(self.mesh)
        given = list(callbacks)
        for callback in given:
            if not isinstance(callback, Callback):
                raise TypeError(f"Trainer: a callback is a `pxt.Callback`, got {callback!r}")
        # of several processes one shows what all do
        if progress and _mesh.leads(self.mesh) and not any(isinstance(c, Progress) for c in given):
            given.append(Progress())
        self.callbacks = sorted(given, key=lambda c: c.priority)
        if metrics is not None:
            algorithm.metrics = dict(metrics)
        self.classes, self.schedule = classes, schedule
        self.log_every, self.diagnose = log_every, diagnose
        self.steps_per_call = _calls.usable(steps_per_call, algorithm)
        if self.steps_per_call > 1:
            for callback in self.callbacks:
                if type(callback).on_batch_start is not Callback.on_batch_start:
                    cls = type(callback).__name__
                    raise ValueError(BEFORE_EACH.format(k=steps_per_call, cls=cls))
        self.augment = augment
        self.augmented = None if augment is None else _calls.augmented(augment)
        self._reset(None, 0, None)

    def _reset(
        self, batches: Any, epochs: int, steps_per_epoch: int | None, val: Any = None
    ) -> None:
        self.history = History()
        self.epoch = self.step = 0
        self.epochs = epochs
        self.train_batches, self.val_batches = batches, val
        self.steps_per_epoch = steps_per_epoch
        self.batches_per_epoch = _batches.length(batches, steps_per_epoch)
        self.stopping = self.interrupted = self.prepared = False
        self.first_energy: float | None = None
        # what one epoch leaves to the next: the data on the device
        self.kept: dict[str, Any] = {}

    def stop(self) -> None:
        """End training after the present epoch."""
        self.stopping = True

    def fit(
        self,
        train_batches: Iterable[Any],
        epochs: int,
        val: Iterable[Any] | None = None,
        *,
        steps_per_epoch: int | None = None,
        resume: bool | str | Path = False,
    ) -> History:
        """Train for some epochs; the model is changed in place.

        Args:
            train_batches: any iterable of `(x, y)` that can be looped over once per epoch:
                `pxt.batches`, a list, a torch DataLoader.
            epochs: how many epochs there are in all, those before a resumed checkpoint included.
            val: batches to evaluate after each epoch.
            steps_per_epoch: let an epoch have at most so many batches.
            resume: a checkpoint to go on from; True for that of the `Checkpoint` callback, or to
                start afresh if it does not exist yet.

        Returns:
            What happened. Also in `self.history`, if training is broken off.

        Ctrl-C ends training between two steps: model, optimiser, `step` and history agree, bars are
        closed, and `fit` can be called again. A second Ctrl-C, two seconds later, is obeyed at once.

        Raises:
            KeyboardInterrupt: on Ctrl-C, so that a program does not go on as if training were done. It says how
                far training came, which checkpoint there is, and how to go on.
            Diverged: an energy or metric became infinite or NaN.
            ValueError, TypeError: the batches cannot be used.
        """
        try:
            self._fit(train_batches, epochs, val, steps_per_epoch, resume)
        except KeyboardInterrupt as error:
            if error.args:  # by a handler of the user's
                raise
            raise KeyboardInterrupt(self._stopped()) from None
        return self.history

    def _fit(
        self,
        train_batches: Iterable[Any],
        epochs: int,
        val: Iterable[Any] | None,
        steps_per_epoch: int | None,
        resume: bool | str | Path,
    ) -> None:
        with Interrupts() as interrupts:
            self._reset(train_batches, epochs, steps_per_epoch, val)
            saved = None if resume is False else self._load(resume)
            self._check_processes()
            hooks, recording = Hooks(self), self.algorithm.record
            try:
                if hooks.of["on_inference_step"]:
                    self.algorithm.record = True
                hooks.call("on_train_start")
                if saved is not None:
                    load_callbacks(self, saved)
                interrupts.release()
                while self.epoch < epochs and not self.stopping:
                    Epoch(self, hooks, interrupts).run(val)
            except BaseException:
                self.interrupted = True
                raise
            finally:
                interrupts.busy = True
                self.algorithm.record = recording
                self.kept.clear()
                hooks.end()

    def _stopped(self) -> str:
        """What Ctrl-C left, and how to go on."""
        text = STOPPED.format(
            next=min(self.epoch + 1, self.epochs), epochs=self.epochs, step=self.step
        )
        checkpoint = self._checkpoint()
        if checkpoint is None:
            return text + NO_CHECKPOINT
        if checkpoint.saved_epoch is None:
            older = OLDER if checkpoint.path.exists() else ""
            return text + UNSAVED.format(path=checkpoint.path, older=older)
        return text + SAVED.format(path=checkpoint.path, epoch=checkpoint.saved_epoch)

    def _checkpoint(self) -> Checkpoint | None:
        return next((c for c in self.callbacks if isinstance(c, Checkpoint)), None)

    def _check_processes(self) -> None:
        """Refuse what would let processes wait for each other for ever."""
        if self.processes > 1:
            batches = self.train_batches
            size, samples = (getattr(batches, name, 0) for name in ("batch_size", "samples"))
            number = _batches.length(batches, self.steps_per_epoch) or 0
            _mesh.check_equal(
                {"batches": number, "batch size": size, "samples": samples, "epoch": self.epoch}
            )

    def _load(self, resume: bool | str | Path) -> dict[str, Any] | None:
        if not isinstance(resume, bool):
            return load_checkpoint(self, resume)
        checkpoint = self._checkpoint()
        if checkpoint is None:
            raise ValueError(
                "fit(resume=True) looks for the file of a `pxt.Checkpoint` callback, and there is "
                "none; add one, or give a file: `resume='run.npz'`"
            )
        return load_checkpoint(self, checkpoint.path) if checkpoint.path.exists() else None

    def prepare(self, y: Any) -> None:
        """Before the first step: choose a metric that suits the targets, if there is none yet."""
        self.prepared = True
        if not self.algorithm.metrics and _batches.is_one_hot(y):
            self.algorithm.metrics = {"accuracy": accuracy}

    def evaluate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Mean energy and metrics of the forward prediction; nothing is learned.

        Args:
            batches: any iterable of `(x, y)`. Every sample counts the same, in smaller batches,
                too.

        Returns:
            `{"energy": ..., "accuracy": ...}`: floats.
        """
        return self.evaluate_on(batches, "batches", 1)

    def evaluate_on(self, batches: Iterable[Any], what: str, epoch: int) -> dict[str, float]:
        """As `evaluate`, for batches called `what` in errors."""
        sizes: list[int] = []
        rows: list[dict[str, Any]] = []
        with self._evaluating():
            for x, y, size in _batches.pairs(batches, what, self.classes):
                if not self.prepared:
                    self.prepare(y)
                rows.append(self.algorithm.eval_step(x, y))
                sizes.append(size)
        if not rows:
            raise _batches.nothing(batches, what, epoch)
        return means(fetch(rows), sizes)

    def predict(self, x: Any, batch_size: int | None = None) -> Any:
        """Predictions for any number of inputs.

        Args:
            x: `(n, *event)`, or a tuple or dict of such arrays.
            batch_size: go through them in batches of this size; None for all at once.

        Returns:
            `(n, *event)`; a NumPy array if there were several batches.
        """
        samples = sample_count("predict", x=x)
        with self._evaluating():
            if batch_size is None or samples <= batch_size:
                return self._own(self.algorithm.predict(x), samples)
            slices = [slice(s, s + batch_size) for s in range(0, samples, batch_size)]
            parts = [
                self._own(
                    self.algorithm.predict(_calls.take(x, part)),
                    min(batch_size, samples - part.start),
                )
                for part in slices
            ]
        return jax.tree_util.tree_map(lambda *p: np.concatenate(p), *jax.device_get(parts))

    def _own(self, prediction: Any, samples: int) -> Any:
        """This process's part of a prediction."""
        if self.processes == 1:
            return prediction
        return jax.tree_util.tree_map(lambda a: _mesh.own_rows(a, samples), prediction)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        model = self.algorithm.model
        training = model.is_train
        model.eval()
        try:
            yield
        finally:
            if training:
                model.train()
