"""Batches from any iterable, checked."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ..data import one_hot

NOT_A_PAIR = """{what} must give pairs `(x, y)`; batch {number} is {got}. Give a tuple of two \
arrays; for a model without input write `(None, y)`, for targets that are the inputs `(x, x)`."""

EXHAUSTED = """epoch {epoch} got no batch: `{what}` is a {cls}, which gives its batches once and \
is used up. Give something that can be looped over again: a list of batches, `pxt.batches(x, y, \
batch_size)`, a torch DataLoader, or an object whose `__iter__` starts afresh. For a generator \
without end pass `steps_per_epoch=`."""

EMPTY = """epoch {epoch} got no batch: `{what}` is an empty {cls}."""

CLASS_NUMBERS = """the targets are class numbers, {dtype} of shape {shape}. If the output vode is \
to hold one-hot vectors, write `pxt.Trainer(..., classes=n)`, or give the batches \
`pcx.data.one_hot(y, n)`."""


def pairs(
    batches: Iterable[Any], what: str, classes: int | None, steps: int | None = None
) -> Iterator[tuple[Any, Any, int]]:
    """`(x, y, size)` of each batch, as arrays.

    Args:
        batches: the iterable, called `what` in errors.
        classes: turn integer targets into one-hot vectors of this length.
        steps: take at most so many.
    """
    for number, batch in enumerate(itertools.islice(batches, steps), start=1):
        if isinstance(batch, Mapping | str | np.ndarray | jax.Array) or not _is_pair(batch):
            raise TypeError(NOT_A_PAIR.format(what=what, number=number, got=_describe(batch)))
        x, y = _arrays(batch[0]), _arrays(batch[1])
        leaves = jax.tree_util.tree_leaves((x, y))
        if not leaves:
            raise TypeError(NOT_A_PAIR.format(what=what, number=number, got="(None, None)"))
        if classes is not None and is_class_numbers(y):
            y = one_hot(y, classes)
        yield x, y, int(np.shape(leaves[0])[0])


def is_class_numbers(y: Any) -> bool:
    """Whether targets are integers, one for each sample."""
    dtype = getattr(y, "dtype", None)
    return dtype is not None and np.ndim(y) == 1 and np.issubdtype(dtype, np.integer)


def is_one_hot(y: Any) -> bool:
    """Whether targets are unit vectors, one for each sample."""
    if np.ndim(y) != 2 or np.shape(y)[1] < 2:
        return False
    values = np.asarray(y)
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


def _is_pair(batch: Any) -> bool:
    try:
        return len(batch) == 2
    except TypeError:
        return False


def _arrays(value: Any) -> Any:
    if value is None or isinstance(value, np.ndarray | jax.Array):
        return value
    if isinstance(value, Mapping | tuple):
        return jax.tree_util.tree_map(_arrays, value)
    # torch tensors and lists of numbers among them
    return np.asarray(value)


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a dict with {', '.join(map(repr, batch))}"
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {len(batch)}"
    shape = getattr(batch, "shape", None)
    return f"a {type(batch).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
