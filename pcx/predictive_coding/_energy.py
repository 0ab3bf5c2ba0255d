"""Energy functions: pure maths, one function each.

An energy function is called with the vode and a key generator and returns an array of h's shape, not
reduced; the vode sums it over its event axes. It is a negative log-likelihood up to a constant, in
nats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..core import RandomKeyGenerator, describe, locate
from ._traits import Traits, energy_function, identity, name_of, traits

if TYPE_CHECKING:
    from ._vode import Vode

NO_PREDICTION = """`{where}` has no {what}, so it has no energy. Call the model first, in the same \
step: `with pxu.step(model, pxc.STATUS.INIT): model(x)` sets every state to its prediction; \
without a status, `model(x)` stores the predictions and keeps the states. (`pxu.step(..., \
clear_params=pxc.VodeParam.Cache)` clears predictions when it ends.)"""

SHAPES = """`{where}`: the state h is {h} and the prediction u is {u}; their shapes must be equal. \
If h is a target (`vode.set("h", y)`), give it the shape of the layer's output; if it is left from \
a batch of another size, initialise the states again."""


def where(vode: "Vode") -> str:
    """The path of a vode as the running code sees it, for error messages."""
    return locate(vode) or "this vode"


def state_and_prediction(vode: "Vode") -> tuple[Any, Any]:
    """`(h, u)` of a vode, checked, as floating point numbers.

    Labels and counts may be integers, unsigned integers or booleans, for which `-h` and `h - u` would
    not be what the equation says.

    Raises:
        ValueError: either is missing, or their shapes differ.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> def absolute_error(vode, rkg):
        ...     h, u = pxc.state_and_prediction(vode)
        ...     return jnp.abs(h - u)
        >>> vode = pxc.Vode(absolute_error).set("h", jnp.array([1.0, -2.0])).set("u", jnp.zeros(2))
        >>> float(vode.energy())
        3.0
    """
    h, u = vode.get("h"), vode.get("u")
    if h is None or u is None:
        what = "prediction u" if u is None else "state h"
        raise ValueError(NO_PREDICTION.format(where=where(vode), what=what))
    if jnp.shape(h) != jnp.shape(u):
        raise ValueError(SHAPES.format(where=where(vode), h=describe(h), u=describe(u)))
    dtype = jnp.result_type(h, u)
    return as_floating(h, dtype), as_floating(u, dtype)


def as_floating(value: Any, dtype: Any = None) -> Any:
    """An integer or boolean array in the given floating point type, or in JAX's default one."""
    if jnp.issubdtype(jnp.result_type(value), jnp.inexact):
        return value
    inexact = dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
    return jnp.asarray(value, dtype if inexact else float)


@energy_function(mean=identity, stationary=True, precision=1.0)
def se_energy(vode: "Vode", rkg: RandomKeyGenerator | None = None) -> jax.Array:
    """Squared error, `1/2 (h - u)^2`: a Gaussian of unit variance.

    Args:
        vode: with state h and prediction u of the same shape.

    Returns:
        An array of h's shape, in nats up to the constant `1/2 log 2 pi` each.

    Raises:
        ValueError: h or u is missing, or their shapes differ.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.Vode().set("h", jnp.array([1.0, 3.0])).set("u", jnp.zeros(2))
        >>> pxc.se_energy(vode).tolist(), float(vode.energy())
        ([0.5, 4.5], 5.0)

    References:
        Rao & Ballard, 1999; Pinchetti et al., "Benchmarking predictive coding networks", eq. 1.
    """
    h, u = state_and_prediction(vode)
    error = h - u
    return 0.5 * error * error


@energy_function(mean=partial(jax.nn.softmax, axis=-1))
def ce_energy(vode: "Vode", rkg: RandomKeyGenerator | None = None) -> jax.Array:
    """Cross entropy, `-h log softmax(u)`, over the last axis: a categorical node with logits u.

    Args:
        vode: with state h (a distribution, such as a one-hot label) and logits u of the same shape.

    Returns:
        An array of h's shape, in nats.

    Raises:
        ValueError: h or u is missing, or their shapes differ.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.Vode(pxc.ce_energy).set("h", jnp.eye(4)[2]).set("u", jnp.zeros(4))
        >>> round(float(vode.energy()), 4)  # log 4: all four classes are equally likely
        1.3863

    References:
        Pinchetti et al., "Predictive coding beyond Gaussian distributions", 2022.
    """
    h, u = state_and_prediction(vode)
    return -h * jax.nn.log_softmax(u, axis=-1)


@energy_function(stationary=True)
def zero_energy(vode: "Vode", rkg: RandomKeyGenerator | None = None) -> jax.Array:
    """Zero, of h's shape: a node that is part of the state but adds nothing to the energy.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.Vode(pxc.zero_energy).set("h", jnp.ones(2)).set("u", jnp.zeros(2))
        >>> float(vode.energy())
        0.0
    """
    h = vode.get("h")
    if h is None:
        raise ValueError(NO_PREDICTION.format(where=where(vode), what="state h"))
    return jnp.zeros_like(as_floating(h))


@dataclass(frozen=True)
class Weighted:
    """An energy function times a number, `weight * energy_fn(vode, rkg)`.

    For `se_energy` the weight is the precision of the Gaussian, `weight / 2 (h - u)^2`. Two with
    equal arguments are equal, so models that differ in nothing else share what is compiled.

    Args:
        energy_fn: an energy function.
        weight: a positive number.

    Raises:
        ValueError: the weight is not positive.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> node = pxc.Vode((1,), pxc.Weighted(pxc.se_energy, 4.0))
        >>> float(node.set("h", jnp.array([3.0])).set("u", jnp.zeros(1)).energy())
        18.0
        >>> pxc.traits(node.energy_fn).precision
        4.0
    """

    energy_fn: Callable[..., Any]
    weight: float

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"Weighted: the weight must be positive; got {self.weight!r}")

    def __call__(self, vode: "Vode", rkg: RandomKeyGenerator | None = None) -> Any:
        """The energy, of h's shape."""
        return self.weight * self.energy_fn(vode, rkg)

    @property
    def traits(self) -> Traits:
        """Those of the energy function, with the precision times the weight."""
        inner = traits(self.energy_fn)
        precision = inner.precision
        if callable(precision):
            return inner._replace(precision=lambda vode: self.weight * precision(vode))
        return inner if precision is None else inner._replace(precision=self.weight * precision)

    @property
    def __name__(self) -> str:
        return f"{self.weight} * {name_of(self.energy_fn)}"
