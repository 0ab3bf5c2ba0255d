"""The timed programs do the work they say: checked against NumPy with hand-derived gradients."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from benchmarks import cases, devices, equilibrium, first_call, population, programs, trainer
from benchmarks.programs import handwritten

SMALL = cases.mlp("small", [5, 7, 6, 7, 3], 4, T=3)
DEEP = cases.mlp("small-deep", [4] + [6] * 7 + [3], 5, T=3)
CONV = cases.Case(
    "small-conv",
    (2, 8, 8),
    (
        cases.Layer("conv", 3, 3, 1, 1, 2),
        cases.Layer("conv", 4, 3, 1, 0, 2),
        cases.Layer("dense", 3),
    ),
    batch=3,
    T=4,
    state_lr=0.05,
)
HAND = ("hand-scan", "hand-unroll", "hand-lazy")


def leaky(a):
    return np.where(a >= 0, a, 0.01 * a)


def slope(a):
    return np.where(a >= 0, 1.0, 0.01)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


# an activation and its derivative
ACTS = {"leaky_relu": (leaky, slope), "sigmoid": (sigmoid, lambda a: sigmoid(a) * sigmoid(-a))}


def adamw(weights, gradients, memory, t, lr):
    """Loshchilov & Hutter (2019), with optax's constants."""
    for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        m, v = memory[i]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        memory[i] = (m, v)
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        weights[i] = w - lr * (step + 1e-4 * w)


def output_error(case, u, y):
    """dE/du of the output node, negated: y - u for squared error, y - softmax(u) for CE."""
    if case.loss == "se":
        return y - u
    exponentials = np.exp(u - u.max(1, keepdims=True))
    return y - exponentials / exponentials.sum(1, keepdims=True)


def numpy_training(case, steps):
    """Weight matrices after `steps` steps of predictive coding, in float64."""
    pairs = cases.initial_weights(case)
    n = len(pairs)
    act, slope = ACTS[case.act]
    flat = [a.astype(np.float64) for pair in pairs for a in pair]
    memory = [(np.zeros_like(a), np.zeros_like(a)) for a in flat]
    x, y = (a.astype(np.float64) for a in cases.batch(case))

    def predict(below):
        """Pre-activation and prediction of every layer from the states below it."""
        found = []
        for i, h in enumerate(below):
            a = h @ flat[2 * i].T + flat[2 * i + 1]
            found.append((a, act(a) if i < n - 1 else a))
        return found

    def errors(states):
        """e_l = h_l - u_l per layer, and the gain-modulated f'(a_l) e_l that goes through W_l."""
        layers = predict([x, *states])
        e = [h - u for h, (_, u) in zip(states, layers[:-1], strict=True)]
        e.append(output_error(case, layers[-1][1], y))
        gain = [
            slope(a) * d if i < n - 1 else d
            for i, ((a, _), d) in enumerate(zip(layers, e, strict=True))
        ]
        return e, gain

    for t in range(1, steps + 1):
        states, h = [], x
        for i in range(n - 1):
            h = act(h @ flat[2 * i].T + flat[2 * i + 1])
            states.append(h)
        velocity = [np.zeros_like(h) for h in states]
        for _ in range(case.T):
            e, gain = errors(states)
            gradients = [e[i] - gain[i + 1] @ flat[2 * (i + 1)] for i in range(n - 1)]
            velocity = [g + case.momentum * v for g, v in zip(gradients, velocity, strict=True)]
            states = [h - case.state_lr * v for h, v in zip(states, velocity, strict=True)]
        _, gain = errors(states)
        below = [x, *states]
        gradients = []
        for i in range(n):
            gradients += [-gain[i].T @ below[i] / case.batch, -gain[i].mean(0)]
        adamw(flat, gradients, memory, t, case.weight_lr)
    return list(zip(flat[::2], flat[1::2], strict=True))


def trained(name, case, steps=2):
    program = programs.make(name, case)
    for _ in range(steps):
        program.step()
    return program.read_weights()


def assert_same_updates(own, expected, case, tolerance=2e-3):
    """Compares what training has changed, relative to its norm, not the weights it started from."""
    for (w, b), (w_, b_), (w0, b0) in zip(own, expected, cases.initial_weights(case), strict=True):
        for a, a_, a0 in ((w, w_, w0), (b, b_, b0)):
            assert a.shape == a0.shape
            change = np.linalg.norm(np.asarray(a_, np.float64) - a0)
            # Zero for the biases of layers that the error has not reached.
            assert change > 0 or a.ndim == 1
            assert np.linalg.norm(np.asarray(a, np.float64) - a_) <= tolerance * change


