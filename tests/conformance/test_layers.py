"""What every layer keeps. A third party adds its own to `LAYERS`."""

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

WIDTH = 4


class Own(px.Module):
    """A layer without equinox."""

    def __init__(self):
        self.gain = pxnn.LayerParam(jnp.ones(WIDTH))
        self.power = 2
        self.act = jax.nn.tanh

    def __call__(self, x):
        return self.act(self.gain * x**self.power)


class OwnEquinox(eqx.Module):
    weight: jax.Array

    def __init__(self, n, *, key):
        self.weight = jax.random.normal(key, (n, n))

    def __call__(self, x):
        return jnp.sin(self.weight @ x)


class Pick(eqx.Module):
    """A layer with a buffer of integers."""

    index: jax.Array
    weight: jax.Array

    def __init__(self, n, *, key):
        self.index = jax.random.permutation(key, n)
        self.weight = jax.random.normal(key, (n,))

    def __call__(self, x):
        return self.weight * x[self.index]


LAYERS = {
    "linear": lambda: pxnn.Linear(WIDTH, 3),
    "layer norm": lambda: pxnn.LayerNorm(WIDTH),
    "prelu": lambda: pxnn.PReLU(),
    "sequential": lambda: pxnn.Sequential(
        pxnn.Linear(WIDTH, WIDTH), jax.nn.relu, pxnn.Dropout(0.5), pxnn.Linear(WIDTH, 2)
    ),
    "equinox MLP": lambda: pxnn.Layer(eqx.nn.MLP, WIDTH, 2, 8, 1),
    "own equinox module": lambda: pxnn.Layer(OwnEquinox, WIDTH),
    "spectral norm": lambda: pxnn.StatefulLayer(
        eqx.nn.SpectralNorm, eqx.nn.Linear(WIDTH, 2, key=px.RKG()), "weight"
    ),
    "own module": Own,
    "index buffer": lambda: pxnn.Layer(Pick, WIDTH),
    "held dropout": lambda: pxnn.Sequential(
        pxnn.Linear(WIDTH, WIDTH), pxnn.Dropout(0.5, hold=True)
    ),
}


@pytest.fixture(params=LAYERS)
def make(request):
    px.RKG.seed(0)
    return LAYERS[request.param]


X = jnp.linspace(-1.0, 1.0, WIDTH)


def call(x, *, layer):
    return layer(x)


def test_it_gives_the_same_under_jit_and_for_each_sample_of_a_batch(make):
    layer = make().eval()
    want = layer(X)
    np.testing.assert_allclose(pxf.jit()(call)(X, layer=layer), want, rtol=1e-5, atol=1e-6)
    batch = pxf.vmap({}, in_axes=(0,))(call)(jnp.stack([X, 2 * X]), layer=layer)
    np.testing.assert_allclose(batch[0], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch[1], layer(2 * X), rtol=1e-5, atol=1e-6)


def test_it_is_traced_once_in_each_mode(make):
    layer, traces = make().eval(), 0

    @pxf.jit()
    def run(x, *, layer):
        nonlocal traces
        traces += 1
        return layer(x)

    for _ in range(3):
        run(X, layer=layer)
    assert traces == 1
    for _ in range(3):
        run(X, layer=layer.train())
        run(X, layer=layer.eval())
    assert traces == 2


def test_its_weights_and_only_they_have_gradients_and_learn(make):
    layer = make().eval()
    loss = lambda *, layer: jnp.sum((layer(X) - 0.3) ** 2)
    value, grads = pxf.value_and_grad(pxu.M(pxnn.LayerParam))(loss)(layer=layer)
    got = [p for _, p in px.core.named_params(grads["layer"])]
    want = [p for _, p in px.core.named_params(layer) if isinstance(p, pxnn.LayerParam)]
    assert [g.shape for g in got] == [p.shape for p in want]
    optim = pxu.Optim(optax.sgd(1e-2), pxu.M(pxnn.LayerParam)(layer))
    optim.step(layer, grads["layer"])
    assert float(loss(layer=layer)) < float(value)


def test_it_comes_back_from_a_file(make, tmp_path):
    a, b = make().eval(), make().eval()
    everything = pxnn.LayerParam | pxnn.BufferParam | pxnn.StateParam
    pxu.save_params(a, tmp_path / "layer", everything)
    pxu.load_params(b, tmp_path / "layer", everything)
    np.testing.assert_array_equal(a(X), b(X))


def test_modes_are_reported_and_reach_it(make):
    layer = make()
    assert not layer.is_train
    assert not layer.is_eval
    assert layer.train().is_train
    assert layer.eval().is_eval
    assert not layer.is_train


def test_passes_over_one_batch_leave_no_trace_unless_one_of_them_updates(make):
    layer = make().train()
    before = jax.tree_util.tree_leaves(layer)
    with pxnn.training_batch(layer):
        for _ in range(3):
            layer(X)
    for a, b in zip(before, jax.tree_util.tree_leaves(layer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_it_shares_it_learns_once(make):
    layer = make().eval()
    copy = pxnn.shared(layer)
    for (_, p), (_, q) in zip(px.core.named_params(layer), px.core.named_params(copy), strict=True):
        assert p is q
    np.testing.assert_array_equal(layer(X), copy(X))
