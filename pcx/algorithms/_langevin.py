"""Langevin dynamics as optax transformations."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..core import RKG, new_key

Form = Literal["second_order", "explicit", "heavy_ball"]


class LangevinState(NamedTuple):
    """What Langevin dynamics remembers.

    Attributes:
        key: of the noise to come; None without noise.
        velocity: a tree like the params; None without momentum.
    """

    key: Any
    velocity: Any


def langevin(
    gamma: float | jax.Array,
    sigma2: float | jax.Array = 1.0,
    momentum: float | jax.Array | None = None,
    form: Form = "heavy_ball",
    seed: int | None = None,
) -> Any:
    """Langevin dynamics: descent with noise, whose stationary density is exp(-F / sigma2).

    With xi ~ N(0, sigma2) in each entry:

        first order    h <- h - gamma dF/dh + sqrt(2 gamma) xi
        second_order   r <- (1 - gamma (1 - m)) r - gamma dF/dh + sqrt(2 (1 - m) gamma) xi
                       h <- h + gamma r, with the new r ("explicit": with the old one)
        heavy_ball     v <- m v - dF/dh + sqrt(2 (1 - m) / gamma) xi;   h <- h + gamma v

    The density is exact as gamma -> 0. In a mode of curvature k the variance is sigma2 / k / (1 - b)
    with b = gamma k / 2 (first order), gamma k / (2 (1 + m)) (heavy ball), gamma^2 k /
    (2 (2 - gamma (1 - m))) (second_order). "explicit" diverges where gamma k > 1 - m.

    Args:
        gamma: step size.
        sigma2: variance of the noise, the temperature; 0 for plain gradient descent.
        momentum: m in [0, 1); None for first order.
        form: of the dynamics with momentum. "heavy_ball" is SGD with momentum and noise on the gradient;
            "second_order" is eqs 5-6 of the paper (with r descending: the sign printed there ascends), which
            forgets in 1 / (gamma (1 - m)) steps where the heavy ball
            does in 1 / (1 - m): 1000 against 10 at gamma = 0.01, m = 0.9.
        seed: of the noise; by default it is drawn from `px.RKG` whenever the optimiser starts, which
            algorithms make it do for each batch.

    Returns:
        An optax transformation.

    Raises:
        ValueError: gamma <= 0, sigma2 < 0, momentum outside [0, 1), an unknown form.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa
        >>> optim = pxa.langevin(0.1, sigma2=0.0)
        >>> updates, _ = optim.update({"h": jnp.array([2.0])}, optim.init({"h": jnp.zeros(1)}))
        >>> float(updates["h"][0]).__round__(3)
        -0.2

    References:
        Oliviers, Bogacz & Meulemans, "Learning probability distributions of sensory inputs with Monte
        Carlo predictive coding", 2024; Pinchetti et al., eqs 4-6.
    """
    # numbers of a `pxu.Optim` are traced inside a step, and were looked at when it was made
    known = not any(isinstance(x, jax.core.Tracer) for x in (gamma, sigma2, momentum))
    if known and (not gamma > 0 or sigma2 < 0 or not (momentum is None or 0 <= momentum < 1)):
        raise ValueError(
            "langevin needs gamma > 0, sigma2 >= 0 and momentum in [0, 1) or None; "
            f"got gamma={gamma!r}, sigma2={sigma2!r}, momentum={momentum!r}"
        )
    if form not in ("second_order", "explicit", "heavy_ball"):
        raise ValueError(
            f'langevin: form must be "second_order", "explicit" or "heavy_ball"; got {form!r}'
        )
    m = 0.0 if momentum is None else momentum
    if momentum is None:
        noise = 2 * gamma
    else:
        noise = 2 * (1 - m) / gamma if form == "heavy_ball" else 2 * (1 - m) * gamma
    scale = (noise * sigma2) ** 0.5

    def init(params: Any) -> LangevinState:
        key = None
        if isinstance(sigma2, jax.core.Tracer) or sigma2:
            key = RKG() if seed is None else new_key(seed)
        zeros = jax.tree_util.tree_map(jnp.zeros_like, params)
        return LangevinState(key, None if momentum is None else zeros)

    def update(grads: Any, state: LangevinState, params: Any = None) -> tuple[Any, LangevinState]:
        del params
        key, xi = _noise(state.key, grads, scale)
        if momentum is None:
            return jax.tree_util.tree_map(lambda g, n: n - gamma * g, grads, xi), state._replace(
                key=key
            )
        old = state.velocity
        keep, pull = (m, 1.0) if form == "heavy_ball" else (1 - gamma * (1 - m), gamma)
        new = jax.tree_util.tree_map(lambda v, g, n: keep * v - pull * g + n, old, grads, xi)
        moving = old if form == "explicit" else new
        return jax.tree_util.tree_map(lambda v: gamma * v, moving), LangevinState(key, new)

    return optax.GradientTransformation(init, update)


def _noise(key: Any, like: Any, scale: Any) -> tuple[Any, Any]:
    """The next key, and a tree of independent normal noise."""
    leaves, treedef = jax.tree_util.tree_flatten(like)
    if key is None:
        return None, jax.tree_util.tree_unflatten(treedef, [jnp.zeros_like(a) for a in leaves])
    key, *keys = jax.random.split(key, len(leaves) + 1)
    noise = [
        scale * jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)
    ]
    return key, jax.tree_util.tree_unflatten(treedef, noise)
