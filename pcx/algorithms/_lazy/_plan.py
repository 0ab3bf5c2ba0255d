"""The plan of an inference loop: which gradients can be nonzero at each step, and which steps are unrolled."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax

from ...core import named_params
from ...predictive_coding import free_states
from ...utils import Optim
from ._safe import is_plain
from ._session import observed
from ._wave import Dependencies, trace_wave
from ._zeros import keeps_zeros

# What follows the lazy prefix is scanned on CPU, where a loop runs as fast as the same steps unrolled (an
# MLP: 6 to 20 % faster) and compiles in less time; except with convolutions, which XLA runs 8 to 10 times
# slower in a loop there. On an accelerator a loop costs a round trip for each iteration, so up to this many
# steps are unrolled; beyond it compile time counts for more.
MAX_UNROLLED = 16
# fewer steps than this are not worth a loop
MIN_SCANNED = 3

Live = frozenset[str] | None


class Plan(NamedTuple):
    """What is known before the loop starts.

    Attributes:
        live: for each step, and after the last, the paths of the params that can have a gradient (None: all).
        unrolled: how many steps are unrolled; the others, which have the same live params, are scanned.
    """

    live: tuple[Live, ...]
    unrolled: int


def plan(
    algorithm: Any,
    step: Callable[..., Any],
    x: Any,
    y: Any,
    T: int,
    learns: Callable[[int], bool] | None = None,
) -> Plan:
    """What can be skipped in T calls of `step`, and how to loop over them.

    Args:
        algorithm: with its states initialised, and `state_optim` started.
        step: the method that is called at each step.
        x, y: the batch; y is the target.
        learns: whether the weights step together with the states at step t; None for never.
    """
    lazy = algorithm.lazy and is_plain(algorithm, step) and _keeps_still(algorithm)
    if learns is not None:  # an optimiser with a memory moves weights that have no gradient
        lazy = lazy and only_by_gradient(algorithm.weight_optim, algorithm.model)
    dependencies = None
    if T and (lazy or algorithm.unroll == "auto"):
        dependencies = trace_wave(x, y, algorithm.model, observed() if lazy else None)
    live: tuple[Live, ...] = (None,) * (T + 1)
    if lazy and dependencies is not None:
        if learns is not None:
            dependencies = replace(dependencies, learns=tuple(map(learns, range(T))))
        live = live_params(dependencies, algorithm.model, T)
    return Plan(
        live, unrolled(live[:-1], algorithm.unroll, bool(dependencies and dependencies.convolves))
    )


def live_params(dependencies: Dependencies, model: Any, T: int) -> tuple[Live, ...]:
    """The paths of the params with a gradient at steps 0 ... T - 1, and after them."""
    paths = {id(param): path for path, param in named_params(model)}
    return tuple(
        frozenset(paths[p] for p in dependencies.params_of(terms) if p in paths)
        for terms in dependencies.active_at(T)
    )


def unrolled(live: tuple[Live, ...], unroll: bool | str, convolves: bool) -> int:
    """How many of the steps are unrolled."""
    T = len(live)
    # after the last change of the set, every step is the same
    prefix = next((t for t in range(T) if live[t] == live[-1]), 0)
    if unroll == "auto":
        on_cpu = jax.default_backend() == "cpu"
        short = T - prefix < MIN_SCANNED or (not on_cpu and T <= MAX_UNROLLED)
        unroll = short or (on_cpu and convolves)
    return T if unroll else prefix


def _keeps_still(algorithm: Any) -> bool:
    """Whether the state optimiser does not move a state whose gradients have been zero so far."""
    free = {id(h) for h in free_states(algorithm.model)}
    values = {path: p.get() for path, p in named_params(algorithm.model) if id(p) in free}
    return not values or keeps_zeros(algorithm.state_optim.optax, values)


def only_by_gradient(optim: Any, model: Any) -> bool:
    """Whether a weight moves only where it has a gradient now, whatever the optimiser remembers."""
    state = optim.state.get()
    if type(optim).step is not Optim.step or not hasattr(state, "paths"):
        return False
    params = dict(named_params(model))
    values = {path: params[path].get() for path in state.paths if path in params}
    return keeps_zeros(optim.optax, values, from_start=False)
