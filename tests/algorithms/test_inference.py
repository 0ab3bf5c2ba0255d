"""The inference loop: stopping early, recording, unrolled and scanned steps."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
from pcx.algorithms._lazy import Dependencies
from pcx.algorithms._lazy._plan import unrolled
from tests.algorithms.problems import (
    OPTIMISERS,
    Small,
    assert_close,
    batch_of,
    float64,
    learned,
    model_of,
    problem,
)
from tests.oracles import pc
from tests.oracles.mlp import flatten


def first(condition, default):
    return next((k for k, value in enumerate(condition) if value), default)


@pytest.fixture
def reference():
    with float64():
        net, x, y = problem()
        result = pc.pc(net, x, y, T=60, optim=OPTIMISERS["sgd"][1])
        yield net, x, y, result


@pytest.mark.parametrize("rtol", [1e-1, 1e-3, 1e-9])
def test_inference_stops_when_the_energy_settles(reference, rtol):
    net, x, y, result = reference
    F = result.energies.sum(-1)
    settled = np.abs(np.diff(F)) < rtol * F[1:]
    # the step after the one that changed too little sees it, and is the last
    expected = min(first(settled, 58) + 2, 60)
    stop = pxa.Stop(energy_rtol=rtol)
    algorithm = pxa.PC(model_of(net), 60, OPTIMISERS["sgd"][0], optax.sgd(1.0), stop=stop)
    grads, metrics = learned(algorithm, x, y)
    assert int(metrics["steps"]) == expected
    assert_close(grads, flatten(pc.weight_gradient(net, result.states[expected])), atol=1e-12)


def test_inference_stops_when_all_gradients_are_small(reference):
    net, x, y, result = reference
    largest = [
        max(np.abs(pc.state_gradient(net, h)[k]).max() for k in pc.hidden(net))
        for h in result.states
    ]
    tol = 0.1 * largest[0]
    algorithm = pxa.PC(
        model_of(net), 60, OPTIMISERS["sgd"][0], stop=pxa.Stop(gradient_tol=float(tol))
    )
    steps = int(algorithm.train_step(x, y)["steps"])
    assert steps == first(np.array(largest) < tol, 60) + 1
    _, record = algorithm.infer(x, y)
    assert int(record.steps) == steps
    assert record.energies is None


def test_never_before_the_least_number_of_steps(reference):
    net, x, y, _ = reference
    stop = pxa.Stop(energy_rtol=1.0, min_steps=7)
    algorithm = pxa.PC(model_of(net), 60, OPTIMISERS["sgd"][0], stop=stop)
    assert int(algorithm.train_step(x, y)["steps"]) == 7


def test_stopping_and_recording_exclude_each_other():
    x, y = batch_of()
    stop = pxa.Stop(energy_rtol=0.1)
    with pytest.raises(ValueError, match=r"stops early \(`stop=`\) cannot record every step"):
        pxa.PC(Small(), 3, stop=stop, record=True).train_step(x, y)
    with pytest.raises(ValueError, match="cannot record every step"):
        pxa.PC(Small(), 3, stop=stop).infer(x, y, trajectory=True)


def test_records_have_one_row_for_each_state_of_affairs():
    x, y = batch_of()
    for T, unroll in ((0, "auto"), (1, "auto"), (20, "auto"), (4, False)):
        algorithm = pxa.PC(Small(), T, optax.sgd(0.1), unroll=unroll)
        prediction, record = algorithm.infer(x, y, trajectory=True)
        assert prediction.shape == (6, 2)
        assert record.steps == T
        assert record.energies.shape == (T + 1, 3)
        assert [s.shape for s in record.states] == [(T + 1, 6, n) for n in (5, 4, 2)]
        # the last row is the state that the model is left in
        for states, vode in zip(record.states, algorithm.model.vodes, strict=True):
            np.testing.assert_array_equal(states[-1], vode.h.get())
        final = algorithm.model.vodes[2].h.get()
        np.testing.assert_array_equal(final, y)
        assert algorithm.state_optim.state.get() is None
    _, record = algorithm.infer(x, y, energies=False)
    assert record.energies is None
    assert record.states is None


def test_the_energy_falls_along_a_record():
    algorithm = pxa.PC(Small(), 15, optax.sgd(0.05))
    _, record = algorithm.infer(*batch_of())
    assert np.all(np.diff(np.asarray(record.energies.sum(-1))) < 0)


def chain(n, **changes):
    """n nodes in a row, the last one active at first."""
    states = tuple(frozenset({k - 1, k} & set(range(n - 1))) for k in range(n))
    weights = tuple(frozenset({100 + k}) for k in range(n))
    return replace(
        Dependencies(states, weights, frozenset({n - 1}), params=tuple(range(n))), **changes
    )


@pytest.mark.wrong_types
def test_the_wave_of_a_chain_by_hand():
    wave = chain(4)
    assert [set(s) for s in wave.reached(5)] == [{2}, {1, 2}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2}]
    live = [set(wave.params_of(terms)) for terms in wave.active_at(9)]
    assert live[0] == {2, 103}
    assert live[1] == {1, 2, 102, 103}
    assert live[9] == {0, 1, 2, 100, 101, 102, 103}
    # only the prefix in which the set grows has to be unrolled
    assert unrolled(tuple(map(frozenset, live[:5])), False, False) == 3
    assert unrolled(tuple(map(frozenset, live[:5])), True, False) == 5


def test_learning_during_inference_spreads_activity():
    # plain SGD moves weights of active nodes, whose errors are known to be nonzero already
    plain = chain(4, learns=(False, True, False))
    assert [set(s) for s in plain.reached(3)] == [{2}, {1, 2}, {0, 1, 2}]
    # a param shared with a node that was still makes it active
    weights = (frozenset({7}), frozenset(), frozenset(), frozenset({7}))
    assert set(chain(4, weights=weights, learns=(True,)).reached(2)[1]) == {0, 1, 2}


def test_a_long_inference_compiles_no_slower_than_a_short_one():
    x, y = batch_of()

    def size(T):
        algorithm = pxa.PC(Small(), T, optax.sgd(0.1), unroll=False)
        return len(pxa.PC.train_step.jitted.lower(x, y, algorithm=algorithm).as_text())

    assert size(500) < 1.05 * size(50)


def test_the_default_state_optimiser_and_unlabelled_dtypes():
    x, y = batch_of()
    algorithm = pxa.PC(Small(), 2)
    # integer and boolean one-hot targets are taken as numbers
    a = algorithm.energy(x, jnp.round(y).astype(int))
    b = algorithm.energy(x, jnp.round(y))
    np.testing.assert_allclose(a, b, atol=1e-6)
