"""What is the same in all passes over one batch, against bare equinox and raw JAX."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

X = 3 + 2 * jax.random.normal(jax.random.PRNGKey(0), (16, 4))


@pxf.vmap({}, in_axes=(0,), axis_name="batch")
def call(x, *, layer):
    return layer(x)


def norm(mode="batch"):
    return pxnn.BatchNorm(4, "batch", momentum=0.9, mode=mode).train()


def bare(mode="batch"):
    """Equinox's own layer and state, and a function `(x, state) -> (output, state)`."""
    module, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, "batch", momentum=0.9, mode=mode)
    return state, jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))


def assert_same(layer, state):
    ours, theirs = map(jax.tree_util.tree_leaves, (layer.state.get(), state))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("where", ["first", "last", "twice"])
def test_a_batch_updates_the_statistics_once_in_the_pass_that_is_said(mode, where):
    layer = norm(mode)
    state, apply = bare(mode)
    call(X, layer=layer)
    _, state = apply(X, state)

    @pxf.jit()
    def train(x, *, layer):
        outputs = []
        with pxnn.training_batch(layer):
            for t in range(6):
                updates = {"first": t == 0, "last": t == 5, "twice": t in (1, 3)}[where]
                with pxnn.statistics(layer, update=updates):
                    outputs.append(call(2 * x, layer=layer))
        return outputs

    outputs = train(X, layer=layer)
    want, state = apply(2 * X, state)
    assert_same(layer, state)
    # and every pass is the same function
    for got in outputs:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_without_a_pass_that_updates_a_batch_leaves_the_statistics():
    layer = norm()
    with pxnn.training_batch(layer):
        call(X, layer=layer)
    assert_same(layer, bare()[0])


def test_a_layer_used_twice_in_the_pass_that_updates_counts_both_inputs():
    layer = norm()
    state, apply = bare()
    with pxnn.training_batch(layer):
        for _ in range(2):
            with pxnn.statistics(layer, update=True):
                call(X, layer=layer)
                call(2 * X, layer=layer)
    for x in (X, 2 * X):
        _, state = apply(x, state)
    assert_same(layer, state)


def test_a_batch_may_be_a_scan_and_a_gradient():
    layer = norm()
    state, apply = bare()

    def loss(x, *, layer):
        return jnp.sum(call(x, layer=layer) ** 3)

    @pxf.jit()
    def train(x, *, layer):
        def step(t, *, layer):
            with pxnn.statistics(layer, update=True):
                pxf.value_and_grad(pxu.M(pxnn.LayerParam))(loss)(x, layer=layer)
            return (), None

        with pxnn.training_batch(layer):
            pxf.scan(step, jnp.arange(5))(layer=layer)

    train(X, layer=layer)
    assert_same(layer, apply(X, state)[1])


@pytest.mark.parametrize("jitted", [False, True])
def test_evaluation_holds_the_statistics_in_train_mode_too(jitted):
    layer = norm()
    state, apply = bare()
    run = pxf.jit()(lambda x, *, layer: call(x, layer=layer)) if jitted else call
    for _ in range(2):
        # what was compiled in one of them is not used in the other
        run(X, layer=layer)
        _, state = apply(X, state)
        with pxnn.statistics(layer, update=False):
            got = run(2 * X, layer=layer)
        np.testing.assert_allclose(got, apply(2 * X, state)[0], rtol=1e-5, atol=1e-6)
        assert_same(layer, state)


def test_outside_of_a_batch_update_true_changes_nothing():
    layer = norm()
    state, apply = bare()
    for _ in range(2):
        with pxnn.statistics(layer, update=True):
            call(X, layer=layer)
        _, state = apply(X, state)
    assert_same(layer, state)


def test_an_error_in_a_batch_leaves_the_statistics_as_they_were():
    layer = norm()
    before = layer.state.get()

    def fails(x, *, layer):
        with pxnn.training_batch(layer), pxnn.statistics(layer, update=True):
            call(x, layer=layer)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails(X, layer=layer)
    assert layer.state.get() is before


def test_a_batch_inside_a_batch_is_the_same_batch():
    layer, drop = norm(), pxnn.Dropout(0.5, hold=True)
    state, apply = bare()
    with pxnn.training_batch([layer, drop]):
        first = drop(jnp.ones(50))
        with pxnn.training_batch([layer, drop]):
            np.testing.assert_array_equal(drop(jnp.ones(50)), first)
            with pxnn.statistics(layer, update=True):
                call(X, layer=layer)
        np.testing.assert_array_equal(drop(jnp.ones(50)), first)
    assert_same(layer, apply(X, state)[1])


