"""`pxf.scan` and `pxf.while_loop` against Python loops and `jax.lax`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.predictive_coding as pxc


class Model(px.Module):
    def __init__(self):
        self.w = px.Param(jnp.array([1.0, 2.0]))
        self.total = px.Param(jnp.zeros(2))
        self.count = px.Param(jnp.array(0))
        self.scale = 0.5
        self.table = jnp.arange(2.0)
        self.act = jnp.tanh


def step(x, a, *, model):
    model.total += model.scale * model.w * x + a
    model.count += 1
    return a * 2, jnp.sum(model.total.get())


def by_hand(xs, a):
    total, ys = np.zeros(2), []
    for x in xs:
        total = total + 0.5 * np.array([1.0, 2.0]) * x + a
        a = a * 2
        ys.append(total.sum())
    return total, a, ys


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("unroll", [1, 2, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_a_python_loop(jit, unroll, reverse):
    xs = np.array([1.0, -2.0, 3.0, 0.5])
    model = Model()
    f = pxf.scan(step, jnp.asarray(xs), reverse=reverse, unroll=unroll)
    f = pxf.jit()(f) if jit else f
    (a,), ys = f(jnp.array(1.0), model=model)
    total, want, want_ys = by_hand(xs[::-1] if reverse else xs, 1.0)
    np.testing.assert_allclose(a, want)
    np.testing.assert_allclose(ys, want_ys[::-1] if reverse else want_ys, rtol=1e-6)
    np.testing.assert_allclose(model.total.get(), total, rtol=1e-6)
    assert int(model.count) == 4


def test_params_that_a_loop_only_reads_keep_their_arrays():
    model = Model()
    w, key = model.w.get(), px.RKG.key.get()
    pxf.scan(step, jnp.ones(3))(1.0, model=model)
    assert model.w.get() is w
    assert px.RKG.key.get() is key
    assert model.table.tolist() == [0.0, 1.0]


def test_a_scan_over_a_length_passes_no_slice():
    seen = []
    pxf.scan(lambda x, *, p: (seen.append(x), ((), None))[1], length=3)(p=px.Param(1.0))
    assert seen[0] is None


def test_a_scan_over_a_pytree_or_a_param():
    xs = {"a": jnp.arange(3.0), "b": jnp.arange(6.0).reshape(3, 2)}
    _, ys = pxf.scan(lambda x: ((), x["a"] * x["b"]), xs)()
    np.testing.assert_array_equal(ys, xs["a"][:, None] * xs["b"])
    _, ys = pxf.scan(lambda x: ((), x * 2), px.Param(jnp.arange(3.0)))()
    assert ys.tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("args", "returned", "expected"),
    [
        ((), lambda: None, ()),
        ((), lambda: (), ()),
        ((1.0,), lambda a: a + 1, (3.0,)),
        ((1.0,), lambda a: (a + 1,), (3.0,)),
        ((1.0,), lambda a: [a + 1], (3.0,)),
        ((1.0, 2.0), lambda a, b: (a + 1, b), (3.0, 2.0)),
        ((1.0, 2.0), lambda a, b: [b, a], (1.0, 2.0)),
        (((1.0, 2.0),), lambda t: (t[1], t[0]), ((1.0, 2.0),)),
        (({"k": 1.0},), lambda d: {"k": d["k"] + 1}, ({"k": 3.0},)),
    ],
)
@pytest.mark.parametrize("loop", ["scan", "while_loop"])
def test_any_number_of_arguments_in_any_form(args, returned, expected, loop):
    n = px.Param(jnp.array(0))
    if loop == "scan":
        got, ys = pxf.scan(lambda x, *a: (returned(*a), None), length=2)(*args)
        assert ys is None
    else:

        def body(*a, n):
            n += 1
            return returned(*a)

        got = pxf.while_loop(body, lambda *a, n: n < 2)(*args, n=n)
    assert jax.tree.map(float, got) == expected


def test_a_while_loop_is_a_python_loop():
    model = Model()

    def body(a, *, model):
        model.total += a
        model.count += 1
        return a * 2

    def cond(a, *, model):
        return (jnp.sum(model.total.get()) < 100) & (model.count < 50)

    a, total, count = 1.0, 0.0, 0
    while 2 * total < 100 and count < 50:
        total, a, count = total + a, a * 2, count + 1
    for jit in (False, True):
        model = Model()
        f = pxf.while_loop(body, cond)
        (got,) = (pxf.jit()(f) if jit else f)(1.0, model=model)
        assert (float(got), model.total.get().tolist(), int(model.count)) == (a, [total] * 2, count)


def test_a_condition_sees_shared_params_as_the_body_left_them():
    p = px.Param(jnp.array(1.0))

    def body(*, a, b):
        assert a is b
        a *= 2

    def cond(*, a, b):
        assert a is b
        return b < 10

    pxf.while_loop(body, cond)(a=p, b=p)
    assert float(p) == 16.0


def test_what_a_condition_writes_is_dropped():
    p = px.Param(jnp.array(1.0))
    pxf.while_loop(lambda *, p: (p.set(p + 1), None)[1], lambda *, p: p.set(p * 1) < 3)(p=p)
    assert float(p) == 3.0


def test_a_condition_may_return_a_param():
    go = px.Param(jnp.array(True))
    pxf.while_loop(lambda *, go: (go.set(~go), None)[1], lambda *, go: go)(go=go)
    assert not bool(go.get())


def test_random_keys_are_carried():
    px.RKG.seed(2)
    _, keys = pxf.scan(lambda _: ((), px.RKG()), length=4)()
    after = px.RKG().tolist()
    px.RKG.seed(2)
    assert keys.tolist() == [px.RKG().tolist() for _ in range(4)]
    assert after == px.RKG().tolist()

    px.RKG.seed(2)
    out = px.Param(jnp.zeros(2, jnp.uint32))

    def body(i, *, out):
        out.set(px.RKG())
        return i + 1

    pxf.while_loop(body, lambda i, *, out: i < 3)(0, out=out)
    px.RKG.seed(2)
    assert [px.RKG().tolist() for _ in range(3)][-1] == out.get().tolist()


def test_a_cache_that_is_cleared_at_the_end_may_be_filled_inside():
    cache = pxc.VodeParam.Cache()

    def body(x, *, cache):
        cache["u"] = x * 2
        y = cache["u"]
        cache.set(None)
        return (), y

    _, ys = pxf.scan(body, jnp.arange(3.0))(cache=cache)
    assert ys.tolist() == [0.0, 2.0, 4.0]
    assert cache.get() is None


def test_params_with_pytrees_and_texts_are_carried():
    p = px.Param({"a": jnp.array(1.0), "name": "x", "n": 2, "none": None})

    def body(_, *, p):
        p.set({**p.get(), "a": p.get()["a"] * p.get()["n"]})
        return (), None

    pxf.scan(body, length=3)(p=p)
    assert float(p.get()["a"]) == 8.0
    assert p.get()["name"] == "x"


def test_python_numbers_and_weakly_typed_arrays_are_carried():
    for start in (1.0, jnp.asarray(1.0), np.float32(1)):
        p = px.Param(start)
        (a,), _ = pxf.scan(lambda x, a, *, p: (a + p.set(p * x), None), jnp.ones(3) * 2)(start, p=p)
        assert (float(p), float(a)) == (8.0, 15.0)
    (a,), _ = pxf.scan(lambda _, a: (a + 1.5, None), length=2)(0)  # promoted, as by jax.lax.scan
    assert float(a) == 3.0


# --- errors


def test_a_scan_without_length_is_an_error():
    with pytest.raises(ValueError, match=r"pxf.scan needs `xs` .* or `length=T`"):
        pxf.scan(step)


@pytest.mark.parametrize("result", [1.0, (1.0, 2.0, 3.0), None, ()])
def test_a_body_that_returns_no_pair_is_an_error(result):
    match = r"pxf.scan\(<lambda>\): the body returns `\(args, y\)`, .* Write `return \(x,\), y`"
    with pytest.raises(TypeError, match=match):
        pxf.scan(lambda _, a: result, length=2)(1.0)


@pytest.mark.parametrize("result", [1.0, (1.0,), (1.0, 2.0, 3.0), None])
def test_a_body_that_does_not_return_its_arguments_is_an_error(result):
    match = "the body must return its 2 positional arguments again, in the same order; got"
    with pytest.raises(TypeError, match=match):
        pxf.scan(lambda _, a, b: (result, None), length=2)(1.0, 2.0)
    with pytest.raises(TypeError, match=match):
        pxf.while_loop(lambda a, b: result, lambda a, b: True)(1.0, 2.0)


def test_an_argument_that_changes_its_form_is_an_error():
    match = r"`positional argument 0` is f32\[2\] before one iteration and f32\[4\] after it"
    with pytest.raises(TypeError, match=match):
        pxf.scan(lambda _, a: (jnp.concatenate([a, a]), None), length=2)(jnp.ones(2))
    with pytest.raises(TypeError, match=r"`positional argument 1` is .* before one iteration"):
        pxf.while_loop(lambda a, b: (a, {"x": b}), lambda a, b: True)(1.0, 2.0)


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (jnp.ones(2), jnp.ones(3), r"f32\[2\] before one iteration and f32\[3\] after"),
        (jnp.ones(2), jnp.ones(2, jnp.int32), r"f32\[2\] before .* and i32\[2\] after"),
        (jnp.ones(2), None, r"f32\[2\] before .* and None after"),
        (jnp.ones(2), {"a": jnp.ones(2)}, r"f32\[2\] before .* and {'a': f32\[2\]} after"),
        ({"n": "x"}, {"n": "y"}, r"{'n': 'x'} before .* and {'n': 'y'} after"),
    ],
)
def test_a_param_that_changes_its_form_is_an_error_that_names_it(before, after, shown):
    model = Model()
    model.h = px.Param(before)
    match = (
        rf"pxf.scan\(<lambda>\): `model.h` is {shown} it. What a loop or branch carries must keep"
    )
    with pytest.raises(TypeError, match=match):
        pxf.scan(lambda _, *, model: (model.h.set(after), ((), None))[1], length=2)(model=model)
    assert model.h.get() is before


@pytest.mark.parametrize("make", [px.Param, pxc.VodeParam, lambda: pxc.VodeParam.Cache()])
def test_a_param_that_gets_its_first_value_inside_is_an_error_that_says_what_to_do(make):
    p = make()
    value = {"u": jnp.ones(2)} if isinstance(p, px.ParamDict) else jnp.ones(2)
    match = (
        r"`p` is None before one iteration .* Give it a value before: for vodes, run the forward"
    )
    with pytest.raises(TypeError, match=match):
        pxf.scan(lambda _, *, p: (p.set(value), ((), None))[1], length=2)(p=p)
    with pytest.raises(TypeError, match=match):
        pxf.while_loop(lambda *, p: (p.set(value), None)[1], lambda *, p: True)(p=p)


@pytest.mark.wrong_types
def test_a_condition_that_gives_no_bool_is_an_error():
    match = r"pxf.while_loop\(<lambda>\): the condition `.*` must return one bool; got None"
    with pytest.raises(TypeError, match=match):
        pxf.while_loop(lambda a: a, lambda a: None)(1.0)
    with pytest.raises(TypeError, match="takes a body and a condition; got 3"):
        pxf.while_loop(lambda a: a, 3)


def test_positional_arguments_must_be_data():
    with pytest.raises(TypeError, match=r"pxf.scan.*positional argument 0 is or holds 'abc'"):
        pxf.scan(lambda _, a: (a, None), length=2)("abc")
    with pytest.raises(TypeError, match=r"pxf.while_loop.*argument 1 is a Model, which has attr"):
        pxf.while_loop(lambda a, m: (a, m), lambda a, m: True)(1.0, Model())
