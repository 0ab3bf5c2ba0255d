"""The spellings of a mask: `M`, `m` and `Mask` are one class."""

from functools import reduce
from operator import and_
from typing import Any

from ..core import Mask

M = m = Mask


def M_is(*filters: Any) -> Mask:
    """`M(a) & M(b) & ...`: params that every filter selects; without filters, every param.

    Example:
        >>> import pcx as px, pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> small = lambda param: param < 1.5
        >>> pxu.M_is(pxc.VodeParam, small)([px.Param(1.0), pxc.VodeParam(1.0), pxc.VodeParam(2.0)])
        [None, VodeParam(1.0), None]
    """
    return reduce(and_, map(Mask, filters or (None,)))


def M_has(filter: Any, **attributes: Any) -> Mask:
    """`M(filter).has(**attributes)`: params of this kind (None: of any) with these attributes.

    Example:
        >>> import pcx.predictive_coding as pxc, pcx.utils as pxu
        >>> hidden, clamped = pxc.VodeParam(1.0), pxc.VodeParam(2.0)
        >>> clamped.frozen = True
        >>> pxu.M_has(pxc.VodeParam, frozen=True)([hidden, clamped])
        [None, VodeParam(2.0, frozen=True)]
    """
    return Mask(filter).has(**attributes)


def M_hasnot(filter: Any, **attributes: Any) -> Mask:
    """`M(filter).hasnot(**attributes)`: params of this kind (None: of any) with none of these attributes.

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
