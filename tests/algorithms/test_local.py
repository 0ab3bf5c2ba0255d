"""The Hebbian form equals the gradient of the energy."""

import jax.numpy as jnp
import numpy as np
import pytest

import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

BATCHED = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Node(pxc.EnergyModule):
    def __init__(self, layer, place="before"):
        self.layer, self.place, self.vode = layer, place, pxc.Vode()

    def __call__(self, x):
        before = self.place == "before"
        return self.vode(self.layer(jnp.tanh(x)) if before else jnp.tanh(self.layer(x)))


def gradient(node, x, h):
    """Of the energy, by autodiff, with every param but the layer's masked out."""
    node.vode.h.set(h)

    @pxf.vmap(BATCHED, in_axes=(0,))
    def energy(x, *, node):
        node(x)
        return node.energy()

    @pxf.value_and_grad(pxu.M(pxnn.LayerParam))
    def total(x, *, node):
        return jnp.sum(energy(x, node=node))

    return total(x, node=node)[1]["node"].layer.nn, node.vode.get("u")


def check(update, grads):
    np.testing.assert_allclose(update.weight, -grads.weight.get(), rtol=1e-4, atol=1e-4)
    if grads.bias is None:
        assert update.bias is None
    else:
        np.testing.assert_allclose(update.bias, -grads.bias.get(), rtol=1e-4, atol=1e-4)


def normal(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_learns_error_times_presynaptic_activity(bias, rng):
    layer = pxnn.Linear(4, 3, bias=bias)
    x, h = normal(rng, 6, 4), normal(rng, 6, 3)
    grads, u = gradient(Node(layer), x, h)
    check(pxa.hebbian(layer, jnp.tanh(x), h - u), grads)


def test_with_the_activation_after_the_weights_its_slope_gates_the_error(rng):
    layer = pxnn.Linear(4, 3)
    x, h = normal(rng, 6, 4), normal(rng, 6, 3)
    grads, u = gradient(Node(layer, "after"), x, h)
    check(pxa.hebbian(layer, x, (h - u) * (1 - u**2)), grads)


@pytest.mark.parametrize(
    ("cls", "options", "size"),
    [
        (pxnn.Conv1d, {"stride": 2}, (7,)),
        (pxnn.Conv2d, {"padding": 1}, (5, 6)),
        (pxnn.Conv2d, {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}, (8, 7)),
        (pxnn.Conv2d, {"padding": "SAME", "use_bias": False}, (4, 4)),
        (pxnn.Conv3d, {}, (4, 3, 5)),
    ],
)
def test_a_convolution_sums_over_the_places_that_share_a_weight(cls, options, size, rng):
    layer = cls(4, 6, 3, **options)
    x = normal(rng, 3, 4, *size)
    h = normal(rng, 3, *layer(x[0]).shape)
    grads, u = gradient(Node(layer), x, h)
    check(pxa.hebbian(layer, jnp.tanh(x), h - u), grads)


@pytest.mark.wrong_types
def test_other_layers_and_shapes_are_refused(rng):
    x = jnp.ones((2, 3))
    with pytest.raises(TypeError, match=r"linear and convolutional layers .*; got LayerNorm"):
        pxa.hebbian(pxnn.LayerNorm(3), x, x)
    with pytest.raises(TypeError, match="got ConvTranspose1d"):
        pxa.hebbian(pxnn.ConvTranspose1d(3, 3, 1), x[..., None], x[..., None])
    layer = pxnn.Conv1d(3, 3, 3, padding=1, padding_mode="CIRCULAR")
    with pytest.raises(TypeError, match="padding_mode='CIRCULAR'"):
        pxa.hebbian(layer, x[..., None], x[..., None])
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 4\) .* error .* \(2, 3\)"):
        pxa.hebbian(pxnn.Linear(3, 4), x, x)
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 4, 1\) .* error .* \(2, 4\)"):
        pxa.hebbian(pxnn.Conv1d(3, 4, 1), x[..., None], jnp.ones((2, 4)))
