"""`RedBlack`: inference by sweeps, in which each state is set from the newest states around it."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
from jaxtyping import PyTree

from ..predictive_coding import Stack, energy_modules, vodes
from ..utils import step as phase
from ._energies import CACHE, batched
from ._gradient import gradient, grads_of
from ._lazy import trace_wave
from ._loop import Record, loop

NO_COLOURS = """RedBlack: {why}. Use an optax transformation as `state_optim`, or {instead}"""


@dataclass(frozen=True)
class RedBlack:
    """Sweeps over the states: those of one colour are all set at once, then those of the next.

        one step of inference is one sweep: for each colour, for its states l, with the newest of the others,
            h_l <- (1 - s) h_l + s (u_l + J_{l+1}' e_{l+1}),    s = 1 - damping

    Two states share a colour only if no term of the energy depends on both; which ones do is read off the
    traced model. On a chain the colours are the even and the odd layers, and the even ones come first;
    a residual connection takes three. A step is one of gradient descent of size s, `h - s dF/dh`, so in a
    squared error a state's own term cancels at s = 1, and any other energy works, too. An output that is
    nudged (`pxa.EquilibriumProp`) becomes u_L - beta dC/dh_L, at the old h_L.

    Sweeps need not lower the energy, nor converge where the curvature 1 + |J|^2 of a state exceeds 2 / s; T = L
    of them from the forward pass carry an error once through a chain of L layers.

    Args:
        project: for layers whose activation comes last and has a range, u = f(a). "pgd" keeps states in it,
            `f(u + J'e)`; "mod" sets `f(a + J'e)`, from which a silent unit (a < 0) does not wake up unless
            its error exceeds a. It works on the nodes that are given their pre-activation under the name
            "a", `vode(jax.nn.relu(a), a=a)`; the others take the plain step. None: no node does.
        act: f.
        damping: in [0, 1); 0 for full steps.

    Raises:
        ValueError: an unknown `project`; damping outside [0, 1). When first called: a `Stack`, whose layers are
            one state; an algorithm whose steps are not on the states; "mod" or "pgd" without any "a".

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
        >>> pc = pxa.PC(pxm.MLP([2, 8, 8, 2]), T=3, state_optim=pxa.RedBlack(damping=0.2))
        >>> _, record = pc.infer(jnp.eye(2), jnp.eye(2))
        >>> record.energies.shape
        (4, 3)

    References:
        arXiv 2606.03584, 2026 (projected and modified projected steps); Scellier et al., arXiv 2312.15103.
    """

    project: Literal["pgd", "mod"] | None = None
    act: Any = jax.nn.relu
    damping: float = 0.0

    def __post_init__(self) -> None:
        if self.project not in (None, "pgd", "mod"):
            raise ValueError(
                f'RedBlack: project must be "pgd", "mod" or None; got {self.project!r}'
            )
        if not 0 <= self.damping < 1:
            raise ValueError(f"RedBlack: damping must be in [0, 1); got {self.damping!r}")

    def solve(
        self, algorithm: Any, x: PyTree, y: PyTree, *, energies: bool = False, states: bool = False
    ) -> Record:
        """`algorithm.T` sweeps, in place."""
        self._check(algorithm)
        colours = colours_of(x, y, algorithm.model)

        def sweep(algorithm: Any, x: PyTree, y: PyTree, t: Any) -> tuple[jax.Array, Any]:
            steps = [self._set(algorithm, x, y, colour) for colour in colours]
            return steps[0] if steps else (algorithm.inference_energy(x, y), [])

        T = algorithm.T if colours else 0
        return loop(algorithm, sweep, x, y, T=T, energies=energies, states=states)

    def _set(
        self, algorithm: Any, x: PyTree, y: PyTree, colour: list[int]
    ) -> tuple[jax.Array, Any]:
        model = algorithm.model
        nodes = [vodes(model)[k] for k in colour]
        params = [vode.h for vode in nodes]
        F, grads = gradient(algorithm.inference_energy, x, y, model, params)
        slopes = grads_of(params, model, grads)
        stored = [None] * len(nodes)
        if self.project is not None:
            with phase(model, clear_params=(CACHE, CACHE)):
                everywhere = _predictions(x, y, model=model)
            stored = [everywhere[k] for k in colour]
            if all(a is None for _, a in everywhere):
                why = f"project={self.project!r} needs nodes that know their pre-activation, `vode(f(a), a=a)`"
                raise ValueError(NO_COLOURS.format(why=why, instead="project=None"))
        for h, slope, known in zip(params, slopes, stored, strict=True):
            move = -slope
            if known is not None and known[1] is not None:
                u, a = known
                start = a if self.project == "mod" else u
                move = self.act(start + (h.get() - u) - slope) - h.get()
            h.set(h.get() + (1 - self.damping) * move)
        return F, slopes

    def _check(self, algorithm: Any) -> None:
        if not algorithm.steps_states:
            why = f"{type(algorithm).__name__} steps other variables than the states"
            raise ValueError(NO_COLOURS.format(why=why, instead="PC"))
        if any(isinstance(module, Stack) for module in energy_modules(algorithm.model)):
            why = "the layers of a Stack are one state, which cannot be set in turns"
            raise ValueError(NO_COLOURS.format(why=why, instead="a vode for each layer"))


def colours_of(x: PyTree, y: PyTree, model: Any) -> list[list[int]]:
    """The free states (numbers of vodes) in classes without a common energy term, the last colour first.

    In the order of the vodes, each takes the first colour that no state with which it shares a term has.
    """
    terms = trace_wave(x, y, model, None).states
    colour: dict[int, int] = {}
    for k in sorted(frozenset().union(*terms)):
        taken = {colour[j] for term in terms if k in term for j in term if j in colour}
        colour[k] = next(c for c in range(len(colour) + 1) if c not in taken)
    count = 1 + max(colour.values(), default=-1)
    return [[k for k, c in colour.items() if c == wanted] for wanted in reversed(range(count))]


@batched
def _predictions(x: PyTree, y: PyTree, *, model: Any) -> Any:
    model(x, y)
    return [(vode.get("u"), vode.get("a")) for vode in vodes(model)]
