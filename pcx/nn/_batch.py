"""`training_batch` and `statistics`: what stays the same in all passes over one batch.

Predictive coding passes the same batch through the model T + 2 times. What a layer remembers of a
batch must not move T + 2 times, nor should the energy that is descended change from pass to pass.

Both functions change values of params, not a flag beside the model: a compiled function sees
another structure and cannot mistake one kind of pass for the other.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ..core import RKG, RandomKeyGenerator, named_params
from ._param import Held, HeldKey, StateParam


@contextlib.contextmanager
def training_batch(model: Any, rkg: RandomKeyGenerator = RKG) -> Iterator[None]:
    """Treat all passes inside the block as passes over one batch.

    The states of layers (the running statistics of `BatchNorm`) are held: every pass computes with
    those from before the batch. The passes inside `with pxnn.statistics(model, update=True)` make
    the new ones, which the model gets when the block ends: one update for a batch, in whichever
    pass, however often it runs. Without such a pass they stay.

    Layers with `hold=True`, such as `Dropout(0.5, hold=True)`, draw their random numbers once: the
    same in all passes, different for each sample and layer.

    The algorithms of `pcx.algorithms` do this. Outside of it every call in train mode updates.

    Args:
        model: any tree with layers. Inside a transform, a tracked (keyword) argument.
        rkg: where the keys of layers with `hold=True` come from.

    Example:
        >>> import pcx as px, pcx.nn as pxnn
        >>> class Count(px.Module):
        ...     def __init__(self):
        ...         self.calls = pxnn.StateParam(0)
        ...
        ...     def __call__(self, x):
        ...         self.calls.update(self.calls.get() + 1)
        ...         return x
        >>> layer = Count()
        >>> with pxnn.training_batch(layer):
        ...     with pxnn.statistics(layer, update=True):
        ...         _ = layer(1.0)  # forward initialisation
        ...     for _ in range(8):
        ...         _ = layer(1.0)  # inference
        >>> layer.calls.get()
        1
    """
    states, keys = _states(model), _params(model, HeldKey)
    # in a training batch already: the outer one governs
    keys = [key for key in keys if key.get() is None]
    for key in keys:
        key.set(rkg())
    try:
        with _replaced(states, _hold, lambda held, _: held.after):
            yield
    finally:
        for key in keys:
            key.set(None)


@contextlib.contextmanager
def statistics(model: Any, *, update: bool) -> Iterator[None]:
    """Say whether the passes inside the block update the states of layers.

    Args:
        model: any tree with layers.
        update: False: they are held, as in evaluation, whatever the mode. True: inside a
            `training_batch`, this is a pass that updates them; it begins with those from before
            the batch. Outside of one it changes nothing, since every call updates there.

    Example:
        >>> import jax.numpy as jnp, pcx.nn as pxnn
        >>> class Largest(pxnn.Identity):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.seen = pxnn.StateParam(jnp.zeros(()))
        ...
        ...     def __call__(self, x):
        ...         self.seen.update(jnp.maximum(self.seen.get(), jnp.max(x)))
        ...         return x
        >>> layer = Largest()
        >>> with pxnn.statistics(layer, update=False):
        ...     _ = layer(jnp.array([5.0]))
        >>> float(layer.seen)
        0.0
    """
    held = [param for param in _params(model, StateParam) if isinstance(param._value, Held)]
    free = [] if update else _states(model)

    def begin(value: Held) -> Held:
        after = value.before if update and not value.updates else value.after
        return Held(value.before, after, update)

    def end(value: Held, outer: Held) -> Held:
        return dataclasses.replace(value, updates=outer.updates)

    with _replaced(held, begin, end), _replaced(free, _hold, lambda value, _: value.before):
        yield


def _hold(value: Any) -> Held:
    return Held(value, value, False)


def _params(model: Any, kind: type) -> list[Any]:
    return [param for _, param in named_params(model) if isinstance(param, kind)]


def _states(model: Any) -> list[StateParam]:
    """The states that are not held yet."""
    return [
        param
        for param in _params(model, StateParam)
        if param._value is not None and not isinstance(param._value, Held)
    ]


@contextlib.contextmanager
def _replaced(
    params: list[Any], begin: Callable[[Any], Any], end: Callable[[Held, Any], Any]
) -> Iterator[None]:
    """Other values inside the block; if it raises, those from before come back."""
    old = [param._value for param in params]
    for param, value in zip(params, old, strict=True):
        param.set(begin(value))
    try:
        yield
    except BaseException:
        for param, value in zip(params, old, strict=True):
            param.set(value)
        raise
    for param, value in zip(params, old, strict=True):
        # a plain value was written by `set`: that is meant to stay
        if isinstance(param._value, Held):
            param.set(end(param._value, value))
