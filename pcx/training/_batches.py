"""Batches from any iterable, checked."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ..data import one_hot
from ..data._samples import as_array, map_arrays, sample_count
from ..utils._mesh import own_part

NOT_A_PAIR = """{what} must give pairs `(x, y)`; batch {number} is {got}. Give a tuple of inputs and \
targets, each an array or a tuple or dict of arrays; for a model without input write `(None, y)`, for \
targets that are the inputs `(x, x)`."""

EXHAUSTED = """epoch {epoch} got no batch: `{what}` is a {cls}, which gives its batches once and \
is used up. Give something that can be looped over again: a list of batches, `pxt.batches(x, y, \
batch_size)`, a torch DataLoader, or an object whose `__iter__` starts afresh. For a generator \
without end pass `steps_per_epoch=`."""

EMPTY = """epoch {epoch} got no batch: `{what}` is an empty {cls}."""

CLASS_NUMBERS = """the targets are class numbers, {dtype} of shape {shape}. If the output vode is \
to hold one-hot vectors, write `pxt.Trainer(..., classes=n)`, or give the batches \
`pcx.data.one_hot(y, n)`."""

SEVERAL_TARGETS = """classes={classes} turns one array of class numbers into one-hot vectors, but \
the targets are {got}. Give the batches `pcx.data.one_hot(y, n)` for each head that needs it, and leave \
out `classes=`."""

_ARRAYS = (np.ndarray, jax.Array)


def pairs(
    batches: Iterable[Any], what: str, classes: int | None, steps: int | None = None
) -> Iterator[tuple[Any, Any, int]]:
    """`(x, y, size)` of each batch; x and y are arrays, or tuples and dicts of arrays.

    Args:
        batches: the iterable, called `what` in errors.
        classes: turn integer targets into one-hot vectors of this length.
        steps: take at most so many.
    """
    iterator: Any = iter(batches)
    # An iterator that was made here, one with a worker thread for example, ends with the epoch; one
    # that the caller made may serve for the next epoch.
    close = getattr(iterator, "close", None) if iterator is not batches else None
    with contextlib.closing(iterator) if close else contextlib.nullcontext():
        for number, batch in enumerate(itertools.islice(iterator, steps), start=1):
            yield pair(batch, what, number, classes)


def pair(batch: Any, what: str, number: int, classes: int | None) -> tuple[Any, Any, int]:
    """`(x, y, size)` of one batch."""
    if isinstance(batch, Mapping | str | np.ndarray | jax.Array) or not _is_pair(batch):
        raise TypeError(NOT_A_PAIR.format(what=what, number=number, got=describe(batch)))
    x, y = batch
    if isinstance(x, _ARRAYS) and isinstance(y, _ARRAYS) and x.ndim and y.ndim:
        size = x.shape[0]
        if y.shape[0] != size:
            sample_count(f"{what}, batch {number}", x=x, y=y)
    else:
        x, y = map_arrays(as_array, x), map_arrays(as_array, y)
        if x is None and y is None:
            raise TypeError(NOT_A_PAIR.format(what=what, number=number, got="(None, None)"))
        size = sample_count(f"{what}, batch {number}", x=x, y=y)
    if classes is not None:
        if not isinstance(y, _ARRAYS):
            raise TypeError(SEVERAL_TARGETS.format(classes=classes, got=describe(y)))
        if is_class_numbers(y):
            y = one_hot(y, classes)
    return x, y, size


def is_class_numbers(y: Any) -> bool:
    """Whether targets are integers, one for each sample."""
    return isinstance(y, _ARRAYS) and y.ndim == 1 and np.issubdtype(y.dtype, np.integer)


@contextlib.contextmanager
def class_numbers_noted(y: Any) -> Iterator[None]:
    """Say in an error of a training step what class numbers as targets need."""
    try:
        yield
    except ValueError as error:
        if is_class_numbers(y):
            error.add_note(CLASS_NUMBERS.format(dtype=y.dtype, shape=tuple(np.shape(y))))
        raise


def is_one_hot(y: Any) -> bool:
    """Whether targets are unit vectors, one for each sample."""
    if not isinstance(y, _ARRAYS) or y.ndim != 2 or y.shape[1] < 2:
        return False
    values = own_part(y)
    return bool(np.all((values == 0) | (values == 1)) and np.all(values.sum(axis=1) == 1))


def nothing(batches: Any, what: str, epoch: int) -> ValueError:
    """The error for an epoch without batches."""
    message = EXHAUSTED if isinstance(batches, Iterator) else EMPTY
    return ValueError(message.format(epoch=epoch, what=what, cls=type(batches).__name__))


def length(batches: Any, steps: int | None = None) -> int | None:
    """Number of batches in an epoch, if it can be known."""
    try:
        size = len(batches)
    except TypeError:
        return steps
    return size if steps is None else min(size, steps)


def describe(batch: Any) -> str:
    """What a batch is, in a few words."""
    if isinstance(batch, Mapping):
        return f"a dict with {', '.join(map(repr, batch))}"
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {len(batch)}"
    shape = getattr(batch, "shape", None)
    return f"a {type(batch).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")


def _is_pair(batch: Any) -> bool:
    try:
        return len(batch) == 2
    except TypeError:
        return False
