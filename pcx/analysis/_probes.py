"""What `regime` measures, inside one compiled call: gradients before and after, layer by layer."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..algorithms import IPC, Backprop, compiled
from ..algorithms._curvature import largest_curvatures, samples_are_coupled
from ..algorithms._energies import CACHE, batch_size, batched
from ..algorithms._errors import energies_at, find_early_read, to_errors, unrolled_energy
from ..algorithms._lazy import observed, session, trace_wave
from ..core import named_params
from ..functional import pure
from ..nn import training_batch
from ..predictive_coding import STATUS, VodeParam, free_states, vodes
from ..predictive_coding._graph import layer_of
from ..utils import step

# a list of arrays with the batch as first axis, or of weights
Arrays = list[Any]


@compiled(static=("samples",))
def measure(algorithm: Any, x: Any, y: Any, samples: int) -> dict[str, Any]:
    """All numbers of a `Regime`; by sample, or by layer as "layers" has them."""
    model = algorithm.model
    with algorithm._aside(), training_batch(model):
        clamped = [vode.is_frozen for vode in vodes(model)]
        _, target = algorithm.start(x, y)
        # an algorithm may clamp or free a node for this batch
        outputs = [a or v.is_frozen for a, v in zip(clamped, vodes(model), strict=True)]
        groups, out = layers_of(algorithm, x, target, outputs)
        out["curvatures"] = pure(_curvatures, algorithm=algorithm)(x, target)
        before, before_e = pure(_slopes, algorithm=algorithm)(x, target)
        algorithm.infer_states(x, target)
        after, after_e = pure(_slopes, algorithm=algorithm)(x, target)
        # without a gradient there is nothing to infer
        out["ratio"] = jnp.sqrt(_over(_dot(after, after), _dot(before, before), 0.0))
        out["relaxed"] = 1 - _over(_dot(after_e, before_e), _dot(before_e, before_e), 1.0)
        sizes = [jnp.sum(jnp.square(e)) for e in pure(_errors, algorithm=algorithm)(x, target)]
        algorithm._clear()
        model.clear_params(VodeParam)
        learned = pure(_learned, algorithm=algorithm)(x, y)
        values = [weight.get() for weight in algorithm.weights()]
        loss = pure(_loss, algorithm=algorithm)
        propagated = jax.grad(lambda values: jnp.sum(loss(values, x, y)[0]))(values)
        out["alone"] = ((jnp.full(1, jnp.nan), jnp.zeros(1, bool)),) * 2
        if number := min(samples, batch_size(x, y)):
            alone = pure(_alone, algorithm=algorithm)
            out["alone"] = jax.lax.map(lambda i: alone(i, x, y), jnp.arange(number))

    final = sum(size for size, is_output in zip(sizes, outputs, strict=True) if is_output)
    for name in ("cosine", "norm_ratio", "share", "error_ratio"):
        out[name] = []
    for members, nodes in groups:
        g, bp, w = ([a[k] for k in members] for a in (learned, propagated, values))
        out["cosine"].append(_cosine(g, bp))
        out["norm_ratio"].append(jnp.sqrt(_over(_inner(g, g), _inner(bp, bp), jnp.nan)))
        out["share"].append(_over(_inner(g, g), _inner(w, w), 0.0))
        own = jnp.asarray(sum(sizes[k] for k in nodes) if nodes else jnp.nan)
        out["error_ratio"].append(jnp.sqrt(_over(own, jnp.asarray(final), jnp.nan)))
    return {**out, "total_cosine": _cosine(learned, propagated)}


def layers_of(
    algorithm: Any, x: Any, y: Any, outputs: list[bool]
) -> tuple[list[Any], dict[str, Any]]:
    """Layers in the order of the params.

    Returns:
        For each the numbers of its weights and of the vodes it predicts; and "layers", their names,
        "reach", and "depth", the number of vodes from there to the outputs.
    """
    nodes, weights = vodes(algorithm.model), algorithm.weights()
    wave = trace_wave(x, y, algorithm.model, observed())
    paths = {id(param): path for path, param in named_params(algorithm.model)}
    numbers: dict[str, list[int]] = {}
    for k, weight in enumerate(weights):
        numbers.setdefault(layer_of(paths[id(weight)]), []).append(k)
    distance = [0.0 if is_output else math.inf for is_output in outputs]
    for _ in nodes:
        for k, inputs in enumerate(wave.inputs):
            for j in inputs:
                distance[j] = min(distance[j], distance[k] + 1)
    active = wave.active_at(len(nodes))
    groups, reach, depth = [], [], []
    for members in numbers.values():
        own = {id(weights[k]) for k in members}
        terms = {i for i, used in enumerate(wave.weights) if used & own}
        first = min((t for t, now in enumerate(active) if now & terms), default=math.inf)
        if not algorithm.steps_states:  # a step on the errors reaches all of them
            first = min(first, 1)
        if algorithm.solver is not None and first > 0:  # its steps are its own
            first = math.nan
        reach.append(0.0 if isinstance(algorithm, Backprop) else float(first))
        predicted = [node for i in sorted(terms) if (node := wave.terms[i]) is not None]
        depth.append(min((distance[node] for node in predicted), default=math.inf))
        groups.append((members, predicted))
    return groups, {"layers": list(numbers), "reach": reach, "depth": depth}


def _curvatures(x: Any, y: Any, *, algorithm: Any) -> jax.Array:
    return largest_curvatures(algorithm, x, y)


def _slopes(x: Any, y: Any, *, algorithm: Any) -> tuple[Arrays, Arrays]:
    """The gradients of each sample's energy in what inference steps on, and in the errors."""
    model = algorithm.model
    states = [h.get() for h in free_states(model)]
    algorithm.to_stepped(x, y)
    stepped = _gradient(algorithm.inference_energy, x, y, model)
    _set(free_states(model), states)
    if not states or find_early_read(x, y, model) is not None:
        return stepped, [jnp.full((batch_size(x, y), 1), jnp.nan if states else 0.0)]
    to_errors(x, y, model)
    return stepped, _gradient(unrolled_energy, x, y, model)


