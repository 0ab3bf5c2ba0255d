"""The params of layers."""

from ..core import Param


class LayerParam(Param):
    """A weight: learned by the weight optimiser, saved by `pxu.save_params`.

    Example:
        >>> import pcx as px, pcx.nn as pxnn, pcx.predictive_coding as pxc
        >>> model = [pxnn.Linear(3, 2), pxc.Vode((2,))]
        >>> [w.shape for w in px.tree_extract(model, pxnn.LayerParam)]  # not the state of the vode
        [(2, 3), (2,)]
    """

    __slots__ = ()


class StateParam(Param):
    """State of a layer that is not learned, such as the running mean of a batch normalisation.

    Example:
        >>> import pcx.nn as pxnn, pcx.utils as pxu
        >>> norm, learned = pxnn.BatchNorm(3, axis_name="batch"), pxu.M(pxnn.LayerParam)
        >>> learned.select(norm.nn.weight), learned.select(norm.state)
        (True, False)
    """

    __slots__ = ()
