"""HybridPC against its NumPy oracle and its limits."""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.utils as pxu
from pcx.algorithms import conformance
from tests.algorithms.networks import Block, Network, float64, pairs, states
from tests.oracles import hybrid, linear
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


def problem(rng, kind="after"):
    net = net_of(kind, rng)
    sizes = [net[1].W.shape[1]] + [len(net[k].W) for k in range(1, net.L + 1)]
    q = [
        Layer(rng.standard_normal((a, b)) / 2, 0.1 * rng.standard_normal(a), "tanh")
        for a, b in itertools.pairwise(sizes)
    ]
    labels, observed = data(rng, net, batch=4)
    return net, q, labels, observed


def hpc(net, q, T=6, **options):
    blocks = [Block(layer) for layer in q]
    return pxa.HybridPC(
        Network(net), T, optax.sgd(0.1), optax.sgd(1.0), amortiser=blocks, **options
    )


def learned(algorithm, x, y):
    def now():
        return pairs(algorithm.model.generator.blocks), pairs(algorithm.model.amortiser)

    before = now()
    metrics = algorithm.train_step(x, y)
    both = zip(before, now(), strict=True)
    return *([a - b for a, b in zip(*one, strict=True)] for one in both), metrics


@pytest.mark.parametrize(
    ("kind", "clamped", "inputs", "prior"),
    [
        ("after", True, "amortised", None),
        ("skip", False, "amortised", 0.3),
        ("before", False, "inferred", None),
    ],
)
def test_a_training_step_is_that_of_the_oracle(kind, clamped, inputs, prior, rng):
    net, q, labels, observed = problem(rng, kind)
    label = labels if clamped else None
    expected = hybrid.hybrid(
        net, q, observed, label, T=6, optim=SGD(0.1), prior=prior, inputs=inputs
    )
    algorithm = hpc(net, q, inputs=inputs, prior=prior)
    algorithm.infer(observed, label)
    model = algorithm.model
    assert_close([model.first.h.get(), *states(model.generator)], expected.h, atol=1e-12)
    generator, amortiser, metrics = learned(algorithm, observed, label)
    assert_close(generator, flatten(expected.grads), atol=1e-12)
    assert_close(amortiser, flatten(expected.extra["q_grads"]), atol=1e-12)
    np.testing.assert_allclose(metrics["energy"], expected.energies[-1].mean())
    np.testing.assert_allclose(metrics["amortiser"], expected.extra["q_loss"].mean())


def test_without_inference_the_prediction_is_the_amortiser_s(rng):
    net, q, _, observed = problem(rng)
    np.testing.assert_allclose(hpc(net, q).predict(observed), hybrid.amortise(q, observed)[0])


def test_with_much_inference_the_amortiser_no_longer_matters(rng):
    net, q, _, observed = problem(rng, "linear")
    predictions = [
        hpc(net, q, T_predict=4000, prior=0.2, unroll=False, **options).predict(observed)
        for options in ({}, {"init": "zero"})
    ]
    # the posterior mean of the linear-Gaussian model
    mean = np.stack(
        [linear.posterior(net, clamped={net.L: y}, prior=np.full(3, 0.2))[0][:3] for y in observed]
    )
    for prediction in predictions:
        np.testing.assert_allclose(prediction, mean, atol=1e-8)


def test_a_trained_amortiser_saves_inference_steps(rng):
    net, q, _, observed = problem(rng, "linear")
    linear_q = [Layer(layer.W, layer.b) for layer in q]
    algorithm = hpc(net, linear_q, T=30, prior=0.0, unroll=False)
    algorithm.weight_optim = pxu.Optim(optax.sgd(0.05))
    for block in algorithm.model.generator.blocks:
        block.linear.nn.weight.frozen = block.linear.nn.bias.frozen = True
    algorithm.weight_optim.init(algorithm.weights_mask()(algorithm.model))
    before = algorithm.energy(observed, T=0).mean()
    for _ in range(300):
        algorithm.train_step(observed)
    after = algorithm.energy(observed, T=0).mean()
    converged = algorithm.energy(observed, T=400).mean()
    needed = algorithm.energy(observed, T=5)
    algorithm.init = "zero"
    without = algorithm.energy(observed, T=5)
    assert after - converged < 0.05 * (before - converged)
    assert np.all(needed < without)


def test_evaluation_compares_the_guess_with_the_label(rng):
    net, q, labels, observed = problem(rng)
    error = {"error": lambda prediction, y: jnp.square(prediction - y).sum(-1)}
    metrics = hpc(net, q, metrics=error).eval_step(observed, labels)
    guess = hybrid.amortise(q, observed)[0]
    np.testing.assert_allclose(metrics["error"], ((guess - labels) ** 2).sum(-1).mean())


def test_it_passes_the_conformance_suite(rng):
    _, _, labels, observed = problem(rng)
    optim = optax.sgd(0.05)

    def make(generator):
        amortiser = [pxnn.Linear(4, 3), pxnn.Linear(4, 4), pxnn.Linear(2, 4)]
        return pxa.HybridPC(generator, 3, optim, optim, amortiser=amortiser)

    batch = observed.astype("float32"), labels.astype("float32")
    conformance.check_algorithm(make, lambda: pxm.MLP([3, 4, 4, 2]), *batch)


def test_generation_is_a_forward_pass_of_the_generator(rng):
    net, q, labels, _ = problem(rng)
    np.testing.assert_allclose(hpc(net, q).generate(labels), net.forward(labels)[-1])


@pytest.mark.wrong_types
def test_mistakes_are_explained():
    generator = pxm.MLP([2, 8, 4])
    with pytest.raises(ValueError, match="the generator has 2 vodes, so the amortiser needs as ma"):
        pxa.HybridPC(generator, amortiser=[pxnn.Linear(8, 2)])
    layers = [pxnn.Linear(8, 2), pxnn.Linear(4, 8)]
    with pytest.raises(ValueError, match='inputs must be "amortised" or "inferred"; got \'own\''):
        pxa.HybridPC(generator, amortiser=layers, inputs="own")
    wrong = pxa.HybridPC(generator, amortiser=[pxnn.Linear(7, 2), pxnn.Linear(4, 7)])
    with pytest.raises(ValueError, match=r"amortiser\[1\] predicts the state of vode 0.*\(8,\).*7"):
        wrong.train_step(jnp.ones((1, 4), "float32"))
    right = pxa.HybridPC(generator, amortiser=[pxnn.Linear(8, 2), pxnn.Linear(4, 8)])
    with pytest.raises(
        ValueError, match=r"y \(of one sample\) is .*\[4\], but .* predicts .*\[2\]"
    ):
        right.train_step(jnp.ones((1, 4), "float32"), jnp.ones((1, 4), "float32"))
