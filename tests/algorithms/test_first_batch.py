"""The first trained batch tells of mistakes that train without an error; each planted here once."""

import warnings

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc

X = np.linspace(-1, 1, 8 * 4, dtype=np.float32).reshape(8, 4)
Y = np.eye(2, dtype=np.float32)[np.arange(8) % 2]


class Net(pxc.EnergyModule):
    """One hidden node and an output; the faults are options."""

    def __init__(self, clamp=True, freeze=True, energy_fn=pxc.se_energy):
        self.layers = [pxnn.Linear(4, 6), pxnn.Linear(6, 2)]
        self.hidden, self.out = pxc.Vode((6,)), pxc.Vode((2,), energy_fn)
        self.out.h.frozen = freeze
        self.clamp = clamp

    def __call__(self, x, y=None):
        u = self.layers[1](self.hidden(jnp.tanh(self.layers[0](x))))
        self.out(u)
        if y is not None and self.clamp:
            self.out.set("h", y)
        return u


def pc(model=None, rate=0.1, T=4, **options):
    model = Net() if model is None else model
    return pxa.PC(model, T, optax.sgd(rate), optax.sgd(1e-3), **options)


def said(algorithm, x=X, y=Y, batches=1):
    """The warnings of training on a batch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(batches):
            algorithm.train_step(x, y)
    return [str(w.message) for w in caught]


def test_a_right_program_hears_nothing():
    assert said(pc()) == []


@pytest.mark.parametrize(
    ("model", "data", "match"),
    [
        (lambda: Net(clamp=False), (X, Y), "PC: the energy does not depend on y.*Clamp it"),
        (lambda: Net(freeze=False), (X, Y), r"clamped on `out`.*`self\.out\.h\.frozen = True`"),
        (lambda: Net(energy_fn=None), (X, Y), "PC: the energy does not depend on y"),
        (lambda: pxm.MLP([4, 2]), (np.zeros_like(X), np.zeros_like(Y)), "energy is exactly 0"),
        (Net, (np.round(np.abs(X) * 255), Y), "x holds integers from 8 to 255.*divide by 255"),
        (Net, ((np.abs(X) * 255).astype(np.uint8), Y), "x holds integers from 8 to 255"),
        (Net, (np.where(X > 0.9, np.nan, X), Y), "energy of the first batch is nan.*Look for"),
    ],
    ids=["unclamped", "unfrozen", "no energy", "zero", "pixels", "uint8 pixels", "nan"],
)
def test_each_planted_fault_is_told_once_with_what_to_write(model, data, match):
    made = model()
    if isinstance(made, pxm.MLP):
        made.layers[0].nn.bias.set(jnp.zeros(2))
    algorithm = pc(made)
    with pytest.warns(UserWarning, match=match) as caught:
        algorithm.train_step(*data)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert said(algorithm, *data) == []  # no cost later, and no nagging


def test_tokens_and_scaled_pixels_are_no_pixels():
    assert said(pc(), np.round(np.abs(X) * 255) / 255) == []
    assert said(pc(), np.round(X * 255)) == []  # negative: standardised already


def test_a_mask_that_trains_nothing_is_told():
    model = Net()
    for layer in model.layers:
        layer.nn.weight.frozen = layer.nn.bias.frozen = True
    with pytest.warns(UserWarning, match="PC: no weight learns. Every layer is frozen") as caught:
        pc(model).train_step(X, Y)
    assert len(caught) == 1


def hessian_limit(model):
    """2 / lambda of the hidden node's energy by hand: F = |h - u|^2 / 2 + |y - W h - b|^2 / 2."""
    W = np.asarray(model.layers[1].nn.weight.get(), np.float64)
    return 2 / np.linalg.eigvalsh(np.eye(6) + W.T @ W).max()


def test_a_state_rate_that_is_too_large_is_told_with_the_largest_stable_one():
    model = Net()
    limit = hessian_limit(model)
    assert said(pc(Net(), 0.5 * limit, T=12)) == []
    with pytest.warns(
        UserWarning, match="inference raised the energy of its first batch"
    ) as caught:
        pc(model, 1.5 * limit, T=12).train_step(X, Y)
    (message,) = [str(w.message) for w in caught]
    named = float(message.split("state rate of ")[1].split(" ")[0])
    np.testing.assert_allclose(named, limit, rtol=0.02)


def test_a_learning_energy_of_ones_own_is_not_compared_with_that_of_inference():
    class Other(pxa.PC):
        def learning_energy(self, x, y, *, model):
            return 100 * super().learning_energy(x, y, model=model)

    assert said(Other(Net(), 4, optax.sgd(0.1), optax.sgd(1e-5))) == []


def test_states_that_overflow_are_told_with_the_stable_rate():
    with pytest.warns(UserWarning, match="energy of the first batch is (nan|inf).*stable below"):
        pc(rate=1e10, T=40).train_step(X, Y)


def test_the_look_changes_no_number_and_draws_no_key():
    def run(look):
        px.RKG.seed(0)
        algorithm = pc(pxm.MLP([4, 6, 2]))
        if not look:
            object.__setattr__(algorithm, "_unseen", False)
        energies = [float(algorithm.train_step(X, Y)["energy"]) for _ in range(3)]
        weights = [np.asarray(p.get()) for p in algorithm.weights()]
        return energies, weights

    (seen, a), (unseen, b) = run(True), run(False)
    assert seen == unseen
    assert all(map(np.array_equal, a, b))


def test_algorithms_without_a_label_or_a_descent_hear_nothing():
    assert said(pxa.Backprop(Net(), weight_optim=optax.sgd(1e-3))) == []
    assert said(pxa.IPC(Net(), 4, optax.sgd(0.1), optax.sgd(1e-3))) == []
    assert said(pxa.EPC(Net(), 4, optax.sgd(0.1), optax.sgd(1e-3))) == []
