"""A param without a gradient: left alone, its optimiser state too; against bare optax."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.utils as pxu
from pcx.utils._update import some


@pytest.mark.parametrize(
    ("number", "end"), [(6, "`p5`"), (7, "`p5` and 1 more"), (9, "`p5` and 3 more")]
)
def test_a_message_names_six_params_and_counts_the_others(number, end):
    text = some([f"p{k}" for k in range(number)])
    assert text == ", ".join(f"`p{k}`" for k in range(5)) + f", {end}"
    assert some([]) == "none"


# each treats the params independently of each other and of the number of the step
SEPARATE = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optax.rmsprop(0.1, momentum=0.9),
    "lion": lambda: optax.lion(0.1, weight_decay=0.1),
    "adagrad": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.adagrad(0.1)),
    "masked": lambda: optax.masked(
        optax.sgd(0.1, momentum=0.9), lambda p: {k: k != "c" for k in p}
    ),
    "multi": lambda: optax.multi_transform(
        {"x": optax.sgd(0.1, momentum=0.9), "y": optax.sgd(1.0, momentum=0.5)},
        lambda p: {k: "x" if k in "ab" else "y" for k in p},
    ),
    # labels that look like params, but belong to others
    "labels": lambda: optax.multi_transform(
        {k: optax.sgd(rate, momentum=0.9) for k, rate in zip("abc", (0.1, 0.2, 0.3), strict=True)},
        {"a": "b", "b": "c", "c": "a"},
    ),
    "named": lambda: optax.named_chain(
        ("one", optax.trace(0.9)), ("two", optax.scale(-0.1)), ("three", optax.trace(0.5))
    ),
    "injected": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.3, momentum=0.9),
}
# which params have a gradient in each step
STEPS = ["abc", "ab", "a", "bc", "c", "abc"]


class Model(px.Module):
    def __init__(self, values):
        for name, value in values.items():
            setattr(self, name, px.Param(value))

    def values(self):
        return {k: np.asarray(getattr(self, k).get()) for k in "abc"}


def numbers(seed):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=3), jnp.float32) for k in "abc"}


def leaves(optim):
    return [np.asarray(x) for x in jax.tree_util.tree_leaves(optim.state.get())]


def assert_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", SEPARATE)
def test_each_param_goes_the_way_it_would_go_alone(name, jitted):
    """The oracle gives bare optax, per param, only the steps in which it has a gradient."""
    make = SEPARATE[name]
    model = Model(numbers(0))
    optim = pxu.Optim(make(), model)
    step = lambda *, model, optim, grads: optim.step(model, grads, allow_none=True) and None
    run = pxf.jit()(step) if jitted else step
    gradients = [numbers(seed) for seed in range(1, len(STEPS) + 1)]
    for present, g in zip(STEPS, gradients, strict=True):
        grads = Model({k: g[k] if k in present else None for k in "abc"})
        run(model=model, optim=optim, grads=grads)
    for k in "abc":
        bare, all_params = make(), numbers(0)
        state = bare.init(all_params)
        for present, g in zip(STEPS, gradients, strict=True):
            if k in present:
                updates, state = bare.update(g, state, all_params)
                all_params = optax.apply_updates(all_params, updates)
        np.testing.assert_allclose(model.values()[k], all_params[k], rtol=1e-6)


def test_a_count_that_params_share_goes_on_and_moments_do_not():
    model = Model(numbers(0))
    optim = pxu.Optim(optax.adam(0.1), model)
    optim.step(model, Model(numbers(1)))
    old = optim.state.get().inner[0]
    optim.step(model, Model({**numbers(2), "b": None}), allow_none=True)
    new = optim.state.get().inner[0]
    assert (int(old.count), int(new.count)) == (1, 2)
    for moment in ("mu", "nu"):
        before, after = getattr(old, moment), getattr(new, moment)
        np.testing.assert_array_equal(before["b"], after["b"])
        assert not np.array_equal(before["a"], after["a"])


def test_a_norm_over_all_gradients_is_that_of_those_there_are():
    model, g = Model(numbers(0)), numbers(1)
    before = model.values()
    optim = pxu.Optim(optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1.0)), model)
    optim.step(model, Model({**g, "b": None}), allow_none=True)
    norm = np.sqrt(sum(np.sum(np.square(g[k])) for k in "ac"))
    np.testing.assert_allclose(model.values()["a"], before["a"] - 0.5 * g["a"] / norm, rtol=1e-5)
    np.testing.assert_array_equal(model.values()["b"], before["b"])


@pytest.mark.parametrize("make", [optax.adamw, optax.contrib.muon, optax.adafactor, optax.lamb])
def test_a_step_without_any_gradient_changes_nothing_at_all(make):
    model = Model({k: jnp.ones((2, 3)) * i for i, k in enumerate("abc", 1)})
    optim = pxu.Optim(make(0.1), model)
    optim.step(model, Model({k: jnp.full((2, 3), 0.5) for k in "abc"}))
    values, state = model.values(), leaves(optim)
    assert optim.step(model, Model(dict.fromkeys("abc")), allow_none=True) == {}
    assert_equal(values.values(), model.values().values())
    assert_equal(state, leaves(optim))


def test_a_frozen_param_is_left_alone_without_a_word():
    model = Model(numbers(0))
    optim = pxu.Optim(optax.sgd(0.1, momentum=0.9), model)
    optim.step(model, Model(numbers(1)))
    model.b.frozen = True
    before, state = model.values(), optim.state.get().inner[0].trace["b"]
    updates = optim.step(model, Model({**numbers(2), "b": None}))
    assert updates.keys() == {"a", "c"}
    np.testing.assert_array_equal(model.values()["b"], before["b"])
    np.testing.assert_array_equal(optim.state.get().inner[0].trace["b"], state)


def test_if_all_are_frozen_a_step_does_nothing():
    model = Model(numbers(0))
    optim = pxu.Optim(optax.sgd(0.1), model)
    for k in "abc":
        getattr(model, k).frozen = True
    assert optim.step(model, Model(dict.fromkeys("abc"))) == {}


@pytest.mark.parametrize(
    "make",
    [pxu.Optim, lambda o, params: pxu.OptimTree(o, lambda x: isinstance(x, Model), params)],
)
def test_other_params_without_gradient_are_named_in_one_warning(make):
    model = Model(numbers(0))
    optim = make(optax.sgd(0.1), model)
    before, grads = model.values(), Model({**numbers(1), "a": None, "c": None})
    match = r"\.step: no gradient for `a`, `c`\..*param\.frozen = True.*given for: `b`"
    with pytest.warns(UserWarning, match=match) as caught:
        optim.step(model, grads)
    assert [w.filename for w in caught] == [__file__]
    np.testing.assert_array_equal(model.values()["a"], before["a"])
    assert not np.array_equal(model.values()["b"], before["b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optim.step(model, grads)  # not again
    with pytest.warns(UserWarning, match="no gradient for `a`, `b`"):
        optim.step(model, Model({**numbers(1), "a": None, "b": None}))


def test_a_warning_that_is_an_error_leaves_everything_as_it_was():
    model = Model(numbers(0))
    optim = pxu.Optim(optax.sgd(0.1, momentum=0.9), model)
    values, state = model.values(), leaves(optim)
    with pytest.raises(UserWarning, match="no gradient"):
        optim.step(model, Model({**numbers(1), "a": None}))
    assert_equal(values.values(), model.values().values())
    assert_equal(state, leaves(optim))


def test_no_gradient_at_all_is_an_error_that_names_the_params():
    model = Model(numbers(0))
    optim = pxu.Optim(optax.sgd(0.1), model)
    model.c.frozen = True
    match = r"none of the params of this optimiser has a gradient: `a`, `b`\..*given for: none"
    with pytest.raises(ValueError, match=match):
        optim.step(model, Model(dict.fromkeys("abc")))


def test_groups_of_an_optim_tree_keep_the_state_of_a_param_without_gradient():
    net = pxnn.Sequential(pxnn.Linear(2, 2), pxnn.Linear(2, 2))
    is_linear = lambda node: isinstance(node, pxnn.Linear)
    optim = pxu.OptimTree(optax.sgd(1.0, momentum=0.5), is_linear, pxu.M(pxnn.LayerParam)(net))
    grads = pxu.M(pxnn.LayerParam)(
        jax.tree_util.tree_map(lambda x: jnp.ones_like(x) if hasattr(x, "shape") else x, net)
    )
    before = net[0].nn.weight.get(), net[0].nn.bias.get(), net[1].nn.bias.get()
    optim.step(net, grads)
    grads[0].nn.bias.set(None)
    optim.step(net, grads, allow_none=True)
    # velocities 1 and 1.5
    np.testing.assert_allclose(net[0].nn.weight, before[0] - 2.5, rtol=1e-6)
    np.testing.assert_allclose(net[0].nn.bias, before[1] - 1.0, rtol=1e-6)
    np.testing.assert_allclose(net[1].nn.bias, before[2] - 2.5, rtol=1e-6)
