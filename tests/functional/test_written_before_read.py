"""A state first written inside a jitted function costs no second trace; one that is read does.

`pxf.jit` runs a call with an old trace if it differs only in params which the function writes
before it reads. The oracle is a fresh `pxf.jit` of the same function for every call, which has no
old trace to use.
"""

import copy
import operator
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcx as px
import pcx.functional as pxf
import pcx.utils as pxu
from pcx.core import named_params


class State(px.Param):
    pass


class Model(px.Module):
    def __init__(self, a=None, b=None):
        self.a, self.b = State(a), State(b)
        self.w = px.Param(jnp.array(2.0))


def counted(body, **options):
    traces = []

    def fn(*args, **kwargs):
        traces.append(1)
        return body(*args, **kwargs)

    return pxf.jit(**options)(fn), traces


def write(*, m):
    m.a.set(m.w * 3)


# functions that write `a` without asking what was there; however deep, one trace must do
WRITERS = {
    "set": write,
    "set twice": lambda *, m: done(m.a.set(m.w * 1), m.a.set(m.w * 3)),
    "set, then read": lambda *, m: done(m.a.set(m.w * 1), m.a.set(m.a * 3)),
    "set, then updated in place": lambda *, m: done(m.a.set(m.w * 1), operator.imul(m.a, 3)),
    "emptied, then set": lambda *, m: done(m.a.set(None), m.a.set(m.w * 3)),
    "tree_inject": lambda *, m: done(px.tree_inject(m.a, [m.w * 3])),
    "px.set": lambda *, m: done(px.set(m.a, m.w * 3)),
    "in a jitted function": lambda *, m: pxf.jit()(write)(m=m),
    "in a jitted function, called twice": lambda *, m: done(*[f(m=m) for f in [JITTED] * 2]),
    "under vmap": lambda *, m: pxf.vmap({}, axis_size=2)(write)(m=m),
    "under a gradient": lambda *, m: done(
        pxf.value_and_grad(pxu.M(px.Param) & ~pxu.M(State))(
            lambda *, m: (write(m=m), jnp.sum(m.a.get()))[1]
        )(m=m)
    ),
    "under jit, vmap and jit": lambda *, m: pxf.jit()(pxf.vmap({}, axis_size=2)(pxf.jit()(write)))(
        m=m
    ),
    "and then carried by a scan": lambda *, m: done(
        m.a.set(m.w * 1), pxf.scan(lambda _, *, m: ((), done(m.a.set(m.w * 3))), length=1)(m=m)
    ),
    "while a mask looks at types and marks": lambda *, m: done(
        pxu.M(State).hasnot(frozen=True)(m), write(m=m)
    ),
    "after a look at names": lambda *, m: done(dict(named_params(m)), write(m=m)),
    "after writing failed": lambda *, m: done(attempt(lambda: m.a.set(1 / 0)), write(m=m)),
}
JITTED = pxf.jit()(write)


def done(*_):
    """Nothing, after everything in the brackets has happened."""


def attempt(f):
    try:
        return f()
    except (ZeroDivisionError, TypeError, AttributeError):
        return None


@pytest.mark.parametrize("name", WRITERS)
def test_a_state_that_is_only_written_costs_no_second_trace(name):
    f, traces = counted(WRITERS[name])
    m = Model()
    for factor in (1, 2, 3):
        m.w.set(jnp.array(float(factor)))
        f(m=m)
        assert float(m.a) == 3.0 * factor
    m.a.set(None)
    f(m=m)
    assert float(m.a) == 9.0
    m.a.set(jnp.ones(7))  # of another shape, as a state of another batch is
    f(m=m)
    assert float(m.a) == 9.0
    assert len(traces) == 1


def is_empty(m):
    return jnp.asarray(float(m.a.get() is None))


