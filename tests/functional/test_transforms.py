"""What all transforms have in common: metadata, repr, methods, pure positional arguments, threads."""

import contextlib
import copy
import inspect
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.utils as pxu

FACTORIES = {
    "jit": pxf.jit(),
    "vmap": pxf.vmap({}, in_axes=0),
    "value_and_grad": pxf.value_and_grad(pxu.M(px.Param)),
    "scan": lambda f: pxf.scan(f, length=2),
    "while_loop": lambda f: pxf.while_loop(f, lambda *a, **k: False),
    "cond": lambda f: pxf.cond(f, f),
    "switch": lambda f: pxf.switch([f]),
}
CLASSES = {
    "jit": pxf.Jit,
    "vmap": pxf.Vmap,
    "value_and_grad": pxf.ValueAndGrad,
    "scan": pxf.Scan,
    "while_loop": pxf.WhileLoop,
    "cond": pxf.Cond,
    "switch": pxf.Switch,
}


def documented(x: int, *, model: str = "m") -> float:
    """Says what it does."""
    return float(x)


@pytest.mark.parametrize("name", FACTORIES)
def test_name_documentation_and_signature_are_kept(name):
    f = FACTORIES[name](documented)
    assert isinstance(f, CLASSES[name])
    assert f.__name__ == "documented"
    assert f.__qualname__ == "documented"
    assert f.__doc__ == "Says what it does."
    assert f.__module__ == __name__
    assert f.__wrapped__ is documented
    assert inspect.signature(f) == inspect.signature(documented)
    assert FACTORIES[name](f).__name__ == "documented"


def test_it_prints_every_layer():
    f = pxf.jit()(pxf.vmap({}, in_axes=0)(pxf.value_and_grad(pxu.M(px.Param))(documented)))
    assert repr(f) == "Jit(Vmap(ValueAndGrad(documented)))"
    assert repr(pxf.scan(documented, length=1)) == "Scan(documented)"
    assert repr(pxf.while_loop(documented, documented)) == "WhileLoop(documented)"


@pytest.mark.parametrize("name", ["jit", "vmap", "value_and_grad"])
@pytest.mark.parametrize("fn", [None, 3, jnp.ones(2)])
@pytest.mark.wrong_types
def test_what_is_no_function_is_refused(name, fn):
    match = rf"pxf.{name} takes its options first and the function second: write `pxf.{name}\(...\)"
    with pytest.raises(TypeError, match=match):
        FACTORIES[name](fn)


def test_a_transform_in_a_class_body_is_a_method():
    class Scaler:
        def __init__(self, factor):
            self.factor = factor

        @pxf.jit(static_argnums=0)
        def scale(self, x, *, p):
            p.set(x * self.factor)

    p = px.Param()
    Scaler(3).scale(jnp.array(2.0), p=p)
    assert float(p) == 6.0
    assert isinstance(Scaler.scale, pxf.Jit)


def test_callable_objects_are_functions():
    class Model(px.Module):
        def __init__(self):
            self.w = px.Param(jnp.array(2.0))

        def __call__(self, x):
            return self.w * x

    f = pxf.jit()(lambda x, *, model: model(x))
    assert float(f(3.0, model=Model())) == 6.0


class Box(px.BaseModule):
    """Holds nothing but arrays, so that it may be positional."""

    def __init__(self):
        self.p = px.Param(jnp.ones(2))


def vandal(x, box, items, table):
    box.p *= 5
    box.new = 3
    items.append(x)
    items[0] = jnp.zeros(2)
    table["k"] = None
    with contextlib.suppress(ValueError):  # a read-only array
        x += 100
    return jnp.sum(box.p.get())


PURE = {
    "jit": lambda *args: pxf.jit()(vandal)(*args),
    "vmap": lambda *args: pxf.vmap({}, in_axes=0)(vandal)(*args),
    "value_and_grad": lambda *args: pxf.value_and_grad(pxu.M(px.Param))(
        lambda *args, w: vandal(*args) * w
    )(*args, w=px.Param(1.0)),
    "value_and_grad of an argument": lambda *args: pxf.value_and_grad(argnums=0)(
        lambda *args: vandal(*args)
    )(*args),
    "scan": lambda *args: pxf.scan(lambda _, *args: (copies(args), vandal(*args)), length=2)(*args),
    "while_loop": lambda *args: pxf.while_loop(
        lambda *args: (copies(args), vandal(*args))[0], lambda *args: vandal(*args) < 0
    )(*args),
    "cond": lambda *args: pxf.cond(vandal, vandal)(True, *args),
    "switch": lambda *args: pxf.switch([vandal, vandal])(1, *args),
}


def copies(args):
    return jax.tree.map(lambda x: x, args)


