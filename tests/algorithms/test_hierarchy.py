"""The generative hierarchy against its NumPy oracle: training, and test without the label."""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from tests.algorithms.networks import ACTIVATIONS, float64, linear, pairs
from tests.oracles import hierarchy
from tests.oracles.energy import CE, SQUARED
from tests.oracles.numerical import assert_close

DIMS, OUTPUTS = [6, 5, 4], 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def problem(rng, place="after", prior=False, output=SQUARED):
    net = hierarchy.Hierarchy(
        [rng.standard_normal((a, b)) / 2 for a, b in itertools.pairwise(DIMS)],
        [0.1 * rng.standard_normal(a) for a in DIMS[:-1]],
        rng.standard_normal((OUTPUTS, DIMS[-1])),
        0.1 * rng.standard_normal(OUTPUTS),
        "tanh",
        place,
        prior,
        output,
    )
    energy_fn = pxc.ce_energy if isinstance(output, CE) else pxc.se_energy
    model = pxm.Hierarchy(DIMS, OUTPUTS, ACTIVATIONS["tanh"], place, prior, energy_fn)
    model.layers = [linear(W, b) for W, b in zip(net.weights, net.biases, strict=True)]
    model.readout = linear(net.readout, net.readout_bias)
    x, y = rng.standard_normal((4, DIMS[0])), np.eye(OUTPUTS)[[0, 1, 2, 0]]
    return net, model, x, y


def params(net):
    layers = zip(net.weights, net.biases, strict=True)
    return [a for pair in layers for a in pair] + [net.readout, net.readout_bias]


@pytest.mark.parametrize(
    ("place", "prior", "output"),
    [("after", False, SQUARED), ("before", True, SQUARED), ("after", True, CE())],
)
@pytest.mark.parametrize("init", ["zero", "forward"])
def test_a_training_step_is_that_of_the_oracle(place, prior, output, init, rng):
    net, model, x, y = problem(rng, place, prior, output)
    first = hierarchy.initial_states(net, x, "zeros" if init == "zero" else "forward")
    expected, trajectory = hierarchy.train_step(net, first, y, T=6, lr_infer=0.1, lr_learn=0.3)
    pc = pxa.PC(model, 6, optax.sgd(0.1), optax.sgd(0.3), init=init)
    pc.infer(x, y)
    assert_close([v.h.get() for v in model.vodes[:-1]], trajectory[-1], atol=1e-12)
    metrics = pc.train_step(x, y)
    assert_close(pairs([*model.layers, model.readout]), params(expected), atol=1e-12)
    energy = hierarchy.energy(net, trajectory[-1], y).mean()
    np.testing.assert_allclose(metrics["energy"], energy)


class SeveralWeightSteps(pxa.PC):
    """As in docs/migration.md: pcn-torch's `T_learn`."""

    def step_weights(self, x, y):
        for _ in range(3):
            energy = super().step_weights(x, y)
        return energy


def test_several_weight_steps_are_made_in_the_same_states(rng):
    net, model, x, y = problem(rng)
    first = hierarchy.initial_states(net, x, "zeros")
    expected, trajectory = hierarchy.train_step(net, first, y, T=6, lr_infer=0.1, lr_learn=0.3)
    for _ in range(2):
        expected, _ = hierarchy.train_step(
            expected, trajectory[-1], y, T=0, lr_infer=0.1, lr_learn=0.3
        )
    SeveralWeightSteps(model, 6, optax.sgd(0.1), optax.sgd(0.3), init="zero").train_step(x, y)
    assert_close(pairs([*model.layers, model.readout]), params(expected), atol=1e-12)


def test_latents_start_standard_normal_with_the_oracle_following_from_there(rng):
    net, model, x, y = problem(rng)
    pc = pxa.PC(model, 5, optax.sgd(0.1), init="normal")
    _, record = pc.infer(x, y, trajectory=True)
    first = [np.asarray(s[0]) for s in record.states[:-1]]
    np.testing.assert_array_equal(first[0], x)
    assert 0.5 < np.concatenate([h.ravel() for h in first[1:]]).std() < 1.5
    expected = hierarchy.infer(net, first, y, T=5, lr=0.1)[-1]
    assert_close([v.h.get() for v in model.vodes[:-1]], expected, atol=1e-12)


def test_a_prediction_is_inferred_without_the_label(rng):
    net, model, x, y = problem(rng)
    error = {"error": lambda prediction, y: jnp.sum(jnp.square(prediction - y), -1)}
    pc = pxa.PC(model, 6, optax.sgd(0.1), init="zero", T_predict=40, unroll=False, metrics=error)
    expected = hierarchy.predict(net, hierarchy.initial_states(net, x, "zeros"), T=40, lr=0.1)
    np.testing.assert_allclose(pc.predict(x), expected, atol=1e-12)
    for labels in (y, 1 - y):
        metrics = pc.eval_step(x, labels)
        np.testing.assert_allclose(metrics["error"], ((expected - labels) ** 2).sum(-1).mean())
    assert model.vodes[-1].h.get() is None


def test_an_unknown_label_adds_no_energy_and_an_unknown_input_is_generated(rng):
    net, model, x, _ = problem(rng, prior=True)
    states = hierarchy.initial_states(net, x, "forward")
    pc = pxa.PC(model, 0)
    np.testing.assert_allclose(pc.energy(x), hierarchy.energy(net, states))
    generated = hierarchy.initial_states(net, np.zeros((1, 6)), "forward")
    h = np.zeros(DIMS[-1])
    for index in (1, 0):
        h = net.predict(index, h[None])[0]
    with pxu.step(model, pxc.STATUS.INIT):
        model(None)
    np.testing.assert_allclose(model.vodes[0].h.get(), h)
    np.testing.assert_allclose(model.vodes[1].h.get(), generated[1][0])


def test_it_learns_to_classify_what_it_is_never_told(rng):
    labels = np.arange(60) % 3
    x = np.eye(6)[2 * labels] + 0.1 * rng.standard_normal((60, 6))
    y = np.eye(3)[labels]
    model = pxm.Hierarchy([6, 8, 5], 3)
    for layer in [*model.layers, model.readout]:
        for param in (layer.nn.weight, layer.nn.bias):
            param.set(jnp.asarray(param.get(), jnp.float64))
    pc = pxa.PC(
        model, 30, optax.sgd(0.1), optax.adam(2e-2), init="zero", T_predict=100, unroll=False
    )
    for _ in range(60):
        pc.train_step(x, y)
    assert np.mean(np.argmax(pc.predict(x), -1) == labels) > 0.95


@pytest.mark.wrong_types
def test_mistakes_are_explained():
    with pytest.raises(ValueError, match=r"at least two levels, data and latent; got \[6\]"):
        pxm.Hierarchy([6], 3)
    with pytest.raises(ValueError, match='place must be "after" or "before"; got \'middle\''):
        pxm.Hierarchy([6, 3], 3, place="middle")


def test_the_read_out_of_a_hierarchy_may_have_no_bias():
    model = pxm.Hierarchy([6, 5], 3, readout_bias=False)
    assert model.readout.nn.bias is None
    assert pxm.Hierarchy([6, 5], 3).readout.nn.bias.shape == (3,)
