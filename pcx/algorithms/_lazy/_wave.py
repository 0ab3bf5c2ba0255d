"""The wave: which gradients can be nonzero at which inference step, read off the model itself.

After forward initialisation every internal error is exactly zero, so at first only the states next to
the clamped output receive a gradient; the others follow, one more with every step. `trace_wave` finds,
for any model, the states and weights with a possibly nonzero gradient at each step. What it leaves out is
exactly zero, so skipping it changes no number.

The model's energy is a sum of terms E_i: one for each vode, and one for any other module with an energy of
its own. With D_i the free states that E_i depends on (from the traced model):

    A_0 = {i : E_i may have a gradient at initialisation}      reached_t = union of D_i over i in A_t
    A_{t+1} = A_t + {i : D_i meets reached_t}

Term i is left out of A_0 only where it is proven that its error starts at zero and stays there until
a state in D_i moves: both passes, at initialisation and after it, are traced for one sample, and u_i of
the second must be the same expression (`_numbering.Numbering`) of the weights and inputs as h_i, and depend
on nothing that the pass itself changes. Noise, dropout, rules, code that looks at the status, cycles,
nodes used twice: all these give other expressions, so nothing has to be known about them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...core import ParamCache
from ...predictive_coding import EnergyModule, Vode, VodeParam, traits, vodes
from ...predictive_coding._depends import propagate
from ._numbering import Numbering
from ._sample import Sample
from ._session import Observed


@dataclass(frozen=True)
class Dependencies:
    """What each energy term depends on. Vodes and terms are numbered; vodes' own terms come first.

    Attributes:
        states: for each term, the free states (indices of vodes).
        weights: for each term, the ids of the params that are no states.
        active: the terms that may have a gradient right after initialisation.
        convolves: whether the model has convolutions.
        inputs: for each vode, the states (indices of vodes, frozen ones too) that its prediction depends on.
        terms: for each term, the vode (its index) whose own energy it is; None for another module's.
        params: for each vode, the id of its state.
        learns: for each step, whether weights learn at it (those of `weights` with a gradient).
    """

    states: tuple[frozenset[int], ...]
    weights: tuple[frozenset[int], ...]
    active: frozenset[int]
    convolves: bool = False
    inputs: tuple[frozenset[int], ...] = ()
    terms: tuple[int | None, ...] = ()
    params: tuple[int, ...] = ()
    learns: tuple[bool, ...] = ()

    def reached(self, steps: int) -> list[frozenset[int]]:
        """The vodes whose state can have a gradient at step 0, 1, ..., `steps` - 1."""
        return [self._union(self.states, active) for active in self.active_at(steps)[:-1]]

    def params_of(self, terms: frozenset[int]) -> frozenset[int]:
        """The ids of the params, states and weights, that have a gradient from these terms."""
        moving = frozenset(self.params[k] for k in self._union(self.states, terms))
        return moving | self._union(self.weights, terms)

    def active_at(self, steps: int) -> list[frozenset[int]]:
        """The terms that can have a gradient after 0, 1, ..., `steps` steps."""
        out = [self.active]
        for t in range(steps):
            moved = self._union(self.states, out[-1])
            learned: frozenset[int] = frozenset()
            if t < len(self.learns) and self.learns[t]:
                learned = self._union(self.weights, out[-1])
            nodes = enumerate(zip(self.states, self.weights, strict=True))
            out.append(out[-1] | {i for i, (h, w) in nodes if h & moved or w & learned})
        return out

    @staticmethod
    def _union(sets: Sequence[frozenset[int]], members: frozenset[int]) -> frozenset[int]:
        return frozenset().union(*(sets[i] for i in members))


def trace_wave(x: Any, y: Any, model: Any, observed: Observed | None) -> Dependencies:
    """Trace the model once, abstractly, in its present states.

    Args:
        x, y: a batch (or tracers of one).
        model: with states initialised.
        observed: its forward initialisation; None if nothing is known of the states: then every term is
            active from the start.
    """
    nodes = vodes(model)
    sample = Sample(x, y, model, None)

    def pass_(x: Any, y: Any, *, model: Any) -> Any:
        model(x, y)
        energies = [jnp.asarray(term.energy()) for term in energy_terms(model)]
        return energies, [(_value(v, "h"), _value(v, "u")) for v in vodes(model)]

    closed, result, changed = sample.trace(pass_)
    convolutions: list[str] = []
    owner = [1 << i for i, n in enumerate(sample.sizes) for _ in range(n)]
    data = len(closed.jaxpr.invars) - len(owner)
    masks = propagate(closed.jaxpr, owner + [0] * data, convolutions)
    # changed params come first
    energies, per_vode = _like(result, masks[sum(n or 0 for n in changed) :])

    position = {id(p): i for i, p in enumerate(sample.params)}
    every_state = {position[id(v.h)]: k for k, v in enumerate(nodes)}
    free = {i: k for i, k in every_state.items() if not nodes[k].is_frozen}
    other = {
        i for i, p in enumerate(sample.params) if i and not isinstance(p, VodeParam | ParamCache)
    }
    states = tuple(frozenset(free[d] for d in _members(m) if d in free) for m in energies)
    weights = tuple(
        frozenset(id(sample.params[d]) for d in _members(m) if d in other) for m in energies
    )
    inputs = tuple(
        frozenset(every_state[d] for d in _members(u) if d in every_state) for _, u in per_vode
    )
    index = {id(v.h): k for k, v in enumerate(nodes)}
    terms = tuple(index.get(id(getattr(t, "h", None))) for t in energy_terms(model))
    still: set[int] = set()
    if observed is not None:
        errors = _zero_errors(observed, sample, closed, result, changed, per_vode, (x, y))
        still = {
            i
            for i, k in enumerate(terms)
            if not (states[i] or weights[i]) or (k in errors and _is_stationary(nodes[k]))
        }
    active = frozenset(range(len(terms))) - still
    params = tuple(id(v.h) for v in nodes)
    return Dependencies(states, weights, active, bool(convolutions), inputs, terms, params)


def _zero_errors(
    observed: Observed,
    sample: Sample,
    closed: Any,
    result: Any,
    changed: list[int | None],
    per_vode: Any,
    data: Any,
) -> set[int]:
    """The vodes whose h and u are equal until a free state that they depend on has moved."""
    numbering = Numbering()
    inputs = _numbers_after(numbering, observed, sample)
    numbers = iter(numbering.run(closed, [*inputs, *_of_data(numbering, *data)]))
    unsteady = 0
    for index, (old, count) in enumerate(zip(sample.numbers_of(inputs), changed, strict=True)):
        new = old if count is None else [next(numbers) for _ in range(count)]
        cache = index and isinstance(sample.params[index], ParamCache)
        if new != old and not cache:
            unsteady |= 1 << index
    values = _like(result, list(numbers))[1]
    return {
        k
        for k, ((h, u), masks) in enumerate(zip(values, per_vode, strict=True))
        if h == u and not any(m & unsteady for m in masks)
    }


def _numbers_after(numbering: Numbering, observed: Observed, sample: Sample) -> list[int]:
    """Numbers of all arrays of a model by what its forward initialisation left in the params."""
    before = observed.sample
    closed, _, changed = before.trace(_run_only)
    inputs = [numbering.of_object(value) for value in before.values]
    numbers = iter(numbering.run(closed, [*inputs, *_of_data(numbering, *observed.data)]))
    left: dict[int, list[int]] = {}
    for index, (param, old) in enumerate(
        zip(before.params, before.numbers_of(inputs), strict=True)
    ):
        count = changed[index]
        left[id(param)] = old if count is None else [next(numbers) for _ in range(count)]

    out: list[int] = []
    for param, arrays in zip(sample.params, sample.numbers_of(list(sample.values)), strict=True):
        known = left.get(id(param), [])
        # what something wrote to a param since then is not known
        unchanged = id(param) in observed.after and observed.after[id(param)] is param._value
        same = unchanged and len(known) == len(arrays)
        out += known if same else [numbering.fresh() for _ in arrays]
    return out + [numbering.of_object(value) for value in sample.values[len(out) :]]


def _run_only(x: Any, y: Any, *, model: Any) -> None:
    model(x, y)


def _of_data(numbering: Numbering, x: Any, y: Any) -> list[int]:
    return [numbering.of_object(leaf) for leaf in jax.tree_util.tree_leaves((x, y))]


def _like(treedef: Any, leaves: list[Any]) -> Any:
    return jax.tree_util.tree_unflatten(treedef, leaves)


def _value(vode: Vode, key: str) -> Any:
    value = vode.get(key)
    return jnp.zeros(()) if value is None else value


def energy_terms(model: Any) -> Iterator[Any]:
    """The modules whose energies add up to the model's: its vodes, and any with an energy of its own."""
    if isinstance(model, Vode) or type(model).energy is not EnergyModule.energy:
        yield model
        return
    for child in model._energy_children():
        yield from energy_terms(child)


def is_additive(model: Any) -> bool:
    """Whether the energy is the sum of the vodes' energies."""
    return all(isinstance(term, Vode) for term in energy_terms(model))


def _is_stationary(vode: Vode) -> bool:
    """Whether a vode's energy has no gradient as long as h is u."""
    own = type(vode).energy is not Vode.energy or "energy" in vars(vode)
    return not own and traits(vode.energy_fn).stationary


def _members(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]
