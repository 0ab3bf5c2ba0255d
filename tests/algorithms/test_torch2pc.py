"""`pc_gradients` against its NumPy oracle, `jax.grad`, and PC's fixed point."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.utils as pxu
from pcx.core import named_params
from tests.algorithms.networks import Block, float64
from tests.oracles import pc, torch2pc
from tests.oracles.mlp import flatten
from tests.oracles.numerical import assert_close, data, net_of
from tests.oracles.optim import SGD


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


def sum_of_squares(u, y):
    return 0.5 * jnp.sum(jnp.square(u - y))


def cross_entropy(u, y):
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(u), -1))


LOSSES = {
    "mse": (pxa.mean_squared_error, torch2pc.mse_mean),
    "squares": (sum_of_squares, torch2pc.sum_of_squares),
    "ce": (cross_entropy, torch2pc.ce_mean),
}


def problem(rng, kind="after", loss="mse"):
    net = net_of(kind, rng)
    model = pxnn.Sequential(*map(Block, net.layers))
    return net, model, *data(rng, net, batch=4, one_hot=loss == "ce")


def grads_of(result):
    """[W_1, b_1, …]; the oracles' order."""
    found = {path: g.get() for path, g in named_params(result.gradients) if g is not None}
    names = [f"layers[{k}].linear.nn.{p}" for k in range(9) for p in ("weight", "bias")]
    return [found[name] for name in names if name in found]


def check(result, expected):
    assert_close(result.activations, expected.v_hat[1:], atol=1e-12)
    np.testing.assert_allclose(result.loss, expected.loss)
    np.testing.assert_allclose(result.output_gradient, expected.dloss, atol=1e-14)
    assert_close(result.beliefs, expected.v[1:], atol=1e-12)
    assert_close(result.errors, expected.epsilon[1:], atol=1e-12)
    assert_close(grads_of(result), flatten(expected.grads), atol=1e-12)


@pytest.mark.parametrize(
    ("mode", "kind", "loss"),
    [
        ("strict", "after", "mse"),
        ("strict", "skip", "ce"),
        ("fixed_pred", "before", "squares"),
        ("fixed_pred", "skip", "ce"),
        ("exact", "skip", "mse"),
    ],
)
@pytest.mark.parametrize("n", [0, 1, 7])
def test_all_outputs_are_those_of_the_oracle(mode, kind, loss, n, rng):
    net, model, x, y = problem(rng, kind, loss)
    ours, theirs = LOSSES[loss]
    expected = torch2pc.pc_infer(net, theirs, x, y, mode, eta=0.2, n=n)
    check(pxa.pc_gradients(model, x, y, ours, mode, eta=0.2, n=n), expected)


def test_many_sweeps_are_scanned_and_the_same(rng):
    net, model, x, y = problem(rng)
    expected = torch2pc.pc_infer(net, torch2pc.mse_mean, x, y, "strict", n=50)
    check(pxa.pc_gradients(model, x, y, n=50), expected)


@pytest.mark.parametrize("last", [True, False])
def test_strict_starts_at_the_given_beliefs(last, rng):
    net, model, x, y = problem(rng)
    v = [rng.standard_normal(u.shape) for u in net.forward(x)[1:]]
    v = v if last else v[:-1]
    expected = torch2pc.pc_infer(net, torch2pc.mse_mean, x, y, "strict", n=5, v_init=v)
    check(pxa.pc_gradients(model, x, y, n=5, v_init=v), expected)


def branchy(rng):
    """Convolutions, a nested layer, a plain function and a layer without weights."""
    model = pxnn.Sequential(
        pxnn.Sequential(pxnn.Conv2d(1, 3, 3), jax.nn.tanh, pxnn.MaxPool2d(2, 2)),
        jnp.ravel,
        pxnn.Linear(27, 4),
        jax.nn.tanh,
        pxnn.Linear(4, 2),
    )
    for _, param in named_params(model):
        param.set(jnp.asarray(rng.standard_normal(param.shape) / 3))
    return model, rng.standard_normal((5, 1, 8, 8)), rng.standard_normal((5, 2))


