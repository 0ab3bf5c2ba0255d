"""Layers compute in the type asked for; everything around them stays in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.nn as pxnn
import pcx.predictive_coding as pxc


class Net(pxc.EnergyModule):
    def __init__(self):
        self.layers = [pxnn.Linear(4, 8), pxnn.Linear(8, 3)]
        self.vodes = [pxc.Vode((8,)), pxc.Vode((3,))]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        x = self.vodes[0](jax.nn.tanh(self.layers[0](x)))
        self.vodes[1](self.layers[1](x))
        if y is not None:
            self.vodes[1].set("h", y)
        return self.vodes[1].get("u")


def test_a_layer_computes_in_bfloat16_and_gives_float32():
    layer = pxnn.Linear(5, 3)
    x = jnp.linspace(-1, 1, 5)
    with pxnn.compute_dtype(jnp.bfloat16):
        y = layer(x)
    w, b = (p.get().astype(jnp.bfloat16) for p in (layer.nn.weight, layer.nn.bias))
    expected = (w @ x.astype(jnp.bfloat16) + b).astype(jnp.float32)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, expected)
    assert layer.nn.weight.dtype == jnp.float32


def test_the_block_ends_also_when_it_raises():
    layer = pxnn.Linear(5, 3)
    x = jnp.linspace(-1, 1, 5)
    exact = layer(x)
    with pytest.raises(KeyError), pxnn.compute_dtype(jnp.bfloat16):
        raise KeyError
    np.testing.assert_array_equal(layer(x), exact)


def test_integers_pass_through_an_embedding():
    layer = pxnn.Embedding(4, 3)
    with pxnn.compute_dtype(jnp.bfloat16):
        y = layer(jnp.asarray(2))
    np.testing.assert_allclose(y, layer.nn.weight.get()[2], rtol=1e-2)


@pytest.mark.wrong_types
def test_only_floating_types_are_accepted():
    with (
        pytest.raises(TypeError, match=r"floating point type such as jnp\.bfloat16"),
        pxnn.compute_dtype(jnp.int8),
    ):
        pass


def test_an_algorithm_in_bfloat16_follows_float32_and_keeps_its_params_in_float32():
    x = jax.random.normal(jax.random.PRNGKey(0), (16, 4))
    y = jax.nn.one_hot(jnp.arange(16) % 3, 3)
    full, half = Net(), Net()
    for a, b in zip(full.layers, half.layers, strict=True):
        b.nn.weight.set(a.nn.weight.get())
        b.nn.bias.set(a.nn.bias.get())
    energies = []
    for model, dtype in ((full, None), (half, jnp.bfloat16)):
        pc = pxa.PC(model, 4, optax.sgd(0.1), optax.sgd(0.1), compute_dtype=dtype)
        energies.append([float(pc.train_step(x, y)["energy"]) for _ in range(5)])
        assert model.layers[0].nn.weight.dtype == jnp.float32
    np.testing.assert_allclose(energies[1], energies[0], rtol=2e-2)
    assert energies[0] != energies[1]
