"""`GaussNewton`: equilibrium in a few iterations, each of which solves a linear problem in the errors."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..functional import pure, vmap
from ..predictive_coding import Vode, traits, vodes
from ..utils import step
from ._energies import AXIS, BATCHED, CACHE
from ._equilibrium import EquilibriumSolver, Problem, norm
from ._equilibrium_prop import Nudged
from ._errors import NOT_FEED_FORWARD, energies_at, find_early_read, nodes_at
from ._lazy import is_additive
from ._pc import PC

OTHER_ENERGY = """GaussNewton needs the energy of predictive coding, the sum of the vodes' energies as a \
function of the states: {why}. Use pxa.Anderson, or an optax transformation"""

NOT_UNIT = """GaussNewton(linear="direct") needs hidden nodes with the energy 1/2 (h - u)^2; that of `{name}` is \
another. Use linear="cg\""""

# as many passes backwards as there are outputs; more are left to conjugate gradients
FEW_OUTPUTS = 100
SUFFICIENT_DECREASE = 1e-4
HALVINGS = 20


@dataclass(frozen=True)
class GaussNewton(EquilibriumSolver):
    """Gauss-Newton steps on the errors: exact in one on a linear network, a few on others.

        eps_l = h_l - u_l,    F = 1/2 |eps|^2 + C(u_L(eps)),    J = du_L/deps,    H = d2C/du_L^2
        (I + J' H J) d = -(eps + J' dC/du_L),    eps <- eps + a d

    a is 1, halved until F falls enough (Armijo, 1e-4), for each sample by itself. The matrix is I and a part
    of rank <= d_y, the number of outputs, so conjugate gradients end in as many iterations, each one pass
    forward and one backward. With few outputs the system is solved directly in d_y dimensions:

        d = -eps - J' c,    (I + H K) c = dC/du_L - H J eps,    K = J J'

    The equilibria in the errors are those in the states. At most T iterations are made, fewer once every
    sample has |dF/dh| <= rtol |dF/dh at the start|. They are a loop, which XLA runs slowly on CPU if the
    model has convolutions.

    Args:
        rtol: the tolerance; 1e-3 will do for training. float32 ends near 1e-6.
        linear: "direct", "cg", or "auto": direct for up to 100 outputs if all free nodes have squared errors.
        cg_steps: at most so many iterations of conjugate gradients, to a relative residual of rtol / 10.

    Raises:
        ValueError: rtol not positive, an unknown `linear`, cg_steps < 1. When first called: a model whose energy
            is not the sum of its vodes', or that reads a state before it is predicted; an algorithm with an
            energy of its own; "direct" for other hidden nodes.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> model = pxm.MLP([2, 8, 8, 2], act=lambda h: h)
        >>> pc = pxa.PC(model, T=8, state_optim=pxa.GaussNewton())
        >>> metrics = pc.train_step(jnp.eye(2), jnp.eye(2))
        >>> int(metrics["steps"]), int(metrics["met"])  # linear: one is enough, for both samples
        (1, 2)

    References:
        Nocedal & Wright, "Numerical optimization", 2006, ch. 10; Goemaere et al., 2025 (the errors).
    """

    linear: Literal["auto", "direct", "cg"] = "auto"
    cg_steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.linear not in ("auto", "direct", "cg"):
            raise ValueError(
                f'GaussNewton: linear must be "auto", "direct" or "cg"; got {self.linear!r}'
            )
        if self.cg_steps < 1:
            raise ValueError(f"GaussNewton: cg_steps must be at least 1; got {self.cg_steps!r}")

    def prepare(self, problem: Problem) -> None:
        """Refuse what is no feed-forward composition, or has another energy."""
        algorithm, model = problem.algorithm, problem.algorithm.model
        for name in ("inference_energy", "sample_energies"):
            if getattr(type(algorithm), name) is not getattr(PC, name):
                why = f"{type(algorithm).__name__} has a `{name}` of its own"
                raise ValueError(OTHER_ENERGY.format(why=why))
        if not is_additive(model):
            why = f"{type(model).__name__} has an `energy` of its own"
            raise ValueError(OTHER_ENERGY.format(why=why))
        if (found := find_early_read(problem.x, problem.y, model)) is not None:
            who, node = (algorithm.vode_names[k] for k in found)
            raise ValueError(NOT_FEED_FORWARD.format(cls=type(self).__name__, who=who, node=node))

    def advance(
        self, problem: Problem, h: jax.Array, slope: jax.Array, memory: Any
    ) -> tuple[jax.Array, Any]:
        """One step, as far as it lowers the energy."""
        composed = Composed(problem)
        eps = composed.errors(h)
        F, pull = jax.vjp(composed.energies, eps)
        gradient = pull(jnp.ones_like(F))[0]
        if self._is_direct(problem):
            d = _solved(composed, eps)
        else:
            d = self._by_cg(composed, eps, gradient)
        down = jnp.sum(gradient * d, axis=-1)  # dF/da at a = 0
        d = jnp.where((down < 0)[:, None], d, -gradient)
        down = jnp.where(down < 0, down, -jnp.square(norm(gradient)))
        a = _line_search(composed, eps, F, d, down)
        return composed.states(eps + a[:, None] * d), memory

    def _is_direct(self, problem: Problem) -> bool:
        nodes, names = vodes(problem.algorithm.model), problem.algorithm.vode_names
        other = [n for n, v in zip(names, nodes, strict=True) if not (v.is_frozen or _is_unit(v))]
        if self.linear == "direct" and other:
            raise ValueError(NOT_UNIT.format(name=other[0]))
        if self.linear != "auto":
            return self.linear == "direct"
        size = sum(v.h.get()[0].size for v in nodes if _has_cost(v))
        return not other and size <= FEW_OUTPUTS

    def _by_cg(self, composed: "Composed", eps: jax.Array, gradient: jax.Array) -> jax.Array:
        """d of each sample, by conjugate gradients."""
        nodes, push = jax.linearize(composed.nodes, eps)
        pull = jax.linear_transpose(push, eps)
        slope = jax.grad(lambda z: jnp.sum(composed.energies_at(z)))

        def curved(v: jax.Array) -> jax.Array:
            return pull(jax.jvp(slope, (nodes,), (push(v),))[1])[0]

        dot = lambda a, b: jnp.sum(a * b, axis=-1, keepdims=True)
        tolerance = jnp.square(0.1 * self.rtol) * dot(gradient, gradient)

        def going(r: jax.Array) -> jax.Array:
            return dot(r, r) > tolerance

        def body(carry: Any) -> Any:
            k, d, r, p = carry
            Mp = curved(p)
            pMp, rr = dot(p, Mp), dot(r, r)
            # not where a sample has ended, nor along a direction in which the model does not curve up
            on = going(r) & (pMp > 0)
            a = jnp.where(on, rr / jnp.where(on, pMp, 1), 0)
            new = jnp.where(on, r - a * Mp, 0)
            ratio = dot(new, new) / jnp.where(on, rr, 1)
            return k + 1, d + a * p, new, new + ratio * p

        def proceed(carry: Any) -> Any:
            return (carry[0] < self.cg_steps) & jnp.any(going(carry[2]))

        start = (0, jnp.zeros_like(eps), -gradient, -gradient)
        return jax.lax.while_loop(proceed, body, start)[1]