@pytest.mark.parametrize(
    ("loss", "act"), [("se", "leaky_relu"), ("ce", "leaky_relu"), ("se", "sigmoid")]
)
@pytest.mark.parametrize("name", HAND)
def test_a_handwritten_step_equals_numpy_with_hand_derived_gradients(name, loss, act):
    case = cases.mlp("small", [5, 7, 6, 7, 3], 4, T=5, loss=loss, act=act)
    assert_same_updates(trained(name, case), numpy_training(case, 2), case)


@pytest.mark.parametrize("case", [DEEP, CONV], ids=lambda case: case.name)
def test_lazy_inference_reaches_the_weights_of_full_inference(case):
    lazy, full = trained("hand-lazy", case, 3), trained("hand-unroll", case, 3)
    for (w, b), (w_, b_) in zip(lazy, full, strict=True):
        np.testing.assert_allclose(w, w_, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, b_, rtol=1e-5, atol=1e-6)


def test_a_handwritten_back_propagation_step_equals_numpy():
    weights, (x, y) = cases.initial_weights(SMALL), cases.batch(SMALL)
    flat = [a.astype(np.float64) for pair in weights for a in pair]
    below, pre = [x.astype(np.float64)], []
    for i in range(len(weights)):
        pre.append(below[-1] @ flat[2 * i].T + flat[2 * i + 1])
        below.append(leaky(pre[-1]) if i < len(weights) - 1 else pre[-1])
    delta = (below[-1] - y) / SMALL.batch
    gradients = []
    for i in reversed(range(len(weights))):
        gradients = [delta.T @ below[i], delta.sum(0), *gradients]
        if i:
            delta = (delta @ flat[2 * i]) * slope(pre[i - 1])
    adamw(flat, gradients, [(0.0 * a, 0.0 * a) for a in flat], 1, SMALL.weight_lr)
    expected = list(zip(flat[::2], flat[1::2], strict=True))
    assert_same_updates(trained("hand-bp", SMALL, 1), expected, SMALL)


@pytest.mark.parametrize("name", ["low-level", "low-level-scan"])
def test_the_object_api_reaches_the_handwritten_weights(name):
    assert_same_updates(trained(name, SMALL), trained("hand-unroll", SMALL), SMALL)


def test_the_object_api_reaches_the_handwritten_weights_with_convolutions():
    assert_same_updates(trained("low-level", CONV), trained("hand-unroll", CONV), CONV)


@pytest.mark.parametrize("name", ["low-level", "pxa-pc", "pxa-bp"])
def test_they_have_the_activation_of_the_case(name):
    case = cases.mlp("small", [5, 7, 6, 3], 4, T=3, act="sigmoid")
    hand = "hand-bp" if name == "pxa-bp" else "hand-unroll"
    assert_same_updates(trained(name, case), trained(hand, case), case)


def products(function, *arguments):
    """Operations in the matrix products and convolutions that a function makes."""

    def count(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            size = math.prod(equation.outvars[0].aval.shape)
            shapes = [v.aval.shape for v in equation.invars]
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                total += 2 * size * math.prod(shapes[0][axis] for axis in contracted)
            elif equation.primitive.name == "conv_general_dilated":
                total += 2 * size * math.prod(shapes[1][1:])
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                total += count(inner) if hasattr(inner, "eqns") else 0
        return total

    return count(jax.make_jaxpr(function)(*arguments).jaxpr)


@pytest.mark.parametrize("case", [SMALL, CONV], ids=lambda case: case.name)
def test_the_operations_of_a_case_are_those_of_its_products(case):
    net, weights = handwritten.network(case), cases.initial_weights(case)
    x, y = cases.batch(case)
    ahead = lambda w: handwritten.feed_forward(net, w, x)
    each = 2 * case.batch
    assert products(ahead, weights) == each * sum(case.products())
    assert case.flops("ep") is None
    if not case.is_dense:  # gradients of convolutions are convolutions of padded arrays
        return
    first, *others = case.products()
    backward = jax.grad(lambda w: handwritten.output_energy("se", ahead(w)[-1], y))
    assert products(backward, weights) == case.flops("bp")
    # a step of inference, but for the product of the input, which does not change
    energy, states = handwritten.make_energy(net, "se"), ahead(weights)[:-1]
    inference = products(jax.grad(energy), states, weights, x, y) - each * first
    longer = dataclasses.replace(case, T=case.T + 1)
    assert inference == longer.flops("pc") - case.flops("pc") == each * 2 * sum(others)
    # without inference: the predictions, and the gradients of the weights in the states they give
    learning = products(jax.grad(energy, 1), states, weights, x, y)
    assert dataclasses.replace(case, T=0).flops("pc") == learning


@pytest.mark.parametrize(("name", "hand"), [("pxa-pc", "hand-unroll"), ("pxa-bp", "hand-bp")])
@pytest.mark.parametrize("case", [SMALL, DEEP, CONV], ids=lambda case: case.name)
def test_an_algorithm_reaches_the_handwritten_weights(name, hand, case):
    assert_same_updates(trained(name, case), trained(hand, case), case)


def test_equilibrium_propagation_reaches_the_handwritten_weights():
    assert_same_updates(trained("pxa-ep", SMALL), trained("hand-ep", SMALL), SMALL)


def test_an_unknown_program_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown program 'fast'; one of hand-scan, "):
        programs.make("fast", SMALL)


@pytest.mark.parametrize("case", cases.CASES.values(), ids=lambda case: case.name)
def test_every_case_ends_in_ten_or_two_classes_and_survives_json(case):
    assert case.state_shapes()[-1] == (case.classes,)
    assert cases.Case.from_json(case.to_json()) == case


def test_vgg_shapes_are_those_of_the_papers_table_5():
    shapes = cases.CASES["vgg5-t7"].state_shapes()
    assert shapes == [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1), (10,)]
    assert cases.CASES["vgg7"].state_shapes()[-2:] == [(512, 1, 1), (10,)]


