"""What a training step compiles to: no more matrix products than a hand-written program, no host work."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.nn as pxnn
import pcx.predictive_coding as pxc

DIMS, BATCH, T = [20, 16, 16, 16, 5], 8, 8


class Net(pxc.EnergyModule):
    def __init__(self, dims=DIMS):
        self.layers = [pxnn.Linear(a, b) for a, b in zip(dims[:-1], dims[1:], strict=True)]
        self.vodes = [pxc.Vode((d,)) for d in dims[1:]]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        for i, (layer, vode) in enumerate(zip(self.layers, self.vodes, strict=True)):
            u = layer(x)
            x = vode(u if i == len(self.layers) - 1 else jax.nn.leaky_relu(u))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


@pytest.fixture(scope="module")
def data():
    x = jax.random.normal(jax.random.PRNGKey(0), (BATCH, DIMS[0]))
    return x, jax.nn.one_hot(jnp.arange(BATCH) % DIMS[-1], DIMS[-1])


def make(**options):
    return pxa.PC(Net(), T, optax.sgd(0.05, momentum=0.5), optax.adamw(1e-3), **options)


def hand_written(weights, opt_state, x, y):
    """The same step in plain JAX: forward initialisation, T unrolled steps, one weight step."""
    state_optim, weight_optim = optax.sgd(0.05, momentum=0.5), optax.adamw(1e-3)

    def predict(weights, below):
        us = [h @ w.T + b for (w, b), h in zip(weights, below, strict=True)]
        return [jax.nn.leaky_relu(u) for u in us[:-1]] + us[-1:]

    def energy(states, weights):
        us = predict(weights, [x, *states])
        return sum(0.5 * jnp.sum((h - u) ** 2) for h, u in zip([*states, y], us, strict=True))

    states, h = [], x
    for i, (w, b) in enumerate(weights[:-1]):
        del i
        h = jax.nn.leaky_relu(h @ w.T + b)
        states.append(h)
    state = state_optim.init(states)
    for _ in range(T):
        updates, state = state_optim.update(jax.grad(energy)(states, weights), state)
        states = optax.apply_updates(states, updates)
    value, grads = jax.value_and_grad(energy, argnums=1)(states, weights)
    grads = jax.tree.map(lambda g: g / BATCH, grads)
    updates, opt_state = weight_optim.update(grads, opt_state, weights)
    return optax.apply_updates(weights, updates), opt_state, value / BATCH


def products(compiled):
    """Number of matrix products in an optimised program."""
    return len(re.findall(r"= \S+ dot\(|custom-call\(.*matmul", compiled.as_text()))


def raw_weights(model):
    return [(layer.nn.weight.get(), layer.nn.bias.get()) for layer in model.layers]


@pytest.fixture(scope="module")
def raw(data):
    weights = raw_weights(Net())
    state = optax.adamw(1e-3).init(weights)
    return jax.jit(hand_written).lower(weights, state, *data).compile()


def test_the_full_step_has_as_many_matrix_products_as_the_hand_written_one(data, raw):
    pc = make(lazy=False)
    compiled = pxa.PC.train_step.jitted.lower(*data, algorithm=pc).compile()
    assert products(raw) > 20
    assert products(compiled) <= products(raw)


def test_the_lazy_step_has_fewer(data, raw):
    compiled = pxa.PC.train_step.jitted.lower(*data, algorithm=make()).compile()
    assert products(compiled) < products(raw)


def test_a_step_gives_the_numbers_of_the_hand_written_one(data):
    pc = make()
    weights = raw_weights(pc.model)
    state = optax.adamw(1e-3).init(weights)
    for _ in range(3):
        weights, state, energy = hand_written(weights, state, *data)
        got = pc.train_step(*data)["energy"]
        np.testing.assert_allclose(got, energy, rtol=1e-5)
    for layer, (w, b) in zip(pc.model.layers, weights, strict=True):
        np.testing.assert_allclose(layer.nn.weight.get(), w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.nn.bias.get(), b, rtol=1e-4, atol=1e-6)


def test_a_step_moves_nothing_between_host_and_device(data):
    pc = make()
    pc.train_step(*data)
    with jax.transfer_guard("disallow"):
        metrics = pc.train_step(*data)
    assert np.isfinite(float(metrics["energy"]))


def test_compile_time_is_flat_in_T_beyond_the_lazy_prefix(data):
    """A longer loop is the same program with another count."""

    def size(steps):
        pc = pxa.PC(Net(), steps, optax.sgd(0.05), optax.sgd(0.1))
        return len(pxa.PC.train_step.jitted.lower(*data, algorithm=pc).as_text().splitlines())

    assert size(400) == size(40)


def test_the_model_is_traced_as_often_however_deep_it_is():
    """Once for all steps of inference, also where each step has other gradients that are zero."""
    calls = []

    class Counted(Net):
        def __call__(self, x, y=None):
            calls.append(x)
            return super().__call__(x, y)

    def traced(depth):
        x, y = jnp.ones((2, 4)), jnp.zeros((2, 3))
        pc = pxa.PC(Counted([4] * depth + [3]), 8, optax.sgd(0.05), optax.sgd(0.1))
        calls.clear()
        pc.train_step(x, y)
        return len(calls)

    assert traced(2) == traced(5) <= 8


def test_a_convolution_is_not_put_into_a_loop_on_cpu():
    class ConvNet(Net):
        def __init__(self):
            self.layers = [pxnn.Conv2d(1, 2, 3, padding=1), pxnn.Linear(2 * 16, 3)]
            self.vodes = [pxc.Vode((2, 4, 4)), pxc.Vode((3,))]
            self.vodes[-1].h.frozen = True

        def __call__(self, x, y=None):
            h = self.vodes[0](jax.nn.tanh(self.layers[0](x)))
            self.vodes[1](self.layers[1](h.reshape(-1)))
            if y is not None:
                self.vodes[1].set("h", y)
            return self.vodes[1].get("u")

    x, y = jnp.ones((2, 1, 4, 4)), jnp.eye(3)[:2]
    texts = {}
    for unroll in ("auto", False):
        pc = pxa.PC(ConvNet(), 20, optax.sgd(0.05), optax.sgd(0.1), unroll=unroll)
        texts[unroll] = pxa.PC.train_step.jitted.lower(x, y, algorithm=pc).as_text()
    assert "stablehlo.while" in texts[False]
    assert ("stablehlo.while" in texts["auto"]) == (jax.default_backend() != "cpu")
