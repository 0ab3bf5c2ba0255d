"""The Hessian of the energy in the states, for any model: how stiff inference is."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from ..algorithms._energies import CACHE, sample_energies
from ..functional import pure
from ..predictive_coding import STATUS, free_states
from ..utils import step


def state_hessian(model: Any, x: Any, y: Any = None) -> Float[jax.Array, "n n"]:
    """Second derivative of one sample's energy in its free states, after forward initialisation.

    Args:
        model: any `EnergyModule`; its own states are left alone.
        x, y: one sample, without a batch axis.

    Returns:
        An (n, n) array over all free states in the order of the vodes, flattened.

    Example:
        >>> import jax.numpy as jnp, pcx.analysis as pxan, pcx.models as pxm
        >>> H = pxan.state_hessian(pxm.MLP([3, 4, 5, 2]), jnp.ones(3), jnp.ones(2))
        >>> H.shape
        (9, 9)
    """
    x, y = jax.tree_util.tree_map(lambda a: jnp.asarray(a)[None], (x, y))

    def start(x: Any, y: Any, *, model: Any) -> Any:
        with step(model, STATUS.INIT, clear_params=(CACHE, CACHE)):
            sample_energies(x, y, model=model)
        return [h.get() for h in free_states(model)]

    def energy(flat: Any, x: Any, y: Any, *, model: Any) -> Any:
        with step(model, STATUS.INIT, clear_params=(CACHE, CACHE)):
            sample_energies(x, y, model=model)
        position = 0
        for h in free_states(model):
            value = h.get()
            h.set(flat[position : position + value.size].reshape(value.shape))
            position += value.size
        with step(model, clear_params=(CACHE, CACHE)):
            return jnp.sum(sample_energies(x, y, model=model)[0])

    flat = jnp.concatenate([jnp.ravel(h) for h in pure(start, model=model)(x, y)])
    return jax.hessian(pure(energy, model=model))(flat, x, y)


def condition_number(hessian: Any) -> Float[jax.Array, ""]:
    """Largest over smallest eigenvalue of a Hessian; negative if it is not positive definite.

    Gradient descent with the best step size needs about so many steps for each factor e^2.

    Example:
        >>> import jax.numpy as jnp, pcx.analysis as pxan
        >>> bowl, saddle = jnp.diag(jnp.array([4.0, 1.0])), jnp.diag(jnp.array([2.0, -1.0]))
        >>> [round(float(pxan.condition_number(H)), 3) for H in (bowl, saddle)]
        [4.0, -2.0]
    """
    values = jnp.linalg.eigvalsh(jnp.asarray(hessian))
    return values[-1] / values[0]
