"""Mistakes that train without an error, looked for once: before and after the first batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core import RKG, RKG_LOCK, named_params, warn
from ..functional import pure
from ..predictive_coding import vodes
from ..utils import _mesh, step
from . import _lazy
from ._energies import CACHE, batched

NOTHING_LEARNS = """{who}: no weight learns. {why} Unfreeze a layer (`layer.nn.weight.frozen = False`), or \
override `weights_mask` so that it selects the params that should learn."""

NOT_CLAMPED = """{who}: the energy does not depend on y, so nothing is learned from it. Clamp it in the model's \
`__call__(self, x, y=None)`: `if y is not None: self.vodes[-1].set("h", y)`, after the output vode was called."""

NOT_FROZEN = """{who}: y is clamped on `{where}`, which is not frozen, so inference computes steps for a state \
that the next pass overwrites. Freeze it when the model is made: `self.{where}.h.frozen = True`."""

PIXELS = """{who}: x holds integers from {low} to {high}, as pixels do before they are scaled. Networks expect \
numbers of order 1: divide by 255, or standardise (`x = (x / 255 - mean) / std`)."""

UNEVEN = """{who}: {samples} samples do not divide by the {devices} devices of the mesh, so each of them computes \
the whole batch: the same numbers, but no faster than one. Choose a multiple of {devices} as batch size."""

ZERO = """{who}: the energy is exactly 0 after the first batch's inference, so there is no error to learn from. \
Is y clamped on a vode with an energy (`energy_fn` other than None and `pxc.zero_energy`)?"""

NOT_FINITE = """{who}: the energy of the first batch is {value}. {hint}"""

RISES = """{who}: inference raised the energy of its first batch from {before:.4g} to {after:.4g}: the steps on \
the states are too large. {hint}"""

STABLE = """Plain gradient descent is stable below a state rate of {rate:.3g} here (2 / the largest curvature of \
the energy, measured on this batch); momentum and training call for less."""

UNCLAMPED = -1.0

SMALLER = "Use a smaller rate in `state_optim`."


