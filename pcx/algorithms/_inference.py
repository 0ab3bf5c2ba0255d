"""The T-step loop over the states: which states move at which step, unrolled or scanned.

The loop is one place, the contract (`Algorithm`) another, the variants small files: an algorithm says what
one step does (`inference_step`), this module says how often, in which order, and on what.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..core import RKG
from ..functional import scan, while_loop
from ._energy_fn import vodes_of
from ._wave import Dependencies, Initial, is_frozen, trace_wave

# What follows the lazy prefix is scanned on CPU, where a loop runs as fast as the same steps unrolled (an
# MLP: 6 to 20 % faster) and compiles in less time; except with convolutions, which XLA runs 8 to 10 times
# slower in a loop there. On an accelerator a loop costs a round trip for each iteration, so up to this many
# steps are unrolled; beyond it compile time counts for more.
MAX_UNROLLED = 16
# fewer steps than this are not worth a loop
MIN_SCANNED = 3


@dataclass(frozen=True)
class Plan:
    """What is known before the loop starts.

    Attributes:
        reached: for each step, the vodes whose state can have a gradient.
        unrolled: how many steps are unrolled; the others are scanned.
        dependencies: what the model's energies depend on.
    """

    reached: tuple[frozenset[int], ...]
    unrolled: int
    dependencies: Dependencies

    def learning(self, steps: int) -> frozenset[int]:
        """Ids of the weights that can have a gradient after `steps` steps."""
        active = self.dependencies.active_after(steps)
        return frozenset().union(*(self.dependencies.weights[i] for i in active))


def make_plan(
    x: Any,
    y: Any,
    model: Any,
    steps: int,
    initial: Initial | None,
    lazy: bool = True,
    unroll: bool | str = "auto",
) -> Plan:
    """Find out what can be skipped, and how to loop.

    Args:
        x, y, model: a batch, and the model with its states initialised.
        steps: number of inference steps T.
        initial: what forward initialisation gave; None if nothing is known of the states.
        lazy: skip what is exactly zero. False computes everything.
        unroll: True, False (scan what follows the lazy prefix) or "auto".
    """
    return plan_loop(trace_wave(x, y, model, initial if lazy else None), steps, unroll)


def plan_loop(dependencies: Dependencies, steps: int, unroll: bool | str = "auto") -> Plan:
    """How to loop over `steps` steps."""
    reached = dependencies.reached(steps)
    # after the last change of the set, every step is the same
    prefix = next((t for t in range(steps) if reached[t] == reached[-1]), 0)
    if unroll == "auto":
        on_cpu = jax.default_backend() == "cpu"
        short = steps - prefix < MIN_SCANNED or (not on_cpu and steps <= MAX_UNROLLED)
        whole = short or (on_cpu and dependencies.convolves)
    else:
        whole = bool(unroll)
    return Plan(tuple(reached), steps if whole else prefix, dependencies)


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
        >>> int(pc.train_step(x, pc.predict(x))["steps"])  # no errors, so nothing to infer
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


def run(
    algorithm: Any,
    x: Any,
    y: Any,
    plan: Plan,
    *,
    energies: bool = False,
    states: bool = False,
) -> Record:
    """Run all steps of an algorithm's inference, in place."""
    if algorithm.stop is not None:
        if energies or states:
            raise ValueError("inference that stops early (`stop=`) cannot record every step")
        return Record(_run_until(algorithm, x, y, plan))

    seen = []
    for t in range(plan.unrolled):
        seen.append(algorithm.watch(x, y, energies, states))
        algorithm.inference_step(x, y, t, plan.reached[t])
    total = len(plan.reached)
    stacked = _stack(seen)
    if total > plan.unrolled:

        def body(t: Any, *, algorithm: Any) -> Any:
            before = algorithm.watch(x, y, energies, states)
            algorithm.inference_step(x, y, t, plan.reached[-1])
            return (), before

        _, rest = scan(body, jnp.arange(plan.unrolled, total))(algorithm=algorithm)
        stacked = rest if stacked is None else _concatenate(stacked, rest)
    if energies or states:
        last = _stack([algorithm.watch(x, y, energies, states)])
        stacked = last if stacked is None else _concatenate(stacked, last)
        return Record(total, *stacked)
    return Record(total)


def _run_until(algorithm: Any, x: Any, y: Any, plan: Plan) -> Any:
    """Steps until the tolerance is met, at most as many as planned."""
    stop: Stop = algorithm.stop
    everything = frozenset().union(*plan.reached)

    def body(t: Any, energy: Any, change: Any, largest: Any, *, algorithm: Any) -> Any:
        new, grads = algorithm.inference_step(x, y, t, everything)
        largest = jnp.max(jnp.stack([jnp.zeros(()), *(jnp.max(jnp.abs(g)) for g in grads)]))
        return t + 1, new, jnp.abs(new - energy) / jnp.maximum(jnp.abs(new), 1e-30), largest

    def proceed(t: Any, energy: Any, change: Any, largest: Any, *, algorithm: Any) -> Any:
        settled = (change < stop.energy_rtol) | (largest < stop.gradient_tol)
        return (t < len(plan.reached)) & ~(settled & (t >= stop.min_steps))

    infinite = jnp.asarray(jnp.inf)
    steps, *_ = while_loop(body, proceed)(
        jnp.asarray(0), infinite, infinite, infinite, algorithm=algorithm
    )
    return steps


def _stack(seen: list[Any]) -> Any:
    return jax.tree_util.tree_map(lambda *a: jnp.stack(a), *seen) if seen else None


def _concatenate(a: Any, b: Any) -> Any:
    return jax.tree_util.tree_map(lambda x, y: jnp.concatenate([x, y]), a, b)


def free_states(model: Any) -> list[Any]:
    """The states that inference may move."""
    return [
        vode.h for vode in vodes_of(model) if not is_frozen(vode.h) and vode.h.get() is not None
    ]


def keeps_zeros(transformation: Any, moved: bool = False, steps: int = 3) -> bool:
    """Whether an optimiser leaves a param alone, exactly, as long as its gradients are zero.

    True for SGD, momentum, Adam and their like; false with weight decay or added noise. Found out by
    trying, so that it holds for any optax transformation.

    Args:
        moved: also after the param has had gradients; true for plain SGD only.
        steps: how many steps to try.
    """
    generator = RKG.key
    key = generator._value
    try:
        params = {"still": jnp.array([0.7, -1.3]), "moving": jnp.array([0.2, 0.4, -0.6])}
        state = transformation.init(params)
        for t in range(-1 if moved else 0, steps):
            still = jnp.zeros(2) if t >= 0 else jnp.array([0.1, -0.2])
            grads = {"still": still, "moving": jnp.array([0.3, -0.1, 0.5]) * (t + 2)}
            updates, state = transformation.update(grads, state, params)
            if generator._value is not key or (t >= 0 and bool(jnp.any(updates["still"] != 0))):
                return False
            params = optax.apply_updates(params, updates)
        return True
    except Exception:
        # an optimiser with needs of its own: nothing is known about it
        return False
    finally:
        generator._value = key
