"""`pxf.jit` against `jax.jit` on the same arrays."""

import dataclasses
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn


class Model(px.Module):
    def __init__(self, n=3):
        self.w = px.Param(jnp.arange(float(n)))
        self.state = px.Param()
        self.size = 2
        self.act = jax.nn.relu


def counted(body, **options):
    traces = []

    def fn(*args, **kwargs):
        traces.append(1)
        return body(*args, **kwargs)

    return pxf.jit(**options)(fn), traces


def test_values_and_changes_are_those_of_jax_jit():
    @pxf.jit()
    def ours(x, *, m):
        m.w -= 0.1 * x
        return jnp.sum(m.w**2)

    @jax.jit
    def theirs(x, w):
        w = w - 0.1 * x
        return jnp.sum(w**2), w

    m, w = Model(), jnp.arange(3.0)
    for i in range(3):
        x = jnp.ones(3) * i
        got = ours(x, m=m)
        want, w = theirs(x, w)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(m.w.get(), w)


def test_calls_of_one_structure_share_one_trace():
    f, traces = counted(lambda x, *, m: jnp.sum(m.w * x))
    for _ in range(3):
        f(jnp.ones(3), m=Model())
        f(np.ones(3, np.float32), m=Model())
    assert len(traces) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "size", 3),
        lambda m: setattr(m, "size", 2.0),
        lambda m: setattr(m, "act", jax.nn.tanh),
        lambda m: setattr(m, "extra", None),
        lambda m: setattr(m.w, "frozen", True),
        lambda m: m.train(),
        lambda m: setattr(m, "more", px.Param(jnp.ones(1))),
        lambda m: setattr(m, "state", m.w),
        lambda m: m.state.set(jnp.ones(2)),
        lambda m: m.state.set({"a": jnp.ones(2)}),
        lambda m: m.state.set("text"),
        lambda m: setattr(m, "w", type("W", (px.Param,), {})(m.w)),
        lambda m: m.w.set(jnp.ones(4)),
        lambda m: m.w.set(jnp.ones(3, jnp.int32)),
    ],
)
def test_a_change_of_structure_compiles_again_and_is_seen(change):
    seen = []

    def body(*, m):
        seen.append(m.state.get() is None)
        return jnp.sum(m.w.get())

    f, traces = counted(body)
    m = Model()
    f(m=m)
    change(m)
    f(m=m)
    f(m=m)
    assert len(traces) == 2


def test_nothing_else_compiles_again():
    f, traces = counted(lambda *, m, n: jnp.sum(m.w.get()))
    m = Model()
    f(m=m, n=1)
    m.w.set(m.w * 2)  # another array
    f(m=m, n=1)
    m.w = px.Param(m.w)  # another object
    f(m=m, n=1)
    f(n=1, m=m)  # another order of keywords
    f(m=Model(), n=1)  # another model
    del m.size
    m.size = 2  # another order of attributes
    f(m=m, n=1)
    px.RKG()  # another key
    f(m=m, n=1)
    assert len(traces) == 1


@pytest.mark.parametrize("position", [0, -3])
def test_static_arguments_are_constants(position):
    def body(n, x, y, *, m):
        m.w *= sum(1 for _ in range(n))
        return x + y

    f, traces = counted(body, static_argnums=position)
    m = Model()
    assert float(f(3, 1.0, 2.0, m=m)) == 3.0
    assert m.w.get().tolist() == [0.0, 3.0, 6.0]
    f(3, 2.0, 2.0, m=m)
    assert len(traces) == 1
    f(2, 2.0, 2.0, m=m)
    assert len(traces) == 2


def test_several_static_arguments():
    f = pxf.jit(static_argnums=(0, 2))(lambda op, x, n: op(x) * len(n))
    assert float(f(jnp.sum, jnp.ones(3), "ab")) == 6.0


