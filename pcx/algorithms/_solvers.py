"""`Diffrax`: inference as an ordinary differential equation.

A state solver is any object with `solve(algorithm, x, y, energies=..., states=...) -> Record` that
moves the free states of `algorithm.model` in place; hand it to an algorithm as `state_optim`.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..functional import pure, scan
from ..predictive_coding import free_states
from ..utils import step
from ._energies import CACHE
from ._loop import Record


@runtime_checkable
class StateSolver(Protocol):
    """What can stand in for the steps on the states: hand it to an algorithm as `state_optim`.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm, pcx.predictive_coding as pxc
        >>> class Nothing:  # leaves every state where it is
        ...     def solve(self, algorithm, x, y, *, energies=False, states=False):
        ...         return pxa.Record(0)
        >>> pc = pxa.PC(pxm.MLP([2, 4, 2]), state_optim=Nothing())
        >>> int(pc.train_step(jnp.eye(2), jnp.eye(2))["steps"])
        0
    """

    def solve(
        self, algorithm: Any, x: PyTree, y: PyTree, *, energies: bool = False, states: bool = False
    ) -> Record:
        """Move the free states of `algorithm.model`, (batch, *event) each, in place.

        They should lower `algorithm.inference_energy(x, y, model=model)`, the energy summed over the batch,
        each sample independently of the others. `algorithm.T` is the number of steps that was asked for.

        Returns:
            A `Record` with the number of steps; "energies" and "states" along the way if asked for.
        """
        ...


MISSING = """pxa.Diffrax needs the package diffrax, which is not installed: \
`pip install "pcx-networks[diffrax]"`"""


class Diffrax:
    """Solves the gradient flow of the energy on the states with a solver of diffrax.

        dh/dt = -dF/dh    from t = 0 to T

    Euler with step dt0 and no step control is gradient descent with learning rate dt0. All states
    of a batch are one system: an adaptive solver chooses one step for all of them. The steps are a
    loop, which XLA runs slowly on CPU if the model has convolutions.

    Args:
        solver: a diffrax solver (`diffrax.Heun()`), its class, or its name ("Heun").
        T: end time. None for the algorithm's own T times dt0, as many Euler steps as it has steps;
            so that also `algorithm.energy(x, y, T=...)` works.
        dt0: step size; the first one, with step control. None lets an adaptive controller choose.
        controller: a step size controller, such as `diffrax.PIDController(rtol=1e-3, atol=1e-3)`;
            None for constant steps.
        steady_state: stop as soon as `|dh/dt|`, over all states of a sample, is below this for
            every sample. It is the rate that must vanish, whatever the size of h.
        points: with energies or states recorded, at how many times after 0 (evenly spaced; after a
            steady state the values stay).
        max_steps: more steps are an error.

    Raises:
        ImportError: diffrax is not installed.
        ValueError: not a solver; no step size; negative times.

    Example:
        >>> import diffrax, jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
        >>> solver = pxa.Diffrax(diffrax.Heun(), T=2.0, dt0=0.2)
        >>> pc = pxa.PC(pxm.MLP([2, 8, 2]), state_optim=solver)
        >>> int(pc.train_step(jnp.ones((3, 2)), jnp.ones((3, 2)))["steps"])
        10

    References:
        Innocenti et al., "JPC: flexible inference for predictive coding networks in JAX", 2024.
        Kidger, "On neural differential equations", 2022.
    """

    def __init__(
        self,
        solver: Any = "Heun",
        T: float | None = None,
        dt0: float | None = 0.1,
        controller: Any = None,
        steady_state: float | None = None,
        points: int = 20,
        max_steps: int = 4096,
    ):
        diffrax = _diffrax()
        if isinstance(solver, str):
            solver = getattr(diffrax, solver, solver)
        if isinstance(solver, type):
            solver = solver()
        if not isinstance(solver, diffrax.AbstractSolver):
            raise ValueError(
                "Diffrax takes a diffrax solver such as `diffrax.Heun()`, or its name; got "
                f"{solver!r}"
            )
        if dt0 is None and (controller is None or T is None):
            raise ValueError("Diffrax: without `dt0` give both `controller` and `T`")
        for name, value in (("T", T), ("dt0", dt0), ("steady_state", steady_state)):
            if value is not None and not value > 0:
                raise ValueError(f"Diffrax: {name} must be positive; got {value!r}")
        self.solver, self.T, self.dt0, self.controller = solver, T, dt0, controller
        self.steady_state, self.points, self.max_steps = steady_state, points, max_steps

    def solve(
        self, algorithm: Any, x: PyTree, y: PyTree, *, energies: bool = False, states: bool = False
    ) -> Record:
        """Move the free states of the algorithm's model to the end of the flow, in place.

        Returns:
            A `Record` with the number of steps taken; "energies" and "states" at the start and at
            `points` times after it.
        """
        free = free_states(algorithm.model)
        watch = energies or states
        if not free or algorithm.T == 0:
            seen = [
                jax.tree_util.tree_map(lambda a: a[None], algorithm.watch(x, y, energies, states))
            ]
            return Record(0, *seen[0]) if watch else Record(0)
        solution = self._integrate(algorithm, x, y, [h.get() for h in free], watch)
        final, at_times = solution.ys if watch else (solution.ys, None)
        record = Record(solution.stats["num_steps"])
        if watch:
            record = record._replace(
                **_watched(algorithm, x, y, at_times, final, solution.ts[1], energies, states)
            )
        for h, value in zip(free, final, strict=True):
            h.set(value[0])
        return record

    def _integrate(self, algorithm: Any, x: PyTree, y: PyTree, start: Any, watch: bool) -> Any:
        diffrax = _diffrax()
        end = algorithm.T * self.dt0 if self.T is None else self.T
        tolerance = self.steady_state or 0.0
        with step(algorithm.model, clear_params=(CACHE, CACHE)):
            energy = pure(energy_at(algorithm), model=algorithm.model)

        def flow(t: Any, h: Any, args: Any) -> Any:
            return [-g for g in jax.grad(lambda h: energy(h, x, y))(h)]

        def settled(t: Any, h: Any, args: Any, **kwargs: Any) -> Any:
            squared = sum(jnp.sum(jnp.square(r).reshape(len(r), -1), -1) for r in flow(t, h, args))
            return jnp.max(squared) < tolerance**2

        save = diffrax.SubSaveAt(t1=True)
        if watch:
            save = [save, diffrax.SubSaveAt(ts=jnp.linspace(0.0, end, self.points + 1))]
        return diffrax.diffeqsolve(
            diffrax.ODETerm(flow),
            self.solver,
            t0=0.0,
            t1=end,
            dt0=self.dt0,
            y0=start,
            stepsize_controller=self.controller or diffrax.ConstantStepSize(),
            saveat=diffrax.SaveAt(subs=save),
            event=None if self.steady_state is None else diffrax.Event(settled),
            max_steps=self.max_steps,
        )

    def __repr__(self) -> str:
        return f"Diffrax({type(self.solver).__name__}, T={self.T}, dt0={self.dt0})"


def _diffrax() -> Any:
    try:
        import diffrax
    except ImportError as error:
        raise ImportError(MISSING) from error
    return diffrax


def energy_at(algorithm: Any) -> Any:
    """The energy that inference descends, as a function of the free states."""

    def energy(states: list[Any], x: PyTree, y: PyTree, *, model: Any) -> Any:
        for h, value in zip(free_states(model), states, strict=True):
            h.set(value)
        return algorithm.inference_energy(x, y, model=model)

    return energy


def _watched(
    algorithm: Any,
    x: PyTree,
    y: PyTree,
    at_times: Any,
    final: Any,
    times: Any,
    energies: bool,
    states: bool,
) -> dict[str, Any]:
    # times after a steady state were not reached
    reached = jnp.isfinite(times)
    at_times = [
        jnp.where(reached.reshape(-1, *[1] * (a.ndim - 1)), a, last)
        for a, last in zip(at_times, final, strict=True)
    ]

    seen = watch_all(algorithm, x, y, at_times, energies, states)
    return {"energies": seen[0], "states": seen[1]}


def watch_all(
    algorithm: Any, x: PyTree, y: PyTree, trajectory: Any, energies: bool, states: bool
) -> tuple[Any, Any]:
    """What `Record` keeps, at all points of a trajectory of the free states, (points, batch, *event) each."""

    def body(values: Any, *, algorithm: Any) -> Any:
        for h, value in zip(free_states(algorithm.model), values, strict=True):
            h.set(value)
        return (), algorithm.watch(x, y, energies, states)

    _, seen = scan(body, trajectory)(algorithm=algorithm)
    return seen
