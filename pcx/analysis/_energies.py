"""Where the energy of a network is, layer by layer."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ..algorithms import Algorithm, Record


def layer_energies(
    algorithm: Algorithm, x: Any, y: Any = None, T: int | None = None
) -> dict[str, Float[np.ndarray, " steps"]]:
    """Energy of each vode before each inference step and after the last, batch means.

    Args:
        algorithm: what infers; nothing is learned. The states stay in its model.
        x, y: a batch.
        T: number of inference steps instead of the algorithm's own.

    Returns:
        `{path of the vode: energies}`, each of shape (T + 1,), in nats.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.analysis as pxan, pcx.models as pxm
        >>> pc = pxa.PC(pxm.MLP([2, 4, 3]), T=6)
        >>> energies = pxan.layer_energies(pc, jnp.ones((5, 2)), jnp.ones((5, 3)))
        >>> {name: e.shape for name, e in energies.items()}
        {'vodes[0]': (7,), 'vodes[1]': (7,)}
    """
    _, record = algorithm.infer(x, y, T)
    return dict(zip(algorithm.vode_names, _table(record).T, strict=True))


def energy_shares(energies: Record | Any) -> Float[np.ndarray, "*steps vodes"]:
    """The fraction of the total energy that each vode has, step by step.

    Args:
        energies: a `Record` with energies, or an array (..., vodes).

    Returns:
        An array of the same shape whose last axis sums to 1; 0 where there is no energy at all.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.analysis as pxan, pcx.models as pxm
        >>> pxan.energy_shares([[1.0, 1.0, 2.0]]).tolist()
        [[0.25, 0.25, 0.5]]
        >>> pc = pxa.PC(pxm.MLP([2, 4, 3]), T=6)
        >>> _, record = pc.infer(jnp.ones((5, 2)), jnp.ones((5, 3)))
        >>> pxan.energy_shares(record)[0].tolist()  # before inference the output has all of it
        [0.0, 1.0]
    """
    table = _table(energies)
    total = table.sum(-1, keepdims=True)
    return np.divide(table, total, out=np.zeros_like(table), where=total != 0)


def energy_ratios(energies: Record | Any) -> Float[np.ndarray, "*steps pairs"]:
    """Energy of each vode relative to that of the next, E_l / E_{l+1}, step by step.

    Far below 1 for every l means that the target hardly reaches the lower layers: they learn next
    to nothing, as in deep networks after few steps.

    Args:
        energies: a `Record` with energies, or an array (..., vodes).

    Returns:
        An array (..., vodes - 1); nan where the next vode has no energy.

    Example:
        >>> import pcx.analysis as pxan
        >>> pxan.energy_ratios([[1.0, 4.0, 8.0], [0.0, 0.0, 8.0]]).tolist()
        [[0.25, 0.5], [nan, 0.0]]

    References:
        Pinchetti et al., "Benchmarking predictive coding networks - made simple", section 5.
    """
    table = _table(energies)
    below, above = table[..., :-1], table[..., 1:]
    return np.divide(below, above, out=np.full_like(below, np.nan), where=above != 0)


def _table(energies: Record | Any) -> np.ndarray:
    if isinstance(energies, Record):
        if energies.energies is None:
            raise ValueError(
                "this record has no energies; ask for them: `algorithm.infer(x, y, energies=True)` "
                "(not with `stop=`, which does not know its steps beforehand)"
            )
        energies = energies.energies
    return np.asarray(energies)