def first_step(algorithm: Any, x: PyTree, y: PyTree, run: Any) -> Any:
    """The first training step of an algorithm, `run()`, with a look before it and after it."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves((x, y))):
        return run()  # inside a transform of JAX's own, which is refused there
    _uneven(algorithm, x, y)
    before = before_first(algorithm, x, y)
    untrained = []
    if before not in (None, UNCLAMPED) and algorithm.steps_states:  # then a rate may be named
        params = [param for _, param in named_params(algorithm.model)]
        untrained = [(param, jax.tree_util.tree_map(jnp.copy, param.get())) for param in params]
    out = run()
    after_first(algorithm, x, y, before, float(out["energy"]), untrained)
    return out


def before_first(algorithm: Any, x: PyTree, y: PyTree) -> float | None:
    """Look at a batch and the model; the energy before inference, if inference should lower it."""
    _pixels(algorithm, x)
    if not algorithm.weights():
        select = type(algorithm).weights_mask(algorithm)
        why = f"Every layer is frozen, or the mask {select} selects none."
        _warn(NOTHING_LEARNS, algorithm, why=why)
    if y is not None and not _is_clamped(algorithm, x, y):
        return UNCLAMPED
    # a learning energy of one's own is not the one that inference descends
    comparable = algorithm.descends and getattr(type(algorithm).learning_energy, "lazy_safe", False)
    # inference from other states than the forward pass's does not start at that pass's energy
    forward = algorithm.init == "forward" and algorithm.solver is None
    if not (comparable and forward and algorithm.T):
        return None
    return float(jnp.mean(untouched(algorithm, lambda: algorithm.energy(x, y, T=0))))


def after_first(
    algorithm: Any, x: PyTree, y: PyTree, before: float | None, energy: float, untrained: list[Any]
) -> None:
    """Look at the energy after the first batch's inference.

    Args:
        untrained: pairs of a param and its value before the batch, which its inference saw; empty
            where no state rate can be named.
    """
    if not np.isfinite(energy):
        finite = before is None or np.isfinite(before)
        hint = (
            _stable(algorithm, x, y, untrained)
            if finite and before not in (None, UNCLAMPED)
            else "Look for non-finite values in x, y and the weights."
        )
        _warn(NOT_FINITE, algorithm, value=energy, hint=hint)
    elif energy == 0 and y is not None and before != UNCLAMPED:
        _warn(ZERO, algorithm)
    elif before not in (None, UNCLAMPED) and energy > before * (1 + 1e-3) + 1e-6:
        hint = _stable(algorithm, x, y, untrained)
        _warn(RISES, algorithm, before=before, after=energy, hint=hint)


def _pixels(algorithm: Any, x: PyTree) -> None:
    for leaf in jax.tree_util.tree_leaves(x):
        array = _mesh.own_part(leaf)
        # larger integer types hold tokens and indices, too
        if (
            not (array.dtype == np.uint8 or np.issubdtype(array.dtype, np.floating))
            or not array.size
        ):
            continue
        low, high = float(array.min()), float(array.max())
        if low >= 0 and 127 < high <= 255 and np.all(array == np.round(array)):
            _warn(PIXELS, algorithm, low=int(low), high=int(high))


def _uneven(algorithm: Any, x: PyTree, y: PyTree) -> None:
    mesh, leaves = algorithm.mesh, jax.tree_util.tree_leaves((x, y))
    if mesh is not None and leaves and np.shape(leaves[0])[0] % mesh.devices.size:
        _warn(UNEVEN, algorithm, samples=len(leaves[0]), devices=mesh.devices.size)


def _is_clamped(algorithm: Any, x: PyTree, y: PyTree) -> bool:
    """Whether the energy depends on y, and whether what holds y is frozen; nothing is computed."""
    for where in _unfrozen(algorithm, x, y):
        _warn(NOT_FROZEN, algorithm, where=where)
    leaves = jax.tree_util.tree_leaves(y)
    # as it is traced here, `algorithm.energy` need not trace it again
    jaxpr = untouched(algorithm, lambda: _energy(algorithm).jaxpr(x, y, 0, algorithm=algorithm))
    inputs = [0] * (len(jaxpr.invars) - len(leaves)) + [1] * len(leaves)
    clamped = bool(_lazy.propagate(jaxpr, inputs, [])[-1])
    if not clamped:
        _warn(NOT_CLAMPED, algorithm)
    return clamped


def _energy(algorithm: Any) -> Any:
    """The compiled `energy` of an algorithm, also where a subclass wraps it."""
    methods: Any = (vars(cls).get("energy") for cls in type(algorithm).__mro__)
    return next(method.jitted for method in methods if hasattr(method, "jitted"))


def _unfrozen(algorithm: Any, x: PyTree, y: PyTree) -> list[str]:
    """The vodes on which the model clamps y though inference steps on them."""
    found: list[str] = []
    events = {np.shape(leaf)[1:] for leaf in jax.tree_util.tree_leaves(y)}
    free = [vode for vode in vodes(algorithm.model) if not vode.is_frozen]
    if not any(vode.shape is None or vode.shape in events for vode in free):
        return found

    def look(x: PyTree, y: PyTree, *, model: Any) -> None:
        model(x, y)
        leaves = jax.tree_util.tree_leaves(y)
        for name, vode in zip(algorithm.vode_names, vodes(model), strict=True):
            if not vode.is_frozen and any(vode.h.get() is leaf for leaf in leaves):
                found.append(name)

    def initialised(x: PyTree, y: PyTree, *, algorithm: Any) -> None:
        with _lazy.session():
            algorithm.initialise(x, y)
        with step(algorithm.model, clear_params=(CACHE, CACHE)):
            batched(look)(x, y, model=algorithm.model)

    jax.eval_shape(pure(initialised, algorithm=algorithm), x, y)
    return list(dict.fromkeys(found))


def _stable(algorithm: Any, x: PyTree, y: PyTree, untrained: list[Any]) -> str:
    """What to say of the state rate: the largest stable one, where states are what is stepped."""
    if not untrained:
        return SMALLER

    def measured() -> Any:
        for param, value in untrained:
            param.set(value)
        return algorithm.largest_state_rate(x, y)

    rate = untouched(algorithm, measured)
    return STABLE.format(rate=float(rate)) if np.isfinite(rate) else SMALLER


def untouched(algorithm: Any, run: Any) -> Any:
    """A value computed by the algorithm, with all that the computation wrote put back."""
    kept = [(p, p.get()) for _, p in named_params(algorithm)]
    with RKG_LOCK:  # a key that another thread draws meanwhile must not come again
        key = RKG.key.get()
        try:
            return run()
        finally:
            for param, value in kept:
                param.set(value)
            RKG.key.set(key)


def _warn(message: str, algorithm: Any, **values: Any) -> None:
    warn(message.format(who=type(algorithm).__name__, **values))
