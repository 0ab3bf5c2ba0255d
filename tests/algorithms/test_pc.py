"""PC, and through it the contract's options, against the NumPy oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
from tests.algorithms.networks import states, weights
from tests.algorithms.problems import (
    CE,
    OPTIMISERS,
    SQUARED,
    Decoder,
    assert_inferred,
    float64,
    learned,
    model_of,
    problem,
)
from tests.oracles import pc
from tests.oracles.mlp import flatten
from tests.oracles.numerical import assert_close


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def make(net, output=SQUARED, T=5, optim="sgd", weight_optim=None, **options):
    weight_optim = optax.sgd(1.0) if weight_optim is None else weight_optim
    return pxa.PC(model_of(net, output), T, OPTIMISERS[optim][0], weight_optim, **options)


CASES = [
    ("after", SQUARED, "momentum"),
    ("before", CE(), "adam"),
    ("skip", SQUARED, "nesterov"),
    ("skip", CE(), "sgd"),
]


@pytest.mark.parametrize(("kind", "output", "optim"), CASES)
def test_states_energies_and_weight_gradients_are_those_derived_by_hand(kind, output, optim):
    net, x, y = problem(kind, output)
    expected = pc.pc(net, x, y, T=5, optim=OPTIMISERS[optim][1], output=output)
    algorithm = make(net, output, optim=optim)
    assert_inferred(algorithm, x, y, expected.states, output, [net] * 6)
    grads, metrics = learned(algorithm, x, y)
    assert_close(grads, flatten(expected.grads), atol=1e-12)
    np.testing.assert_allclose(metrics["energy"], expected.energies[-1].mean(), atol=1e-12)


def test_several_batches_with_adamw_on_the_weights():
    net, x, y = problem()
    ours, theirs = OPTIMISERS["adamw"]
    algorithm = make(net, optim="momentum", weight_optim=ours)
    state = theirs.init(net.params)
    for k in range(3):
        algorithm.train_step(x + k, y)
        grads = pc.pc(net, x + k, y, T=5, optim=OPTIMISERS["momentum"][1]).grads
        params, state = theirs.step(net.params, flatten(grads), state)
        net = net.with_params(params)
        assert_close(weights(algorithm.model), net.params, atol=1e-12)


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("lazy", [True, False])
def test_loops_and_skipping_change_no_number(unroll, lazy):
    net, x, y = problem()
    expected = pc.pc(net, x, y, T=7, optim=OPTIMISERS["adam"][1])
    algorithm = make(net, T=7, optim="adam", unroll=unroll, lazy=lazy, record=True)
    grads, metrics = learned(algorithm, x, y)
    assert_close(grads, flatten(expected.grads), atol=1e-12)
    nodes = np.stack([pc.node_energies(net, h)[1:].mean(-1) for h in expected.states])
    np.testing.assert_allclose(metrics["energies"], nodes, atol=1e-12)


def test_the_step_does_not_depend_on_donation():
    net, x, y = problem()
    kept, donated = (learned(make(net, donate=d), x, y)[0] for d in (False, True))
    assert_close(kept, donated, atol=0)


def test_states_start_at_zero():
    net, x, y = problem("before")
    expected = pc.pc(net, x, y, T=4, optim=OPTIMISERS["sgd"][1], init="zeros")
    algorithm = make(net, T=4, init="zero")
    assert_inferred(algorithm, x, y, expected.states)
    assert_close(learned(algorithm, x, y)[0], flatten(expected.grads), atol=1e-12)


def test_states_start_at_random_numbers_that_the_seed_decides():
    net, x, y = problem()
    algorithm = make(net, T=3, init="normal")
    starts = []
    for seed in (1, 1, 2):
        px.RKG.seed(seed)
        _, record = algorithm.infer(x, y, trajectory=True)
        starts.append(np.asarray(record.states[0][0]))
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])
    assert 0.3 < np.std(starts) < 2
    start = [x, *(s[0] for s in record.states[:-1]), y]
    expected = pc.pc(net, x, y, T=3, optim=OPTIMISERS["sgd"][1], init=start)
    for k, h in enumerate(record.states):
        assert_close(h, [s[k + 1] for s in expected.states], atol=1e-12)


def test_states_persist_from_batch_to_batch_and_across_evaluation():
    net, x, y = problem()
    algorithm = make(net, T=3, init="persistent", weight_optim=optax.sgd(0.0))
    optim = OPTIMISERS["sgd"][1]
    first = pc.pc(net, x, y, T=3, optim=optim)
    algorithm.train_step(x, y)
    assert_close(states(algorithm.model), first.h[1:], atol=1e-12)
    algorithm.eval_step(x[:2], y[:2])
    np.testing.assert_allclose(algorithm.predict(x[:1]), net.forward(x[:1])[-1], atol=1e-12)
    algorithm.energy(x, y)
    # the next batch has other data and starts where the first one ended
    second = pc.pc(net, x + 1, y, T=3, optim=optim, init=[x + 1, *first.h[1:]])
    algorithm.train_step(x + 1, y)
    assert_close(states(algorithm.model), second.h[1:], atol=1e-12)
    # states of a batch of another size cannot be used
    short = pc.pc(net, x[:2], y[:2], T=3, optim=optim)
    algorithm.train_step(x[:2], y[:2])
    assert_close(states(algorithm.model), short.h[1:], atol=1e-12)


def test_states_go_on_without_any_data_if_they_persist():
    model = pxm.LinearDecoder([2, 5, 4])
    images = np.random.default_rng(0).standard_normal((3, 4))
    pxa.PC(model, 2, optax.sgd(0.1)).infer(None, images)
    at = [v.h.get() for v in model.vodes]
    model.vodes[-1].h.frozen = False
    pxa.PC(model, 1, optax.sgd(0.1), init="persistent").infer(None, None)

    def F(states):
        code, hidden, image = states
        first, second = model.layers[1].nn, model.layers[2].nn
        u = model.act(code @ first.weight.get().T + first.bias.get())
        v = hidden @ second.weight.get().T + second.bias.get()
        return 0.5 * jnp.sum((hidden - u) ** 2) + 0.5 * jnp.sum((image - v) ** 2)

    expected = [h - 0.1 * g for h, g in zip(at, jax.grad(F)(at), strict=True)]
    assert_close([v.h.get() for v in model.vodes], expected, atol=1e-12)
    with pytest.raises(ValueError, match="x and y are both None, so the number of samples"):
        pxa.PC(pxm.LinearDecoder([2, 5, 4]), 1).infer(None, None)


def test_energy_per_sample_after_any_number_of_steps():
    net, x, y = problem("skip")
    algorithm = make(net, T=4)
    energies = pc.pc(net, x, y, T=6, optim=OPTIMISERS["sgd"][1]).energies
    for T, t in ((None, 4), (0, 0), (6, 6)):
        np.testing.assert_allclose(algorithm.energy(x, y, T=T), energies[t], atol=1e-12)
    assert algorithm.T == 4


def test_prediction_evaluation_and_metrics_are_those_of_a_forward_pass():
    net, x, y = problem(output=CE())
    metrics = {"accuracy": lambda p, y: jnp.argmax(p, -1) == jnp.argmax(y, -1)}
    algorithm = make(net, CE(), metrics=metrics)
    u = net.forward(x)[-1]
    np.testing.assert_allclose(algorithm.predict(x), u, atol=1e-12)
    before = weights(algorithm.model)
    out = algorithm.eval_step(x, y)
    assert_close(before, weights(algorithm.model), atol=0)
    accuracy = (u.argmax(-1) == y.argmax(-1)).mean()
    np.testing.assert_allclose(out["energy"], CE().value(y, u).mean(), atol=1e-12)
    np.testing.assert_allclose(out["accuracy"], accuracy)
    # in a training step it is the prediction before learning
    np.testing.assert_allclose(algorithm.train_step(x, y)["accuracy"], accuracy)


def test_states_of_another_batch_do_not_disturb():
    net, x, y = problem()
    algorithm = make(net)
    algorithm.infer(x, y)
    np.testing.assert_allclose(algorithm.predict(x[:1]), net.forward(x[:1])[-1], atol=1e-12)
    algorithm.infer(x, y)
    grads, _ = learned(algorithm, x[:2], y[:2])
    expected = pc.pc(net, x[:2], y[:2], T=5, optim=OPTIMISERS["sgd"][1]).grads
    assert_close(grads, flatten(expected), atol=1e-12)


@pytest.mark.parametrize("lazy", [True, False])
def test_a_generative_network_infers_its_free_input(lazy):
    net, _, y = problem("before")
    algorithm = pxa.PC(
        Decoder(net), 6, OPTIMISERS["momentum"][0], optax.sgd(1.0), lazy=lazy, record=True
    )
    prior = np.zeros((len(y), 3))
    expected = pc.pc(
        net,
        prior,
        y,
        T=6,
        optim=OPTIMISERS["momentum"][1],
        free=range(net.L),
        prior=np.zeros(3),
    )
    before = weights(algorithm.model.network)
    metrics = algorithm.train_step(None, y)
    after = weights(algorithm.model.network)
    grads = [a - b for a, b in zip(before, after, strict=True)]
    assert_close(grads, flatten(expected.grads), atol=1e-12)
    nodes = [pc.node_energies(net, h, prior=np.zeros(3)).mean(-1) for h in expected.states]
    np.testing.assert_allclose(metrics["energies"], nodes, atol=1e-12)
    assert algorithm.vode_names == ("latent", *(f"network.vodes[{k}]" for k in range(3)))


def test_without_a_target_nothing_moves():
    net, x, _ = problem()
    algorithm = make(net)
    before = weights(algorithm.model)
    _, record = algorithm.infer(x, trajectory=True)
    assert_close(record.states[0], [record.states[0][0]] * 6, atol=0)
    metrics = algorithm.train_step(x)
    assert_close(weights(algorithm.model), before, atol=0)
    assert float(metrics["energy"]) == 0.0


def test_frozen_weights_and_states_do_not_move():
    net, x, y = problem()
    model = model_of(net)
    model.blocks[1].linear.nn.weight.frozen = True
    model.vodes[1].h.frozen = True
    algorithm = pxa.PC(model, 5, OPTIMISERS["sgd"][0], optax.sgd(1.0))
    expected = pc.pc(net, x, y, T=5, optim=OPTIMISERS["sgd"][1], free=[1])
    assert_inferred(algorithm, x, y, expected.states)
    grads, _ = learned(algorithm, x, y)
    want = flatten(expected.grads)
    want[2] = np.zeros_like(want[2])
    assert_close(grads, want, atol=1e-12)
