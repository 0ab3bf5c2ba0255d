"""`History`: what a training run saw."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..utils._files import read_arrays, write_arrays, write_atomically

_FORMAT = 1


class Table:
    """Columns of numbers, filled row by row; what a row lacks is NaN."""

    def __init__(self, columns: Mapping[str, Sequence[float]] | None = None):
        self.columns: dict[str, list[float]] = {k: list(v) for k, v in (columns or {}).items()}

    def add(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Append rows."""
        size = len(self)
        for name in dict.fromkeys(name for row in rows for name in row):
            self.columns.setdefault(name, [math.nan] * size)
        for name, column in self.columns.items():
            column += [row.get(name, math.nan) for row in rows]

    def note(self, values: Mapping[str, float]) -> None:
        """Put more values into the last row."""
        for name, value in values.items():
            self.columns.setdefault(name, [math.nan] * len(self))[-1] = value

    def __len__(self) -> int:
        return max(map(len, self.columns.values()), default=0)


class History:
    """What a training run saw, by epoch, by batch and by inference step.

    `history["accuracy"]` is the column of a quantity over the epochs; `history.batch["energy"]`
    over the batches. There are, as far as they were measured:

        energy, accuracy, ...           means over the training batches of the epoch
        val_energy, val_accuracy, ...   of the validation batches, after the epoch
        lr, seconds                     the learning rate at the end of the epoch; its duration

    Attributes:
        vode_names: the vodes, in the order of recorded energies.
        inference: for each batch, where the algorithm records, the energy of each vode before each
            inference step and after the last, `(T + 1, vodes)`.

    Example:
        >>> import pcx.training as pxt
        >>> history = pxt.History()
        >>> for value in (0.5, 0.9, 0.8):
        ...     history.add_epoch({"val_accuracy": value})
        >>> history["val_accuracy"].tolist()
        [0.5, 0.9, 0.8]
        >>> history.best("val_accuracy"), history.last("val_accuracy")
        ((2, 0.9), 0.8)
    """

    def __init__(self) -> None:
        self.vode_names: tuple[str, ...] = ()
        self.inference: list[np.ndarray] = []
        self._epochs = Table()
        self._batches = Table()

    def add_epoch(self, row: Mapping[str, float]) -> None:
        """Append the numbers of an epoch."""
        self._epochs.add([{"epoch": len(self) + 1, **row}])

    def note(self, values: Mapping[str, float]) -> None:
        """Add quantities to the last epoch's numbers, as a callback does at the end of an epoch.

        Raises:
            ValueError: there is no epoch yet.
        """
        if not len(self):
            raise ValueError(
                "History.note adds to the last epoch's numbers, and there is no epoch yet"
            )
        self._epochs.note(values)

    def add_batches(
        self,
        epoch: int,
        rows: Sequence[Mapping[str, float]],
        energies: Sequence[np.ndarray] | np.ndarray = (),
    ) -> None:
        """Append the numbers of batches, and the energies recorded during their inference."""
        self._batches.add([{"epoch": epoch, **row} for row in rows])
        self.inference += [np.asarray(recorded) for recorded in energies]

    def __len__(self) -> int:
        """Number of epochs."""
        return len(self._epochs)

    def __contains__(self, name: object) -> bool:
        return name in self._epochs.columns

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._epochs.columns:
            known = ", ".join(self._epochs.columns) or "nothing yet"
            raise KeyError(f"the history has no {name!r}; it has {known}")
        return np.asarray(self._epochs.columns[name])

    @property
    def epoch(self) -> dict[str, np.ndarray]:
        """All columns over the epochs."""
        return {name: np.asarray(column) for name, column in self._epochs.columns.items()}

    @property
    def batch(self) -> dict[str, np.ndarray]:
        """All columns over the batches; "epoch" says to which epoch each belongs, from 1."""
        return {name: np.asarray(column) for name, column in self._batches.columns.items()}

    def best(self, name: str, mode: Literal["auto", "min", "max"] = "auto") -> tuple[int, float]:
        """The best epoch by a quantity, `(epoch, value)`, epochs counted from 1.

        Choosing an epoch by its test accuracy is choosing on test data: say so where you report it.

        Args:
            mode: whether small or large is good; "auto" is "max" for names with "acc" in them.
        """
        pick = np.nanargmax if better(name, mode)(1.0, 0.0) else np.nanargmin
        values = self[name]
        if np.all(np.isnan(values)):
            raise ValueError(f"the history has no value of {name!r} in any epoch")
        row = int(pick(values))
        return row + 1, float(values[row])

    def last(self, name: str) -> float:
        """The value of a quantity after the last epoch."""
        return float(self[name][-1])

    def inference_energies(self, epoch: int = -1) -> np.ndarray:
        """Mean over an epoch's batches of the recorded energies, `(T + 1, vodes)`.

        Args:
            epoch: number of the epoch from 1; -1 is the last.

        Raises:
            ValueError: nothing was recorded in that epoch.
        """
        numbers = np.asarray(self._batches.columns.get("epoch", []))
        wanted = len(self) + 1 + epoch if epoch < 0 else epoch
        # energies are recorded from some batch on, to the end
        offset = len(numbers) - len(self.inference)
        chosen = [
            energies
            for number, energies in zip(numbers[offset:], self.inference, strict=True)
            if number == wanted
        ]
        if not chosen:
            raise ValueError(
                f"no inference energies were recorded in epoch {wanted}; make the algorithm with "
                "`record=True`"
            )
        return np.mean(chosen, axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers."""
        return {
            "format": _FORMAT,
            "vode_names": list(self.vode_names),
            "epochs": {k: list(v) for k, v in self._epochs.columns.items()},
            "batches": {k: list(v) for k, v in self._batches.columns.items()},
            "inference": [np.asarray(e).tolist() for e in self.inference],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "History":
        """The inverse of `to_dict`."""
        history = cls()
        history.vode_names = tuple(data["vode_names"])
        history._epochs = Table(data["epochs"])
        history._batches = Table(data["batches"])
        history.inference = [np.asarray(e, np.float32) for e in data["inference"]]
        return history

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the history to a `.json` or `.npz` file (smaller, with many batches or inference
        steps).

        Raises:
            ValueError: another suffix.
        """
        path, data = _checked(path), self.to_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            write_atomically(path, lambda file: file.write(json.dumps(data).encode()))
            return
        inference = data.pop("inference")
        arrays = {
            f"{table}/{name}": np.asarray(column, np.float64)
            for table in ("epochs", "batches")
            for name, column in data.pop(table).items()
        }
        arrays |= {f"inference/{i}": np.asarray(e, np.float32) for i, e in enumerate(inference)}
        # an array of characters, so that no pickle is needed
        arrays["meta"] = np.frombuffer(json.dumps(data).encode(), np.uint8)
        write_arrays(path, arrays, compress=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "History":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is damaged or holds something else.
        """
        path = _checked(path)
        try:
            return cls.from_dict(_content(path))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no history of `History.save`: {error}") from error

    def plot(self, path: str | os.PathLike[str] | None = None, title: str = "") -> Any:
        """Draw accuracy, energy and what else there is over the epochs, and energies during
        inference.

        Args:
            path: where to save the figure, if anywhere; the suffix says the format.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from ._plot import plot_history

        figure = plot_history(self, title)
        if path is not None:
            figure.savefig(path)
        return figure

    def summary(self) -> str:
        """One line on the last epoch and the best one, which is which."""
        names = ("val_accuracy", "accuracy", "val_energy", "energy")
        name = next((n for n in names if n in self), None)
        if name is None:
            return "no epoch yet"
        epoch, value = self.best(name)
        return (
            f"{len(self)} epochs; {name}: last epoch {_number(name, self.last(name))}, "
            f"best {_number(name, value)} (epoch {epoch})"
        )

    def __repr__(self) -> str:
        return f"History({self.summary()})"


def better(name: str, mode: Literal["auto", "min", "max"] = "auto") -> Any:
    """A function `(new, old) -> bool`: whether a value of this quantity is better than another."""
    if mode not in ("auto", "min", "max"):
        raise ValueError(f'mode must be "auto", "min" or "max"; got {mode!r}')
    large = mode == "max" or (mode == "auto" and "acc" in name)
    return (lambda new, old: new > old) if large else (lambda new, old: new < old)


def _number(name: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in name else f"{value:.5g}"


def _content(path: Path) -> dict[str, Any]:
    """What `History.save` wrote, as `History.to_dict` has it."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    arrays = read_arrays(path)
    data = json.loads(bytes(arrays["meta"])) | {"epochs": {}, "batches": {}}
    for key, array in arrays.items():
        table, _, name = key.partition("/")
        if table in ("epochs", "batches"):
            data[table][name] = array.tolist()
    count = sum(key.startswith("inference/") for key in arrays)
    data["inference"] = [arrays[f"inference/{i}"] for i in range(count)]
    return data


def _checked(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix not in (".json", ".npz"):
        raise ValueError(f"a history is saved as .json or .npz, got {path.name!r}")
    return path