def _gradient(energy: Any, x: Any, y: Any, model: Any) -> Arrays:
    def at(values: Arrays, *, model: Any) -> jax.Array:
        _set(free_states(model), values)
        with step(model, clear_params=(CACHE, CACHE)):
            return jnp.sum(energy(x, y, model=model))

    return jax.grad(pure(at, model=model))([h.get() for h in free_states(model)])


def _errors(x: Any, y: Any, *, algorithm: Any) -> Arrays:
    """-dF/du of each vode in the present states."""
    model = algorithm.model
    with step(model, clear_params=(CACHE, CACHE)):
        return _minus_slopes(_nodes(x, y, model=model)[1], model)


def _minus_slopes(nodes: list[tuple[Any, Any]], model: Any) -> Arrays:
    energies = pure(energies_at, model=model)
    total = lambda us: jnp.sum(energies([(h, u) for (h, _), u in zip(nodes, us, strict=True)]))
    slopes = jax.grad(total)([u for _, u in nodes])
    return [jnp.zeros(()) if g is None else -g for g in slopes]


@batched
def _nodes(x: Any, y: Any, *, model: Any) -> Any:
    model(x, y)
    return model.energy(), [(vode.h.get(), vode.get("u")) for vode in vodes(model)]


def _learned(x: Any, y: Any, *, algorithm: Any) -> Arrays:
    """The gradients that a training step hands to the weight optimiser, summed; nothing learns."""
    weights = algorithm.weights()
    paths = {
        path: k
        for k, w in enumerate(weights)
        for path, p in named_params(algorithm.model)
        if p is w
    }
    total = [jnp.zeros_like(weight.get()) for weight in weights]

    def collect(grads: Any, x: Any, y: Any) -> None:
        for path, grad in named_params(grads):
            if path in paths and grad.get() is not None:
                total[paths[path]] += grad.get()

    algorithm.apply_gradients = collect
    if isinstance(algorithm, IPC):
        algorithm.unroll = True  # gradients cannot leave a scan this way
    with session():
        algorithm.train(x, y)
    return total


def _loss(values: Arrays, x: Any, y: Any, *, algorithm: Any) -> tuple[Any, Any]:
    """The loss of back-propagation of each sample at these weights, and all (h, u)."""
    _set(algorithm.weights(), values)
    with step(algorithm.model, STATUS.INIT, clear_params=(VodeParam | CACHE, CACHE)):
        energy, nodes = _nodes(x, y, model=algorithm.model)
    return jnp.asarray(energy), nodes


def _alone(i: Any, x: Any, y: Any, *, algorithm: Any) -> Any:
    """Target alignment and interference of a small weight step on sample i alone, each with whether it has one."""
    model, nan = algorithm.model, (jnp.asarray(jnp.nan), jnp.asarray(False))
    outputs = [k for k, vode in enumerate(vodes(model)) if vode.is_frozen]
    if not outputs or samples_are_coupled(model):
        return nan, nan
    sample = jax.tree_util.tree_map(lambda a: jax.lax.dynamic_slice_in_dim(a, i, 1), (x, y))
    g = pure(_learned, algorithm=algorithm)(*sample)
    values = [weight.get() for weight in algorithm.weights()]
    loss = pure(_loss, algorithm=algorithm)
    (_, nodes), (change, moved) = jax.jvp(lambda v: loss(v, x, y), (values,), ([-a for a in g],))
    slopes = _minus_slopes(nodes, model)
    outputs = [k for k in outputs if nodes[k][1] is not None]  # what nothing predicts is an input
    wanted, made = [slopes[k][i] for k in outputs], [moved[k][1][i] for k in outputs]
    others = (jnp.sum(change) - change[i]) / max(len(change) - 1, 1)
    gain = -change[i]
    known = (gain != 0) & (len(change) > 1)
    # a sample without an error has no direction; what is not finite is kept, to be seen
    points = (_inner(made, made) != 0) & (_inner(wanted, wanted) != 0)
    return (_cosine(made, wanted), points), (others / jnp.where(known, gain, 1), known)


def _set(params: Any, values: Arrays) -> None:
    for param, value in zip(params, values, strict=True):
        param.set(value)


def _dot(a: Arrays, b: Arrays) -> jax.Array:
    """Inner products by sample, (batch,)."""
    rows = [jnp.sum((p * q).reshape(len(p), -1), axis=-1) for p, q in zip(a, b, strict=True)]
    return jnp.asarray(sum(rows) if rows else jnp.zeros(1))


def _inner(a: Arrays, b: Arrays) -> jax.Array:
    return jnp.asarray(sum(jnp.sum(p * q) for p, q in zip(a, b, strict=True)))


def _cosine(a: Arrays, b: Arrays) -> jax.Array:
    return _over(_inner(a, b), jnp.sqrt(_inner(a, a)) * jnp.sqrt(_inner(b, b)), jnp.nan)


def _over(a: jax.Array, b: jax.Array, otherwise: float) -> jax.Array:
    """a / b, or something else where b is 0; nan stays nan."""
    return jnp.where(b == 0, otherwise, a / jnp.where(b == 0, 1, b))
