"""The convention all models follow: clamp y, return the prediction, one vode per layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

MODELS = {
    "mlp": lambda: (pxm.MLP([6, 5, 4, 3]), (6,), (3,)),
    "mlp-skips": lambda: (pxm.MLP([6, 5, 5, 3], skips=True), (6,), (3,)),
    "mupc": lambda: (pxm.MLP([6, 5, 5, 3], skips=True, parameterisation="mupc"), (6,), (3,)),
    "convnet": lambda: (pxm.ConvNet(), (1, 8, 8), (10,)),
    "vgg5": lambda: (pxm.VGG5(width=1 / 64), (3, 32, 32), (10,)),
    "alexnet": lambda: (pxm.AlexNet(width=1 / 64, hidden=(7, 6)), (3, 32, 32), (10,)),
    "resnet18": lambda: (pxm.ResNet18(width=1 / 32), (3, 32, 32), (10,)),
    "linear-decoder": lambda: (pxm.LinearDecoder([2, 5, 7]), (2,), (7,)),
    "conv-decoder": lambda: (pxm.ConvDecoder(channels=(2, 3, 2)), (2, 4, 4), (3, 32, 32)),
}


def noise(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pxf.jit()
def initialised(x, y, *, model):
    """Prediction, energy, each vode's (h, u) of a forward pass, with a target and without."""
    results = []
    for target in (y, None):
        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam | pxc.VodeParam.Cache):
            prediction = model(x, target)
            states = [(v.h.get(), v.get("u")) for v in model.vodes]
            results.append((prediction, model.energy(), states))
    return results


@pytest.fixture(params=MODELS, scope="module")
def made(request):
    """A model, a target, and what a forward pass with and without it gives."""
    px.RKG.seed(0)
    model, in_shape, out_shape = MODELS[request.param]()
    x, y = noise(in_shape), noise(out_shape, 1)
    return model, y, *initialised(x, y, model=model)


def test_y_is_clamped_and_the_prediction_returned(made):
    _, y, (prediction, _, states), _ = made
    assert prediction.shape == y.shape
    np.testing.assert_array_equal(states[-1][0], y)
    np.testing.assert_array_equal(states[-1][1], prediction)


def test_the_target_does_not_change_the_prediction(made):
    _, _, with_y, without = made
    np.testing.assert_allclose(with_y[0], without[0], rtol=1e-5, atol=1e-6)


def test_without_a_target_every_state_is_its_prediction(made):
    _, _, _, (prediction, energy, states) = made
    np.testing.assert_array_equal(states[-1][0], prediction)
    assert float(energy) == 0.0


def test_only_the_output_state_is_frozen(made):
    model, *_ = made
    frozen = [vode.h.__dict__.get("frozen", False) for vode in model.vodes]
    assert frozen == [False] * (len(model.vodes) - 1) + [True]


def test_after_forward_initialisation_the_energy_is_the_outputs(made):
    _, y, (prediction, energy, _), _ = made
    np.testing.assert_allclose(energy, 0.5 * np.sum((y - prediction) ** 2), rtol=1e-5)


def test_states_have_the_declared_shapes(made):
    model, _, (_, _, states), _ = made
    assert [h.shape for h, _ in states] == [vode.shape for vode in model.vodes]


def test_the_output_energy_can_be_cross_entropy():
    model = pxm.MLP([4, 5, 3], energy_fn=pxc.ce_energy)
    x, y = noise(4), jnp.array([0.0, 1.0, 0.0])
    with pxu.step(model, pxc.STATUS.INIT):
        u = np.asarray(model(x, y), np.float64)
        energy = model.energy()
    np.testing.assert_allclose(energy, np.log(np.exp(u).sum()) - u[1], rtol=1e-5)


def test_a_chain_equals_the_bare_equinox_composition():
    keys = jax.random.split(jax.random.PRNGKey(0), 2)
    bare = [eqx.nn.Linear(3, 4, key=keys[0]), eqx.nn.Linear(4, 2, key=keys[1])]
    layers = [pxnn.Linear(3, 4), pxnn.Linear(4, 2)]
    for layer, source in zip(layers, bare, strict=True):
        layer.nn.weight.set(source.weight)
        layer.nn.bias.set(source.bias)
    model = pxm.Chain(layers, [(4,), (2,)])
    with pxu.step(model, pxc.STATUS.INIT):
        np.testing.assert_allclose(model(noise(3)), bare[1](bare[0](noise(3))), rtol=1e-6)


def test_layers_and_shapes_must_correspond():
    with pytest.raises(ValueError, match="1 layers and 2 shapes"):
        pxm.Chain([jnp.sum], [(), ()])
    with pytest.raises(ValueError, match="at least one layer"):
        pxm.Chain([], [])
