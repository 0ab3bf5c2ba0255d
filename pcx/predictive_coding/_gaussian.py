"""`GaussianVode`: a node that learns how precise its prediction is."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..core import RandomKeyGenerator
from ..nn import LayerParam
from ._energy import state_and_prediction
from ._rules import Tform
from ._traits import energy_function, identity
from ._vode import Vode, VodeParam


@energy_function(mean=identity, precision=lambda vode: jnp.exp(-vode.log_var.get()))
def gaussian_energy(vode: Any, rkg: RandomKeyGenerator | None = None) -> jax.Array:
    """Precision-weighted squared error, `1/2 exp(-s) (h - u)^2 + 1/2 s`, s the log-variance.

    Args:
        vode: a `GaussianVode`, with state h and prediction u of the same shape.

    Returns:
        An array of h's shape, in nats up to the constant `1/2 log 2 pi` each.

    Raises:
        ValueError: h or u is missing, or their shapes differ.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.GaussianVode((1,), log_var=jnp.log(4.0))  # sigma = 2
        >>> vode = vode.set("h", jnp.array([2.0])).set("u", jnp.zeros(1))
        >>> round(float(pxc.gaussian_energy(vode)[0]), 4)  # 1/2 (2 / 2)^2 + log 2
        1.1931
    """
    h, u = state_and_prediction(vode)
    s = vode.log_var.get()
    error = h - u
    return 0.5 * jnp.exp(-s) * error * error + 0.5 * s


class GaussianVode(Vode):
    """A vode with a learned variance: `E = sum (h - u)^2 / (2 sigma^2) + 1/2 log sigma^2`.

    The weight `1 / sigma^2` is the precision of the prediction error, one for each unit. It is
    learned with the weights (`log_var` is a `LayerParam`) and settles where sigma^2 is the mean
    squared error of its unit.

    Args:
        shape: the event shape.
        log_var: the first value of `log sigma^2`; 0 makes the node a `Vode((...), se_energy)`.
        ruleset: as for `Vode`.
        tforms: as for `Vode`.
        param_type: as for `Vode`.

    Attributes:
        log_var: the log-variances, a `LayerParam` of the event shape.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.GaussianVode((2,), log_var=jnp.log(4.0))  # sigma = 2
        >>> e = vode.set("h", jnp.array([2.0, 0.0])).set("u", jnp.zeros(2)).energy()
        >>> round(float(e - jnp.log(4.0)), 4)  # (2 / 2)^2 / 2
        0.5

    References:
        Friston, "A theory of cortical responses", 2005; Millidge, Seth & Buckley, "Predictive
        coding: a theoretical and experimental review", 2021.
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        log_var: Any = 0.0,
        ruleset: Mapping[Any, Any] | None = None,
        tforms: Mapping[str, Tform] | None = None,
        param_type: type[VodeParam] = VodeParam,
    ):
        super().__init__(shape, gaussian_energy, ruleset, tforms, param_type)
        assert self.shape is not None
        self.log_var = LayerParam(jnp.broadcast_to(jnp.asarray(log_var, jnp.float32), self.shape))
