"""What is known during one compiled call: what initialisation left behind, and which gradients can be nonzero."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ...functional import jit
from ...predictive_coding import STATUS
from ._sample import Sample


class Observed(NamedTuple):
    """A forward initialisation: the model before it, the batch, and what each param held after it."""

    sample: Sample
    data: tuple[Any, Any]
    after: dict[int, Any]


class Session:
    """One compiled call of an algorithm."""

    observed: Observed | None = None
    # paths of the params whose gradient may be nonzero now; None: all
    live: frozenset[str] | None = None

    def __init__(self) -> None:
        self.traced: dict[Any, Callable[..., Any]] = {}


class _State(threading.local):
    session: Session | None = None


_state = _State()


@contextmanager
def session() -> Iterator[None]:
    """One compiled call: what is known in it is forgotten at its end, also if it raises."""
    outer, _state.session = _state.session, Session()
    try:
        yield
    finally:
        _state.session = outer


@contextmanager
def observe(x: Any, y: Any, model: Any) -> Iterator[None]:
    """Around a forward initialisation of a model's states, in place."""
    present = _state.session
    if present is None:
        yield
        return
    present.live = None
    sample = Sample(x, y, model, STATUS.INIT)
    yield
    after = {id(param): param._value for param in sample.params}
    present.observed = Observed(sample, (x, y), after)


def observed() -> Observed | None:
    """The last forward initialisation of this call."""
    return None if _state.session is None else _state.session.observed


def live() -> frozenset[str] | None:
    """Paths of the params whose gradient may be nonzero now; None: all of them."""
    return None if _state.session is None else _state.session.live


def set_live(paths: frozenset[str] | None) -> None:
    """Said by the inference loop, before each step and after the last."""
    if _state.session is not None:
        _state.session.live = paths


def traced_once(key: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function that JAX traces once for this call and this key (and for each structure of its arguments)."""
    session = _state.session
    if session is None:
        return fn
    if key not in session.traced:
        session.traced[key] = jit()(fn)
    return session.traced[key]
