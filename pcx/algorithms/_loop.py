"""The loop over inference steps: unrolled, scanned, or until a tolerance is met.

An algorithm says what one step does; this module says how often, and asks `_lazy.plan` which params can
have a gradient at each step.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..functional import scan, while_loop
from . import _lazy

# `step(algorithm, x, y, t) -> (F, dF/dh)`: one step, in place
StepFn = Callable[..., tuple[jax.Array, Any]]


class Stop(NamedTuple):
    """When inference ends early, for the whole batch at once.

    Attributes:
        energy_rtol: stop when a step changes the batch's energy by less than this fraction of it.
        gradient_tol: stop when the largest state gradient in absolute value is below this.
        min_steps: never stop before this many steps.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
        >>> model, x = pxm.MLP([2, 4, 3]), jnp.ones((5, 2))
        >>> pc = pxa.PC(model, T=100, stop=pxa.Stop(gradient_tol=1e-3, min_steps=2))
        >>> int(pc.train_step(x, pc.predict(x) + 1e-4)["steps"])  # next to nothing to infer
        2
    """

    energy_rtol: float = 0.0
    gradient_tol: float = 0.0
    min_steps: int = 1


class Record(NamedTuple):
    """What the loop saw.

    Attributes:
        steps: how many steps were made.
        energies: energy of each vode, batch mean, before each step and after the last, (T + 1, vodes);
            None unless asked for.
        states: for each vode its state before each step and after the last, (T + 1, batch, *event); None
            unless asked for.
        info: more that an algorithm measured; part of what `train_step` gives.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
        >>> pc = pxa.PC(pxm.MLP([2, 4, 3]), T=6)
        >>> _, record = pc.infer(jnp.ones((5, 2)), jnp.ones((5, 3)), trajectory=True)
        >>> record.energies.shape, [h.shape for h in record.states]
        ((7, 2), [(7, 5, 4), (7, 5, 3)])
        >>> bool(record.energies[-1].sum() < record.energies[0].sum())
        True
    """

    steps: Any
    energies: jax.Array | None = None
    states: tuple[Any, ...] | None = None
    info: Mapping[str, jax.Array] | None = None


def loop(
    algorithm: Any,
    step: StepFn,
    x: PyTree,
    y: PyTree,
    *,
    T: int | None = None,
    at_least: int = 0,
    learns: Callable[[int], bool] | None = None,
    energies: bool = False,
    states: bool = False,
) -> Record:
    """Call `step(algorithm, x, y, t)` for t = 0 ... T - 1, in place.

    Args:
        algorithm: with states initialised; what it changes is kept.
        step: a method, as a function of the class: a scanned loop runs it on a copy of the algorithm.
        x, y: the batch; y is the target.
        T: number of steps; None for the algorithm's own.
        at_least: how many of the steps get a plain int as t.
        learns: whether weights step as well, by t; None for never.
        energies, states: what to record.
    """
    total = algorithm.T if T is None else T
    plan = _lazy.plan(algorithm, step, x, y, total, learns)
    if algorithm.stop is not None:
        if energies or states:
            raise ValueError("inference that stops early (`stop=`) cannot record every step")
        steps = _until(algorithm, step, x, y, total)
        _lazy.set_live(plan.live[-1])
        return Record(steps)

    seen = []
    unrolled = min(max(plan.unrolled, at_least), total)
    for t in range(unrolled):
        seen.append(algorithm.watch(x, y, energies, states))
        _lazy.set_live(plan.live[t])
        step(algorithm, x, y, t)
    stacked = _stack(seen)
    if total > unrolled:
        _lazy.set_live(plan.live[total - 1])

        def body(t: Any, *, algorithm: Any) -> Any:
            before = algorithm.watch(x, y, energies, states)
            step(algorithm, x, y, t)
            return (), before

        _, rest = scan(body, jnp.arange(unrolled, total))(algorithm=algorithm)
        stacked = rest if stacked is None else _concatenate(stacked, rest)
    _lazy.set_live(plan.live[-1])
    if not (energies or states):
        return Record(total)
    last = _stack([algorithm.watch(x, y, energies, states)])
    return Record(total, *(last if stacked is None else _concatenate(stacked, last)))


def _until(algorithm: Any, step: StepFn, x: PyTree, y: PyTree, most: int) -> Any:
    """Steps until the tolerance is met; how many."""
    stop: Stop = algorithm.stop

    def body(t: Any, energy: Any, change: Any, largest: Any, *, algorithm: Any) -> Any:
        new, grads = step(algorithm, x, y, t)
        slopes = jax.tree_util.tree_leaves(grads)
        largest = jnp.max(jnp.stack([jnp.zeros(()), *(jnp.max(jnp.abs(g)) for g in slopes)]))
        return t + 1, new, jnp.abs(new - energy) / jnp.maximum(jnp.abs(new), 1e-30), largest

    def proceed(t: Any, energy: Any, change: Any, largest: Any, *, algorithm: Any) -> Any:
        settled = (change < stop.energy_rtol) | (largest < stop.gradient_tol)
        return (t < most) & ~(settled & (t >= stop.min_steps))

    infinite = jnp.asarray(jnp.inf)
    steps, *_ = while_loop(body, proceed)(
        jnp.asarray(0), infinite, infinite, infinite, algorithm=algorithm
    )
    return steps


def _stack(seen: list[Any]) -> Any:
    return jax.tree_util.tree_map(lambda *a: jnp.stack(a), *seen) if seen else None


def _concatenate(a: Any, b: Any) -> Any:
    return jax.tree_util.tree_map(lambda x, y: jnp.concatenate([x, y]), a, b)
