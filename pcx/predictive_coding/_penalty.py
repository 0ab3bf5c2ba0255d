"""Regularisers: energy terms that a model holds as attributes."""

from typing import Any

import jax.numpy as jnp

from ..core import Mask, Param, named_params
from ..nn import LayerParam
from ._energy import NO_PREDICTION, where
from ._energy_module import EnergyModule
from ._stack import Stack
from ._states import vodes

UNHELD = """{cls} is not part of a model's energy yet. Hold it as an attribute of the model, \
`model.decay = pxc.{cls}(1e-3)`, and ask for the energy of the model: it acts on everything in the \
module that holds it"""


class Penalty(EnergyModule):
    """A term of the energy that speaks of the whole module that holds it: `strength * R(model)`.

    Hold it as an attribute: `model.decay = pxc.WeightDecay(1e-3)`. For one of your own subclass it
    and override `penalty`. It is part of the energy of every sample, so of its mean over a batch
    once: a gradient that is averaged over the batch, as the algorithms' are, has it once too. The
    energies of single vodes (`record=True`) do not contain it.

    Args:
        strength: a number; kept in a `Param`, so changing it compiles nothing again.
        filter: which params it speaks of, where it speaks of params. Frozen ones never count.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.predictive_coding as pxc
        >>> class Sparse(pxc.Penalty):
        ...     def penalty(self, model):
        ...         return sum(jnp.sum(jnp.abs(vode.get("h"))) for vode in pxc.vodes(model))
        >>> model = pxm.Chain([lambda x: 2 * x], [(2,)])
        >>> model.sparse = Sparse(0.5)
        >>> model.status = pxc.STATUS.INIT
        >>> _ = model(jnp.array([1.0, -3.0]))
        >>> float(model.energy())  # 0.5 (2 + 6)
        4.0
    """

    # the module that holds it, in the running trace; copies start without
    __slots__ = ("_holder",)

    def __init__(self, strength: float, filter: Any = LayerParam):
        if not (isinstance(strength, int | float) and strength >= 0):
            raise ValueError(f"{type(self).__name__}: strength is a number >= 0; got {strength!r}")
        self.strength = Param(jnp.asarray(strength, float))
        Mask(filter)  # refuses what is no filter
        self.filter = filter

    def _held_by(self, holder: EnergyModule) -> None:
        # not a write that a transform should track: the holder lives as long as this copy
        object.__setattr__(self, "_holder", holder)

    def penalty(self, model: Any) -> Any:
        """What is penalised in a model, a scalar (one per sample if states have batch axes)."""
        raise NotImplementedError(f"{type(self).__name__} must override `penalty(model)`")

    def energy(self) -> Any:
        """`strength * penalty(model)` for the module that holds it.

        Raises:
            ValueError: no module holds it.
        """
        holder = getattr(self, "_holder", None)
        if holder is None:
            raise ValueError(UNHELD.format(cls=type(self).__name__))
        return self.strength.get() * self.penalty(holder)

    def weights(self, model: Any) -> list[tuple[Any, int]]:
        """The params that the filter selects in a model, each with its number of layer axes.

        That is 1 for the params of a `Stack`, which have one value for each layer, else 0.

        Raises:
            ValueError: the filter selects nothing.
        """
        stacked = {id(p) for stack in model.modules(Stack) for p in stack.stacked()}
        select = Mask(self.filter).select
        found = [param for _, param in named_params(model) if select(param)]
        if not found:
            raise ValueError(
                f"{type(self).__name__}: the filter {self.filter!r} selects no param of this "
                f"{type(model).__name__}, so there is nothing to penalise"
            )
        return [
            (param, int(id(param) in stacked))
            for param in found
            if not param.__dict__.get("frozen", False)
        ]

    def _summary(self) -> str:
        return f"{type(self).__name__}()"


class ActivityDecay(Penalty):
    """Half the squared norm of the states, `strength * sum_l 1/2 |h_l|^2`, over vodes that are free.

    Args:
        strength: of the penalty; in its equation for the states it adds `strength * h_l`.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.predictive_coding as pxc
        >>> model = pxm.Chain([lambda x: x, lambda x: x], [(2,), (2,)])
        >>> model.decay = pxc.ActivityDecay(0.1)
        >>> model.status = pxc.STATUS.INIT
        >>> _ = model(jnp.array([3.0, 4.0]))  # the output is frozen
        >>> round(float(model.energy()), 4)
        1.25

    References:
        Innocenti et al., JPC, 2024.
    """

    def __init__(self, strength: float):
        super().__init__(strength)

    def penalty(self, model: Any) -> Any:
        """`sum_l 1/2 |h_l|^2`."""
        total: Any = 0.0
        for vode in vodes(model):
            if vode.is_frozen:
                continue
            if (h := vode.get("h")) is None:
                raise ValueError(NO_PREDICTION.format(where=where(vode), what="state h"))
            total = total + 0.5 * vode.sum_over_event(jnp.square(h))
        return total


class WeightDecay(Penalty):
    """The squared norm of the weights, `strength * sum_l |W_l|^2`.

    Args:
        strength: of the penalty; its gradient is `2 * strength * W_l`.
        filter: which params; those with at least two axes (biases and gains have one) count.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.predictive_coding as pxc
        >>> model = pxm.MLP([2, 2])
        >>> model.decay = pxc.WeightDecay(0.5)
        >>> _ = model.layers[0].nn.weight.set(jnp.eye(2))
        >>> model.status = pxc.STATUS.INIT
        >>> _ = model(jnp.ones(2))
        >>> float(model.energy())
        1.0

    References:
        Innocenti et al., JPC, 2024.
    """

    def penalty(self, model: Any) -> Any:
        """`sum_l |W_l|^2`."""
        total: Any = 0.0
        for weight, layers in self.weights(model):
            if weight.ndim - layers >= 2:
                total = total + jnp.sum(jnp.square(weight.get()))
        return total


class SpectralPenalty(Penalty):
    """How far the weights are from orthogonal, `strength * sum_l |W_l^T W_l - I|^2`.

    The norm is Frobenius', so the sum is over `(s^2 - 1)^2` of the singular values s.

    Args:
        strength: of the penalty.
        filter: which params; those that are matrices count.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.predictive_coding as pxc
        >>> model = pxm.MLP([2, 2])
        >>> model.penalty = pxc.SpectralPenalty(1.0)
        >>> _ = model.layers[0].nn.weight.set(2 * jnp.eye(2))
        >>> model.status = pxc.STATUS.INIT
        >>> _ = model(jnp.ones(2))
        >>> float(model.energy())  # twice (4 - 1)^2
        18.0

    References:
        Innocenti et al., JPC, 2024.
    """

    def penalty(self, model: Any) -> Any:
        """`sum_l |W_l^T W_l - I|^2`."""
        total: Any = 0.0
        for weight, layers in self.weights(model):
            if weight.ndim - layers == 2:
                w = weight.get()
                gram = jnp.swapaxes(w, -1, -2) @ w
                total = total + jnp.sum(jnp.square(gram - jnp.eye(w.shape[-1], dtype=w.dtype)))
        return total
