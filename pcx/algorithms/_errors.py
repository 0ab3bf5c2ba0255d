"""The model as a function of its errors: h_l = u_l + eps_l, from one forward pass.

While errors are stepped on, each free vode's param `h` holds its error; calling the model through
`call_with_errors` turns errors into states. So any model will do.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import static
from ..functional import pure, vmap
from ..predictive_coding import Stack, Vode, energy_modules, free_states, vodes
from ..predictive_coding._rules import Ruleset, parse_rule
from ..utils import step as phase
from ._energies import AXIS, BATCHED, CACHE, batched
from ._lazy import propagate

NOT_FEED_FORWARD = """{cls}: `{who}` depends on the state of `{node}` from before `{node}` was predicted in this \
pass: a lateral or cyclic connection, or a state kept from the step before. Inference on the errors \
needs states that follow from the errors by one forward pass. Use PC or IPC, or read the state that \
calling the node returns."""


def to_errors(x: PyTree, y: PyTree, model: Any, zero: bool = False) -> None:
    """Replace the state in each free vode's `h` by its error h - u, in place.

    Args:
        x, y, model: a batch, and the model with its states.
        zero: take the errors to be zero instead (forward initialisation). A node without a
            prediction keeps its state, which is its error then.
    """
    with phase(model, clear_params=(CACHE, CACHE)):
        predictions = pure(_predictions, model=model)(x, y)
    for vode, u in zip(vodes(model), predictions, strict=True):
        h = vode.h.get()
        if h is None or u is None or vode.is_frozen or jnp.shape(u) != jnp.shape(h):
            continue
        vode.h.set(jnp.zeros_like(h) if zero else h - u)


def to_states(x: PyTree, y: PyTree, model: Any) -> None:
    """Replace the error in each free vode's `h` by the state u + error, in place."""
    with phase(model, clear_params=(CACHE, CACHE)):
        _states(x, y, model=model)


def find_early_read(x: PyTree, y: PyTree, model: Any) -> tuple[int, int] | None:
    """The numbers of a vode and of one whose state it depends on from before that was predicted.

    Only traced: beside the errors, the pass gets the states as they are before it, and nothing may
    depend on those.
    """
    free = [k for k, v in enumerate(vodes(model)) if not v.is_frozen and v.h.get() is not None]
    with phase(model, clear_params=(CACHE, CACHE)):
        run = pure(_predictions_from, model=model)
        before = [vodes(model)[k].h.get() for k in free]
        predicted: list[bool] = []

        def predictions(before: Any) -> Any:
            found = run(before, x, y)
            predicted[:] = [u is not None for u in found]
            return found

        jaxpr = jax.make_jaxpr(predictions)(before).jaxpr
    masks = propagate(jaxpr, [1 << k if predicted[k] else 0 for k in free], [])
    for k, mask in zip([k for k, known in enumerate(predicted) if known], masks, strict=True):
        if mask:
            return k, mask.bit_length() - 1
    return None


def curvature(x: PyTree, y: PyTree, model: Any, direction: list[jax.Array]) -> jax.Array:
    """Gauss-Newton curvature of the energy along a direction in the errors, shape (batch,).

    With z the states and predictions of all nodes, as functions of the errors, and E(z) the energy:
    `(dz)' (d2E/dz2) (dz)`, where dz is the change of z along the direction.
    """
    errors = [h.get() for h in free_states(model)]
    with phase(model, clear_params=(CACHE, CACHE)):
        nodes = pure(nodes_at, model=model)
        z, dz = jax.jvp(lambda errors: nodes(errors, x, y), (errors,), (direction,))
        energies = pure(energies_at, model=model)

    def along(s: jax.Array) -> jax.Array:
        return energies(jax.tree_util.tree_map(lambda a, da: a + s.astype(a.dtype) * da, z, dz))

    def slope(s: jax.Array) -> jax.Array:
        return jax.jvp(along, (s,), (jnp.ones_like(s),))[1]

    zero = jnp.zeros((), direction[0].dtype)
    return jax.jvp(slope, (zero,), (jnp.ones_like(zero),))[1]


def call_with_errors(x: PyTree, y: PyTree, model: Any) -> None:
    """Call the model with h := u + error for each free vode, whose `h` holds the error."""
    _add_errors(model)
    model(x, y)


def _add_errors(model: Any) -> None:
    """Let each free vode set h := u + error when its u comes; its `h` holds the error now."""
    # one node may be held as several objects here, which share their param
    for module in energy_modules(model):
        vode = module.vode if isinstance(module, Stack) else module
        if not isinstance(vode, Vode) or vode.is_frozen or vode.h.get() is None:
            continue
        if isinstance(module, Stack):
            module._errors = vode.h.get()
        else:
            config = vode._config.get()
            ruleset = _with_error(config.ruleset, vode.h.get())
            vode._config = static(replace(config, ruleset=ruleset))


def _with_error(ruleset: Ruleset, error: Any) -> Ruleset:
    """The rules of a vode, and last of all: once u is set, h := u + error."""

    def add_error(vode: Vode, key: str, value: Any, rkg: Any) -> Any:
        u = vode.get("u")  # after the vode's own rules
        # a node without an energy may be called with a stand-in for the prediction it ignores
        return u + error if jnp.shape(u) == jnp.shape(error) else error

    texts = ["h <- u:_add_error"]
    if not ruleset.on_set(None, "u"):
        texts.insert(0, "u <- u")
    rules = (*ruleset.rules, (None, tuple(map(parse_rule, texts))))
    return Ruleset(rules, ruleset.tforms, {**ruleset._tforms, "_add_error": add_error})


@batched
def unrolled_energy(x: PyTree, y: PyTree, *, model: Any) -> Any:
    errors = [(vode.h, vode.h.get()) for vode in vodes(model)]
    call_with_errors(x, y, model)
    energy = model.energy()
    for h, error in errors:
        h.set(error)
    return energy


@batched
def _states(x: PyTree, y: PyTree, *, model: Any) -> None:
    call_with_errors(x, y, model)


@batched
def _predictions(x: PyTree, y: PyTree, *, model: Any) -> Any:
    model(x, y)
    return [vode.get("u") for vode in vodes(model)]


@vmap(BATCHED, in_axes=(0, 0, 0), axis_name=AXIS)
def _predictions_from(before: list[Any], x: PyTree, y: PyTree, *, model: Any) -> Any:
    free = free_states(model)
    _add_errors(model)
    for h, value in zip(free, before, strict=True):
        h.set(value)
    model(x, y)
    return [vode.get("u") for vode in vodes(model)]


@vmap(BATCHED, in_axes=(0, 0, 0), axis_name=AXIS)
def nodes_at(errors: list[Any], x: PyTree, y: PyTree, *, model: Any) -> Any:
    for h, error in zip(free_states(model), errors, strict=True):
        h.set(error)
    call_with_errors(x, y, model)
    return [(vode.h.get(), vode.get("u")) for vode in vodes(model)]


@vmap(BATCHED, in_axes=(0,), axis_name=AXIS)
def energies_at(nodes: list[Any], *, model: Any) -> Any:
    total: Any = 0.0
    for vode, (h, u) in zip(vodes(model), nodes, strict=True):
        if h is not None:  # a clamped node has its own
            vode.h.set(h)
        vode.cache["u"] = u
        total = total + vode.energy()
    return total
