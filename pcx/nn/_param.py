"""The params of layers."""

import dataclasses
from typing import Any, Self

import jax

from ..core import Param, RandomKey


class LayerParam(Param):
    """A weight: learned by the weight optimiser, saved by `pxu.save_params`.

    Example:
        >>> import pcx as px, pcx.nn as pxnn, pcx.predictive_coding as pxc
        >>> model = [pxnn.Linear(3, 2), pxc.Vode((2,))]
        >>> [w.shape for w in px.tree_extract(model, pxnn.LayerParam)]  # not the state of the vode
        [(2, 3), (2,)]
    """

    __slots__ = ()


class BufferParam(Param):
    """An array of a layer that is not learned, such as the indices of a fixed permutation.

    No mask of weights selects it, so no optimiser and no gradient touches it. `Layer` makes one of
    every integer or boolean array of the module that it wraps; in a module of your own write
    `self.index = pxnn.BufferParam(index)`. (An array that is in no param is data too, but nothing
    saves it, and a transform does not keep what is assigned to it.)

    Example:
        >>> import jax.numpy as jnp, pcx as px, pcx.nn as pxnn
        >>> class Permute(px.Module):
        ...     def __init__(self, index):
        ...         self.index = pxnn.BufferParam(jnp.asarray(index))
        ...
        ...     def __call__(self, x):
        ...         return x[self.index.get()]
        >>> layer = Permute([2, 0, 1])
        >>> layer(jnp.array([1.0, 2.0, 3.0])).tolist()
        [3.0, 1.0, 2.0]
        >>> px.tree_extract(layer, pxnn.LayerParam)
        ()
    """

    __slots__ = ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Held:
    """The value of a `StateParam` while `training_batch` holds it.

    Attributes:
        before: from before the batch; what a pass that holds it computes with.
        after: what the batch makes of it.
        updates: whether the present pass is the one that updates it.
    """

    before: Any
    after: Any
    updates: bool = dataclasses.field(metadata={"static": True})

    @property
    def current(self) -> Any:
        """What a layer computes with in the present pass."""
        return self.after if self.updates else self.before


class StateParam(Param):
    """State of a layer that is not learned, such as the running mean of a batch normalisation.

    A layer of your own writes its new state by `update`, so that it moves once for each batch, not
    in every pass of inference.

    Example:
        >>> import pcx.nn as pxnn, pcx.utils as pxu
        >>> norm, learned = pxnn.BatchNorm(3, axis_name="batch"), pxu.M(pxnn.LayerParam)
        >>> learned.select(norm.nn.weight), learned.select(norm.state)
        (True, False)
    """

    __slots__ = ()

    def get(self) -> Any:
        """The value; in a `training_batch` the one that the present pass computes with."""
        value = super().get()
        return value.current if isinstance(value, Held) else value

    def _operand(self, operator: str) -> Any:
        value = super()._operand(operator)
        return value.current if isinstance(value, Held) else value

    def update(self, value: Any) -> Self:
        """As `set`, but without effect in a pass that holds the state (see `pxnn.statistics`)."""
        held = self._value
        if not isinstance(held, Held):
            return self.set(value)
        return self.set(dataclasses.replace(held, after=value)) if held.updates else self


class HeldKey(RandomKey):
    """The random key of a layer with `hold=True`: empty outside of `training_batch`."""

    __slots__ = ()
    per_element = True
