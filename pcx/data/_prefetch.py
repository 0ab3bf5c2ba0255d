"""Batches made and moved to the device ahead of the training step that uses them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import jax


class Prefetch:
    """An iterable whose batches are made by a thread, some ahead. Made by `prefetch`."""

    def __init__(self, batches: Iterable[Any], ahead: int, device: Any) -> None:
        self.batches, self.ahead, self.device = batches, ahead, device

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        # what a checkpoint asks of `pxt.batches`: epoch, seed, batch_size ...
        if name.startswith("__") or name == "batches":
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "epoch":
            setattr(self.batches, name, value)
        else:
            super().__setattr__(name, value)

    def __iter__(self) -> Iterator[Any]:
        # begun by the loop, as without prefetching, and not by the thread
        return _run(iter(self.batches), self.ahead, self.device)

    def __repr__(self) -> str:
        return f"prefetch({self.batches!r}, ahead={self.ahead})"


def prefetch(batches: Iterable[Any], ahead: int = 2, *, device: Any = None) -> Prefetch:
    """Make batches in a thread and move them to the device, while the last ones are computed on.

    Args:
        batches: any iterable of batches, such as `batches(...)` with a transform, or a torch
            DataLoader whose items are arrays.
        ahead: how many batches to make ahead of the one in use.
        device: where to put them; None for JAX's default device.

    Returns:
        An iterable of the same batches in the same order. An error in `batches` is raised where its
        batch would have come. When a loop over it ends, also by an error, its thread ends too.

    Raises:
        ValueError: `ahead` is not positive.

    Example:
        >>> import numpy as np
        >>> from pcx.data import batches
        >>> loader = prefetch(batches(np.arange(4), np.arange(4), 2))
        >>> [(x.tolist(), y.tolist()) for x, y in loader]
        [([0, 1], [0, 1]), ([2, 3], [2, 3])]
    """
    if ahead < 1:
        raise ValueError(f"prefetch: ahead={ahead}; it must be at least 1.")
    return Prefetch(batches, ahead, device)


_END = object()


def _run(iterator: Iterator[Any], ahead: int, device: Any) -> Iterator[Any]:
    made: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(ahead)
    stop = threading.Event()

    def put(item: Any, error: BaseException | None) -> None:
        while not stop.is_set():
            try:
                made.put((item, error), timeout=0.05)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in iterator:
                put(jax.device_put(batch, device), None)
                if stop.is_set():
                    return
            put(_END, None)
        except BaseException as error:
            put(_END, error)

    thread = threading.Thread(target=work, name="pcx-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
