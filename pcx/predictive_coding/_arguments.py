"""What a `Vode` is made of: its param, its settings, and how its constructor reads its arguments."""

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..core import Param, ParamCache, ParamDict
from ._energy import se_energy
from ._rules import Ruleset

# `(vode, rkg) -> array` of h's shape
EnergyFn = Callable[[Any, Any], Any]


class VodeParam(Param):
    """The state of a vode. Subclass it to tell nodes apart in masks.

    Example:
        >>> import pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> class Latent(pxc.VodeParam):
        ...     pass
        >>> nodes = [pxc.Vode((2,)), pxc.Vode((2,), param_type=Latent)]
        >>> [pxu.M(Latent).select(vode.h) for vode in nodes]
        [False, True]
    """

    __slots__ = ()

    class Cache(ParamDict, ParamCache):
        """The temporaries of a vode: predictions and remembered results."""

        __slots__ = ()


class Notes:
    """What is learned about a vode while it is used; takes no part in comparison or compilation.

    The copies of a vode that transforms make share it, so what is seen inside one is known outside.
    """

    event_shape: tuple[int, ...] | None = None
    # statuses about which `pxu.step` has warned
    warned: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Config:
    """What of a vode never changes; one static object, so that a call compares one thing."""

    energy_fn: EnergyFn | None
    ruleset: Ruleset
    shape: tuple[int, ...] | None
    notes: Notes = field(default_factory=Notes, compare=False, repr=False)


def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments by name; a leading int, tuple or list is the shape."""
    shape_first = bool(args) and isinstance(args[0], int | tuple | list)
    try:
        bound = (SHAPE_FIRST if shape_first else _ENERGY_FIRST).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"Vode: {error}; its arguments are {SHAPE_FIRST}") from None
    bound.apply_defaults()
    arguments = bound.arguments
    check_energy_fn(arguments["energy_fn"])
    param_type = arguments["param_type"]
    if not (isinstance(param_type, type) and issubclass(param_type, VodeParam)):
        raise TypeError(f"param_type must be a subclass of VodeParam; got {param_type!r}")
    arguments["shape"] = _event_shape(arguments["shape"])
    return arguments


def _leading(
    shape: Any = None,
    energy_fn: Any = se_energy,
    ruleset: Any = None,
    tforms: Any = None,
    param_type: Any = VodeParam,
) -> None:
    """The constructor's arguments."""


SHAPE_FIRST = inspect.signature(_leading)
_SHAPE, *_OTHERS = SHAPE_FIRST.parameters.values()
_ENERGY_FIRST = inspect.Signature([*_OTHERS, _SHAPE.replace(kind=inspect.Parameter.KEYWORD_ONLY)])


def check_energy_fn(energy_fn: Any) -> None:
    """Refuse what cannot be called as an energy function."""
    if energy_fn is None:
        return
    what = "energy_fn must be a function (vode, rkg) -> array, or None"
    if not callable(energy_fn):
        raise TypeError(f"{what}; got {energy_fn!r}")
    try:
        signature = inspect.signature(energy_fn)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(None, None)
    except TypeError:
        name = getattr(energy_fn, "__name__", repr(energy_fn))
        raise TypeError(f"{what}; got `{name}{signature}`") from None


def _event_shape(shape: Any) -> tuple[int, ...] | None:
    if shape is None:
        return None
    try:
        dims = tuple(map(operator.index, shape if isinstance(shape, tuple | list) else (shape,)))
    except TypeError:
        dims = (-1,)
    if isinstance(shape, bool) or min(dims, default=0) < 0:
        raise TypeError(
            f"the shape of a vode is a tuple of ints, such as Vode((128,)); got {shape!r}"
        )
    return dims
