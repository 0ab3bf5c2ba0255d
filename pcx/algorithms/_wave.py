"""The wave: which states can move at which inference step, read off the model itself.

After forward initialisation every internal error is exactly zero, so at first only the states next to the
clamped output receive a gradient; the others follow, one more with every step. `trace_wave` finds, for any
model, the states with a possibly nonzero gradient at each step, and the energies that can be nonzero
after the last. What it leaves out is exactly zero, so skipping it changes no number.

With E_i the energy of node i and D_i the free states that E_i depends on (from the traced model):

    A_0 = {i : E_i may have a gradient at initialisation}      reached_t = union of D_i over i in A_t
    A_{t+1} = A_t + {i : D_i meets reached_t}
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Literal

from ..functional._tracked import collect
from ..nn import LayerParam
from ..predictive_coding import (
    STATUS,
    EnergyModule,
    Vode,
    VodeParam,
    energy_modules,
    se_energy,
    zero_energy,
)
from ..predictive_coding._energy_module import status_reads
from ..utils import step
from ._energy_fn import CACHE, _call_and_vode_energies, batched, sample_energies, vodes_of

# energies without any gradient where h = u exactly
_FLAT_AT_PREDICTION = (se_energy, zero_energy)
_SUB_JAXPRS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclass(frozen=True)
class Dependencies:
    """What each vode's energy depends on, as sets of positions.

    Attributes:
        states: for each vode, the free states (indices of vodes).
        weights: for each vode, the ids of the layer params.
        active: the vodes whose energy may have a gradient right after initialisation.
        convolves: whether the model has convolutions.
    """

    states: tuple[frozenset[int], ...]
    weights: tuple[frozenset[int], ...]
    active: frozenset[int]
    convolves: bool

    def reached(self, steps: int) -> list[frozenset[int]]:
        """The vodes whose state can have a gradient at step 0, 1, ..., `steps` - 1."""
        return [self._union(active) for active in self._active(steps)[:-1]]

    def active_after(self, steps: int) -> frozenset[int]:
        """The vodes whose energy can have a gradient after `steps` steps."""
        return self._active(steps)[-1]

    def _active(self, steps: int) -> list[frozenset[int]]:
        out = [self.active]
        for _ in range(steps):
            moved = self._union(out[-1])
            grown = {i for i, states in enumerate(self.states) if states & moved}
            out.append(out[-1] | grown)
        return out

    def _union(self, active: frozenset[int]) -> frozenset[int]:
        return frozenset().union(*(self.states[i] for i in active))


def forward_initialise(x: Any, y: Any, model: Any) -> tuple[Any, list[bool]]:
    """Forward initialisation; the prediction, and for each vode whether `h` is `u` now."""
    flags: list[Any] = []

    @batched
    def init(x: Any, y: Any, *, model: Any) -> Any:
        prediction = model(x, y)
        flags.append([vode.h._value is vode.cache.get("u") for vode in vodes_of(model)])
        return prediction

    with step(model, STATUS.INIT, clear_params=CACHE):
        prediction = init(x, y, model=model)
    return prediction, flags[-1]


def trace_wave(x: Any, y: Any, model: Any, initialised: list[bool] | None) -> Dependencies:
    """Trace the model once, abstractly, in its present states.

    Args:
        x, y: a batch (or tracers of one).
        model: with states initialised.
        initialised: for each vode, whether h equals u exactly; None if nothing is known.

    Returns:
        The dependencies. Where the skipping would not be exact (see `_plain`), every vode is active
        from the start, so that every state counts as reached at every step.
    """
    vodes = vodes_of(model)
    structure, params, values = collect({"model": model})
    firsts: list[Any] = []
    changed: list[Any] = []
    reads = status_reads()
    additive = _additive(model)

    def run(values: Any, x: Any, y: Any) -> Any:
        def body(x: Any, y: Any, *, model: Any) -> Any:
            with step(model, clear_params=CACHE):
                energies = list(_call_and_vode_energies(x, y, model=model))
                return energies if additive else [*energies, sample_energies(x, y, model=model)[0]]

        result, updates = structure.run("dependencies", body, values, (x, y), firsts=firsts.append)
        changed.extend(updates)
        return result

    closed = jax.make_jaxpr(run)(values, x, y)
    owner = [i for i in range(len(structure.specs)) for _ in range(structure.size_of(i))]
    masks = [1 << owner[k] if k < len(owner) else 0 for k in range(len(closed.jaxpr.invars))]
    convolutions: list[str] = []
    outputs = _propagate(closed.jaxpr, masks, convolutions)
    deps = [_members(mask) for mask in outputs]

    position = {id(p): i for i, p in enumerate(params)}
    state_index = {position[id(v.h)]: k for k, v in enumerate(vodes) if not is_frozen(v.h)}
    layer = {i for i, p in enumerate(params) if isinstance(p, LayerParam)}
    # a vode without an energy gives the constant 0.0, which depends on nothing; an energy that is not
    # the sum of the vodes' (the last one here) counts for each of them
    per_vode = {k: deps[k] if additive else deps[-1] for k in range(len(vodes))}
    states = tuple(
        frozenset(state_index[d] for d in per_vode[k] if d in state_index) for k in per_vode
    )
    weights = tuple(frozenset(id(params[d]) for d in per_vode[k] if d in layer) for k in per_vode)

    exact = (
        initialised is not None
        and firsts[-1][0] is None
        and status_reads() == reads
        and additive
        and _plain(vodes)
        and not _writes_state(params, changed)
    )
    flat = [
        exact
        and bool(initialised and initialised[k])
        and vode.energy_fn in (*_FLAT_AT_PREDICTION, None)
        for k, vode in enumerate(vodes)
    ]
    active = frozenset(k for k, still in enumerate(flat) if not still)
    return Dependencies(states, weights, active, bool(convolutions))


def is_frozen(param: Any) -> bool:
    """Whether a state is marked `frozen`."""
    return bool(param.__dict__.get("frozen", False))


def _additive(model: Any) -> bool:
    """Whether the energy is the sum of the vodes' energy functions."""
    return all(
        type(m).energy is (Vode.energy if isinstance(m, Vode) else EnergyModule.energy)
        for m in energy_modules(model)
    )


def _plain(vodes: list[Vode]) -> bool:
    """Whether predictions outside initialisation are computed as they were during it."""
    own_rules = any(
        vode.ruleset.on_set(None, key) or vode.ruleset._matching(None, key, False)
        for vode in vodes
        for key in ("u", "h")
    )
    transformed = any(rule.tforms for v in vodes for rule in v.ruleset.on_set(STATUS.INIT, "u"))
    return not (own_rules or transformed)


def _writes_state(params: list[Any], changed: list[Any]) -> bool:
    """Whether a call changes anything but states and caches, which the next call may read."""
    return any(
        update and not isinstance(param, VodeParam | VodeParam.Cache)
        for param, update in zip(params[1:], changed[1:], strict=True)
    )


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
        inner = _sub_jaxpr(eqn)
        if inner is not None:
            results = _propagate(inner, arguments, convolutions)
        else:
            union = 0
            for mask in arguments:
                union |= mask
            results = [union] * len(eqn.outvars)
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _sub_jaxpr(eqn: Any) -> Any:
    """The body of a call-like equation, if its inputs and outputs are the equation's own."""
    for name in _SUB_JAXPRS:
        inner = eqn.params.get(name)
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
            same = len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars)
            # a loop feeds its outputs back: only calls that run once can be looked into
            if same and not eqn.primitive.name.startswith(("scan", "while")):
                return inner
    return None