class Composed:
    """All nodes, and the energy of each sample, as functions of the errors, (batch, n)."""

    def __init__(self, problem: Problem):
        self.problem, model = problem, problem.algorithm.model
        with step(model, clear_params=(CACHE, CACHE)):
            self._errors = pure(_errors_at, model=model)
            self._nodes = pure(nodes_at, model=model)
            self.energies_at = pure(energies_at, model=model)
            self.costs_at = pure(_costs_at, model=model)

    def errors(self, h: jax.Array) -> jax.Array:
        """h - u at some states."""
        problem = self.problem
        return problem.join(self._errors(problem.split(h), problem.x, problem.y))

    def nodes(self, eps: jax.Array) -> list[tuple[Any, Any]]:
        """For each vode its state (None if it is clamped) and its prediction."""
        problem = self.problem
        found = self._nodes(problem.split(eps), problem.x, problem.y)
        nodes = vodes(problem.algorithm.model)
        return [(None if v.is_frozen else h, u) for v, (h, u) in zip(nodes, found, strict=True)]

    def states(self, eps: jax.Array) -> jax.Array:
        """h."""
        return self.problem.join(h for h, _ in self.nodes(eps) if h is not None)

    def energies(self, eps: jax.Array) -> jax.Array:
        """F of each sample."""
        return self.energies_at(self.nodes(eps))

    def outputs(self, eps: jax.Array) -> list[jax.Array]:
        """What the costs are of: predictions of clamped nodes, states of nudged ones."""
        pairs = zip(vodes(self.problem.algorithm.model), self.nodes(eps), strict=True)
        return [u if h is None else h for vode, (h, u) in pairs if _has_cost(vode)]


