"""Equilibrium propagation written directly in JAX: centred, squared or cross-entropy cost, red-black sweeps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from benchmarks import cases
from benchmarks.programs.handwritten import Network, feed_forward, output_energy

BETA = 0.02


def make_step(case: cases.Case, net: Network) -> Callable:
    weight_optim = optax.adamw(case.weight_lr)

    def energy(states, weights, x, y, beta):
        below = [x, *states[:-1]]
        predictions = [predict(w, h) for predict, w, h in zip(net, weights, below, strict=True)]
        errors = sum(jnp.sum((h - u) ** 2) for h, u in zip(states, predictions, strict=True))
        return 0.5 * errors + beta * output_energy(case.loss, states[-1], y)

    def set_every_other(first, states, weights, x, y, beta):
        chosen = range(first, len(states), 2)

        def energy_of(some):
            new = dict(zip(chosen, some, strict=True))
            merged = [new.get(k, h) for k, h in enumerate(states)]
            return energy(merged, weights, x, y, beta)

        some = [states[k] for k in chosen]
        slopes = dict(zip(chosen, jax.grad(energy_of)(some), strict=True))
        return [h - slopes[k] if k in slopes else h for k, h in enumerate(states)]

    def estimate(start, weights, x, y, beta):
        states = start
        for _ in range(case.T):
            for first in (1, 0):
                states = set_every_other(first, states, weights, x, y, beta)
        return jax.grad(lambda w: energy(states, w, x, y, beta) / beta / x.shape[0])(weights)

    def step(weights, memory, x, y):
        start = feed_forward(net, weights, x)
        both = [estimate(start, weights, x, y, beta) for beta in (BETA, -BETA)]
        gradients = jax.tree.map(lambda a, b: (a + b) / 2, *both)
        updates, memory = weight_optim.update(gradients, memory, weights)
        return optax.apply_updates(weights, updates), memory

    return jax.jit(step, donate_argnums=(0, 1))