class Mean(px.Module):
    """A running mean without equinox."""

    def __init__(self):
        self.mean = pxnn.StateParam(jnp.zeros(()))

    def __call__(self, x):
        self.mean.update(0.5 * self.mean + 0.5 * x)
        return x - self.mean


def test_a_layer_of_one_s_own_takes_part_by_update():
    layer = Mean()
    with pxnn.training_batch(layer):
        assert float(layer(jnp.array(8.0))) == 8.0
        with pxnn.statistics(layer, update=True):
            assert float(layer(jnp.array(8.0))) == 4.0
        assert float(layer(jnp.array(8.0))) == 8.0
    assert float(layer.mean) == 4.0
    layer(jnp.array(8.0))
    assert float(layer.mean) == 6.0


def test_a_plain_set_is_kept():
    layer = Mean()
    with pxnn.training_batch(layer):
        layer.mean.set(jnp.array(3.0))
        assert float(layer.mean) == 3.0
    assert float(layer.mean) == 3.0


# --- random numbers ---------------------------------------------------------------------------------


def masks(key, n, size=40, p=0.5):
    """What dropout makes of ones, for each sample: `pxf.vmap` splits the key."""
    keys = jax.random.split(key, n)
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - p, (size,)))(keys)
    return jnp.where(keep, 1 / (1 - p), 0.0)


def test_a_held_mask_is_the_same_in_all_passes_of_a_batch_and_each_sample_has_its_own():
    layer, x = pxnn.Dropout(0.5, hold=True).train(), jnp.ones((6, 40))
    px.RKG.seed(3)

    @pxf.jit()
    def train(x, *, layer):
        with pxnn.training_batch(layer):
            one = call(x, layer=layer)
            _, more = pxf.scan(lambda t, *, layer: ((), call(x, layer=layer)), jnp.arange(2))(
                layer=layer
            )
        return one, more

    state = jax.random.PRNGKey(3)
    for _ in range(2):
        # `px.RKG()`, by hand: the first key is kept, the second is given
        state, key = jax.random.split(state)
        want = masks(key, 6)
        one, more = train(x, layer=layer)
        for got in (one, *more):
            np.testing.assert_array_equal(got, want)
    assert len({bytes(np.asarray(row)) for row in want}) == 6


def test_without_hold_and_outside_of_a_batch_every_call_drops_anew():
    x = jnp.ones(50)
    plain, held = pxnn.Dropout(0.5), pxnn.Dropout(0.5, hold=True)
    with pxnn.training_batch([plain, held]):
        assert bool((plain(x) != plain(x)).any())
    assert bool((held(x) != held(x)).any())


def test_layers_that_hold_differ_from_each_other():
    a, b = (pxnn.Dropout(0.5, hold=True) for _ in range(2))
    with pxnn.training_batch([a, b]):
        assert bool((a(jnp.ones(50)) != b(jnp.ones(50))).any())


def test_a_held_layer_passes_in_eval_mode_and_takes_a_key_that_is_given():
    layer = pxnn.Dropout(0.5, hold=True)
    with pxnn.training_batch(layer):
        given = [layer(jnp.ones(50), key=jax.random.PRNGKey(k)) for k in (0, 1)]
        assert bool((given[0] != given[1]).any())
        np.testing.assert_array_equal(layer.eval()(jnp.ones(50)), jnp.ones(50))


def test_a_stack_holds_another_mask_in_each_layer_in_every_kind_of_pass():
    stack = pxc.Stack(lambda: pxnn.Sequential(pxnn.Dropout(0.5, hold=True)), 3, shape=(40,))
    px.RKG.seed(5)
    with pxnn.training_batch(stack):
        with pxu.step(stack, pxc.STATUS.INIT):
            stack(jnp.ones(40))  # a scan over the layers
        first = stack.vode.get("u")
        stack.vode.h.set(jnp.ones((3, 40)))
        stack(jnp.ones(40))  # all layers at once
    want = masks(jax.random.split(jax.random.PRNGKey(5))[1], 3)
    np.testing.assert_array_equal(stack.vode.get("u"), want)
    np.testing.assert_array_equal(first, jnp.cumprod(want, axis=0))
