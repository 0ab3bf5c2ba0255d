"""BidirectionalPC against its NumPy oracle and its limits."""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from tests.algorithms.networks import Block, Network, float64, pairs, states
from tests.oracles import bidirectional, pc
from tests.oracles.energy import CE, SQUARED
from tests.oracles.mlp import Layer, flatten
from tests.oracles.numerical import assert_close, data, net_of
from tests.oracles.optim import SGD


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def problem(rng, kind="after", one_hot=False):
    net = net_of(kind, rng)
    sizes = [net[1].W.shape[1]] + [len(net[k].W) for k in range(1, net.L + 1)]
    back = [
        Layer(rng.standard_normal((a, b)) / 2, 0.1 * rng.standard_normal(a), "tanh")
        for a, b in itertools.pairwise(sizes)
    ]
    return net, back, *data(rng, net, batch=4, one_hot=one_hot)


def bpc(net, back, T=7, energy_fn=pxc.se_energy, **options):
    blocks = [Block(layer) for layer in back]
    return pxa.BidirectionalPC(
        Network(net, energy_fn), T, optax.sgd(0.1, 0.5), optax.sgd(1.0), backward=blocks, **options
    )


def learned(algorithm, x, y):
    def now():
        return pairs(algorithm.model.forward.blocks), pairs(algorithm.model.backward)

    before = now()
    metrics = algorithm.train_step(x, y)
    both = zip(before, now(), strict=True)
    return *([a - b for a, b in zip(*one, strict=True)] for one in both), metrics


@pytest.mark.parametrize(
    ("kind", "output"), [("after", SQUARED), ("skip", SQUARED), ("before", CE())]
)
def test_a_training_step_is_that_of_the_oracle(kind, output, rng):
    one_hot = isinstance(output, CE)
    net, back, x, y = problem(rng, kind, one_hot)
    weights = {"alpha_f": 0.7, "alpha_b": 0.3}
    expected = bidirectional.bidirectional(
        net, back, x, y, T=7, optim=SGD(0.1, 0.5), output=output, **weights
    )
    energy_fn = pxc.ce_energy if one_hot else pxc.se_energy
    algorithm = bpc(net, back, energy_fn=energy_fn, record=True, **weights)
    algorithm.infer(x, y)
    assert_close(states(algorithm.model.forward), expected.h[1:], atol=1e-12)
    forward, backward, metrics = learned(algorithm, x, y)
    assert_close(forward, flatten(expected.grads), atol=1e-12)
    assert_close(backward, flatten(expected.extra["back_grads"]), atol=1e-12)
    np.testing.assert_allclose(metrics["energy"], expected.energies[-1].mean())
    np.testing.assert_allclose(metrics["energies"].sum(1), expected.energies.mean(1))


def test_without_the_backward_direction_it_is_pc(rng):
    net, back, x, y = problem(rng)
    expected = pc.pc(net, x, y, T=7, optim=SGD(0.1, 0.5))
    algorithm = bpc(net, back, alpha_b=0.0)
    forward, backward, _ = learned(algorithm, x, y)
    assert_close(forward, flatten(expected.grads), atol=1e-12)
    assert all(np.all(g == 0) for g in backward)


def test_a_missing_backward_layer_is_a_missing_term(rng):
    net, back, x, y = problem(rng)
    none = [None, *back[1:]]
    algorithm = bpc(net, back, T=0)
    algorithm.model.backward[0] = None
    energy = algorithm.energy(x, y)
    h = [x, *net.forward(x)[1:-1], y]
    errors = bidirectional.backward_errors(net, back, h)[1:]
    expected = pc.energy(net, h) + sum(0.5 * (e**2).sum(-1) for e in errors)
    np.testing.assert_allclose(energy, expected)
    assert none[0] is None
    with pytest.raises(ValueError, match="a backward layer is None, so x cannot be reached"):
        algorithm.generate(y)


def test_predictions_go_forward_and_generation_backward(rng):
    net, back, x, y = problem(rng)
    algorithm = bpc(net, back)
    np.testing.assert_allclose(algorithm.predict(x), net.forward(x)[-1])
    expected = y
    for layer in reversed(back):
        expected = layer(expected)
    np.testing.assert_allclose(algorithm.generate(y), expected)


@pytest.mark.wrong_types
def test_mistakes_are_explained():
    model = pxm.MLP([4, 8, 2])
    with pytest.raises(ValueError, match="the model has 2 vodes, so it needs as many backward lay"):
        pxa.BidirectionalPC(model, backward=[pxnn.Linear(8, 4)])
    wrong = pxa.BidirectionalPC(model, backward=[pxnn.Linear(8, 4), pxnn.Linear(2, 7)])
    with pytest.raises(
        ValueError, match=r"backward\[1\] predicts the state of vode 0.*\[8\].*\[7\]"
    ):
        wrong.train_step(jnp.ones((1, 4), "float32"), jnp.ones((1, 2), "float32"))
    with pytest.raises(TypeError, match="BidirectionalPC needs an EnergyModule"):
        pxa.BidirectionalPC(pxnn.Linear(2, 2), backward=[])


@pytest.mark.parametrize("kind", ["after", "skip"])
def test_without_x_the_input_is_inferred_as_by_the_oracle(kind, rng):
    net, back, x, y = problem(rng, kind)
    weights = {"alpha_f": 0.7, "alpha_b": 0.3}
    h = [y]
    for layer in reversed(back):
        h[0] = layer(h[0])
    for layer in [net[k] for k in range(1, net.L)]:
        h.append(layer(h[-1]))
    h.append(y)
    velocity = [0.0 * a for a in h[:-1]]
    for _ in range(6):
        grads = bidirectional.state_gradient(net, back, h, 0.7, 0.3)
        velocity = [0.5 * v + g for v, g in zip(velocity, grads, strict=False)]
        h[:-1] = [a - 0.1 * v for a, v in zip(h, velocity, strict=False)]
    algorithm = bpc(net, back, T=6, input_shape=x.shape[1:], **weights)
    algorithm.infer(None, y)
    found = [algorithm.model.input.h.get(), *states(algorithm.model.forward)]
    assert_close(found, h, atol=1e-12)
    energy = bidirectional.energy(net, back, h, 0.7, 0.3)
    np.testing.assert_allclose(algorithm.energy(None, y), energy)
    expected = bidirectional.weight_gradients(net, back, h, 0.7, 0.3)
    forward, backward, _ = learned(algorithm, None, y)
    assert_close(forward, flatten(expected[0]), atol=1e-12)
    assert_close(backward, flatten(expected[1]), atol=1e-12)


def test_an_input_that_may_be_missing_changes_nothing_where_it_is_there(rng):
    net, back, x, y = problem(rng)
    forward, backward, metrics = learned(bpc(net, back), x, y)
    algorithm = bpc(net, back, input_shape=x.shape[1:])
    algorithm.infer(None, y)
    again, too, same = learned(algorithm, x, y)
    assert_close([*again, *too], [*forward, *backward], atol=1e-12)
    np.testing.assert_allclose(same["energy"], metrics["energy"])


def test_an_input_that_can_be_neither_read_nor_inferred_is_refused(rng):
    net, back, x, y = problem(rng)
    with pytest.raises(ValueError, match=r"x is None.*input_shape="):
        bpc(net, back).infer(None, y)
    with pytest.raises(ValueError, match="y is None as well"):
        bpc(net, back, input_shape=x.shape[1:]).model(None, None)
