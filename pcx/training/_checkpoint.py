"""Checkpoints: all that is needed to resume training as if it had never stopped."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..utils._files import CHECKPOINT_MANIFEST as _MANIFEST
from ..utils._files import WEIGHTS_MANIFEST, read_arrays, with_suffix, write_arrays
from ..utils._mesh import leads
from ._batches import length
from ._callbacks import Callback, check_monitor, monitored
from ._encoding import pack, restore, store, unpack
from ._history import History, better
from ._snapshot import state_of

if TYPE_CHECKING:
    from ._trainer import Trainer

_FORMAT = 1

OTHER_ALGORITHM = """{path} is a checkpoint of another algorithm or model than this {cls}:
{differences}
Make the algorithm as in the run that wrote the file. (For the weights of a model alone there are \
`pxu.save_params` and `pxu.load_params`.) Nothing was changed."""

WEIGHTS = """{path} has the weights of a model, written by `pxu.save_params`, and is no checkpoint: it has no \
optimiser state, epoch or history to go on with. Load it before `fit`, without `resume`: \
`pxu.load_params(algorithm.model, path)`."""

NO_CHECKPOINT = """{path} is not a checkpoint. Give a file that `pxt.Checkpoint` or `pxt.save_checkpoint` wrote."""

OTHER_BATCHES = """{path} was written with batches that have {differences}: this run would not see \
the data that the first one would have seen next. Make the batches as they were. Nothing was \
changed."""


class Checkpoint(Callback):
    """Save everything after each epoch, so that `fit(..., resume=True)` continues exactly.

    The file holds the algorithm's params (weights, optimiser states, and all else it keeps in
    params), the default random key, the number of epochs done, the history and the states of the
    callbacks; and for batches made by `pxt.batches` the position in their order. A new file
    replaces the old one only when it is complete.

    Args:
        path: file name; `.npz` is added if missing.
        every: save after every so many epochs, and after the last.
        monitor: save only when this quantity, such as "val_accuracy", is better than ever.
        mode: whether less ("min") or more ("max") is better; "auto" is "max" for names with "acc"
            in them.

    Attributes:
        path: of the file, with its suffix.
        saved_epoch: the epoch that the file holds, or None before the first one of this run is saved.

    Example:
        >>> import pcx.training as pxt
        >>> checkpoint = pxt.Checkpoint("run.npz", every=5)
    """

    priority = 2

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 1,
        *,
        monitor: str | None = None,
        mode: Literal["auto", "min", "max"] = "auto",
    ):
        if every < 1:
            raise ValueError(f"Checkpoint: every must be at least 1, got {every}")
        self.path = with_suffix(path)
        self.every, self.monitor = every, monitor
        self._better = better(monitor or "", mode)
        self._start()

    def _start(self) -> None:
        self._best: float | None = None
        self.saved_epoch: int | None = None

    def on_train_start(self, trainer: "Trainer") -> None:
        if self.monitor is not None:
            check_monitor(self, self.monitor, trainer)
        self._start()

    def on_epoch_end(self, trainer: "Trainer", epoch: int, logs: Mapping[str, float]) -> None:
        if self.monitor is not None:
            value = monitored(self, self.monitor, logs)
            if self._best is None or self._better(value, self._best):
                self._best = value
                self._save(trainer)
        elif epoch % self.every == 0 or epoch == trainer.epochs or trainer.stopping:
            self._save(trainer)

    def _save(self, trainer: "Trainer") -> None:
        save_checkpoint(trainer, self.path)
        self.saved_epoch = trainer.epoch

    def state(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state(self, trainer: "Trainer", state: Mapping[str, Any]) -> None:
        self._best = state["best"]
        self.saved_epoch = trainer.epoch if self.path.exists() else None


def save_checkpoint(trainer: "Trainer", path: str | os.PathLike[str]) -> None:
    """Save a trainer's state; see `Checkpoint`, which calls this after epochs.

    Args:
        trainer: in a callback's `on_epoch_end`, or after `fit`.
        path: file name; `.npz` is added if missing.

    Example:
        >>> import os, tempfile, numpy as np
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> trainer = pxt.Trainer(pxa.PC(pxm.MLP([2, 4, 1]), T=2), progress=False)
        >>> _ = trainer.fit([(np.ones((8, 2)), np.ones((8, 1)))], epochs=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pxt.save_checkpoint(trainer, f"{folder}/run")
        ...     os.listdir(folder)
        ['run.npz']
    """
    arrays: dict[str, np.ndarray] = {}
    manifest = {
        "epoch": trainer.epoch,
        "step": trainer.step,
        "batches": batch_order(trainer.train_batches),
        "history": trainer.history.to_dict(),
        "callbacks": [
            [type(c).__name__, pack(c.state(), f"callback/{i}", arrays)]
            for i, c in enumerate(trainer.callbacks)
        ],
    }
    params = {name: param.get() for name, param in state_of(trainer.algorithm).items()}
    write(with_suffix(path), manifest, params, arrays, leads(trainer.mesh))


def write(
    path: Path,
    manifest: dict[str, Any],
    params: Mapping[str, Any],
    arrays: dict[str, np.ndarray],
    leads: bool = True,
) -> None:
    """Write the values of params by name, a manifest that JSON can hold, and arrays of its own.

    Args:
        leads: whether it is this process that writes; the others only give their parts.
    """
    kinds = {name: store(value, f"param/{name}", arrays) for name, value in params.items()}
    text = json.dumps({"format": _FORMAT, "params": kinds, **manifest})
    arrays[_MANIFEST] = np.frombuffer(text.encode(), np.uint8)
    if leads:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, arrays)


def load_checkpoint(trainer: "Trainer", path: str | os.PathLike[str]) -> dict[str, Any]:
    """Restore the state of a trainer and its algorithm from a checkpoint.

    Args:
        trainer: its algorithm must be made as the one that was saved.
        path: what `save_checkpoint` wrote.

    Returns:
        What callbacks and batches need, for `fit`, which calls this: `fit(..., resume=path)`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint, or one of another algorithm or model; nothing is changed
            then.

    Example:
        >>> import tempfile, numpy as np
        >>> import pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> old, new = (pxt.Trainer(pxa.PC(pxm.MLP([2, 4, 1]), T=2), progress=False) for _ in "ab")
        >>> _ = old.fit([(np.ones((8, 2)), np.ones((8, 1)))], epochs=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pxt.save_checkpoint(old, f"{folder}/run.npz")
        ...     _ = pxt.load_checkpoint(new, f"{folder}/run.npz")
        >>> new.epoch, bool((new.predict(np.ones((1, 2))) == old.predict(np.ones((1, 2)))).all())
        (2, True)
    """
    path = with_suffix(path)
    current = state_of(trainer.algorithm)
    manifest, arrays = read(path)
    old = {name: param.get() for name, param in current.items()}
    values = matched(path, old, manifest, arrays, type(trainer.algorithm).__name__)
    check_order(path, manifest["batches"], trainer.train_batches)
    for name, value in values.items():
        current[name].set(value)
    if trainer.mesh is not None:
        trainer.algorithm.mesh = trainer.mesh  # type: ignore[attr-defined]
    set_order(path, manifest["batches"], trainer.train_batches)
    trainer.epoch, trainer.step = manifest["epoch"], manifest["step"]
    trainer.history = History.from_dict(manifest["history"])
    return {
        "callbacks": [(name, unpack(state, arrays)) for name, state in manifest["callbacks"]],
    }


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest and the arrays of a file that `write` wrote."""
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a checkpoint: {error}") from error
    if _MANIFEST not in arrays:
        raise ValueError(
            (WEIGHTS if WEIGHTS_MANIFEST in arrays else NO_CHECKPOINT).format(path=path)
        )
    try:
        return json.loads(bytes(arrays.pop(_MANIFEST))), _Arrays(path, arrays)
    except ValueError as error:
        raise ValueError(f"{path} is not a checkpoint: {error}") from error


class _Arrays(dict[str, np.ndarray]):
    """The arrays of a checkpoint, by name; one that is not there is an error of the file."""

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]):
        super().__init__(arrays)
        self.path = path

    def __missing__(self, name: str) -> np.ndarray:
        raise ValueError(f"{self.path} is not a checkpoint: it lacks the array {name}")


