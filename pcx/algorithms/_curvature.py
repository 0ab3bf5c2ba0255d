"""Curvature of what inference descends, without its matrix: products with vectors, and Lanczos."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import named_params
from ..functional import pure
from ..nn import StateParam
from ..predictive_coding import free_states
from ..utils import step
from ._energies import CACHE


def largest_curvatures(algorithm: Any, x: PyTree, y: PyTree, iterations: int = 30) -> jax.Array:
    """The largest eigenvalue of d2F/dh2 of each sample, (batch,), in what inference steps on.

    The algorithm's states are initialised. Where samples see one another (batch statistics), their
    Hessians are one, and so is its eigenvalue: (1,).
    """
    algorithm.to_stepped(x, y)
    shapes = [h.get() for h in free_states(algorithm.model)]
    if not shapes:
        return jnp.zeros(1)
    batch = shapes[0].shape[0]

    def energy(values: Any, *, algorithm: Any) -> Any:
        for state, value in zip(free_states(algorithm.model), values, strict=True):
            state.set(value)
        with step(algorithm.model, clear_params=(CACHE, CACHE)):
            return algorithm.inference_energy(x, y, model=algorithm.model)

    slope = jax.grad(pure(energy, algorithm=algorithm))
    rows = 1 if samples_are_coupled(algorithm.model) else batch

    def product(v: jax.Array) -> jax.Array:
        parts, end = [], 0
        v = v.reshape(batch, -1)
        for h in shapes:
            start, end = end, end + h[0].size
            parts.append(v[:, start:end].reshape(h.shape).astype(h.dtype))
        curved = jax.jvp(slope, (shapes,), (parts,))[1]
        return jnp.concatenate([c.reshape(batch, -1) for c in curved], axis=-1).reshape(rows, -1)

    size = batch * sum(h[0].size for h in shapes) // rows
    # the same start for every sample, so that none depends on the others in its batch
    one = jax.random.normal(jax.random.key(0), (size,), shapes[0].dtype)
    start = jnp.broadcast_to(one, (rows, size))
    return lanczos(product, start, min(iterations, size))[:, -1]


def samples_are_coupled(model: Any) -> bool:
    """Whether the energy of a sample may depend on the others, through the statistics of a batch."""
    return bool(model.is_train) and any(isinstance(p, StateParam) for _, p in named_params(model))


def lanczos(
    product: Callable[[jax.Array], jax.Array], start: jax.Array, iterations: int
) -> jax.Array:
    """Ritz values of symmetric matrices A, ascending; the outer ones soon are those of A.

        beta_k v_{k+1} = A v_k - alpha_k v_k - beta_{k-1} v_{k-1},   alpha_k = v_k' A v_k

    Without reorthogonalisation, which would need every v: that only repeats Ritz values.

    Args:
        product: v -> A v, one vector for each row, (rows, n).
        start: the first v, of any length.
        iterations: at most n of them make sense.

    Returns:
        The eigenvalues of the tridiagonal matrix of alpha and beta, (rows, iterations). Where the
        vectors reached from `start` are fewer, the rest are 0.

    References:
        Golub & Van Loan, "Matrix computations", section 10.1.
    """
    tiny = 100 * jnp.finfo(start.dtype).eps
    norm = lambda v: jnp.sqrt(jnp.sum(jnp.square(v), axis=-1, keepdims=True))
    over = lambda v, size: jnp.where(size > 0, v / jnp.where(size > 0, size, 1), 0)

    def iterate(carry: Any, _: Any) -> Any:
        before, v, beta = carry
        w = product(v)
        size = norm(w)
        alpha = jnp.sum(v * w, axis=-1, keepdims=True)
        w = w - alpha * v - beta * before
        beta = norm(w)
        beta = jnp.where(beta > tiny * size, beta, 0)  # what is left over is rounding
        return (v, over(w, beta), beta), (alpha[:, 0], beta[:, 0])

    first = (jnp.zeros_like(start), over(start, norm(start)), jnp.zeros_like(start[:, :1]))
    _, (alphas, betas) = jax.lax.scan(iterate, first, None, iterations)
    tridiagonal = jax.vmap(lambda a, b: jnp.diag(a) + jnp.diag(b, 1) + jnp.diag(b, -1))
    return jnp.linalg.eigvalsh(tridiagonal(alphas.T, betas[:-1].T))