@pytest.mark.parametrize(
    "options", [{"mode": "exact"}, {"mode": "fixed_pred", "eta": 1.0, "n": 5}, {"mode": "Exact"}]
)
def test_two_modes_are_back_propagation(options, rng):
    model, x, y = branchy(rng)

    @pxf.value_and_grad(pxu.M(pxnn.LayerParam))
    def loss(*, model):
        return pxa.mean_squared_error(
            pxf.vmap({}, in_axes=(0,))(lambda x, *, m: m(x))(x, m=model), y
        )

    value, expected = loss(model=model)
    result = pxa.pc_gradients(model, x, y, **options)
    np.testing.assert_allclose(result.loss, value)
    got, want = dict(named_params(result.gradients)), dict(named_params(expected["model"]))
    assert got.keys() == want.keys()
    assert len(got) == 6
    for path, g in want.items():
        np.testing.assert_allclose(got[path].get(), g.get(), atol=1e-12)
    assert [v.shape for v in result.activations] == [(5, 3, 3, 3), (5, 27), (5, 4), (5, 4), (5, 2)]


def test_strict_with_many_sweeps_is_at_the_fixed_point_of_pc(rng):
    net, model, x, y = problem(rng)
    equilibrium = pc.pc(net, x, y, T=20000, optim=SGD(0.05))
    result = pxa.pc_gradients(model, x, y, sum_of_squares, "strict", n=5000)
    assert_close(result.beliefs[:-1], equilibrium.h[1:-1], atol=1e-9)
    # sums over the batch, as the loss is one
    assert_close(grads_of(result), [4 * g for g in flatten(equilibrium.grads)], atol=1e-8)


def test_a_list_of_layers_is_a_model_and_an_optimiser_takes_the_gradients(rng):
    net, model, x, y = problem(rng)
    layers = [*model.layers[:-1], *[model.layers[-1]]]
    result = pxa.pc_gradients(layers, x, y, mode="exact")
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxnn.LayerParam)(layers))
    optim.step(layers, result.gradients)
    _, (dW, _), *_ = torch2pc.pc_infer(net, torch2pc.mse_mean, x, y, "exact").grads
    np.testing.assert_allclose(layers[1].linear.nn.weight.get(), net[2].W - dW, atol=1e-12)


def test_dropout_draws_the_same_units_in_every_sweep(rng):
    _, _, x, y = problem(rng)
    px.RKG.seed(3)
    model = pxnn.Sequential(pxnn.Linear(3, 64), pxnn.Dropout(0.5), pxnn.Linear(64, 2))
    key = px.RKG.key.get()
    result = pxa.pc_gradients(model, x, y, mode="fixed_pred", n=4)
    dropped = np.asarray(result.activations[1]) == 0
    assert 0.3 < dropped.mean() < 0.7
    # no error reaches a unit that was dropped, so its belief stays where it was
    still = np.asarray(result.beliefs[0]) == np.asarray(result.activations[0])
    np.testing.assert_array_equal(still, dropped)
    assert not np.array_equal(jax.random.key_data(key), jax.random.key_data(px.RKG.key.get()))


@pytest.mark.wrong_types
def test_mistakes_are_explained(rng):
    _, model, x, y = problem(rng)
    with pytest.raises(ValueError, match='mode must be "strict", "fixed_pred" or "exact"; got \'f'):
        pxa.pc_gradients(model, x, y, mode="fast")
    with pytest.raises(ValueError, match="n is the number of sweeps, an int >= 0; got -1"):
        pxa.pc_gradients(model, x, y, n=-1)
    with pytest.raises(TypeError, match=r"takes a pxnn.Sequential or a list of callables.*Linear"):
        pxa.pc_gradients(pxnn.Linear(2, 2), x, y)
    with pytest.raises(ValueError, match=r"one array for each layer, 3 .*; got 1"):
        pxa.pc_gradients(model, x, y, v_init=[x])
    with pytest.raises(ValueError, match=r"an array of shape \(4, 3\) for activations \(4, 5\)"):
        pxa.pc_gradients(model, x, y, v_init=[x, x])
    with pytest.warns(UserWarning, match="'Exact' ignores it"):
        pxa.pc_gradients(model, x, y, mode="Exact", v_init=[x, x])
