"""Solvers that take every sample to equilibrium, and `Anderson`, the simplest of them.

A solver says what one iteration does with the states of all samples, (batch, n) in one array. This module
iterates: a sample rests as soon as its own residual is small, whatever the others of its batch do, so what
becomes of a sample does not depend on its batch.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..functional import pure
from ..predictive_coding import free_states
from ..utils import step
from ._energies import CACHE
from ._loop import Record
from ._solvers import energy_at, watch_all


class Problem:
    """The states of a batch as one array, (batch, n), and the gradient of the energy in them."""

    def __init__(self, algorithm: Any, x: PyTree, y: PyTree):
        self.algorithm, self.x, self.y = algorithm, x, y
        self.parts = [h.get() for h in free_states(algorithm.model)]
        with step(algorithm.model, clear_params=(CACHE, CACHE)):
            self._energy = pure(energy_at(algorithm), model=algorithm.model)

    def join(self, parts: Any) -> jax.Array:
        """One array of those of the free states."""
        return jnp.concatenate([a.reshape(len(a), -1) for a in parts], axis=-1)

    def split(self, flat: jax.Array) -> list[jax.Array]:
        """The arrays of the free states."""
        ends = [sum(a[0].size for a in self.parts[:k]) for k in range(1, len(self.parts))]
        pieces = jnp.split(flat, ends, axis=-1)
        pairs = zip(self.parts, pieces, strict=True)
        return [p.reshape(a.shape).astype(a.dtype) for a, p in pairs]

    def slope(self, flat: jax.Array) -> jax.Array:
        """dF/dh of each sample, (batch, n)."""
        return jax.grad(lambda h: self._energy(self.split(h), self.x, self.y))(flat)


@dataclass(frozen=True)
class EquilibriumSolver:
    """What the solvers below share: at most T iterations, for each sample until

    |dF/dh| <= rtol * |dF/dh at the start|
    """

    rtol: float = 1e-3

    def __post_init__(self) -> None:
        if not self.rtol > 0:
            raise ValueError(f"{type(self).__name__}: rtol must be positive; got {self.rtol!r}")

    def prepare(self, problem: Problem) -> None:
        """Refuse a problem that this solver is not for."""

    def start(self, problem: Problem, h: jax.Array, slope: jax.Array) -> Any:
        """What the first iteration remembers."""
        return ()

    def advance(
        self, problem: Problem, h: jax.Array, slope: jax.Array, memory: Any
    ) -> tuple[jax.Array, Any]:
        """One iteration: the new states, and what the next one remembers."""
        raise NotImplementedError

    def solve(
        self, algorithm: Any, x: PyTree, y: PyTree, *, energies: bool = False, states: bool = False
    ) -> Record:
        """Iterate, in place.

        Returns:
            A `Record` with the number of iterations; in `info`, "met", how many samples met the
            tolerance. With energies or states recorded, all T iterations are counted.
        """
        model, watched = algorithm.model, energies or states
        algorithm._settle(x, y)  # the target may be another than that of the forward pass
        problem = Problem(algorithm, x, y)
        if not problem.parts:
            seen = jax.tree_util.tree_map(
                lambda a: a[None], algorithm.watch(x, y, energies, states)
            )
            return Record(0, *seen)
        self.prepare(problem)
        h = problem.join(problem.parts)
        slope = problem.slope(h)
        # not below the rounding of h - u
        tolerance = self.rtol * norm(slope) + 4 * jnp.finfo(h.dtype).eps * norm(h)
        carry = (0, h, slope, self.start(problem, h, slope))

        def iterate(carry: Any) -> Any:
            t, h, slope, memory = carry
            new, memory = self.advance(problem, h, slope, memory)
            h = jnp.where((norm(slope) > tolerance)[:, None], new, h)
            return t + 1, h, problem.slope(h), memory

        def proceed(carry: Any) -> Any:
            return (carry[0] < algorithm.T) & jnp.any(norm(carry[2]) > tolerance)

        if watched:
            carry, after = jax.lax.scan(
                lambda c, _: (iterate(c), c[1]), carry, None, length=algorithm.T
            )
            trajectory = jax.vmap(problem.split)(jnp.concatenate([after, carry[1][None]]))
        else:
            carry = jax.lax.while_loop(proceed, iterate, carry)
        steps, h, slope, _ = carry
        record = Record(steps, info={"met": jnp.sum(norm(slope) <= tolerance)})
        if watched:
            seen = watch_all(algorithm, x, y, trajectory, energies, states)
            record = record._replace(energies=seen[0], states=seen[1])
        for state, value in zip(free_states(model), problem.split(h), strict=True):
            state.set(value)
        return record


class _Past(NamedTuple):
    """The last states and step, and the differences of the last few, (window, batch, n)."""

    h: jax.Array
    f: jax.Array
    dh: jax.Array
    df: jax.Array


@dataclass(frozen=True)
class Anderson(EquilibriumSolver):
    """Gradient descent on the states with Anderson acceleration, for each sample by itself.

        g(h) = h - rate dF/dh,    f_k = g(h_k) - h_k
        c = argmin |f_k - sum_i c_i (f_{k-i+1} - f_{k-i})|,    over the last `window` steps
        h_{k+1} = h_k + f_k - sum_i c_i (h_{k-i+1} - h_{k-i} + f_{k-i+1} - f_{k-i})

    On a linear network with a full window this is GMRES: it ends in as many iterations as a sample has
    states. A sample whose residual grew, or whose step would go uphill (as towards a saddle point), forgets
    its past and takes the plain step g, so the rate must be one at which gradient descent is stable
    (`algorithm.largest_state_rate`). Any model and energy will do,
    and EPC's errors as well. An iteration costs one gradient. At most T are made, fewer once every sample has

        |dF/dh| <= rtol |dF/dh at the start|

    The iterations are a loop, which XLA runs slowly on CPU if the model has convolutions.

    Args:
        rtol: the tolerance; 1e-3 will do for training. float32 ends near 1e-6.
        rate: of the plain step.
        window: how many steps are combined.

    Raises:
        ValueError: rtol or rate is not positive, or window below 1.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> model = pxm.MLP([2, 16, 16, 2], act=jnp.tanh)
        >>> pc = pxa.PC(model, T=100, state_optim=pxa.Anderson(rate=0.2))
        >>> metrics = pc.train_step(jnp.eye(2), jnp.eye(2))
        >>> int(metrics["met"]), bool(metrics["steps"] < 50)
        (2, True)

    References:
        Anderson, 1965; Walker & Ni, "Anderson acceleration for fixed-point iterations", 2011.
    """

    rate: float = 0.1
    window: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate > 0 or self.window < 1:
            raise ValueError(
                "Anderson: rate must be positive and window at least 1; got "
                f"rate={self.rate!r}, window={self.window!r}"
            )

    def start(self, problem: Problem, h: jax.Array, slope: jax.Array) -> _Past:
        """No differences yet."""
        none = jnp.zeros((self.window, *h.shape), h.dtype)
        return _Past(h, -self.rate * slope, none, none)

    def advance(
        self, problem: Problem, h: jax.Array, slope: jax.Array, memory: _Past
    ) -> tuple[jax.Array, _Past]:
        """One accelerated step."""
        f = -self.rate * slope
        grew = (norm(f) > norm(memory.f))[None, :, None]
        eps = float(jnp.finfo(h.dtype).eps)
        # the first difference is none; computed again it may be rounding
        real = (norm(f - memory.f) > 100 * eps * norm(f))[:, None]
        dh, df = (
            jnp.where(grew, 0, jnp.concatenate([jnp.where(real, new - old, 0)[None], past[:-1]]))
            for new, old, past in ((h, memory.h, memory.dh), (f, memory.f, memory.df))
        )
        # columns of length 1 keep the normal equations as well conditioned as they can be
        size = jax.vmap(norm)(df)[..., None]
        scale = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0)
        columns, moves = df * scale, (dh + df) * scale
        ridge = max(1e-8, 10 * eps)
        gram = jnp.einsum("ibn,jbn->bij", columns, columns) + ridge * jnp.eye(self.window)
        right = jnp.einsum("ibn,bn->bi", columns, f)
        c = jnp.linalg.solve(gram.astype(h.dtype), right[..., None])[..., 0]
        d = f - jnp.einsum("bi,ibn->bn", c, moves)
        # towards a saddle point, whose residual is 0 as well, it would go uphill
        down = jnp.sum(d * f, axis=-1)[:, None] > 0
        return h + jnp.where(down, d, f), _Past(h, f, *(jnp.where(down, a, 0) for a in (dh, df)))


def norm(flat: jax.Array) -> jax.Array:
    """Of each sample, (batch,)."""
    return jnp.sqrt(jnp.sum(jnp.square(flat), axis=-1))