def test_donated_arguments_are_given_up():
    f = pxf.jit(donate_argnums=1)(lambda x, y, *, m: (m.w + x) * y)
    x, y = jnp.ones(3), jnp.ones(3)
    out = f(x, y, m=Model())
    assert out.tolist() == [1.0, 2.0, 3.0]
    assert y.is_deleted()
    assert not x.is_deleted()


def test_donated_params_are_given_up_and_hold_their_new_values():
    @pxf.jit(donate_params=True)
    def f(x, *, m):
        m.w += x

    m = Model()
    for step in range(1, 5):
        old = weakref.ref(m.w.get())
        f(1.0, m=m)
        gc.collect()
        assert old() is None
        assert m.w.get().tolist() == [step, step + 1, step + 2]


def test_donated_params_share_their_memory_with_the_results():
    fn = lambda *, m: (m.w.set(m.w * 2), None)[1]
    marks = ("tf.aliasing_output", "jax.buffer_donor")
    for donate in (True, False):
        text = pxf.jit(donate_params=donate)(fn).lower(m=Model()).as_text()
        assert any(mark in text for mark in marks) is donate


def test_donation_leaves_arrays_that_something_else_holds():
    @pxf.jit(donate_params=True)
    def f(x, *, m):
        m.w += x
        m.other += 1

    m, x = Model(), jnp.ones(3)
    m.other = px.Param(x)  # also a positional argument
    m.third = px.Param(x)  # and in two params
    m.plain = jnp.ones(2)
    held = m.w.get()
    f(x, m=m)
    f(x, m=m)
    assert held.tolist() == [0.0, 1.0, 2.0]
    assert x.tolist() == m.third.get().tolist() == [1.0] * 3
    assert m.w.get().tolist() == [2.0, 3.0, 4.0]
    assert m.other.get().tolist() == [3.0] * 3
    assert m.plain.tolist() == [1.0, 1.0]


def test_donation_with_shared_empty_and_untouched_params():
    @pxf.jit(donate_params=True)
    def f(*, m):
        m.w += 1
        return m.w * 1

    m = Model()
    m.again, m.untouched = m.w, px.Param({"a": jnp.ones(2), "b": 3})
    for _ in range(3):
        f(m=m)
    assert m.again is m.w
    assert m.w.get().tolist() == [3.0, 4.0, 5.0]
    assert m.untouched.get()["a"].tolist() == [1.0, 1.0]
    assert m.state.get() is None


def test_outputs_that_are_one_array_can_be_donated_next_time():
    @pxf.jit(donate_params=True)
    def f(*, m):
        m.state.set(m.w * 2)
        m.w.set(m.state)

    m = Model()
    for i in range(1, 5):
        f(m=m)
        assert m.w.get().tolist() == m.state.get().tolist() == [0.0, 2.0**i, 2.0 ** (i + 1)]


def test_a_result_may_hold_anything():
    def body(x, *, m):
        return {"x": x * 2, "name": "net", "none": None, "fn": jnp.sum, "n": 3, "param": m.w}

    f, traces = counted(body)
    for _ in range(2):
        out = f(jnp.ones(2), m=Model())
        assert out["x"].tolist() == [2.0, 2.0]
        assert (out["name"], out["none"], out["fn"]) == ("net", None, jnp.sum)
        assert int(out["n"]) == 3
        assert isinstance(out["param"], px.Param)
    assert len(traces) == 1


def test_a_result_follows_the_trace_that_made_it():
    f, _ = counted(lambda x: ("vector" if x.ndim else "scalar", x))
    assert f(jnp.ones(2))[0] == "vector"
    assert f(1.0)[0] == "scalar"
    assert f(jnp.ones(2))[0] == "vector"


