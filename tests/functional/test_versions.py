"""What is compiled for objects that are gone is freed; what may be used again is kept."""

import gc

import jax
import jax.numpy as jnp
import pytest

import pcx as px
import pcx.functional as pxf
from pcx.functional._collect import MAX_MEMORIES
from pcx.functional._jit import KEEP_RETIRED


class Model(px.Module):
    def __init__(self, n):
        self.w, self.n = px.Param(jnp.ones(2)), n


def counted(**options):
    traces = []

    def body(x, **models):
        traces.append(1)
        return x * sum(m.w.get() for m in models.values())

    return pxf.jit(**options)(body), traces


@pytest.mark.parametrize("donate", [False, True])
def test_a_sweep_keeps_a_few(donate):
    f, traces = counted(donate_params=donate)
    for n in range(1000, 1030):
        f(1.0, m=Model(n))
    assert len(traces) == 30
    assert f._versions == []  # without waiting for the garbage collector
    assert f._cache_size() <= KEEP_RETIRED + 1


def test_compiled_functions_are_freed_with_their_version():
    f, _ = counted()
    kept = []
    make = f._compiled
    f._compiled = lambda *args, **kwargs: (kept.append(make(*args, **kwargs)), kept[-1])[1]
    for n in range(1000, 1010):
        f(1.0, m=Model(n))
    import weakref

    refs = list(map(weakref.ref, kept))
    kept.clear()
    gc.collect()
    assert sum(r() is not None for r in refs) <= KEEP_RETIRED + 1


def test_versions_of_living_objects_are_kept():
    f, traces = counted()
    models = [Model(n) for n in range(1000, 1030)]
    for _ in range(2):
        for m in models:
            f(1.0, m=m)
    assert len(traces) == len(f._versions) == 30
    one = models[0]
    for n in range(12):  # forms that one object takes in turn, however many
        one.n = n
        f(1.0, m=one)
    for n in range(12):
        one.n = n
        f(1.0, m=one)
    assert len(traces) == 42


def test_a_version_lives_as_long_as_all_objects_of_a_call():
    f, traces = counted()
    model = Model(0)
    for n in range(1000, 1020):
        f(1.0, m=model, other=Model(n))
    gc.collect()
    # the model remembers its last few calls, with what was passed beside it
    assert len(f._versions) <= MAX_MEMORIES
    assert f._cache_size() <= KEEP_RETIRED + MAX_MEMORIES + 1
    assert len(traces) == 20


def test_an_equal_model_made_anew_does_not_compile_again():
    f, traces = counted()
    for _ in range(3):
        f(1.0, m=Model(0))
        gc.collect()
    assert len(traces) == 1


def test_the_most_recently_used_are_kept():
    f, traces = counted()
    for n in range(1000, 1010):
        f(1.0, m=Model(0))  # used again and again, by models that do not stay
        f(1.0, m=Model(n))
        gc.collect()
    assert len(traces) == 11


def test_functions_without_objects_keep_what_they_compiled():
    f, traces = counted()
    for _ in range(2):
        for n in range(10):
            f(1.0, **{f"x{n}": px.Param(jnp.ones(1))} if n < 0 else {})
    assert len(traces) == 1


def test_a_transform_that_is_gone_frees_what_it_compiled_for_a_living_model():
    import weakref

    model, refs = Model(0), []
    for _ in range(10):
        f, _ = counted()
        f(1.0, m=model)
        refs.append(weakref.ref(f._versions[0].jitted))
        del f
    gc.collect()
    assert [r() for r in refs] == [None] * 10


def test_a_trace_for_new_shapes_reads_the_objects_of_its_own_call():
    f = pxf.jit()(lambda x, *, m: x * m.scale.get()[0])
    one, two = px.Module(), px.Module()
    one.scale, two.scale = px.static([2]), px.static([2])
    f(jnp.ones(1), m=one)
    f(jnp.ones(1), m=two)
    one.scale.get()[0] = 5
    assert f(jnp.ones(3), m=two).tolist() == [2.0] * 3
    assert f(jnp.ones(3), m=one).tolist() == [5.0] * 3


