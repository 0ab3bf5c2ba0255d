"""The wave: which states can move at which inference step, read off the model itself.

After forward initialisation every internal error is exactly zero, so at first only the states next to
the clamped output receive a gradient; the others follow, one more with every step. `trace_wave` finds,
for any model, the states with a possibly nonzero gradient at each step, and the energies that can be
nonzero after the last. What it leaves out is exactly zero, so skipping it changes no number.

With E_i the energy of node i and D_i the free states that E_i depends on (from the traced model):

    A_0 = {i : E_i may have a gradient at initialisation}      reached_t = union of D_i over i in A_t
    A_{t+1} = A_t + {i : D_i meets reached_t}

Node i is left out of A_0 only where it is proven that its error starts at zero and stays there until
a state in D_i moves: both passes, at initialisation and after it, are traced for one sample, and u_i of
the second must be the same expression (`_same.Numbering`) of the weights and inputs as h_i, and depend
on nothing that the pass itself changes. Noise, dropout, rules, code that looks at the status, cycles,
nodes used twice: all these give other expressions, so nothing has to be known about them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from ..core import ParamCache
from ..predictive_coding import (
    STATUS,
    EnergyModule,
    Vode,
    VodeParam,
    energy_modules,
    se_energy,
    zero_energy,
)
from ._energy_fn import forward, vodes_of
from ._same import Numbering, sub_jaxpr
from ._sample import Initial, Sample


@dataclass(frozen=True)
class Dependencies:
    """What each vode's energy depends on, as sets of positions.

    Attributes:
        states: for each vode, the free states (indices of vodes).
        weights: for each vode, the ids of the params that are no states.
        active: the vodes whose energy may have a gradient right after initialisation.
        convolves: whether the model has convolutions.
        inputs: for each vode, the states (indices of vodes, frozen ones too) that its prediction depends on.
        learns: for each step, whether weights learn at it (those of `weights` with a gradient).
        spreads: whether learning moves all weights, not only those with a gradient.
    """

    states: tuple[frozenset[int], ...]
    weights: tuple[frozenset[int], ...]
    active: frozenset[int]
    convolves: bool
    inputs: tuple[frozenset[int], ...] = ()
    learns: tuple[bool, ...] = ()
    spreads: bool = False

    def reached(self, steps: int) -> list[frozenset[int]]:
        """The vodes whose state can have a gradient at step 0, 1, ..., `steps` - 1."""
        return [self._union(self.states, active) for active in self.active_at(steps)[:-1]]

    def active_after(self, steps: int) -> frozenset[int]:
        """The vodes whose energy can have a gradient after `steps` steps."""
        return self.active_at(steps)[-1]

    def active_at(self, steps: int) -> list[frozenset[int]]:
        """The vodes whose energy can have a gradient after 0, 1, ..., `steps` steps."""
        out = [self.active]
        for t in range(steps):
            moved = self._union(self.states, out[-1])
            learned: frozenset[int] = frozenset()
            if t < len(self.learns) and self.learns[t]:
                source = frozenset(range(len(self.weights))) if self.spreads else out[-1]
                learned = self._union(self.weights, source)
            nodes = enumerate(zip(self.states, self.weights, strict=True))
            out.append(out[-1] | {i for i, (h, w) in nodes if h & moved or w & learned})
        return out

    @staticmethod
    def _union(sets: Sequence[frozenset[int]], members: frozenset[int]) -> frozenset[int]:
        return frozenset().union(*(sets[i] for i in members))


def forward_initialise(x: Any, y: Any, model: Any) -> tuple[Any, Initial]:
    """Forward initialisation, in place; the prediction, and what is known of the states now."""
    initial = Initial()
    sample = Sample(x, y, model, STATUS.INIT)
    numbering = initial.numbering
    inputs = [numbering.of_object(value) for value in sample.values]

    # first the pass itself, so that mistakes in the model are reported from there
    prediction = forward(x, y, model)
    closed, _, changed = sample.trace(_run_only)
    numbers = iter(numbering.run(closed, [*inputs, *_of_data(numbering, x, y)]))
    for index, (param, old) in enumerate(
        zip(sample.params, sample.numbers_of(inputs), strict=True)
    ):
        count = changed[index]
        new = old if count is None else [next(numbers) for _ in range(count)]
        initial.values[id(param)] = (param._value, new)
    return prediction, initial


def trace_wave(x: Any, y: Any, model: Any, initial: Initial | None) -> Dependencies:
    """Trace the model once, abstractly, in its present states.

    Args:
        x, y: a batch (or tracers of one).
        model: with states initialised.
        initial: what `forward_initialise` gave; None if nothing is known of the states.

    Returns:
        The dependencies. Where nothing is known, or the energy is not the sum of the vodes', every vode
        is active from the start, so that every state counts as reached at every step.
    """
    vodes = vodes_of(model)
    additive = is_additive(model)
    sample = Sample(x, y, model, None)

    def nodes(x: Any, y: Any, *, model: Any) -> Any:
        model(x, y)
        out = [(v.energy(), _node(v, "h"), _node(v, "u")) for v in vodes_of(model)]
        return [out, 0.0 if additive else model.energy()]

    closed, result, changed = sample.trace(nodes)
    convolutions: list[str] = []
    owner = [1 << i for i, n in enumerate(sample.sizes) for _ in range(n)]
    data = len(closed.jaxpr.invars) - len(owner)
    masks = _propagate(closed.jaxpr, owner + [0] * data, convolutions)
    # changed params come first
    per_vode, total = _like(result, masks[sum(n or 0 for n in changed) :])

    position = {id(p): i for i, p in enumerate(sample.params)}
    every_state = {position[id(v.h)]: k for k, v in enumerate(vodes)}
    free = {i: k for i, k in every_state.items() if not is_frozen(vodes[k].h)}
    other = {
        i for i, p in enumerate(sample.params) if i and not isinstance(p, VodeParam | ParamCache)
    }
    # an energy that is not the sum of the vodes' counts for each of them
    energies = [energy if additive else total for energy, _, _ in per_vode]
    states = tuple(frozenset(free[d] for d in _members(m) if d in free) for m in energies)
    weights = tuple(
        frozenset(id(sample.params[d]) for d in _members(m) if d in other) for m in energies
    )
    inputs = tuple(
        frozenset(every_state[d] for d in _members(u) if d in every_state) for _, _, u in per_vode
    )
    still: set[int] = set()
    if initial is not None and additive:
        still = _still(initial, sample, closed, result, changed, vodes, per_vode, (x, y))
    active = frozenset(range(len(vodes))) - still
    return Dependencies(states, weights, active, bool(convolutions), inputs)


def _still(
    initial: Initial,
    sample: Sample,
    closed: Any,
    result: Any,
    changed: list[int | None],
    vodes: list[Vode],
    per_vode: Any,
    data: Any,
) -> set[int]:
    """The vodes whose energy has no gradient until a free state that it depends on has moved."""
    numbering = initial.numbering
    inputs = sample.numbers_by(initial)
    numbers = iter(numbering.run(closed, [*inputs, *_of_data(numbering, *data)]))
    unsteady = 0
    for index, (old, count) in enumerate(zip(sample.numbers_of(inputs), changed, strict=True)):
        new = old if count is None else [next(numbers) for _ in range(count)]
        cache = index and isinstance(sample.params[index], ParamCache)
        if new != old and not cache:
            unsteady |= 1 << index
    values = _like(result, list(numbers))[0]
    still = set()
    for k, (vode, (_, h, u), masks) in enumerate(zip(vodes, values, per_vode, strict=True)):
        if _is_still(vode, h == u and not any(m & unsteady for m in masks)):
            still.add(k)
    return still


def _run_only(x: Any, y: Any, *, model: Any) -> None:
    model(x, y)


def _of_data(numbering: Numbering, x: Any, y: Any) -> list[int]:
    return [numbering.of_object(leaf) for leaf in jax.tree_util.tree_leaves((x, y))]


def _like(treedef: Any, leaves: list[Any]) -> Any:
    return jax.tree_util.tree_unflatten(treedef, leaves)


def _node(vode: Vode, key: str) -> Any:
    value = vode.get(key)
    return jnp.zeros(()) if value is None else value


def is_frozen(param: Any) -> bool:
    """Whether a state is marked `frozen`."""
    return bool(param.__dict__.get("frozen", False))


def is_additive(model: Any) -> bool:
    """Whether the energy is the sum of the vodes' energies."""
    containers = [m for m in energy_modules(model) if not isinstance(m, Vode)]
    return all(type(m).energy is EnergyModule.energy for m in containers)


def _is_still(vode: Vode, error_is_zero: bool) -> bool:
    """Whether a vode's energy has no gradient, given whether h is u."""
    if type(vode).energy is not Vode.energy:
        return False
    return vode.energy_fn in (None, zero_energy) or (vode.energy_fn is se_energy and error_is_zero)


def _members(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def _propagate(jaxpr: Any, inputs: list[int], convolutions: list[str]) -> list[int]:
    """For each output of a jaxpr, the union of the masks of the inputs that it depends on."""
    known: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(var: Any) -> int:
        return 0 if isinstance(var, Literal) else known.get(var, 0)

    for eqn in jaxpr.eqns:
        arguments = [read(var) for var in eqn.invars]
        if eqn.primitive.name.startswith("conv_general"):
            convolutions.append(eqn.primitive.name)
        body = sub_jaxpr(eqn)
        if body is not None:
            results = _propagate(body[0], arguments, convolutions)
        else:
            union = 0
            for mask in arguments:
                union |= mask
            results = [union] * len(eqn.outvars)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]
