"""Ctrl-C during training: held back while a step and its bookkeeping are under way."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

# A second Ctrl-C this many seconds after the first is obeyed at once: what holds it back hangs.
PATIENCE = 2.0


class Interrupts:
    """While `busy` is set, as at first, Ctrl-C waits for `release`; else it interrupts at once.

    A step changes the model, then the trainer counts it and callbacks hear of it. An interrupt
    between the two would leave a trainer that disagrees with its model. Signals reach the main
    thread only; elsewhere, and where Ctrl-C does not call a Python function, nothing is done.
    """

    def __init__(self) -> None:
        self.busy = True
        self._since: float | None = None
        self._previous: Any = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        # after another error that error is the one to tell
        if error is None:
            self.release()

    def release(self) -> None:
        """Let interrupts through again, and obey the one that waited."""
        self.busy = False
        if self._since is not None:
            self._since = None
            self._previous(signal.SIGINT, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.busy and (self._since is None or now - self._since < PATIENCE):
            self._since = self._since or now
            return
        self._since = None
        self._previous(number, frame)
