"""Giving the memory of arrays to XLA without losing them when a call is interrupted."""

import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp


def unshared(values: Sequence[Any]) -> list[Any]:
    """Copies in place of arrays that anything else holds as well.

    A donated array is gone after the call. One that only its param holds is never missed; one that
    is also in a user's variable, in another param or in another model must stay. References are
    counted by the interpreter, so this is exact and costs next to nothing; where they cannot be
    counted, every array is copied.
    """
    return [jnp.copy(v) if sys.getrefcount(v) > _ALONE else v for v in values]


def _count_alone() -> int:
    """What `sys.getrefcount` says in `unshared` of an array that only its param holds.

    0, which is below every count, where counting is not exact: without the global interpreter
    lock, or if one more holder is not counted as one more.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return 0
    look = lambda values: [sys.getrefcount(v) for v in values]
    holder = [object()]
    values = [holder[0]]
    (alone,) = look(values)
    variable = holder[0]
    (with_variable,) = look(values)
    held = [variable]
    del variable
    (with_list,) = look(values)
    del held
    return alone if with_variable == with_list == alone + 1 else 0


_ALONE = _count_alone()


class Interrupts(threading.local):
    """Holds back Python's signal handlers, `KeyboardInterrupt` among them, in the main thread.

    Between donating the old arrays and storing the new ones, an exception would leave a model of
    deleted arrays. `start` may be called more than once; `stop` runs what came in between.
    """

    def __init__(self) -> None:
        self.handlers: dict[int, Any] = {}
        self._caught: list[tuple[int, Any]] = []

    def start(self) -> None:
        """From now on signals wait."""
        if self.handlers or threading.current_thread() is not threading.main_thread():
            return
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) and not isinstance(handler, signal.Handlers):
                self.handlers[number] = handler
                signal.signal(number, self._catch)

    def _catch(self, number: int, frame: Any) -> None:
        self._caught.append((number, frame))

    def stop(self) -> None:
        """Put the handlers back, and run them for the signals that waited."""
        for number, handler in self.handlers.items():
            if signal.getsignal(number) == self._catch:
                signal.signal(number, handler)
        handlers, self.handlers = self.handlers, {}
        caught, self._caught = self._caught, []
        for number, frame in caught:
            handlers[number](number, frame)


INTERRUPTS = Interrupts()