# functions whose result depends on what `a` holds before: each form needs its own trace
READERS = {
    "get": lambda *, m: is_empty(m),
    "px.get": lambda *, m: jnp.asarray(float(px.get(m.a) is None)),
    "a comparison": lambda *, m: jnp.asarray(float((m.a == None) is True)),  # noqa: E711
    "hasattr": lambda *, m: jnp.asarray(float(not hasattr(m.a, "shape"))),
    "an operator": lambda *, m: jnp.asarray(float(attempt(lambda: m.a + 1) is None)),
    "float": lambda *, m: jnp.asarray(float(attempt(lambda: m.a[...]) is None)),
    "tree_leaves": lambda *, m: jnp.asarray(float(not jax.tree.leaves(m.a))),
    "tree_structure": lambda *, m: jnp.asarray(
        float(jax.tree.structure(m.a) == jax.tree.structure(State(None)))
    ),
    "tree_map over the model": lambda *, m: jnp.asarray(
        float(jax.tree.map(lambda x: x, m).a.get() is None)
    ),
    "repr": lambda *, m: jnp.asarray(float("None" in repr(m.a))),
    "repr of the model": lambda *, m: jnp.asarray(float(".a: State(None)" in repr(m))),
    "copy": lambda *, m: jnp.asarray(float(copy.copy(m.a).get() is None)),
    "a mask that looks at values": lambda *, m: jnp.asarray(
        float(pxu.M(lambda p: p.get() is None)(m).a is not None)
    ),
    "tree_extract": lambda *, m: jnp.asarray(float(px.tree_extract(m, State)[0] is None)),
    "param to param": lambda *, m: jnp.asarray(float(m.b.set(m.a).get() is None)),
    "jit inside": lambda *, m: pxf.jit()(lambda *, m: is_empty(m))(m=m),
    "jit inside, before": lambda *, m: (pxf.jit()(lambda *, m: is_empty(m))(m=m), write(m=m))[0],
    "vmap inside": lambda *, m: pxf.vmap({}, axis_size=1)(lambda *, m: is_empty(m))(m=m)[0],
    "a gradient inside": lambda *, m: pxf.value_and_grad(pxu.M(px.Param) & ~pxu.M(State))(
        lambda *, m: is_empty(m) + 0 * m.w
    )(m=m)[0],
    "a gradient that selects it if it is there": lambda *, m: jnp.asarray(
        float(
            pxf.value_and_grad(pxu.M(px.Param))(lambda *, m: (m.a.set(None), m.w * 1)[1])(m=m)[1][
                "m"
            ].a
            is None
        )
    ),
    "a scan inside": lambda *, m: pxf.scan(lambda _, *, m: ((), is_empty(m)), length=1)(m=m)[1][0],
    "a loop inside": lambda *, m: pxf.while_loop(
        lambda e, *, m: is_empty(m), lambda e, *, m: e < 0
    )(jnp.asarray(-1.0), m=m),
    "a branch inside": lambda *, m: pxf.cond(lambda *, m: is_empty(m), lambda *, m: is_empty(m))(
        True, m=m
    ),
    "raw jit inside": lambda *, m: jax.jit(lambda m: is_empty(m))(m),
    "an exception": lambda *, m: (attempt(lambda: m.a.undefined), is_empty(m))[1],
    "reading, then writing": lambda *, m: (is_empty(m), write(m=m))[0],
}


@pytest.mark.parametrize("name", READERS)
def test_a_state_that_is_read_is_never_left_out(name):
    f, _ = counted(READERS[name])
    for value in (None, jnp.array(5.0), None, jnp.ones(3)):
        assert float(f(m=Model(a=value))) == float(value is None)


def test_pickling_reads():
    f, _ = counted(lambda *, m: jnp.asarray(float(pickle.loads(pickle.dumps(m.b)).get() is None)))
    assert float(f(m=Model())) == 1.0


def test_emptying_a_state_that_was_left_out_empties_it():
    # the trace was made with an empty state, where emptying it again changes nothing
    f, traces = counted(lambda *, m: done(m.a.set(None)))
    m = Model()
    f(m=m)
    m.a.set(jnp.ones(2))
    f(m=m)
    assert m.a.get() is None
    assert len(traces) == 1


def test_a_state_that_is_neither_read_nor_written_stays():
    f, _ = counted(lambda *, m: done(m.b.set(m.w * 1)))
    m = Model()
    f(m=m)
    value = jnp.ones(2)
    m.a.set(value)
    f(m=m)
    assert m.a.get() is value


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("fails", [False, True], ids=["reads", "fails on"])
def test_a_function_that_reads_for_other_shapes_only(donate, fails):
    def body(x, *, m):
        if x.shape[0] == 2:
            m.a.set(x)
            return jnp.asarray(0.0)
        if fails:
            return jnp.sum(m.a + 1)
        return is_empty(m)

    f, _ = counted(body, donate_params=donate)
    m = Model()
    f(jnp.ones(2), m=m)
    f(jnp.ones(2), m=m)  # left out
    out = f(jnp.ones(3), m=m)
    assert float(out) == (4.0 if fails else 0.0)
    assert m.a.get().tolist() == [1.0, 1.0]
    f(jnp.ones(2) * 5, m=m)
    assert m.a.get().tolist() == [5.0, 5.0]
    assert float(m.w) == 2.0


