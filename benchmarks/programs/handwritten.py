"""Predictive coding and back-propagation written directly in JAX: the floor.

Nothing here knows of `pcx`. Weights are a list of (weight, bias), states a list of arrays (batch,
*event) of the hidden nodes; the output node is clamped to the targets, so it is not a state. One
step: states start at the network's own predictions, T optimiser steps on the states, one on the
weights.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import cases
from benchmarks.programs._program import Program

Weights = list[tuple[jax.Array, jax.Array]]
Network = list[Callable[[tuple[jax.Array, jax.Array], jax.Array], jax.Array]]


def dense(act: Callable | None) -> Callable:
    def predict(weights, x):
        weight, bias = weights
        u = x.reshape(x.shape[0], -1) @ weight.T + bias
        return u if act is None else act(u)

    return predict


def network(case: cases.Case) -> Network:
    """One prediction function per layer."""
    if not case.is_dense:
        from benchmarks.programs import handwritten_conv

        return handwritten_conv.network(case)
    acts = [getattr(jax.nn, case.act)] * (len(case.layers) - 1) + [None]
    return [*map(dense, acts)]


def output_energy(loss: str, u: jax.Array, y: jax.Array) -> jax.Array:
    if loss == "ce":
        return -jnp.sum(y * jax.nn.log_softmax(u))
    return 0.5 * jnp.sum((y - u) ** 2)


def feed_forward(net: Network, weights: Weights, x: jax.Array) -> list[jax.Array]:
    predictions = []
    for predict, layer_weights in zip(net, weights, strict=True):
        x = predict(layer_weights, x)
        predictions.append(x)
    return predictions


def make_energy(net: Network, loss: str) -> Callable:
    """Energy of all nodes, summed over the batch, for given states, weights, inputs and targets."""

    def energy(states, weights, x, y):
        below = [x, *states]
        predictions = [predict(w, h) for predict, w, h in zip(net, weights, below, strict=True)]
        hidden = sum(jnp.sum((h - u) ** 2) for h, u in zip(states, predictions[:-1], strict=True))
        return 0.5 * hidden + output_energy(loss, predictions[-1], y)

    return energy


def infer_full(case: cases.Case, energy: Callable, optim, states, weights, x, y, scan: bool):
    """T steps in which every state is differentiated and moved."""

    def one(carry, _):
        states, memory = carry
        updates, memory = optim.update(jax.grad(energy)(states, weights, x, y), memory, states)
        return (optax.apply_updates(states, updates), memory), None

    carry = (states, optim.init(states))
    if scan:
        carry, _ = jax.lax.scan(one, carry, length=case.T)
    else:
        for _ in range(case.T):
            carry, _ = one(carry, None)
    return carry[0]


def infer_lazy(case: cases.Case, energy: Callable, optim, states, weights, x, y):
    """The same steps, differentiating only the top t + 1 states: the rest have zero gradients."""
    memory = optim.init(states)
    for t in range(case.T):
        still = max(len(states) - (t + 1), 0)
        moving = jax.grad(
            lambda top, bottom=tuple(states[:still]): energy([*bottom, *top], weights, x, y)
        )(states[still:])
        gradients = [*(jnp.zeros_like(h) for h in states[:still]), *moving]
        updates, memory = optim.update(gradients, memory, states)
        states = optax.apply_updates(states, updates)
    return states


def make_pc_step(case: cases.Case, net: Network, loop: str) -> Callable:
    energy = make_energy(net, case.loss)
    state_optim = optax.sgd(case.state_lr, momentum=case.momentum)
    weight_optim = optax.adamw(case.weight_lr)

    def step(weights, memory, x, y):
        states = feed_forward(net, weights, x)[:-1]
        if loop == "lazy":
            states = infer_lazy(case, energy, state_optim, states, weights, x, y)
            # A layer between two nodes that have not moved has no error to learn from.
            still = max(len(weights) - (case.T + 1), 0)
        else:
            states = infer_full(
                case, energy, state_optim, states, weights, x, y, scan=loop == "scan"
            )
            still = 0
        top = jax.grad(lambda top: energy(states, [*weights[:still], *top], x, y))(weights[still:])
        gradients = [*jax.tree.map(jnp.zeros_like, weights[:still]), *top]
        gradients = jax.tree.map(lambda g: g / x.shape[0], gradients)
        updates, memory = weight_optim.update(gradients, memory, weights)
        return optax.apply_updates(weights, updates), memory

    return jax.jit(step, donate_argnums=(0, 1))


def make_bp_step(case: cases.Case, net: Network) -> Callable:
    weight_optim = optax.adamw(case.weight_lr)

    def loss(weights, x, y):
        return output_energy(case.loss, feed_forward(net, weights, x)[-1], y) / x.shape[0]

    def step(weights, memory, x, y):
        updates, memory = weight_optim.update(jax.grad(loss)(weights, x, y), memory, weights)
        return optax.apply_updates(weights, updates), memory

    return jax.jit(step, donate_argnums=(0, 1))


def make(case: cases.Case, loop: str) -> Program:
    """`loop`: "scan", "unroll" or "lazy" for predictive coding; "bp", "ep": the other two rules."""
    if loop not in ("scan", "unroll", "lazy", "bp", "ep"):
        raise ValueError(f"unknown loop {loop!r}; one of scan, unroll, lazy, bp, ep")
    net = network(case)
    if loop == "ep":
        from benchmarks.programs import handwritten_ep

        compiled = handwritten_ep.make_step(case, net)
    else:
        compiled = make_bp_step(case, net) if loop == "bp" else make_pc_step(case, net, loop)
    weights = [(jnp.asarray(w), jnp.asarray(b)) for w, b in cases.initial_weights(case)]
    memory = optax.adamw(case.weight_lr).init(weights)
    x, y = (jax.device_put(array) for array in cases.batch(case))
    carry = (weights, memory)

    def step():
        nonlocal carry
        carry = compiled(*carry, x, y)
        return carry[0]

    def read_weights():
        return [(np.asarray(w), np.asarray(b)) for w, b in carry[0]]

    return Program(step, read_weights)
