"""Closed forms against the NumPy oracle, and against inference itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.analysis as pxan
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from tests.algorithms.networks import Network, float64
from tests.oracles import linear, pc
from tests.oracles.numerical import assert_close, data, linear_skip, net_of


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def of(net, precision=1.0):
    return pxan.LinearNetwork.from_weights(
        [layer.W for layer in net.layers],
        [layer.b for layer in net.layers],
        [layer.a for layer in net.layers],
        [layer.skip for layer in net.layers],
        precision,
    )


NETS = {
    "bias": lambda rng: net_of("linear", rng),
    "no bias": lambda rng: net_of("linear_no_bias", rng),
    "skips": linear_skip,
}


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("precision", [1.0, 2.5])
def test_closed_forms_are_those_of_the_oracle(kind, precision, rng):
    net = NETS[kind](rng)
    x, y = data(rng, net, batch=4)
    ours = of(net, precision)
    assert_close(ours.products(), linear.products(net)[1:], atol=1e-12)
    np.testing.assert_allclose(ours.rescaling(), linear.rescaling(net, precision))
    np.testing.assert_allclose(
        ours.equilibrium_energy(x, y), linear.equilibrium_energy(net, x, y, precision)
    )
    np.testing.assert_allclose(ours.hessian(), linear.hessian(net, precision), atol=1e-12)
    expected = linear.equilibrium_states(net, x, y, precision)[1:-1]
    assert_close(ours.equilibrium_states(x, y), expected, atol=1e-10)
    np.testing.assert_allclose(ours.condition_number(), linear.condition_number(net, precision))
    np.testing.assert_allclose(ours.predict(x), net.forward(x)[-1])


@pytest.mark.parametrize("kind", NETS)
def test_a_network_is_read_off_a_model(kind, rng):
    net = NETS[kind](rng)
    found = pxan.LinearNetwork.from_model(Network(net), np.zeros(3))
    expected = of(net)
    assert_close(found.matrices, expected.matrices, atol=1e-12)
    assert_close(found.offsets, expected.offsets, atol=1e-12)


def test_inference_converges_to_the_equilibrium_of_a_deep_network_with_skips(rng):
    model = pxm.MLP([3, 6, 6, 6, 2], act=lambda h: h, skips=True, parameterisation="mupc")
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    net = pxan.LinearNetwork.from_model(model, x[0])
    algorithm = pxa.PC(model, 3000, optax.sgd(0.2), unroll=False)
    np.testing.assert_allclose(algorithm.energy(x, y), net.equilibrium_energy(x, y), rtol=1e-5)


def test_the_energy_at_equilibrium_is_a_minimum(rng):
    net = net_of("linear", rng)
    x, y = data(rng, net)
    ours = of(net)
    star = [np.asarray(h) for h in ours.equilibrium_states(x, y)]
    least = pc.energy(net, [x, *star, y])
    np.testing.assert_allclose(least, ours.equilibrium_energy(x, y))
    for _ in range(20):
        other = [h + 1e-3 * rng.standard_normal(h.shape) for h in star]
        assert np.all(pc.energy(net, [x, *other, y]) > least)


def test_the_hessian_of_any_model_is_that_of_brute_force(rng):
    net = net_of("skip", rng)
    x, y = data(rng, net, batch=1)
    got = pxan.state_hessian(Network(net), x[0], y[0])
    sizes = [len(layer.W) for layer in net.layers[:-1]]
    h0 = np.concatenate([u[0] for u in net.forward(x)[1:-1]])

    def gradient(flat):
        h = np.split(flat[None], np.cumsum(sizes)[:-1], axis=-1)
        return np.concatenate([g[0] for g in pc.state_gradient(net, [x, *h, y])[1:-1]])

    eye = 1e-6 * np.eye(len(h0))
    expected = np.stack([(gradient(h0 + e) - gradient(h0 - e)) / 2e-6 for e in eye])
    np.testing.assert_allclose(got, expected, atol=1e-7)
    np.testing.assert_allclose(
        pxan.condition_number(got),
        np.max(np.linalg.eigvalsh(got)) / np.min(np.linalg.eigvalsh(got)),
    )


def test_the_hessian_of_a_linear_model_is_the_closed_form(rng):
    net = linear_skip(rng)
    x, y = data(rng, net, batch=1)
    got = pxan.state_hessian(Network(net), x[0], y[0])
    np.testing.assert_allclose(got, of(net).hessian(), atol=1e-12)


def test_models_without_closed_forms_are_refused(rng):
    with pytest.raises(ValueError, match="prediction of vode 0 is not a linear function"):
        pxan.LinearNetwork.from_model(pxm.MLP([3, 4, 2], act=jax.nn.tanh), np.zeros(3))

    class Skipping(pxc.EnergyModule):
        def __init__(self):
            self.layers = [pxnn.Linear(3, 3) for _ in range(3)]
            self.vodes = [pxc.Vode((3,)) for _ in range(3)]

        def __call__(self, x, y=None):
            a = self.vodes[0](self.layers[0](x))
            b = self.vodes[1](self.layers[1](a))
            return self.vodes[2](self.layers[2](b) + a)

    with pytest.raises(ValueError, match="prediction of vode 2 depends on the state of vode 0"):
        pxan.LinearNetwork.from_model(Skipping(), jnp.zeros(3))
    with pytest.raises(ValueError, match="scales: one for each of the 1 layers, got 2"):
        pxan.LinearNetwork.from_weights([np.eye(2)], scales=[1.0, 2.0])
