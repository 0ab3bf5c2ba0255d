"""`step`: one phase of predictive coding (initialisation, an inference step, a learning step)."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from ..core import Mask
from ..predictive_coding import EnergyModule, Vode, energy_modules

_warned: set[tuple[type, str]] = set()


@contextlib.contextmanager
def step(model: Any, status: Any = None, clear_params: Any = None) -> Iterator[None]:
    """Run a block with a status set on a model, and clear temporaries around it.

    On exit, also when the block raises, every module has the status that it had before; blocks nest.

    Args:
        model: an EnergyModule (or a tree of them).
        status: the status inside; or a tuple (inside, after).
        clear_params: a filter of params that are emptied before and after the block, such as
            `pxc.VodeParam.Cache`; or a tuple of two filters (before, after), either of them None.

    Raises:
        TypeError: a status that is no string, or a bad filter; nothing is changed then.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> vode = pxc.Vode()
        >>> with pxu.step(vode, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        ...     _ = vode(jnp.ones(3))
        >>> vode.status is None, vode.h, vode.get("u") is None
        (True, VodeParam(f32[3]), True)
    """
    after_status: tuple[Any, ...] = ()
    if isinstance(status, tuple):
        status, *rest = status
        after_status = tuple(rest)
    before, after = clear_params if isinstance(clear_params, tuple) else (clear_params, clear_params)
    masks = [None if f is None else Mask(f) for f in (before, after)]
    for value in (status, *after_status):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"pxu.step: a status is a string or None, got {value!r}")
    modules = energy_modules(model)
    if status is not None:
        _warn_if_unknown(model, modules, status)
    previous = [module._status for module in modules]
    _clear(model, modules, masks[0])
    try:
        for module in modules:
            module._status = status
        yield
    finally:
        for module, old in zip(modules, previous, strict=True):
            module._status = after_status[0] if after_status else old
        _clear(model, modules, masks[1])


def _clear(model: Any, modules: list[EnergyModule], mask: Mask | None) -> None:
    if mask is None:
        return
    if isinstance(model, EnergyModule):
        model.clear_params(mask)
        return
    for module in modules:
        module.clear_params(mask)


def _warn_if_unknown(model: Any, modules: list[EnergyModule], status: str) -> None:
    vodes = [m for m in modules if isinstance(m, Vode)]
    key = (type(model), status)
    if key in _warned or not vodes or any(v.ruleset.knows(status) for v in vodes):
        return
    _warned.add(key)
    known = sorted({str(s) for v in vodes for s in v.ruleset.statuses})
    warnings.warn(
        f"pxu.step: no rule of this {type(model).__name__} mentions the status {status!r}, so it changes "
        f"nothing in its vodes; known statuses: {', '.join(map(repr, known))}",
        stacklevel=4,
    )