def matched(
    path: Path,
    current: Mapping[str, Any],
    manifest: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    cls: str,
) -> dict[str, Any]:
    """The saved values of params, which must be those of `current` in name, shape and type."""
    values, differences = {}, []
    for name in sorted(current.keys() | manifest["params"].keys()):
        if name not in current or name not in manifest["params"]:
            where = "the algorithm" if name in current else "the file"
            differences.append(f"  {name}: only in {where}")
            continue
        kinds = manifest["params"][name]
        value, problem = restore(current[name], kinds, f"param/{name}", arrays)
        values[name] = value
        if problem:
            differences.append(f"  {name}: {problem}")
    if differences:
        rest = [f"  and {len(differences) - 8} more"] if len(differences) > 8 else []
        shown = "\n".join(differences[:8] + rest)
        raise ValueError(OTHER_ALGORITHM.format(path=path, cls=cls, differences=shown))
    return values


def load_callbacks(trainer: "Trainer", saved: dict[str, Any]) -> None:
    """Restore the states of the callbacks: each takes the next one saved for its class."""
    left = list(saved["callbacks"])
    for callback in trainer.callbacks:
        match = next((item for item in left if item[0] == type(callback).__name__), None)
        if match is not None:
            left.remove(match)
            callback.load_state(trainer, match[1])


# the order of batches

_FIELDS = ("batch_size", "shuffle", "seed", "drop_last")


def batch_order(batches: Any) -> dict[str, Any] | None:
    """The position in the order of the batches, if they know it."""
    epoch = getattr(batches, "epoch", None)
    if not isinstance(epoch, int):
        return None
    fields = {name: getattr(batches, name, None) for name in _FIELDS}
    return {"epoch": epoch, "batches": length(batches), **json.loads(json.dumps(fields))}


def check_order(path: Path, saved: dict[str, Any] | None, batches: Any) -> None:
    """Refuse batches that are not those of the run that was saved."""
    ours = batch_order(batches)
    if not saved or not ours:
        return
    differences = [
        f"{name} {saved[name]} (here {ours[name]})"
        for name in saved
        if name != "epoch" and saved[name] != ours[name]
    ]
    if differences:
        raise ValueError(OTHER_BATCHES.format(path=path, differences=", ".join(differences)))


def set_order(path: Path, saved: dict[str, Any] | None, batches: Any) -> None:
    """Go on where the run that was saved was in its batches."""
    if saved and batch_order(batches):
        batches.epoch = saved["epoch"]
    elif batches is not None and not isinstance(batches, list | tuple):
        warnings.warn(
            f"the order of the batches is not part of {path}: a {type(batches).__name__} does not "
            "know its position, so the resumed run may see the data in another order than an "
            "uninterrupted one. Batches of `pxt.batches` know theirs.",
            stacklevel=4,
        )
