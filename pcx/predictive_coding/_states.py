"""The nodes of a model, and their states, all at once."""

from typing import Any

from ..core import named_params
from ._arguments import VodeParam
from ._clamp import clamp_of
from ._energy_module import energy_modules
from ._vode import Vode


def vodes(model: Any) -> list[Vode]:
    """The vodes of a model, each once, in the order of their paths.

    Example:
        >>> import pcx.models as pxm, pcx.predictive_coding as pxc
        >>> [vode.shape for vode in pxc.vodes(pxm.MLP([2, 8, 3]))]
        [(8,), (3,)]
    """
    found: dict[int, Vode] = {}
    for module in energy_modules(model):
        if isinstance(module, Vode):
            found.setdefault(id(module.h), module)
    return list(found.values())


def vode_paths(model: Any) -> tuple[str, ...]:
    """The path of each vode of a model, in the order of `vodes(model)`; "" for a vode itself."""
    paths = {id(param): path for path, param in named_params(model)}
    return tuple(paths[id(vode.h)].removesuffix("h").removesuffix(".") for vode in vodes(model))


def free_states(model: Any) -> list[VodeParam]:
    """The states that inference may move: those with a value that are not frozen.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> model = pxm.MLP([2, 8, 3])
        >>> with pxu.step(model, pxc.STATUS.INIT):
        ...     _ = model(jnp.ones(2))
        >>> pxc.free_states(model)  # the output is frozen
        [VodeParam(f32[8])]
    """
    return [v.h for v in vodes(model) if not v.is_frozen and v.h.get() is not None]


def reclamp(model: Any) -> None:
    """Put the clamped entries of all states back at their values (see `Clamp`).

    A step of an optimiser leaves entries without a gradient alone, unless it decays or adds noise.
    Call this after such a step, before the caches are cleared; the algorithms do.

    Args:
        model: any tree of vodes. Those without a `Clamp` in this pass are left alone.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.Vode((2,)).set("h", jnp.zeros(2))
        >>> vode = vode.clamp(jnp.array([5.0, 5.0]), jnp.array([True, False]))
        >>> vode.h += 0.25  # noise
        >>> pxc.reclamp(vode)
        >>> vode.h.tolist()
        [5.0, 0.25]
    """
    for vode in vodes(model):
        clamp, h = clamp_of(vode), vode.h.get()
        if clamp is not None and h is not None:
            vode.h.set(clamp(h))
