"""JAX's own transforms around tracked objects: refused where they would go wrong, and nothing is
poisoned; what only reads, or is pure, works as in plain JAX."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf

X = jnp.arange(3.0)

# each runs f(x) at least once under a transform of JAX's own
COMPILING = {
    "jit": lambda f: jax.jit(f)(X),
    "filter_jit": lambda f: eqx.filter_jit(f)(X),
    "checkpoint": lambda f: jax.checkpoint(f)(X),
    "lax.map": lambda f: jax.lax.map(f, X),
    "scan": lambda f: jax.lax.scan(lambda c, x: (c, f(x)), 0.0, X),
    "fori_loop": lambda f: jax.lax.fori_loop(0, 2, lambda i, c: (f(c), c)[1], X),
    "while_loop": lambda f: jax.lax.while_loop(
        lambda c: c.sum() < 9, lambda c: (f(c), c + 1)[1], X
    ),
    "cond": lambda f: jax.lax.cond(X[0] < 1, f, lambda x: f(x), X),
    "eval_shape": lambda f: jax.eval_shape(f, X),
    "jit of vmap": lambda f: jax.jit(jax.vmap(f))(X),
}
if jax.__version_info__ < (0, 8):
    # an error inside `eqx.filter_jit` makes Python crash at its exit there, without pcx too
    del COMPILING["filter_jit"]
OTHERS = {
    "vmap": lambda f: jax.vmap(f)(X),
    "grad": lambda f: jax.grad(lambda x: jnp.sum(f(x)))(X),
    "jvp": lambda f: jax.jvp(f, (X,), (X,)),
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda x: jnp.sum(f(x))))(X),
}
ALL = COMPILING | OTHERS


class Net(px.Module):
    def __init__(self):
        self.w = px.Param(jnp.array(2.0))
        self.rkg = px.RandomKeyGenerator(3)
        self.h = px.Param()


def snapshot(net):
    return [
        np.asarray(p.get()).tolist() if p.get() is not None else None
        for p in (net.w, net.rkg.key, net.h, px.RKG.key)
    ]


def refused(how, f, match, net):
    before = snapshot(net)
    with pytest.raises(RuntimeError, match=match):
        ALL[how](f)
    assert snapshot(net) == before
    # everything goes on as before
    px.RKG()
    assert float(pxf.jit()(lambda x, *, net: x * net.w)(3.0, net=net)) == 6.0
    assert Net().w.get() is not None


@pytest.mark.parametrize("how", ALL)
def test_a_traced_write_to_a_param_is_refused_by_name(how):
    net = Net()
    match = (
        r"`net\.h` would be left with a dead tracer: it is written inside a transform of JAX's own"
    )
    refused(how, lambda x: (net.h.set(x * 2), x)[1], match, net)


@pytest.mark.parametrize("how", ALL)
def test_a_traced_attribute_is_refused_by_name(how):
    net = Net()

    def write(x):
        net.last = x
        return x

    refused(how, write, r"`net\.last` would be left with a dead tracer", net)


@pytest.mark.parametrize("how", ALL)
@pytest.mark.parametrize("own", [False, True])
def test_drawing_a_key_is_refused(how, own):
    net = Net()
    draw = net.rkg if own else px.RKG
    match = (
        r"a random number generator draws inside .* Use the transform of the same name in `pcx\.f"
    )
    refused(how, lambda x: x + jax.random.uniform(draw()), match, net)


@pytest.mark.parametrize("how", COMPILING)
def test_a_tracked_transform_inside_one_that_compiles_is_refused(how):
    net = Net()
    inner = pxf.jit(donate_params=True)(lambda x, *, net: x * net.w)
    match = (
        r"pxf\.jit\(<lambda>\) is called with params inside a transform of JAX's own .*constants"
    )
    refused(how, lambda x: inner(x, net=net), match, net)


@pytest.mark.parametrize("name", ["vmap", "value_and_grad", "scan", "cond", "checkpoint"])
def test_so_is_every_other_one_that_only_reads(name):
    net = Net()
    read = lambda x, *, net: x * net.w
    inner = {
        "vmap": pxf.vmap(None, axis_size=2)(lambda *, net: net.w * 2.0),
        "value_and_grad": pxf.value_and_grad(lambda p: p is net.w)(lambda *, net: net.w.get()),
        "scan": pxf.scan(lambda _, *, net: ((), net.w * 2.0), length=1),
        "cond": lambda *, net: pxf.cond(read, read)(True, 1.0, net=net),
        "checkpoint": lambda *, net: pxf.checkpoint()(read)(1.0, net=net),
    }[name]
    match = rf"pxf\.{name}\(.*\) is called with params inside a transform of JAX's own .*constants"
    refused("jit", lambda x: (inner(net=net), x)[1], match, net)


@pytest.mark.parametrize("how", OTHERS)
def test_a_tracked_transform_that_writes_or_draws_is_refused_in_the_others(how):
    net = Net()
    write = pxf.jit(donate_params=True)(lambda x, *, net: (net.h.set(x * net.w), x)[1])
    refused(how, lambda x: write(x, net=net), "`net.h` would be left with a dead tracer", net)
    draw = pxf.jit()(lambda x, *, net: x + jax.random.uniform(px.RKG()))
    refused(how, lambda x: draw(x, net=net), "a random number generator draws", net)


@pytest.mark.parametrize("how", ALL)
def test_inside_a_tracked_transform_the_same_is_refused(how):
    net = Net()

    def outer(x, *, net):
        ALL[how](lambda x: (net.h.set(x * 2), x)[1])
        return x

    def outer_draw(x, *, net):
        ALL[how](lambda x: x + jax.random.uniform(px.RKG()))
        return x

    before = snapshot(net)
    with pytest.raises(RuntimeError, match=r"`net\.h` would be left with a dead tracer"):
        pxf.jit()(outer)(X, net=net)
    with pytest.raises(RuntimeError, match="a random number generator draws"):
        pxf.jit()(outer_draw)(X, net=net)
    assert snapshot(net) == before


def test_the_message_says_what_to_write():
    net = Net()
    with pytest.raises(RuntimeError) as caught:
        jax.jit(lambda x: (net.w.set(x), x)[1])(1.0)
    for name in ("pxf.jit", "pxf.vmap", "pxf.scan", "pxf.checkpoint", "pxf.pure(fn, model=model)"):
        assert name in str(caught.value)


# --- what keeps working


@pytest.mark.parametrize("inside", [False, True])
def test_reading_params_works_under_any_transform(inside):
    net = Net()

    def read(x, *, net):
        layer = lambda v: net.w * v
        return [
            jax.vmap(layer)(x),
            jax.vmap(jax.grad(layer))(x),
            jax.lax.map(layer, x),
            jax.lax.scan(lambda c, v: (c + layer(v), None), 0.0, x)[0],
            jax.checkpoint(layer)(x),
            jax.jit(layer)(x),
        ]

    got = (pxf.jit()(read) if inside else read)(X, net=net)
    want = [[0, 2, 4], [2, 2, 2], [0, 2, 4], 6, [0, 2, 4], [0, 2, 4]]
    assert [np.asarray(v).tolist() for v in got] == want


@pytest.mark.parametrize("how", ALL)
def test_a_pure_function_works_under_any_transform(how):
    net = Net()

    def body(x, *, net):
        net.h.set(x * net.w)
        px.RKG()
        noise = pxf.vmap({}, axis_size=2)(lambda *, net: net.rkg())(net=net)
        pxf.value_and_grad(lambda p: p is net.w)(lambda *, net: net.w**2)(net=net)
        return net.h + 0.0 * noise.sum()

    before = snapshot(net)
    ALL[how](pxf.pure(body, net=net))
    assert snapshot(net) == before
    assert jax.jit(pxf.pure(body, net=net))(X).tolist() == [0.0, 2.0, 4.0]


def test_gradients_through_a_tracked_transform_that_only_reads():
    net = Net()
    f = pxf.jit()(lambda x, *, net: jnp.sum(net.w * x**2))
    assert jax.grad(lambda x: f(x, net=net))(X).tolist() == [0.0, 4.0, 8.0]
    assert jax.vmap(lambda x: f(x, net=net))(X).tolist() == [0.0, 2.0, 8.0]


def test_objects_made_inside_may_be_written_and_drawn_from():
    def f(x):
        net = Net()
        net.h.set(x * net.w)
        return net.h + 0.0 * net.rkg().sum()

    for how in ("jit", "vmap", "lax.map", "grad"):
        assert ALL[how](f) is not None


def test_values_that_are_not_traced_may_be_written():
    net = Net()

    def f(x):
        net.h.set(np.ones(2))
        net.count = 3
        return x

    jax.jit(f)(X)
    assert net.h.get().tolist() == [1.0, 1.0]
    assert net.count == 3
