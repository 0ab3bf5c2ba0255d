"""Energies of nodes that are not Gaussian: binary values and counts."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ..core import RandomKeyGenerator
from ._energy import state_and_prediction
from ._traits import energy_function

if TYPE_CHECKING:
    from ._vode import Vode


@energy_function(mean=jax.nn.sigmoid)
def bernoulli_energy(vode: "Vode", rkg: RandomKeyGenerator | None = None) -> jax.Array:
    """Binary cross entropy, `log(1 + exp(u)) - h u`: a Bernoulli node with logits u.

    With p = sigmoid(u) this is `-h log p - (1 - h) log(1 - p)`, computed without overflow. For
    nodes that hold pixels or bits.

    Args:
        vode: with state h in [0, 1] and logits u of the same shape.

    Returns:
        An array of h's shape, in nats.

    Raises:
        ValueError: h or u is missing, or their shapes differ.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.Vode(pxc.bernoulli_energy).set("h", jnp.ones(1)).set("u", jnp.zeros(1))
        >>> round(float(vode.energy()), 4)  # log 2
        0.6931
    """
    h, u = state_and_prediction(vode)
    return jax.nn.softplus(u) - h * u


@energy_function(mean=jnp.exp)
def poisson_energy(vode: "Vode", rkg: RandomKeyGenerator | None = None) -> jax.Array:
    """Counts, `exp(u) - h u`: a Poisson node with log-rate u, up to the constant `log h!`.

    Args:
        vode: with state h >= 0 (counts) and log-rates u of the same shape.

    Returns:
        An array of h's shape, in nats up to `log h!` each. Least where `exp(u) = h`.

    Raises:
        ValueError: h or u is missing, or their shapes differ.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> vode = pxc.Vode(pxc.poisson_energy).set("h", jnp.ones(1)).set("u", jnp.zeros(1))
        >>> float(vode.energy())
        1.0
    """
    h, u = state_and_prediction(vode)
    return jnp.exp(u) - h * u
