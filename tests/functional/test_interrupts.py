"""An interrupt at any moment leaves a model from before or after the step, and training goes on."""

import contextlib
import gc
import linecache
import random
import signal
import sys
import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf


class Model(px.Module):
    def __init__(self):
        self.params = [px.Param(jnp.zeros(3)) for _ in range(20)]
        self.state = px.Param({"count": jnp.array(0), "name": "momentum"})


def make():
    @pxf.jit(donate_params=True)
    def step(x, *, model):
        for param in model.params:
            param += x
        state = model.state.get()
        model.state.set({"count": state["count"] + 1, "name": state["name"]})
        return px.RKG()

    return step


def steps_of(model):
    """The number of steps that the model has made; all of its params agree on it."""
    counts = {int(v) for p in model.params for v in p.get()} | {int(model.state.get()["count"])}
    assert len(counts) == 1
    return counts.pop()


@pytest.mark.parametrize("cold", [False, True])
def test_interrupts_at_random_moments(cold):
    rng, model, step, interrupts, total = random.Random(0), Model(), make(), 0, 0
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)
    # Python swallows an exception in a callback of its garbage collection, and JAX has one
    gc.disable()
    try:
        for _ in range(15 if cold else 60):
            if cold:
                step = make()
            else:
                step(1.0, model=model)
                total += 1
            try:
                deadline = time.monotonic() + 10
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0005, 0.1 if cold else 0.01))
                while time.monotonic() < deadline:
                    step(1.0, model=model)
            except KeyboardInterrupt:
                interrupts += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert steps_of(model) >= total
            total = steps_of(model)
            assert px.core.scope_state.scope is None
            assert not_held()
            px.RKG()
            assert signal.getsignal(signal.SIGALRM) is signal.default_int_handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        gc.enable()
    assert interrupts == (15 if cold else 60)


def not_held():
    """Whether another thread could draw a key now."""
    drawn = threading.Thread(target=px.RKG, daemon=True)
    drawn.start()
    drawn.join(10)
    return not drawn.is_alive()


def lines_of_a_call(step, model, interrupt_at):
    """Run a step; raise KeyboardInterrupt before the n-th line of pcx that it executes."""
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if "/pcx/" not in frame.f_code.co_filename or "/tests/" in frame.f_code.co_filename:
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # Python lets no signal in between the body of a `with` and its `__exit__`, a trace function does
        if event == "line" and "with RKG_LOCK" not in line:
            seen += 1
            if seen == interrupt_at:
                raise KeyboardInterrupt
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        step(1.0, model=model)
    finally:
        sys.settrace(old)
    return seen


def test_an_interrupt_before_any_line_of_a_warm_call():
    model, step = Model(), make()
    for _ in range(5):
        step(1.0, model=model)
    before = steps_of(model)
    for line in range(1, lines_of_a_call(step, model, 0) + 1):
        before = steps_of(model)
        key = px.RKG.key.get()
        with contextlib.suppress(KeyboardInterrupt):
            lines_of_a_call(step, model, line)
        after = steps_of(model)
        assert after in (before, before + 1)
        assert (px.RKG.key.get() is key) == (after == before)
        assert not_held()
        step(1.0, model=model)
        assert steps_of(model) == after + 1


def test_an_interrupt_while_a_function_is_traced_leaves_no_scope_behind():
    model = Model()

    def body(*, model):
        model.params[0] += 1
        raise KeyboardInterrupt

    for transform in (pxf.jit(), pxf.jit(donate_params=True), pxf.vmap({}, axis_size=2)):
        with pytest.raises(KeyboardInterrupt):
            transform(body)(model=model)
        assert px.core.scope_state.scope is None
        assert steps_of(model) == 0


def test_an_interrupt_while_static_values_are_compared_stays_an_interrupt():
    """JAX reports what `==` of a static value raises as an error of its own."""

    class Setting:
        def __hash__(self):
            return 0

        def __eq__(self, other):
            raise KeyboardInterrupt

    class Settings(eqx.Module):
        one: Setting = eqx.field(static=True)

    class Holder(px.Module):
        def __init__(self):
            self.weight, self.settings = px.Param(jnp.zeros(3)), Settings(Setting())

    step = pxf.jit()(lambda *, model: model.weight.get() + 1)
    step(model=Holder())
    with pytest.raises(KeyboardInterrupt):
        step(model=Holder())


def test_an_interrupt_at_any_line_around_a_scope_leaves_none_behind():
    """Also at the line that would restore the scope before."""
    model = Model()

    def lines_until(stop):
        count = 0

        def trace(frame, event, argument):
            nonlocal count
            if not frame.f_code.co_filename.endswith(("_tracked.py", "_scope.py")):
                return None
            count += event == "line"
            if count == stop:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            pxf.vmap({}, axis_size=2)(lambda *, model: model.params[0].get())(model=model)
        finally:
            sys.settrace(None)
        return count

    lines_until(-1)  # fills caches, so that the next calls reach the same lines
    for line in range(1, lines_until(-1) + 1):
        with pytest.raises(KeyboardInterrupt):
            lines_until(line)
        assert px.core.scope_state.scope is None
        px.RKG()


def test_signals_that_come_while_a_call_compiles_run_after_it():
    model, seen = Model(), []
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append(steps_of(model)))
    try:

        @pxf.jit(donate_params=True)
        def step(*, model):
            for param in model.params:
                param += 1
            model.state.set({"count": model.state.get()["count"] + 1, "name": "momentum"})
            signal.raise_signal(signal.SIGUSR1)

        step(model=model)
        assert seen == [1]
        signal.raise_signal(signal.SIGUSR1)
        assert seen == [1, 1]
    finally:
        signal.signal(signal.SIGUSR1, old)


# --- threads


def test_two_models_train_in_two_threads():
    step, errors = make(), []
    models = [Model(), Model()]

    def train(model):
        try:
            for _ in range(200):
                step(1.0, model=model)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=train, args=(m,), daemon=True) for m in models]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert not errors
    assert [steps_of(m) for m in models] == [200, 200]


@pytest.mark.parametrize("jit", [False, True])
def test_keys_drawn_in_several_threads_are_unique(jit):
    draw = pxf.jit()(lambda: px.RKG()) if jit else px.RKG
    keys: list[bytes] = []

    def work():
        keys.extend(np.asarray(draw()).tobytes() for _ in range(100))

    threads = [threading.Thread(target=work) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(set(keys)) == len(keys) == 300


def test_a_function_that_draws_nothing_leaves_the_default_key():
    model = Model()
    step = pxf.jit(donate_params=True)(lambda *, model: (model.params[0].set(jnp.ones(3)), None)[1])
    key = px.RKG.key.get()
    for _ in range(3):
        step(model=model)
        assert px.RKG.key.get() is key


def test_uncommitted_keys_draw_the_same_numbers():
    free = jax.random.PRNGKey(3)
    bound = jax.device_put(free, jax.devices()[0])
    assert not px.core.uncommitted(bound).committed
    rkg = px.RandomKeyGenerator(3)
    want = rkg().tolist()
    rkg.key.set(bound)
    assert rkg().tolist() == want
    typed = jax.device_put(jax.random.key(3), jax.devices()[0])
    assert bool(px.core.uncommitted(typed) == jax.random.key(3))