@pytest.mark.parametrize("name", PURE)
def test_positional_arguments_are_never_changed(name):
    x, box = np.ones(2, np.float32), Box()
    items, table = [np.ones(2, np.float32)], {"k": jnp.ones(2)}
    PURE[name](x, box, items, table)
    assert x.tolist() == [1.0, 1.0]
    assert box.p.get().tolist() == [1.0, 1.0]
    assert list(vars(box)) == ["p"]
    assert len(items) == 1
    assert items[0].tolist() == [1.0, 1.0]
    assert table["k"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["jit", "vmap", "value_and_grad", "scan", "cond"])
def test_static_changes_stay_inside(name):
    class Net(px.Module):
        def __init__(self):
            self.w = px.Param(jnp.array(1.0))
            self.n, self.items, self.note = 1, [1, 2], px.static("a")

    def change(*, net):
        net.n = 2
        net.items.append(3)
        net.note.set("b")
        net.w.mark = True
        net.train()
        return net.w * 1.0

    net = Net()
    run = {
        "jit": lambda: pxf.jit()(change)(net=net),
        "vmap": lambda: pxf.vmap({}, axis_size=2)(change)(net=net),
        "value_and_grad": lambda: pxf.value_and_grad({"net": lambda p: True})(change)(net=net),
        "scan": lambda: pxf.scan(lambda _, *, net: ((), change(net=net)), length=2)(net=net),
        "cond": lambda: pxf.cond(change, change)(True, net=net),
    }
    run[name]()
    assert (net.n, net.items, net.note.get(), net.w.metadata) == (1, [1, 2], "a", ())
    assert not net.is_train


def test_aliases_are_one_param_inside_every_transform():
    shared = px.Param(jnp.array(1.0))
    tree = {"a": shared, "b": [shared, px.Param(jnp.array(5.0))]}

    def same(*, t, u):
        assert t["a"] is t["b"][0] is u
        assert t["a"] is not t["b"][1]
        t["a"] += 1
        return t["b"][0] * 1.0

    pxf.jit()(same)(t=tree, u=shared)
    pxf.vmap({}, axis_size=2)(same)(t=tree, u=shared)
    pxf.value_and_grad(pxu.M(px.Param))(same)(t=tree, u=shared)
    pxf.scan(lambda _, **k: ((), same(**k)), length=2)(t=tree, u=shared)
    pxf.while_loop(lambda i, **k: i + same(**k) * 0 + 1, lambda i, *, t, u: i < 2)(
        0.0, t=tree, u=shared
    )
    pxf.cond(same, same)(True, t=tree, u=shared)
    assert float(shared) == 1 + 1 + 1 + 1 + 2 + 2 + 1
    assert tree["b"][0] is shared


def test_params_that_share_an_array_stay_two_params():
    array = jnp.array(1.0)
    a, b = px.Param(array), px.Param(array)
    pxf.jit()(lambda *, a, b: (a.set(a + 1), None)[1])(a=a, b=b)
    assert (float(a), float(b)) == (2.0, 1.0)


def test_deep_copies_of_a_model_are_trained_apart():
    class Net(px.Module):
        def __init__(self):
            self.w = px.Param(jnp.array(1.0))

    one = Net()
    two = copy.deepcopy(one)
    f = pxf.jit()(lambda *, m: (m.w.set(m.w * 2), None)[1])
    f(m=one)
    f(m=one)
    f(m=two)
    assert (float(one.w), float(two.w)) == (4.0, 2.0)


def test_threads_trace_and_draw_apart():
    started, proceed = threading.Event(), threading.Event()
    errors = []

    @pxf.jit()
    def slow(x):
        started.set()
        assert proceed.wait(60)
        return x + jax.random.normal(px.RKG())

    def work():
        try:
            slow(jnp.ones(2)).block_until_ready()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    # the other thread is inside a trace now: this one must not see its scope or its key
    key = px.RKG()
    p = px.Param(jnp.ones(1))
    pxf.jit()(lambda *, p: (p.set(p * 2), None)[1])(p=p)
    proceed.set()
    thread.join(60)
    assert not errors
    assert not isinstance(key, jax.core.Tracer)
    assert not isinstance(px.RKG.key.get(), jax.core.Tracer)
    assert p.get().tolist() == [2.0]


def test_many_threads_train_many_models():
    f = pxf.jit()(lambda x, *, m: (m.set(m * 0.5 + x), px.RKG())[1])
    params = [px.Param(jnp.array(float(i))) for i in range(8)]

    def work(i):
        for _ in range(20):
            f(jnp.array(1.0), m=params[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, p in enumerate(params):
        want = float(i)
        for _ in range(20):
            want = want * 0.5 + 1
        np.testing.assert_allclose(p.get(), want, rtol=1e-6)
