"""The params of layers."""

from ..core import Param


class LayerParam(Param):
    """A weight: learned by the weight optimiser, saved by `pxu.save_params`."""

    __slots__ = ()


class StateParam(Param):
    """State of a layer that is not learned, such as the running mean of a batch normalisation."""

    __slots__ = ()
