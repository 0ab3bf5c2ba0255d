"""Integer and boolean arrays in layers: not trained, saved, loaded. The oracle is bare equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.utils as pxu

FILTERS = {"default": {}, "inexact": {"filter": eqx.is_inexact_array}}


class Pick(eqx.Module):
    index: jax.Array
    keep: jax.Array
    table: np.ndarray
    gain: jax.Array

    def __init__(self, n, *, key):
        self.index = jax.random.permutation(key, n)
        self.keep = jnp.arange(n) % 3 > 0
        self.table = np.arange(n)[::-1].copy()
        self.gain = jnp.linspace(1.0, 2.0, n)

    def __call__(self, x):
        return jnp.where(self.keep, x[self.index] * self.gain, x[self.table])


@pytest.fixture(params=FILTERS)
def make(request):
    return lambda: pxnn.Layer(Pick, 6, **FILTERS[request.param])


X = jnp.linspace(-1.0, 1.0, 6)


def test_only_floating_point_arrays_are_weights(make):
    layer = make()
    assert [w.shape for w in px.tree_extract(layer, pxnn.LayerParam)] == [(6,)]
    kinds = [p.dtype.kind for p in px.tree_extract(layer, pxnn.BufferParam)]
    assert kinds == ["i", "b", "i"]
    assert isinstance(layer.nn.index, pxnn.BufferParam)


def test_a_step_changes_the_weights_as_bare_equinox_does_and_no_buffer(make):
    layer = make()
    module = jax.tree_util.tree_map(
        px.get, layer.nn._module, is_leaf=lambda x: isinstance(x, px.Param)
    )
    loss = lambda module: jnp.sum((module(X) - 1) ** 2)
    want = module.gain - 0.1 * eqx.filter_grad(loss)(module).gain

    optim = pxu.Optim(optax.sgd(0.1), pxu.M(pxnn.LayerParam)(layer))

    @pxf.jit()
    def train(*, layer, optim):
        grads = pxf.value_and_grad(pxu.M(pxnn.LayerParam))(lambda *, layer: loss(layer))(
            layer=layer
        )
        optim.step(layer, grads[1]["layer"])

    train(layer=layer, optim=optim)
    np.testing.assert_allclose(layer.nn.gain, want, rtol=1e-6)
    for name in ("index", "keep", "table"):
        np.testing.assert_array_equal(getattr(layer.nn, name), getattr(module, name))
    np.testing.assert_allclose(layer(X), eqx.tree_at(lambda m: m.gain, module, want)(X), rtol=1e-6)


def test_buffers_come_back_from_a_file(make, tmp_path):
    a, b = make(), make()
    assert bool((a.nn.index != b.nn.index).any())
    pxu.save_params(a, tmp_path / "layer", pxnn.LayerParam | pxnn.BufferParam)
    pxu.load_params(b, tmp_path / "layer", pxnn.LayerParam | pxnn.BufferParam)
    np.testing.assert_array_equal(a(X), b(X))


def test_a_filter_still_decides_about_floating_point_arrays():
    layer = pxnn.Layer(Pick, 6, filter=lambda leaf: False)
    assert px.tree_extract(layer, pxnn.LayerParam) == ()
    assert isinstance(layer.nn.gain, jax.Array)
    assert len(px.tree_extract(layer, pxnn.BufferParam)) == 3
