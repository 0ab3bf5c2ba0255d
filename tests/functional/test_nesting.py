"""Transforms in any order: every pair, and some towers, against plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.utils as pxu


class Model(px.Module):
    def __init__(self):
        self.w = px.Param(jnp.array(2.0))
        self.h = px.Param(jnp.array(0.5))
        self.tied = {"w": self.w}
        self.key = px.Param(jnp.zeros(2, jnp.uint32))
        self.act = jnp.tanh
        self.seen = px.Param(jnp.array(0))


def body(*, m):
    """Reads, writes, an alias, a static value and a random key."""
    m.h += m.act(m.w) * m.tied["w"]
    m.tied["w"].set(m.w + 0.25)
    m.key.set(px.RKG())
    m.seen += 1
    return m.h * 1.0


def value(x):
    return jnp.reshape(jnp.asarray(x), ())


# each gives a function like `body` again: one scalar, params changed as by one call of `fn`
def jit(fn):
    return pxf.jit()(fn)


def donating(fn):
    return pxf.jit(donate_params=True)(fn)


def vmap(fn):
    mapped = pxf.vmap(pxu.M(px.Param).to((None, 0)))(fn)

    def call(*, m):
        # one element: the params get an axis of size 1 and lose it again
        params = [p for p in jax.tree.leaves(m, is_leaf=is_param) if is_param(p)]
        unique = list({id(p): p for p in params}.values())
        for p in unique:
            p.set(p.get()[None])
        out = mapped(m=m)
        for p in unique:
            p.set(p.get()[0])
        return out[0]

    return call


def is_param(x):
    return isinstance(x, px.Param)


def value_and_grad(fn):
    f = pxf.value_and_grad({"m": lambda p: p.get().dtype == jnp.float32})(fn)
    return lambda *, m: f(m=m)[0]


def scan(fn):
    def step(_, *, m):
        return (), fn(m=m)

    f = pxf.scan(step, length=1)
    return lambda *, m: f(m=m)[1][0]


def while_loop(fn):
    def step(i, out, *, m):
        return i + 1, value(fn(m=m))

    f = pxf.while_loop(step, lambda i, out, *, m: i < 1)
    return lambda *, m: f(0, 0.0, m=m)[1]


def cond(fn):
    f = pxf.cond(lambda *, m: value(fn(m=m)), lambda *, m: 0.0)
    return lambda *, m: f(True, m=m)


def switch(fn):
    f = pxf.switch([lambda *, m: 0.0, lambda *, m: value(fn(m=m))])
    return lambda *, m: f(1, m=m)


TRANSFORMS = [jit, donating, vmap, value_and_grad, scan, while_loop, cond, switch]
# JAX has no reverse-mode gradient of a while loop
IMPOSSIBLE = (value_and_grad, while_loop)


def numbers(m):
    return [float(m.w), float(m.h), int(m.seen)]


def run(fn, calls=2):
    px.RKG.seed(11)
    m = Model()
    outs = [float(fn(m=m)) for _ in range(calls)]
    assert m.tied["w"] is m.w
    return outs, numbers(m), m.key.get().tolist(), px.RKG.key.get().tolist()


def by_hand(calls=2):
    w, h, outs = 2.0, 0.5, []
    for _ in range(calls):
        h += np.tanh(w) * w
        w += 0.25
        outs.append(h)
    return outs, [w, h, calls]


@pytest.mark.parametrize(
    "tower",
    [
        *(pair for pair in itertools.product(TRANSFORMS, TRANSFORMS) if pair != IMPOSSIBLE),
        (jit, vmap, value_and_grad, scan),
        (value_and_grad, vmap, scan, jit),
        (jit, scan, value_and_grad, vmap, cond),
        (scan, cond, jit, value_and_grad),
        (donating, value_and_grad, vmap, jit, switch, scan),
    ],
    ids=lambda t: "-".join(f.__name__ for f in t),
)
def test_any_tower_of_transforms_does_what_the_function_does(tower):
    fn = body
    for transform in reversed(tower):
        fn = transform(fn)
    outs, state, key, after = run(fn)
    want_outs, want_state = by_hand()
    np.testing.assert_allclose(outs, want_outs, rtol=1e-6)
    np.testing.assert_allclose(state, want_state, rtol=1e-6)
    _, _, want_key, want_after = run(body)
    if vmap in tower:
        # the key that is drawn is that of the mapped element
        assert key not in ([0, 0], want_key)
    else:
        assert (key, after) == (want_key, want_after)


@pytest.mark.parametrize("inner", [vmap, value_and_grad, scan, cond])
def test_a_function_jitted_once_is_traced_once_wherever_it_is_used(inner):
    traces = []

    @pxf.jit()
    def counted(*, m):
        traces.append(1)
        return body(m=m)

    f = pxf.jit()(inner(counted))
    m = Model()
    for _ in range(3):
        f(m=m)
    assert len(traces) == 1


def test_the_life_of_a_training_step():
    """vmap inside value_and_grad inside scan inside jit, against NumPy."""
    x, y = np.array([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]]), np.array([1.0, 0.0, 2.0])

    class Net(px.Module):
        def __init__(self):
            self.w = px.Param(jnp.array([0.3, -0.2]))
            self.h = State()

    def forward(x, *, net):
        net.h.set(jnp.dot(net.w, x))

    def energy(x, y, *, net):
        return jax.lax.psum((net.h - jnp.dot(net.w, x)) ** 2 + (net.h - y) ** 2, "batch")

    axes = pxu.M(State).to((None, 0))

    @pxf.jit()
    def train(x, y, *, net):
        pxf.vmap(axes, in_axes=(0,))(forward)(x, net=net)
        f = pxf.vmap(axes, in_axes=(0, 0), out_axes=None, axis_name="batch")(energy)

        def infer(_, *, net):
            _, g = pxf.value_and_grad(State)(f)(x, y, net=net)
            net.h -= 0.1 * g["net"].h
            return (), None

        pxf.scan(infer, length=5)(net=net)
        value, g = pxf.value_and_grad(~pxu.M(State))(f)(x, y, net=net)
        net.w -= 0.05 * g["net"].w
        return value

    net = Net()
    w = np.array([0.3, -0.2])
    for _ in range(4):
        value = train(jnp.asarray(x), jnp.asarray(y), net=net)
        h = x @ w
        for _ in range(5):
            h = h - 0.1 * (2 * (h - x @ w) + 2 * (h - y))
        want = np.sum((h - x @ w) ** 2 + (h - y) ** 2)
        w = w - 0.05 * np.sum(-2 * (h - x @ w)[:, None] * x, axis=0)
        np.testing.assert_allclose(value, want, rtol=1e-5)
        np.testing.assert_allclose(net.w.get(), w, rtol=1e-5)
        np.testing.assert_allclose(net.h.get(), h, rtol=1e-5)
    assert len(train._versions) == 2  # without its states and with them


class State(px.Param):
    pass
