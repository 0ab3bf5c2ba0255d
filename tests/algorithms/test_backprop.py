"""Back-propagation against gradients by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
from tests.algorithms.networks import weights
from tests.algorithms.problems import CE, OPTIMISERS, SQUARED, float64, learned, model_of, problem
from tests.oracles.backprop import backprop
from tests.oracles.mlp import flatten
from tests.oracles.numerical import assert_close


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


@pytest.mark.parametrize(("kind", "output"), [("after", CE()), ("skip", SQUARED)])
def test_loss_and_gradients(kind, output):
    net, x, y = problem(kind, output)
    loss, grads, _ = backprop(net, x, y, output)
    metrics = {"mean_u": lambda p, y: jnp.mean(p, -1)}
    algorithm = pxa.Backprop(model_of(net, output), weight_optim=optax.sgd(1.0), metrics=metrics)
    ours, out = learned(algorithm, x, y)
    assert_close(ours, flatten(grads), atol=1e-12)
    np.testing.assert_allclose(out["energy"], loss, atol=1e-12)
    np.testing.assert_allclose(out["mean_u"], net.forward(x)[-1].mean(), atol=1e-12)


def test_several_steps_with_adamw():
    net, x, y = problem()
    ours, theirs = OPTIMISERS["adamw"]
    algorithm = pxa.Backprop(model_of(net), weight_optim=ours)
    state = theirs.init(net.params)
    for k in range(3):
        algorithm.train_step(x + k, y)
        params, state = theirs.step(net.params, flatten(backprop(net, x + k, y)[1]), state)
        net = net.with_params(params)
        assert_close(weights(algorithm.model), net.params, atol=1e-12)


def test_frozen_weights_do_not_move():
    net, x, y = problem()
    model = model_of(net)
    model.blocks[2].linear.nn.bias.frozen = True
    ours, _ = learned(pxa.Backprop(model, weight_optim=optax.sgd(1.0)), x, y)
    want = flatten(backprop(net, x, y)[1])
    want[5] = np.zeros_like(want[5])
    assert_close(ours, want, atol=1e-12)


def test_prediction_and_energy():
    net, x, y = problem()
    algorithm = pxa.Backprop(model_of(net))
    u = net.forward(x)[-1]
    np.testing.assert_allclose(algorithm.predict(x), u, atol=1e-12)
    np.testing.assert_allclose(algorithm.energy(x, y), SQUARED.value(y, u), atol=1e-12)
    np.testing.assert_allclose(
        algorithm.eval_step(x, y)["energy"], SQUARED.value(y, u).mean(), atol=1e-12
    )


@pytest.mark.wrong_types
def test_an_optimiser_in_the_place_of_the_steps_is_refused_and_not_left_out():
    net, *_ = problem("after", SQUARED)
    with pytest.raises(ValueError, match="T is the number of inference steps"):
        pxa.Backprop(model_of(net), optax.sgd(0.1))
    assert pxa.Backprop(model_of(net), 8).T == 0
