"""`pxf.checkpoint` against `jax.checkpoint` of the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf


class Net(px.Module):
    def __init__(self):
        self.w = px.Param(jnp.array([0.3, -0.7]))
        self.calls = px.Param(jnp.array(0))


def block(x, *, net):
    net.calls += 1
    return jnp.sin(jnp.sin(x * net.w) * net.w)


def loss(x, *, net, wrap=lambda f: f):
    return jnp.sum(wrap(block)(x, net=net) ** 2)


def saved(f, *args):
    """What the backward pass of `f` keeps: the arrays that its linear part closes over."""
    return len(jax.tree_util.tree_leaves(jax.vjp(f, *args)[1]))


@pytest.mark.parametrize("jit", [False, True])
def test_values_and_gradients_are_the_same_and_changes_are_kept(jit):
    x, net = jnp.array([0.5, 2.0]), Net()

    def run(*, net):
        f = lambda *, net: loss(x, net=net, wrap=pxf.checkpoint())
        return pxf.value_and_grad(lambda p: p is net.w)(f)(net=net)

    value, grads = (pxf.jit()(run) if jit else run)(net=net)
    raw = lambda w: jnp.sum(jnp.sin(jnp.sin(x * w) * w) ** 2)
    want, want_grad = jax.value_and_grad(raw)(jnp.array([0.3, -0.7]))
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(grads["net"].w.get(), want_grad, rtol=1e-5)
    assert int(net.calls) == 1


def test_less_is_kept_for_the_backward_pass_as_the_policy_says():
    net, x = Net(), jnp.array([0.5, 2.0])
    everything = jax.checkpoint_policies.everything_saveable
    kept = [
        saved(pxf.pure(lambda x, *, net, w=w: loss(x, net=net, wrap=w), net=net), x)
        for w in (lambda f: f, pxf.checkpoint(), pxf.checkpoint(policy=everything))
    ]
    assert kept[1] < min(kept[0], kept[2])


def test_random_numbers_are_those_without_checkpoint():
    noisy = lambda x: x + jax.random.normal(px.RKG(), x.shape)
    px.RKG.seed(5)
    want = [noisy(jnp.ones(2)).tolist() for _ in range(2)]
    px.RKG.seed(5)
    assert [pxf.checkpoint()(noisy)(jnp.ones(2)).tolist() for _ in range(2)] == want


def test_results_that_are_no_arrays_come_out():
    assert pxf.checkpoint()(lambda x: (x, "name", None))(1.0) == (1.0, "name", None)


def test_a_positional_module_is_refused():
    with pytest.raises(TypeError, match=r"pxf.checkpoint\(<lambda>\): positional argument 0"):
        pxf.checkpoint()(lambda x: x)("text")
