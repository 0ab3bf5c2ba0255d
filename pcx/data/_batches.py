"""Mini-batches of arrays, in an order that can be had again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from pcx.data._augment import Augmentation
from pcx.data._samples import as_array, map_arrays, sample_count

Rkg = int | Callable[[], Any]


class Batches:
    """A data set cut into mini-batches; every `for` loop over it is one epoch. Made by `batches`.

    Epoch number e uses the order drawn from (seed, e) and nothing else. So a run that stopped after
    k epochs goes on exactly as it would have after `loader.epoch = k`.

    Attributes:
        epoch: the number the next epoch will have, 0 at first; each `for` loop that begins adds 1.
            It may be set.
        seed: the non-negative integers all orders are drawn from.

    Example:
        >>> import numpy as np
        >>> loader = batches(np.arange(50), np.arange(50), batch_size=25, shuffle=True)
        >>> first, second = ([x.tolist() for x, _ in loader] for _ in range(2))
        >>> loader
        Batches(samples=50, batch_size=25, batches=2, shuffle=True, epoch=2)
        >>> loader.epoch = 1  # once more the second epoch, whose order is not the first one's
        >>> [x.tolist() for x, _ in loader] == second, first == second
        (True, False)
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        batch_size: int,
        *,
        samples: int,
        shuffle: bool,
        seed: tuple[int, ...],
        drop_last: bool,
        transform: Augmentation | None,
    ) -> None:
        self.x = x
        self.y = y
        self.samples = samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.transform = transform
        self.epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.samples, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        # `begin` counts the epoch here and not in the generator: an epoch is begun by the loop, not
        # by its first batch, and counts also if the loop is left early.
        return self._epoch(*self.begin())

    def begin(self) -> tuple[list[Any], np.random.Generator]:
        """Begin an epoch: which samples each of its batches holds, and the generator for transforms.

        A `for` loop does this by itself. The rows are slices without shuffling, else integers.
        """
        epoch, self.epoch = self.epoch, self.epoch + 1
        rng = np.random.default_rng([*self.seed, epoch])
        order = rng.permutation(self.samples) if self.shuffle else None
        parts = [slice(n * self.batch_size, (n + 1) * self.batch_size) for n in range(len(self))]
        return (parts if order is None else [order[part] for part in parts]), rng

    def _epoch(self, parts: list[Any], rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
        for part in parts:
            x, y = self.take(part)
            yield (x if self.transform is None else self.transform(x, rng)), y

    def take(self, part: Any) -> tuple[Any, Any]:
        """The inputs and targets of some samples, without the transform."""
        if isinstance(self.x, np.ndarray) and isinstance(self.y, np.ndarray):
            return self.x[part], self.y[part]
        return map_arrays(lambda a: a[part], self.x), map_arrays(lambda a: a[part], self.y)

    def __repr__(self) -> str:
        return (
            f"Batches(samples={self.samples}, batch_size={self.batch_size}, batches={len(self)}, "
            f"shuffle={self.shuffle}, epoch={self.epoch})"
        )


def batches(
    x: Any = None,
    y: Any = None,
    batch_size: int = 128,
    shuffle: bool = False,
    *,
    rkg: Rkg = 0,
    drop_last: bool = False,
    transform: Augmentation | None = None,
) -> Batches:
    """Cut arrays into mini-batches, to be looped over once per epoch.

    Args:
        x: `(n, ...)`, the inputs: an array, or a tuple or dict of arrays for a model with several
            inputs; None for a model without input, such as a decoder: `batches(y=images)`.
        y: `(n, ...)`, the targets, in the same forms: a tuple for a model with several heads. For
            an autoencoder, whose input is its target, pass `x` again.
        batch_size: samples in a batch.
        shuffle: a new order in every epoch; it depends only on `rkg` and the epoch's number.
        rkg: an integer seed, or a `pcx.RandomKeyGenerator`, of which one key is drawn, now.
        drop_last: leave out the last batch of an epoch where it is smaller than the others, so that
            a jitted step compiles for one shape only.
        transform: a function `(x, rng) -> x` applied to the inputs of every batch, for example
            `augmentation("cifar10")`; `rng` is a NumPy generator that depends on seed and epoch
            only.

    Returns:
        An object with `len`, the number of batches, that yields pairs `(x, y)` of shapes
        `(batch_size, ...)` as often as it is looped over. Without shuffling they are views of the
        arrays given.

    Raises:
        ValueError: `x` and `y` differ in length, `batch_size` is not positive, the seed is
            negative, or no batch is left.
        TypeError: `rkg` is neither an integer nor callable, or `batch_size` is not an integer.

    Example:
        >>> import numpy as np
        >>> loader = batches(np.arange(5), np.arange(5) % 2, batch_size=2)
        >>> len(loader), [(x.tolist(), y.tolist()) for x, y in loader]
        (3, [([0, 1], [0, 1]), ([2, 3], [0, 1]), ([4], [0])])
        >>> [(x, y.tolist()) for x, y in batches(y=np.arange(3), batch_size=2)]  # for a decoder
        [(None, [0, 1]), (None, [2])]
    """
    inputs, targets = (
        map_arrays(lambda array: np.asarray(as_array(array, "x and y")), part) for part in (x, y)
    )
    samples = sample_count("batches", x=inputs, y=targets)
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
        raise TypeError(
            f"batches: batch_size={batch_size!r} is a {type(batch_size).__name__}; pass an integer."
        )
    if batch_size < 1:
        raise ValueError(f"batches: batch_size={batch_size}; it must be at least 1.")
    loader = Batches(
        inputs,
        targets,
        int(batch_size),
        samples=samples,
        shuffle=shuffle,
        seed=_seed(rkg) if shuffle or transform is not None else (0,),
        drop_last=drop_last,
        transform=transform,
    )
    if len(loader) == 0:
        raise ValueError(
            f"batches: {samples} samples make no batch of {batch_size} with "
            f"drop_last={drop_last}. Pass more samples, a smaller batch_size or drop_last=False."
        )
    return loader


def _seed(rkg: Rkg) -> tuple[int, ...]:
    if isinstance(rkg, (int, np.integer)):
        if rkg < 0:
            raise ValueError(f"batches: rkg={rkg}; a seed must be 0 or more.")
        return (int(rkg),)
    if not callable(rkg):
        raise TypeError(
            f"batches: rkg is a {type(rkg).__name__}; pass an integer seed or a "
            "RandomKeyGenerator, for example `rkg=0` or `rkg=px.RKG`."
        )
    key = rkg()
    if not isinstance(getattr(key, "dtype", np.dtype("uint32")), np.dtype):
        # a typed key, of a dtype that NumPy does not know
        key = jax.random.key_data(key)
    return tuple(int(word) for word in np.ravel(np.asarray(key)))