def test_an_error_of_the_function_itself_is_raised_as_it_is():
    def body(x, *, m):
        m.a.set(x)
        if x.shape[0] == 3:
            raise KeyError("mine")

    f, traces = counted(body)
    m = Model()
    f(jnp.ones(2), m=m)
    f(jnp.ones(2), m=m)
    with pytest.raises(KeyError, match="mine"):
        f(jnp.ones(3), m=m)
    assert len(traces) == 2
    f(jnp.ones(2), m=m)
    assert len(traces) == 2


def test_two_states_written_apart_share_one_trace():
    f, traces = counted(lambda *, m: done(m.a.set(m.w * 1), m.b.set(m.w * 2)))
    for a in (None, jnp.ones(1)):
        for b in (None, jnp.ones(2)):
            m = Model(a, b)
            f(m=m)
            assert (float(m.a), float(m.b)) == (2.0, 4.0)
    assert len(traces) == 1


def test_a_mark_on_a_left_out_state_is_still_part_of_the_structure():
    f, traces = counted(lambda *, m: done(m.a.set(m.w * (1 if marked(m.a) else 2))))
    m = Model()
    f(m=m)
    assert float(m.a) == 4.0
    m.a.mark = True
    f(m=m)
    assert float(m.a) == 2.0
    assert len(traces) == 2


def marked(param):
    return "mark" in dict(param.metadata)


def test_a_shared_state_is_left_out_once():
    f, traces = counted(lambda *, m: done(m.a.set(m.w * 1), m.b.__iadd__(1)))
    m = Model()
    m.b = m.a
    for _ in range(3):
        f(m=m)
        assert float(m.a) == 3.0
    assert len(traces) == 1


# --- random programs


def _nest(kind, op, m):
    if kind == "jit":
        return pxf.jit()(lambda *, m: op(m))(m=m)
    if kind == "vmap":
        return pxf.vmap({}, axis_size=2, out_axes=None)(lambda *, m: op(m))(m=m)
    if kind == "grad":
        mask = pxu.M(px.Param) & ~pxu.M(State)
        return pxf.value_and_grad(mask)(lambda *, m: op(m) + 0 * m.w)(m=m)[0]
    if kind == "cond":
        return pxf.cond(lambda *, m: op(m), lambda *, m: jnp.asarray(1.0))(m.w > 0, m=m)
    if kind == "scan":
        return pxf.scan(lambda _, *, m: ((), op(m)), length=2)(m=m)[1].sum()
    raise AssertionError(kind)


def basic(what, p, q):
    zero = jnp.asarray(0.0)

    def op(m):
        a, b = getattr(m, p), getattr(m, q)
        if what == "write":
            a.set(m.w * 3)
        elif what == "empty":
            a.set(None)
        elif what == "copy":
            a.set(b.get())
        elif what == "add":
            a.set(zero if a.get() is None else a + 1)
        elif what == "read":
            return zero if a.get() is None else jnp.sum(a.get())
        elif what == "try":
            out = attempt(lambda: a * 2)
            return zero if out is None else jnp.sum(out)
        elif what == "repr":
            return zero + len(repr(a))
        return zero

    return op


BASIC = st.builds(
    basic,
    st.sampled_from(["write", "empty", "copy", "add", "read", "try", "repr"]),
    st.sampled_from("ab"),
    st.sampled_from("ab"),
)
OPS = st.recursive(
    BASIC,
    lambda inner: st.one_of(
        st.builds(
            lambda kind, op: lambda m: _nest(kind, op, m),
            st.sampled_from(["jit", "vmap", "grad", "cond", "scan"]),
            inner,
        ),
        st.lists(inner, min_size=2, max_size=3).map(lambda ops: lambda m: sum(op(m) for op in ops)),
    ),
    max_leaves=5,
)
VALUES = st.sampled_from([None, 1.0, 2.0])


def outcome(fn, m):
    try:
        result = float(fn(m=m))
    except TypeError as error:
        if "must keep its structure" not in str(error):
            raise
        result = "refused"
    return result, [None if p.get() is None else np.asarray(p.get()).tolist() for p in (m.a, m.b)]


def model(a, b, shared):
    m = Model(*(None if v is None else jnp.asarray(v) for v in (a, b)))
    if shared:
        m.b = m.a
    return m


@settings(max_examples=60, deadline=None)
@given(OPS, st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=5), st.booleans())
def test_random_programs_give_what_a_fresh_trace_gives(op, states, shared):
    body = lambda *, m: op(m)
    used = pxf.jit()(body)
    for a, b in states:
        got = outcome(used, model(a, b, shared))
        want = outcome(pxf.jit()(body), model(a, b, shared))
        assert got == want