def test_the_trainer_is_timed_each_way_against_the_bare_loop():
    case = trainer.measure([2, 4, 2], batch=4, steps=10, rounds=1, in_a_call=(5,))
    assert [*case["programs"]] == ["bare", "fit", "fit, 5 in a call"]
    assert case["programs"]["bare"]["ratio"] == 1
    assert all(row["us_per_step"] > 0 for row in case["programs"].values())


def test_a_population_is_timed_against_its_members_one_after_another():
    case = population.measure([2, 4, 2], 4, 10, 1, members=4, rounds=1, in_a_call=())
    assert [*case["programs"]] == ["one after another", "population"]
    assert case["programs"]["one after another"]["times_faster"] == 1
    assert (case["members"], case["seeds"]) == (4, 2)


def test_devices_are_timed_against_a_run_without_a_mesh_and_a_cluster_is_predicted():
    sizes = [3, 4, 2]
    rows = devices.measure(sizes, 4, [1], rounds=1, steps=2)
    assert [*rows] == ["no mesh", "data 1", "fsdp 1"]
    assert all(row["ms"] > 0 and row["difference"] < 1e-6 for row in rows.values())
    # params and momenta, and a count of steps
    assert rows["no mesh"]["mib_held"] == round(2 * 4 * (3 * 4 + 4 + 4 * 2 + 2) / 2**20, 3)
    found = devices.predict(sizes, 4, rounds=1, steps=1, cluster=(1, 2))
    gradients = 4 * (3 * 4 + 4 + 4 * 2 + 2)
    for name, (gigabytes, latency) in devices.NETWORKS.items():
        times, compute = found["predicted_ms"][name], found["one_device_ms"]
        assert times[1] == compute[1]
        exchange = 2 * (1 / 2) * gradients / (gigabytes * 1e9) + 2 * latency
        np.testing.assert_allclose(times[2] - compute[2], 1e3 * exchange, rtol=1e-6)


def test_the_time_to_equilibrium_is_measured_and_shown(monkeypatch):
    chosen = equilibrium.methods(0.1, 0.1)["red-black, damped"]
    monkeypatch.setattr(equilibrium, "methods", lambda *rates: {"swept": chosen})
    found = equilibrium.measure("tanh", 2, rounds=1)
    assert found["swept"]["met"] == equilibrium.BATCH
    assert 1 < found["swept"]["iterations"] < 100
    failed = {"swept": {**found["swept"], "met": 3}}
    text = equilibrium.table("tanh", {2: found, 4: failed})
    assert f"({found['swept']['iterations']})" in text
    assert "- (3)" in text


@pytest.mark.slow
def test_a_first_call_is_timed_without_and_with_a_cache_that_an_earlier_process_filled():
    case = first_call.measure("tiny", rounds=1)
    assert [*case] == ["hand-scan", "hand-lazy", "pxa-pc"]
    for program in case.values():
        assert program["warm"]["cpu_s"] < program["cold"]["cpu_s"]
