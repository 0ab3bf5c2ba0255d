"""`Optim(optax.sgd, learning_rate=...)`: numbers that are data, against bare optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.models as pxm
import pcx.training as pxt
import pcx.utils as pxu

X = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
Y = np.eye(2, dtype=np.float32)[(X[:, 0] > 0).astype(int)]


def bare(optim, gradients, value):
    state = optim.init(value)
    for gradient in gradients:
        updates, state = optim.update(gradient, state, value)
        value = optax.apply_updates(value, updates)
    return value


@pytest.mark.parametrize(
    ("factory", "numbers"),
    [
        (optax.sgd, {"learning_rate": 0.3, "momentum": 0.9}),
        (optax.adamw, {"learning_rate": 0.3, "weight_decay": 0.1}),
        # its first state holds a number
        (optax.adagrad, {"learning_rate": 0.3, "initial_accumulator_value": 2.0}),
        (functools.partial(optax.sgd, nesterov=True), {"learning_rate": 1, "momentum": 0.5}),
    ],
    ids=["sgd", "adamw", "adagrad", "partial"],
)
def test_numbers_set_later_are_those_of_the_steps_and_compile_nothing(factory, numbers):
    traces = []

    @pxf.jit()
    def run(gradients, *, model, optim):
        traces.append(1)
        optim.init(model)
        for gradient in gradients:
            optim.step(model, [gradient])

    gradients = [jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])]
    model = [px.Param(jnp.ones(2))]
    optim = pxu.Optim(factory, model, **dict.fromkeys(numbers, 0.25))
    run(gradients, model=model, optim=optim)
    model[0].set(jnp.ones(2))
    optim.numbers.set({name: jnp.asarray(x, float) for name, x in numbers.items()})
    run(gradients, model=model, optim=optim)
    expected = bare(factory(**numbers), gradients, jnp.ones(2))
    np.testing.assert_allclose(model[0].get(), expected, rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("cls", [pxa.PC, pxa.IPC, pxa.ZIL])
def test_an_algorithm_learns_as_with_the_optimiser_itself(cls):
    weights = []
    for state, weight in [
        (optax.sgd(0.1, momentum=0.5), optax.adam(1e-2)),
        (
            pxu.Optim(optax.sgd, learning_rate=0.1, momentum=0.5),
            pxu.Optim(optax.adam, learning_rate=1e-2),
        ),
    ]:
        model = pxm.MLP([2, 4, 2], rkg=px.RandomKeyGenerator(0))
        algorithm = cls(model, 4, state, weight)
        for _ in range(3):
            algorithm.train_step(X, Y)
        weights.append(
            [np.asarray(p) for _, p in px.core.named_params(model) if p.get() is not None]
        )
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_inference_is_as_lazy_as_with_the_optimiser_itself():
    texts = []
    for state in (optax.sgd(0.1), pxu.Optim(optax.sgd, learning_rate=0.1)):
        model = pxm.MLP([2, 4, 4, 2], rkg=px.RandomKeyGenerator(0))
        algorithm = pxa.PC(model, 6, state, optax.sgd(0.1))
        lowered = pxa.PC.train_step.jitted.lower(X, Y, algorithm=algorithm)
        texts.append(lowered.as_text().count("dot_general"))
    assert texts[0] == texts[1]


def test_the_learning_rate_is_read_and_set_where_it_is_a_number():
    optim = pxu.Optim(optax.sgd, [px.Param(jnp.ones(2))], learning_rate=0.5, momentum=0.9)
    assert pxt.learning_rate(optim) == 0.5
    pxt.set_learning_rate(optim, 0.25)
    assert pxt.learning_rate(optim) == 0.25
    assert float(optim.numbers["momentum"]) == pytest.approx(0.9)


def test_each_group_of_a_tree_has_the_numbers():
    model = [px.Param(jnp.array(1.0)), px.Param(jnp.array(1.0))]
    given = pxu.Optim(optax.sgd, learning_rate=0.5)
    tree = pxu.OptimTree(given, lambda node: isinstance(node, px.Param), model)
    tree.step(model, [jnp.array(1.0), jnp.array(2.0)])
    assert [float(p) for p in model] == [0.5, 0.0]


def test_what_is_no_number_and_what_is_no_factory_are_refused():
    with pytest.raises(TypeError, match=r"nesterov=True is no number.*functools\.partial"):
        pxu.Optim(optax.sgd, learning_rate=0.1, nesterov=True)
    with pytest.raises(TypeError, match=r"learning_rate=.*is no number"):
        pxu.Optim(optax.sgd, learning_rate=optax.constant_schedule(0.1))
    with pytest.raises(TypeError, match=r"momentum would be given to the function"):
        pxu.Optim(optax.sgd(0.1), momentum=0.9)


def test_numbers_that_the_factory_refuses_are_refused_at_once():
    with pytest.raises(ValueError, match="langevin needs gamma > 0"):
        pxu.Optim(pxa.langevin, gamma=-0.1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        pxu.Optim(optax.sgd, rate=0.1)


def test_other_types_of_numbers_keep_the_params_type():
    model = [px.Param(jnp.ones(2))]
    optim = pxu.Optim(optax.sgd, model, learning_rate=1, momentum=np.float32(0.5))
    optim.step(model, [jnp.ones(2)])
    assert model[0].dtype == jnp.float32
    assert all(
        jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree_util.tree_leaves(optim.state)
    )
