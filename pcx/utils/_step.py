"""`step`: one phase of predictive coding (initialisation, an inference step, a learning step)."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from ..core import Mask, named_params
from ..predictive_coding import EnergyModule, Vode, energy_modules

UNKNOWN = """pxu.step: no rule of this {cls} mentions the status {status!r}, so it changes nothing \
in its vodes; known statuses: {known}."""

PAIR = """pxu.step: {name} is one value, or a tuple of two, {form}; got {got!r}."""


@contextlib.contextmanager
def step(model: Any, status: Any = None, clear_params: Any = None) -> Iterator[None]:
    """Run a block with a status set on a model, and clear temporaries when it ends.

    On exit, also when the block raises, every module has the status that it had before. Blocks
    nest.

    Args:
        model: an EnergyModule (or a tree of them).
        status: the status inside; or a tuple (inside, after) to leave another one behind.
        clear_params: a filter of params that are emptied when the block ends, such as
            `pxc.VodeParam.Cache`; or a tuple of two filters (before, after), either of them None.

    Raises:
        TypeError: a status that is no string, or a bad filter.
        ValueError: a tuple of another length than two. Nothing is changed then.

    Warns:
        UserWarning: once for each model and status, if none of its rules mentions the status.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> vode = pxc.Vode()
        >>> with pxu.step(vode, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        ...     _ = vode(jnp.ones(3))
        >>> vode.status is None, vode.h, vode.get("u") is None
        (True, VodeParam(f32[3]), True)
    """
    leaves_another = isinstance(status, tuple)
    status, status_after = _pair("status", "(inside, after)", status, (status, None))
    filters = _pair("clear_params", "(before, after)", clear_params, (None, clear_params))
    before, after = (None if f is None else Mask(f) for f in filters)
    for value in (status, status_after):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"pxu.step: a status is a string or None, got {value!r}")
    modules = energy_modules(model)
    if status is not None and (unknown := _if_unknown(model, modules, status)):
        # from here it is this generator, contextlib, the caller
        warnings.warn(unknown, stacklevel=3)
    previous = [module._status for module in modules]
    _clear(model, before)
    try:
        for module in modules:
            module._status = status
        yield
    finally:
        for module, old in zip(modules, previous, strict=True):
            module._status = status_after if leaves_another else old
        _clear(model, after)


def _pair(name: str, form: str, value: Any, of_one: tuple[Any, Any]) -> tuple[Any, Any]:
    """A tuple of two as it is; `of_one` for a single value."""
    if not isinstance(value, tuple):
        return of_one
    if len(value) != 2:
        raise ValueError(PAIR.format(name=name, form=form, got=value))
    return value


def _clear(model: Any, mask: Mask | None) -> None:
    if mask is None:
        return
    if isinstance(model, EnergyModule):
        model.clear_params(mask)
        return
    for _, param in named_params(model):
        if mask.select(param):
            param.set(None)


def _if_unknown(model: Any, modules: list[EnergyModule], status: str) -> str | None:
    """The warning about a status that no rule mentions; None if there is nothing to warn about."""
    vodes = [m for m in modules if isinstance(m, Vode)]
    if not vodes or any(v.ruleset.knows(status) for v in vodes):
        return None
    # the notes of a vode are shared with the copies that transforms make of it
    notes = vodes[0].notes
    if status in notes.warned:
        return None
    notes.warned |= {status}
    known = sorted({repr(s) for v in vodes for s in v.ruleset.statuses})
    return UNKNOWN.format(cls=type(model).__name__, status=status, known=", ".join(known))