@pytest.mark.parametrize(
    "value",
    [
        2.5,
        3,
        True,
        2 + 1j,
        np.float32(1.5),
        np.arange(3.0, dtype=np.float32),
        (jnp.ones(2), {"a": 1.0, "n": "name", "f": jax.nn.relu, "none": None}),
        "text",
        [],
        {},
    ],
)
def test_a_param_may_hold_any_value(value):
    before = jax.tree.map(lambda x: x, value)

    @pxf.jit()
    def read(*, p):
        leaves, _ = jax.tree.flatten(p)
        return [x * 2 for x in leaves if not isinstance(x, str) and not callable(x)]

    p = px.Param(value)
    for _ in range(2):
        out = read(p=p)
        numbers = [x for x in jax.tree.leaves(before) if not isinstance(x, str) and not callable(x)]
        for got, want in zip(out, numbers, strict=True):
            np.testing.assert_array_equal(got, np.asarray(want) * 2)
    assert p.get() is value  # untouched params keep their very objects


def test_a_param_may_change_to_any_value():
    values = [1.0, "text", {"a": jnp.ones(2), "b": "name", "c": jnp.sum}, None, (3,)]
    for value in values:
        p = px.Param(jnp.zeros(1))
        f = pxf.jit()(lambda *, p, value=value: (p.set(value), None)[1])
        for _ in range(2):
            f(p=p)
            assert jax.tree.structure(p.get()) == jax.tree.structure(value)
            for got, want in zip(jax.tree.leaves(p.get()), jax.tree.leaves(value), strict=True):
                if callable(want) or isinstance(want, str):
                    assert got is want or got == want
                else:
                    np.testing.assert_array_equal(got, want)


def test_a_container_in_a_param_may_be_edited_in_place():
    inner = px.Param((jnp.zeros(1), {"a": jnp.zeros(1)}))

    @pxf.jit()
    def f(*, p):
        p.get()[1]["a"] += 1

    for i in range(1, 4):
        f(p=inner)
        assert float(inner.get()[1]["a"][0]) == i


def test_modules_cannot_be_positional():
    f = pxf.jit()(lambda x, m: x)
    match = (
        r"pxf.jit\(<lambda>\): positional argument 1 is a Model, which has attributes that are not "
        r"arrays at `act`. Positional arguments are plain JAX values and are never tracked. Pass it "
        r"by keyword, as in `f\(x, model=model\)`"
    )
    with pytest.raises(TypeError, match=match):
        f(jnp.ones(1), Model())


def test_other_objects_cannot_be_positional():
    f = pxf.jit()(lambda x, y: x)
    with pytest.raises(
        TypeError, match=r"argument 1 is or holds 'abc' at `\['k'\]`, which is no arr"
    ):
        f(1.0, {"k": "abc"})
    with pytest.raises(TypeError, match="or list its position in `static_argnums`"):
        f(1.0, "abc")


def test_a_type_error_of_the_function_is_raised_as_it_is():
    f = pxf.jit(static_argnums=0)(lambda name, x: name + x)
    with pytest.raises(TypeError, match="can only concatenate str"):
        f("abc", jnp.ones(1))


def test_a_module_of_arrays_alone_may_be_positional_and_stays_as_it_is():
    class Pair(px.BaseModule):
        def __init__(self):
            self.a = px.Param(jnp.ones(2))

    @pxf.jit()
    def f(pair):
        pair.a += 1
        return pair.a * 1

    pair = Pair()
    assert f(pair).tolist() == [2.0, 2.0]
    assert pair.a.get().tolist() == [1.0, 1.0]


@pytest.mark.wrong_types
def test_a_missing_pair_of_parentheses_is_explained():
    with pytest.raises(TypeError, match=r"write `@pxf.jit\(\)` with parentheses"):
        pxf.jit(lambda x: x)


def test_what_cannot_be_compared_is_explained():
    class Odd:
        def __eq__(self, other):
            return np.ones(2) == 1

        def __hash__(self):
            return 0

    f = pxf.jit()(lambda *, m: None)
    f(m=Odd())
    match = r"pxf.jit\(<lambda>\): a static value in the keyword arguments cannot be compared"
    with pytest.raises(TypeError, match=match):
        f(m=Odd())


@dataclasses.dataclass(frozen=True)
class Config:
    sizes: list