def test_after_a_failed_first_call_the_fast_path_is_taken():
    import sys

    fails = [True]

    @pxf.jit()
    def f(x, *, m):
        if fails.pop() if fails else False:
            raise KeyError("mine")
        return x * m.w

    m, frames = Model(0), []
    with pytest.raises(KeyError, match="mine"):
        f(1.0, m=m)
    for _ in range(4):
        f(1.0, m=m)
    sys.setprofile(lambda frame, event, _: frames.append(frame) if event == "call" else None)
    f(1.0, m=m)
    sys.setprofile(None)
    assert not [f for f in frames if "pjit" in f.f_code.co_filename]


def test_a_state_that_is_set_inside_compiles_once_more_and_never_again():
    traces = []

    @pxf.jit()
    def f(x, *, m):
        traces.append(1)
        m.state.set(m.w * x)

    m = Model(0)
    m.state = px.Param()
    for i in range(1, 5):
        f(float(i), m=m)
        assert m.state.get().tolist() == [i, i]
    assert len(traces) == 2


def test_donation_inside_another_transform_reports_only_what_changed():
    def run(donate):
        s, w = px.Param(jnp.arange(3.0)), px.Param(jnp.array(2.0))
        inner = pxf.jit(donate_params=donate)(lambda *, s, w: (s.set(s * w), None)[1])
        key, before = px.RKG.key.get(), w.get()

        @pxf.vmap({"s": 0}, in_axes=(0,))
        def f(x, *, s, w):
            pxf.cond(inner, lambda *, s, w: None)(x > 0, s=s, w=w)

        f(jnp.array([1.0, -1.0, 1.0]), s=s, w=w)
        assert px.RKG.key.get() is key
        assert w.get() is before
        return s.get().tolist()

    assert run(True) == run(False) == [0.0, 1.0, 4.0]


def test_donate_argnames_gives_away_the_params_of_those_arguments_alone():
    @pxf.jit(donate_argnames=("a",))
    def f(x, *, a, b):
        a += x
        b += x

    a, b = px.Param(jnp.zeros(3)), px.Param(jnp.zeros(3))
    a.set(a + 1)
    b.set(b + 1)
    lowered = f.lower(1.0, a=a, b=b).as_text()
    assert lowered.count("tf.aliasing_output") + lowered.count("jax.buffer_donor") == 1
    held = b.get()
    for i in range(3):
        f(1.0, a=a, b=b)
        assert a.get().tolist() == b.get().tolist() == [i + 2.0] * 3
    assert held.tolist() == [1.0] * 3
    with pytest.raises(ValueError, match=r"names 'a', which is not a keyword .* \(they are: 'b'\)"):
        f(1.0, b=b)


def test_a_numpy_view_of_a_donated_param_stays():
    import numpy as np

    f = pxf.jit(donate_params=True)(lambda *, m: (m.w.set(m.w * 2), None)[1])
    m = Model(0)
    f(m=m)
    view = np.asarray(m.w)
    for _ in range(3):
        f(m=m)
    assert view.tolist() == [2.0, 2.0]
    assert m.w.get().tolist() == [16.0, 16.0]


def test_a_failing_donated_call_says_that_the_params_are_gone():
    def fail(x):
        raise KeyError("on the host")

    @pxf.jit(donate_params=True)
    def f(*, m):
        m.w.set(jax.pure_callback(fail, jax.ShapeDtypeStruct((2,), jnp.float32), m.w.get()))

    m = Model(0)
    m.w.set(m.w * 1)

    def run():
        f(m=m)
        jax.block_until_ready(m.w.get())

    with pytest.raises(Exception, match="on the host") as caught:
        run()
    if m.w.get().is_deleted():
        assert "the params were donated" in "".join(caught.value.__notes__)
