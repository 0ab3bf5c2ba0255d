"""Nudged PC against the NumPy oracle, and its limits."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
from tests.algorithms.problems import (
    CE,
    OPTIMISERS,
    SQUARED,
    Traces,
    assert_inferred,
    float64,
    learned,
    model_of,
    problem,
)
from tests.oracles import nudging, pc
from tests.oracles.backprop import backprop
from tests.oracles.mlp import flatten
from tests.oracles.numerical import assert_close


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def make(net, output=SQUARED, optim="sgd", T=5, **options):
    return pxa.NudgedPC(model_of(net, output), T, OPTIMISERS[optim][0], optax.sgd(1.0), **options)


@pytest.mark.parametrize(
    ("mode", "beta", "scale", "kind", "optim"),
    [
        ("positive", 0.3, "beta", "after", "adam"),
        ("negative", 0.4, "beta", "skip", "momentum"),
        ("negative", 0.2, "sign", "before", "sgd"),
    ],
)
def test_states_and_gradients(mode, beta, scale, kind, optim):
    net, x, y = problem(kind)
    signed = -beta if mode == "negative" else beta
    expected = nudging.nudged(net, x, y, beta=signed, T=5, optim=OPTIMISERS[optim][1], scale=scale)
    algorithm = make(net, optim=optim, beta=beta, mode=mode, scale=scale)
    assert_inferred(algorithm, x, y, expected.states, nets=[net] * 6)
    grads, metrics = learned(algorithm, x, y)
    assert_close(grads, flatten(expected.grads), atol=1e-12)
    np.testing.assert_allclose(metrics["energy"], expected.energies[-1].mean(), atol=1e-12)


def test_the_average_of_both_nudges():
    net, x, y = problem()
    expected = nudging.centred(net, x, y, beta=0.3, T=5, optim=OPTIMISERS["momentum"][1])
    algorithm = make(net, optim="momentum", beta=0.3, mode="centred", alternate="average")
    assert_close(learned(algorithm, x, y)[0], flatten(expected), atol=1e-12)
    assert float(algorithm.beta) == 0.3


@pytest.mark.parametrize("output", [SQUARED, CE()])
def test_beta_one_is_pc(output):
    net, x, y = problem("skip", output)
    ours, _ = learned(make(net, output), x, y)
    expected = pc.pc(net, x, y, T=5, optim=OPTIMISERS["sgd"][1], output=output)
    assert_close(ours, flatten(expected.grads), atol=1e-12)


@pytest.mark.parametrize(("output", "mode"), [(SQUARED, "negative"), (CE(), "positive")])
def test_the_output_layer_learns_as_in_backpropagation_whatever_beta(output, mode):
    # the factor 1/beta undoes the nudge where nothing has been inferred
    net, x, y = problem("after", output)
    ours, _ = learned(make(net, output, T=0, beta=0.1, mode=mode), x, y)
    want = flatten(backprop(net, x, y, output)[1])
    assert_close(ours[-2:], want[-2:], atol=1e-12)


def test_beta_grows_with_the_epochs_and_nothing_is_compiled_again():
    net, x, y = problem()
    traces = Traces()
    algorithm = make(net, beta=0.4, mode="negative", beta_increase=0.25, metrics={"n": traces})
    for epoch in range(5):
        algorithm.start_epoch(epoch)
        np.testing.assert_allclose(algorithm.beta, nudging.beta_at(epoch, -0.4, 0.25))
        algorithm.train_step(x, y)
    assert traces.count == 1
    # exactly the last epoch's beta was used
    expected = nudging.nudged(net, x, y, beta=-1.0, T=5, optim=OPTIMISERS["sgd"][1])
    algorithm.model = model_of(net)
    assert_close(learned(algorithm, x, y)[0], flatten(expected.grads), atol=1e-12)


def test_centred_nudging_draws_a_sign_for_each_epoch():
    net, _, _ = problem()
    drawn = []
    for seed in (3, 3, 4):
        algorithm = make(net, beta=0.5, mode="centred", rkg=px.RandomKeyGenerator(seed))
        signs = []
        for epoch in range(24):
            algorithm.start_epoch(epoch)
            signs.append(float(algorithm.beta))
        drawn.append(signs)
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {0.5, -0.5}
    px.RKG.seed(0)
    default = make(net, beta=0.5, mode="centred")
    default.start_epoch(0)
    px.RKG.seed(0)
    again = make(net, beta=0.5, mode="centred")
    again.start_epoch(0)
    assert float(default.beta) == float(again.beta)


def test_centred_nudging_draws_a_sign_for_each_batch():
    net, x, y = problem()
    both = [
        flatten(nudging.nudged(net, x, y, beta=b, T=2, optim=OPTIMISERS["sgd"][1]).grads)
        for b in (0.5, -0.5)
    ]
    px.RKG.seed(0)
    traces = Traces()
    algorithm = make(net, T=2, beta=0.5, mode="centred", alternate="batch", metrics={"n": traces})
    seen = set()
    for _ in range(12):
        algorithm.model = model_of(net)
        grads, _ = learned(algorithm, x, y)
        fits = [
            all(np.allclose(g, w, atol=1e-12) for g, w in zip(grads, b, strict=True)) for b in both
        ]
        assert sum(fits) == 1
        seen.add(fits.index(True))
    assert seen == {0, 1}
    assert traces.count == 1


def test_centred_nudging_may_take_turns_instead_of_drawing():
    net, x, y = problem()
    algorithm = make(net, beta=0.5, mode="centred", random=False)
    signs = []
    for epoch in range(4):
        algorithm.start_epoch(epoch)
        signs.append(float(algorithm.beta))
    assert signs == [0.5, -0.5, 0.5, -0.5]

    both = [
        flatten(nudging.nudged(net, x, y, beta=b, T=2, optim=OPTIMISERS["sgd"][1]).grads)
        for b in (0.5, -0.5)
    ]
    batches = make(net, T=2, beta=0.5, mode="centred", alternate="batch", random=False)
    for epoch in range(2):
        batches.start_epoch(epoch)
        for expected in (*both, both[0]):
            batches.model = model_of(net)
            batches.infer(x, y)  # takes no turn
            assert_close(learned(batches, x, y)[0], expected, atol=1e-12)


def test_unlabelled_batches_are_let_through():
    net, x, _ = problem()
    algorithm = make(net, beta=0.5, mode="centred", alternate="average")
    grads, _ = learned(algorithm, x, None)
    assert all(np.all(g == 0) for g in grads)


@pytest.mark.wrong_types
def test_mistakes_are_explained():
    net, _, _ = problem()
    for beta in (0.0, -0.5, 1.5):
        with pytest.raises(ValueError, match=rf"0 < beta <= 1.*Got beta={beta}"):
            make(net, beta=beta)
    with pytest.raises(ValueError, match=r"mode must be one of 'positive', .*got 'both'"):
        make(net, mode="both")
    with pytest.raises(ValueError, match=r"alternate must be one of 'epoch', .*got 'step'"):
        make(net, alternate="step")
    with pytest.raises(ValueError, match="scale must be one of 'beta', 'sign'; got 'none'"):
        make(net, scale="none")
    with pytest.raises(ValueError, match=r"beta_increase must be >= 0; got -0\.1"):
        make(net, beta_increase=-0.1)
    with pytest.raises(ValueError, match="runs inference twice from the same initial states"):
        make(net, mode="centred", alternate="average", init="persistent")


def test_targets_of_integers_are_nudged_as_floats():
    net, x, y = problem(output=CE())
    algorithm = make(net, CE(), beta=0.5)
    a, _ = learned(algorithm, x, jnp.asarray(y, int))
    algorithm.model = model_of(net, CE())
    b, _ = learned(algorithm, x, y)
    assert_close(a, b, atol=0)