def test_config_objects_without_a_hash_are_compared_by_content():
    f, traces = counted(lambda *, m: None)
    m = Model()
    m.config = Config([1])
    f(m=m)
    f(m=m)
    assert len(traces) == 1
    m.config = Config([1])
    f(m=m)
    assert len(traces) == 1
    m.config.sizes.append(2)
    f(m=m)
    assert len(traces) == 2


def test_marks_without_a_hash_are_compared_by_content():
    f, traces = counted(lambda *, m: len(m.w.sizes) * m.w[0])
    m = Model()
    m.w.sizes = [1]
    f(m=m)
    m.w.sizes = [1]
    f(m=m)
    assert len(traces) == 1
    m.w.sizes.append(2)
    f(m=m)
    assert len(traces) == 2


def test_a_mark_that_equals_the_old_one_but_is_of_another_type_compiles_again():
    f, _ = counted(lambda *, m: m.w * (2.0 if m.w.k is True else 3.0))
    m = Model()
    m.w.k = True
    assert f(m=m).tolist() == [0.0, 2.0, 4.0]
    m.w.k = 1
    assert f(m=m).tolist() == [0.0, 3.0, 6.0]


def test_lower_gives_the_computation_of_a_call():
    f = pxf.jit()(lambda x, *, m: jnp.sum(m.w * x))
    m = Model()
    text = f.lower(jnp.ones(3), m=m).as_text()
    assert "tensor<3xf32>" in text
    assert f.lower(jnp.ones(3), m=m).compile() is not None
    assert m.w.get().tolist() == [0.0, 1.0, 2.0]


def test_a_cleared_cache_traces_again():
    f, traces = counted(lambda *, m: m.w * 2)
    f(m=Model())
    f.clear_cache()
    f(m=Model())
    assert len(traces) == 2


def test_random_numbers_differ_at_every_call_and_follow_the_seed():
    f = pxf.jit()(lambda: jax.random.normal(px.RKG()))
    px.RKG.seed(3)
    first = [float(f()) for _ in range(3)]
    assert len(set(first)) == 3
    px.RKG.seed(3)
    eager = [float(jax.random.normal(px.RKG())) for _ in range(3)]
    np.testing.assert_allclose(first, eager, rtol=1e-6)


def test_a_generator_passed_by_keyword_is_state():
    f = pxf.jit()(lambda *, rkg: jax.random.normal(rkg()))
    one, two = px.RandomKeyGenerator(7), px.RandomKeyGenerator(7)
    got = [float(f(rkg=one)) for _ in range(3)]
    want = [float(jax.random.normal(two())) for _ in range(3)]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_the_default_generator_passed_by_keyword_is_the_one_that_layers_use():
    @pxf.jit()
    def f(*, rkg):
        return rkg(), px.RKG()

    px.RKG.seed(0)
    got = [k.tolist() for k in f(rkg=px.RKG)]
    px.RKG.seed(0)
    assert got == [px.RKG().tolist() for _ in range(2)]


def test_a_module_that_holds_the_default_generator():
    class Noisy(px.Module):
        def __init__(self):
            self.rkg = px.RKG

        def __call__(self):
            return self.rkg()

    px.RKG.seed(0)
    f = pxf.jit()(pxf.jit()(lambda *, m: m()))
    m = Noisy()
    got = [f(m=m).tolist() for _ in range(2)]
    px.RKG.seed(0)
    assert got == [px.RKG().tolist() for _ in range(2)]
    assert m.rkg is px.RKG


def test_no_keyword_arguments_at_all():
    assert float(pxf.jit()(lambda x: x + 1)(1.0)) == 2.0


def test_equinox_layers_compile_once():
    f, traces = counted(lambda x, *, layer: layer(x))
    layer = pxnn.Linear(3, 2)
    want = layer.nn.weight.get() @ np.ones(3) + layer.nn.bias.get()
    for _ in range(2):
        np.testing.assert_allclose(f(jnp.ones(3), layer=layer), want, rtol=1e-6)
    assert len(traces) == 1
