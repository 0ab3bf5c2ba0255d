"""The spellings of a mask: `M`, `m` and `Mask` are one class."""

from typing import Any

from ..core import Mask

M = m = Mask


def M_is(filter: Any) -> Mask:
    """`M(filter)`.

    Example:
        >>> import pcx as px, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> pxu.M_is(pxc.VodeParam)([px.Param(1.0), pxc.VodeParam(2.0)])
        [None, VodeParam(2.0)]
    """
    return Mask(filter)


def M_has(filter: Any, **attributes: Any) -> Mask:
    """`M(filter).has(**attributes)`: params of this kind that carry these attributes.

    Example:
        >>> import pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> hidden, clamped = pxc.VodeParam(1.0), pxc.VodeParam(2.0)
        >>> clamped.frozen = True
        >>> pxu.M_has(pxc.VodeParam, frozen=True)([hidden, clamped])
        [None, VodeParam(2.0, frozen=True)]
    """
    return Mask(filter).has(**attributes)


def M_hasnot(filter: Any, **attributes: Any) -> Mask:
    """`M(filter).hasnot(**attributes)`: params of this kind that do not carry these attributes.

    Example:
        >>> import pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> free = pxu.M_hasnot(pxc.VodeParam, frozen=True).to((False, True))
        >>> param = pxc.VodeParam(1.0)
        >>> free(param)
        True
        >>> param.frozen = True
        >>> free(param)
        False
    """
    return Mask(filter).hasnot(**attributes)
