"""Optax transformations made anew: equal exactly where they certainly behave equally."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt
import pcx.utils as pxu
from pcx.utils._fingerprint import ByContent

LABELS = lambda p: {k: "a" if "w" in k else "b" for k in p}
RATE = 0.1


def triple_the(rate):
    return lambda step: 3 * rate


SETTINGS = {
    "adam": lambda x: optax.adam(x),
    "mask": lambda x: optax.adamw(x, mask=lambda p: {k: k.endswith("weight") for k in p}),
    "schedule": lambda x: optax.adam(optax.cosine_decay_schedule(x, 10)),
    "joined": lambda x: optax.sgd(
        optax.join_schedules([optax.constant_schedule(x), optax.exponential_decay(x, 3, 0.1)], [4])
    ),
    "warm-up": lambda x: optax.sgd(pxt.warmup_cosine(x, 100), momentum=0.9),
    "chain": lambda x: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(x)),
    "masked": lambda x: optax.masked(optax.adam(x), lambda p: {k: "w" in k for k in p}),
    "mask tree": lambda x: optax.masked(optax.adam(x), {"a": True, "b": False}),
    "multi_transform": lambda x: optax.multi_transform(
        {"a": optax.adam(x), "b": optax.sgd(0.1)}, LABELS
    ),
    "label tree": lambda x: optax.multi_transform({"a": optax.sgd(1.0)}, {str(x): "a"}),
    "injected": lambda x: optax.inject_hyperparams(optax.adam)(learning_rate=x),
    "injected schedule": lambda x: optax.inject_hyperparams(optax.adam)(
        learning_rate=optax.linear_schedule(x, 0.0, 10)
    ),
    "MultiSteps": lambda x: optax.MultiSteps(optax.adam(x), 2),
    "muon": lambda x: optax.contrib.muon(x),
    "noise": lambda x: optax.add_noise(x, 0.1, 3),
    "key": lambda x: optax.add_noise(0.1, 0.1, jax.random.key(int(10 * x))),
    "array": lambda x: optax.sgd(jnp.float32(x)),
    "a function's own rate": lambda x: optax.sgd(lambda step: x * 0.9**step),
    "a function in a function": lambda x: optax.sgd(triple_the(x)),
    "partial": lambda x: optax.sgd(functools.partial(jnp.add, x)),
    "default": lambda x: optax.sgd(lambda step, rate=x: rate),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_settings_are_equal_and_others_are_not(name):
    make = SETTINGS[name]
    a, b, other = (ByContent(make(x)) for x in (0.1, 0.1, 0.2))
    assert a == b
    assert hash(a) == hash(b)
    assert a != other
    # a used schedule is the same schedule
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    if name not in ("mask tree", "label tree", "partial"):
        a.value.update(params, a.value.init(params), params)
        assert ByContent(make(0.1)) == ByContent(make(0.1)) == a


class Mutable:
    def __init__(self, rate):
        self.rate = rate


class ClassRate:
    rate = 0.1


def counting(rate):
    count = 0

    def update(grads, state, params=None):
        nonlocal count
        count += 1
        return jax.tree_util.tree_map(lambda g: -rate * count * g, grads), state

    return optax.GradientTransformation(lambda params: (), update)


def by_generator(rate):
    rates = (rate for _ in range(10))
    return optax.sgd(lambda step: next(rates))


def by_list(rate):
    rates = [rate]
    return optax.sgd(lambda step: rates[0])


def by_object(rate):
    held = Mutable(rate)
    return optax.sgd(lambda step: held.rate)


class OfItsOwn:
    def __init__(self, rate):
        self.rate = rate

    def init(self, params):
        return ()

    def update(self, grads, state, params=None):
        return jax.tree_util.tree_map(lambda g: -self.rate * g, grads), state


UNKNOWN = {
    "a counter": counting,
    "a generator": by_generator,
    "a list": by_list,
    "an object": by_object,
    "an object with init and update": OfItsOwn,
    "a global number": lambda rate: optax.sgd(lambda step: RATE),
    "a class": lambda rate: optax.sgd(lambda step: ClassRate.rate),
    "a bound method": lambda rate: optax.sgd([rate].__getitem__),
    "eval": lambda rate: optax.sgd(lambda step: eval("0.1")),
    "an array of objects": lambda rate: optax.sgd(functools.partial(np.dot, np.array([object()]))),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_may_change_unseen_is_equal_to_itself_only(name):
    make = UNKNOWN[name]
    same = make(0.1)
    a, b = ByContent(same), ByContent(make(0.1))
    assert a != b
    assert a == ByContent(same)
    assert hash(a) == hash(ByContent(same))


def test_a_closure_that_changed_before_its_first_use_counts_as_it_is_then():
    def made(rate):
        def set_rate(new):
            nonlocal rate
            rate = new

        return ByContent(optax.sgd(lambda step: rate)), set_rate

    (a, set_a), (b, _), (c, _) = made(0.1), made(0.1), made(0.2)
    set_a(0.2)
    assert a != b
    assert a == c


def test_a_closure_that_changed_since_its_first_use_is_not_what_it_was():
    def made(rate):
        def set_rate(new):
            nonlocal rate
            rate = new

        return ByContent(optax.sgd(lambda step: rate)), set_rate

    (a, set_a), (b, _) = made(0.1), made(0.1)
    assert hash(a) == hash(b)
    set_a(0.2)
    assert a != b


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), (1, True), (0.0, -0.0), (2, jnp.int32(2))])
def test_numbers_that_trace_differently_are_different(a, b):
    assert ByContent(optax.scale(a)) != ByContent(optax.scale(b))


def test_a_function_that_calls_itself_can_be_compared():
    def made(rate):
        def schedule(step):
            return rate if step is None else schedule(None)

        return optax.sgd(schedule)

    assert ByContent(made(0.1)) == ByContent(made(0.1))
    assert ByContent(made(0.1)) != ByContent(made(0.2))


@pytest.mark.parametrize("as_factory", [False, True])
def test_a_jitted_step_is_traced_once_for_optimisers_made_anew(as_factory):
    traces = 0

    @pxf.jit()
    def step(*, param, optim):
        nonlocal traces
        traces += 1
        optim.step([param], [param.get()])

    def final(rate, steps=2):
        param = px.Param(jnp.ones(()))
        made = (lambda: optax.sgd(rate)) if as_factory else optax.sgd(rate)
        optim = pxu.Optim(made, [param])
        for _ in range(steps):
            step(param=param, optim=optim)
        return float(param)

    for _ in range(4):
        np.testing.assert_allclose(final(0.1), 0.9**2, rtol=1e-6)
    assert traces == 1
    np.testing.assert_allclose(final(0.3), 0.7**2, rtol=1e-6)
    assert traces == 2
    np.testing.assert_allclose(final(0.1), 0.9**2, rtol=1e-6)
    assert traces == 2


def test_a_sweep_over_a_loop_variable_uses_each_rate():
    @pxf.jit()
    def step(*, param, optim):
        optim.step([param], [jnp.ones(())])

    for rate in (0.1, 0.2, 0.1, 0.3):
        param = px.Param(jnp.zeros(()))
        optim = pxu.Optim(optax.sgd(lambda count: rate), [param])  # noqa: B023
        step(param=param, optim=optim)
        np.testing.assert_allclose(param, -rate, rtol=1e-6)


class Net(pxc.EnergyModule):
    calls = 0

    def __init__(self):
        self.layers = [pxnn.Linear(3, 4), pxnn.Linear(4, 2)]
        self.vodes = [pxc.Vode((4,)), pxc.Vode((2,))]
        self.vodes[1].h.frozen = True

    def __call__(self, x, y=None):
        Net.calls += 1
        u = self.layers[1](self.vodes[0](jnp.tanh(self.layers[0](x))))
        self.vodes[1](u)
        if y is not None:
            self.vodes[1].set("h", y)
        return u


@pytest.mark.parametrize("name", ["adam", "schedule", "mask", "multi_transform", "injected"])
def test_a_sweep_of_algorithms_with_equal_settings_compiles_once(name):
    x, y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)

    def calls_of_the_model(rate):
        algorithm = pxa.PC(
            Net(), T=2, state_optim=optax.sgd(0.1), weight_optim=SETTINGS[name](rate)
        )
        # the look at an algorithm's first batch traces the model, and compiles nothing
        object.__setattr__(algorithm, "_unseen", False)
        before = Net.calls
        algorithm.train_step(x, y)
        return Net.calls - before

    assert calls_of_the_model(0.11) > 0
    assert [calls_of_the_model(0.11) for _ in range(3)] == [0, 0, 0]
    assert calls_of_the_model(0.12) > 0


def test_groups_selected_by_a_function_made_anew_compile_once():
    traces = 0

    @pxf.jit()
    def step(*, net, optim):
        nonlocal traces
        traces += 1
        optim.step(net, pxu.M(pxnn.LayerParam)(net))

    for _ in range(3):
        net = pxnn.Sequential(pxnn.Linear(2, 2), pxnn.Linear(2, 2))
        groups = lambda node: isinstance(node, pxnn.Linear)
        optim = pxu.OptimTree(optax.adam(0.1), groups, pxu.M(pxnn.LayerParam)(net))
        step(net=net, optim=optim)
    assert traces == 1