def _solved(composed: Composed, eps: jax.Array) -> jax.Array:
    """d of each sample, by a linear system in as many unknowns as there are outputs."""
    join = composed.problem.join

    def outputs(eps: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        parts = composed.outputs(eps)
        return join(parts), parts

    v, pull, parts = jax.vjp(outputs, eps, has_aux=True)

    def cost(flat: jax.Array) -> jax.Array:
        ends = [sum(a[0].size for a in parts[:k]) for k in range(1, len(parts))]
        pieces = zip(parts, jnp.split(flat, ends, axis=-1), strict=True)
        return jnp.sum(composed.costs_at([p.reshape(a.shape) for a, p in pieces]))

    basis = jnp.broadcast_to(jnp.eye(v.shape[-1], dtype=v.dtype)[:, None], (v.shape[-1], *v.shape))
    J = jax.vmap(lambda one: pull(one)[0])(basis)  # (outputs, batch, n)
    slope = jax.grad(cost)
    H = jax.vmap(lambda one: jax.jvp(slope, (v,), (one,))[1])(basis)  # (outputs, batch, outputs)
    K = jnp.einsum("ibn,jbn->bij", J, J)
    matrix = jnp.eye(v.shape[-1], dtype=v.dtype) + jnp.einsum("ibk,bkj->bij", H, K)
    right = slope(v) - jnp.einsum("ibk,kbn,bn->bi", H, J, eps)
    c = jnp.linalg.solve(matrix, right[..., None])[..., 0]
    return -eps - jnp.einsum("ibn,bi->bn", J, c)


def _line_search(
    composed: Composed, eps: jax.Array, F: jax.Array, d: jax.Array, down: jax.Array
) -> jax.Array:
    """For each sample the first of 1, 1/2, 1/4, ... at which F falls enough."""
    rounding = 10 * jnp.finfo(F.dtype).eps * jnp.abs(F)

    def body(carry: Any) -> Any:
        k, a, _ = carry
        enough = F + SUFFICIENT_DECREASE * a * down + rounding
        wrong = ~(composed.energies(eps + a[:, None] * d) <= enough)
        return k + 1, jnp.where(wrong, 0.5 * a, a), wrong

    start = (0, jnp.ones_like(F), jnp.ones(F.shape, bool))
    return jax.lax.while_loop(lambda c: (c[0] < HALVINGS) & jnp.any(c[2]), body, start)[1]


def _has_cost(vode: Vode) -> bool:
    return vode.energy_fn is not None and (vode.is_frozen or isinstance(vode.energy_fn, Nudged))


def _is_unit(vode: Vode) -> bool:
    """Whether a free node's energy is half its squared error, but for a cost."""
    if type(vode).energy is not Vode.energy:
        return False
    precision = traits(vode.energy_fn).precision
    unit = not callable(precision) and precision == 1.0
    return unit or isinstance(vode.energy_fn, Nudged)


@vmap(BATCHED, in_axes=(0, 0, 0), axis_name=AXIS)
def _errors_at(states: list[Any], x: PyTree, y: PyTree, *, model: Any) -> Any:
    free = [v for v in vodes(model) if not v.is_frozen and v.h.get() is not None]
    for vode, h in zip(free, states, strict=True):
        vode.h.set(h)
    model(x, y)
    pairs = [(vode.h.get(), vode.get("u")) for vode in free]
    # without a prediction the state is what is free
    return [h if u is None or jnp.shape(u) != jnp.shape(h) else h - u for h, u in pairs]


@vmap(BATCHED, in_axes=(0,), axis_name=AXIS)
def _costs_at(outputs: list[Any], *, model: Any) -> Any:
    total: Any = 0.0
    for vode, v in zip(filter(_has_cost, vodes(model)), outputs, strict=True):
        if not vode.is_frozen:
            vode.h.set(v)  # its own squared error is none, then
        vode.cache["u"] = v
        total = total + vode.energy()
    return total
