"""Behaviours of PCX: loops return tuples, keys under vmap, donation by name; against raw JAX."""

import jax
import jax.numpy as jnp
import numpy as np

import pcx as px
import pcx.functional as pxf


def test_the_carry_of_a_scan_is_a_tuple_even_of_one():
    xs = jnp.array([1.0, -2.0, 0.5])
    (carry,), ys = pxf.scan(lambda x, c: (0.5 * c + x, c), xs)(jnp.array(3.0))
    want, want_ys = jax.lax.scan(lambda c, x: (0.5 * c + x, c), jnp.array(3.0), xs)
    np.testing.assert_array_equal(carry, want)
    np.testing.assert_array_equal(ys, want_ys)


def test_the_result_of_a_while_loop_is_a_tuple_even_of_one():
    (n,) = pxf.while_loop(lambda n: 2 * n, lambda n: n < 50)(3)
    assert int(n) == int(jax.lax.while_loop(lambda n: n < 50, lambda n: 2 * n, 3))
    pair = pxf.while_loop(lambda a, b: (a + 1, b * 2), lambda a, b: a < 3)(0, 1)
    assert [int(v) for v in pair] == [3, 8]


def test_each_lane_draws_from_its_own_part_of_the_default_key():
    key = jax.random.PRNGKey(4)
    px.RKG.seed(4)
    got = pxf.vmap(in_axes=(0,))(lambda x: px.RKG())(jnp.zeros(3))
    lanes = [jax.random.split(k) for k in jax.random.split(key, 3)]
    assert got.tolist() == [lane[1].tolist() for lane in lanes]
    assert px.RKG.key.tolist() == lanes[0][0].tolist()  # the state of the first lane


def test_a_generator_that_is_not_mapped_is_shared_by_the_lanes():
    rkg, key = px.RandomKeyGenerator(9), jax.random.PRNGKey(9)
    state, draw = jax.random.split(key)
    f = pxf.jit()(pxf.vmap({"rkg": None}, in_axes=(0,))(lambda x, *, rkg: rkg()))
    assert f(jnp.zeros(3), rkg=rkg).tolist() == [draw.tolist()] * 3
    assert rkg.key.tolist() == state.tolist()


def test_tracked_arguments_are_donated_by_name():
    def fill(*, model, other):
        model += other

    f = pxf.jit(donate_argnames=("model",))(fill)
    p, other = px.Param(jnp.arange(3.0)), px.Param(jnp.ones(3))
    p.set(p * 1)
    old = p.get()
    address = old.unsafe_buffer_pointer()
    del old
    f(model=p, other=other)
    assert p.get().unsafe_buffer_pointer() == address
    f(model=p, other=other)
    assert p.get().tolist() == [2.0, 3.0, 4.0]
    assert other.get().tolist() == [1.0, 1.0, 1.0]
