"""Equilibrium propagation and red-black sweeps: against NumPy, closed forms and finite differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.analysis as pxan
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from pcx.algorithms._red_black import colours_of
from tests.algorithms.networks import Network, float64
from tests.algorithms.problems import (
    CE,
    SQUARED,
    Conv,
    Small,
    assert_inferred,
    learned,
    model_of,
    problem,
)
from tests.oracles import equilibrium, linear
from tests.oracles.backprop import backprop
from tests.oracles.mlp import flatten, make_mlp
from tests.oracles.numerical import assert_close, data, param_gradients

SGD = optax.sgd(1.0)


@pytest.fixture(autouse=True)
def _float64():
    px.RKG.seed(0)
    with float64():
        yield


def make(net, output=SQUARED, T=4, state_optim=None, **options):
    return pxa.EquilibriumProp(model_of(net, output), T, state_optim, SGD, **options)


def relative(actual, expected):
    norm = lambda parts: np.sqrt(sum(np.sum(np.square(a)) for a in parts))
    return norm([a - b for a, b in zip(actual, expected, strict=True)]) / norm(expected)


def tanh_net(seed=0, dims=(3, 5, 4, 2), **options):
    return make_mlp(np.random.default_rng(seed), list(dims), "tanh", "after", **options)


# --- the phases and the sweeps --------------------------------------------------------------------------


def test_sweeps_are_those_of_numpy():
    net, x, y = problem("after", CE())
    algorithm = make(net, CE(), 4, pxa.RedBlack(damping=0.1), beta=0.3, mode="negative")
    _, record = algorithm.infer(x, y, trajectory=True)
    wanted = equilibrium.sweeps(net, x, y, 4, -0.3, CE(), damping=0.1)
    for k in range(net.L):
        assert_close(record.states[k], [h[k + 1] for h in wanted], atol=1e-12)
    F = [equilibrium.energy(net, h, y, -0.3, CE()).mean() for h in wanted]
    np.testing.assert_allclose(record.energies.sum(-1), F, atol=1e-12)


@pytest.mark.parametrize(
    ("mode", "output", "kind"),
    [("positive", SQUARED, "skip"), ("centred", CE(), "before")],
)
def test_gradients_are_those_of_numpy(mode, output, kind):
    net, x, y = problem(kind, output)
    signed = {"positive": [0.3], "negative": [-0.3], "centred": [0.3, -0.3]}[mode]
    ends = [(equilibrium.sweeps(net, x, y, 3, b, output)[-1], b) for b in signed]
    phases = [flatten(equilibrium.ep_gradient(net, h, y, b, output)) for h, b in ends]
    algorithm = make(net, output, 3, beta=0.3, mode=mode)
    grads, metrics = learned(algorithm, x, y)
    assert_close(grads, [sum(g) / len(g) for g in zip(*phases, strict=True)], atol=1e-11)
    F = [equilibrium.energy(net, h, y, b, output).mean() / b for h, b in ends]
    np.testing.assert_allclose(metrics["energy"], np.mean(F), atol=1e-12)
    # the model is as it was
    last = algorithm.model.vodes[-1]
    assert last.is_frozen
    assert last.energy_fn in (pxc.se_energy, pxc.ce_energy)
    assert not hasattr(last, "target")


def test_the_target_of_a_subclass_is_the_one_of_the_cost():
    class Smoothed(pxa.EquilibriumProp):
        def target(self, y, prediction):
            return 0.9 * y + 0.05 * prediction

    net, x, y = problem("after", CE())
    prediction = make(net, CE()).predict(x)
    ours, _ = learned(Smoothed(model_of(net, CE()), 4, None, SGD), x, y)
    expected, _ = learned(make(net, CE()), x, 0.9 * y + 0.05 * prediction)
    assert_close(ours, expected, atol=1e-12)


def test_a_random_sign_is_drawn_for_each_sample():
    net, x, y = problem("after")
    h = {b: equilibrium.sweeps(net, x, y, 4, b)[-1] for b in (0.3, -0.3)}
    one = {
        (i, b): flatten(equilibrium.ep_gradient(net, [a[i : i + 1] for a in h[b]], y[i : i + 1], b))
        for i, b in itertools.product(range(3), h)
    }
    algorithm, seen = make(net, beta=0.3, mode="random"), set()
    for _ in range(12):
        algorithm.model = model_of(net)
        grads, _ = learned(algorithm, x, y)
        matches = []
        for signs in itertools.product(h, repeat=3):
            parts = [one[i, b] for i, b in enumerate(signs)]
            want = [sum(arrays) / 3 for arrays in zip(*parts, strict=True)]
            if relative(grads, want) < 1e-10:
                matches.append(signs)
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 2


@pytest.mark.parametrize("project", ["pgd", "mod"])
def test_projected_sweeps_are_those_of_numpy(project):
    class Known(Network):
        def __call__(self, x, y=None):
            for block, vode in zip(self.blocks[:-1], self.vodes[:-1], strict=True):
                a = block.affine(x)
                x = vode(jax.nn.relu(a), a=a)
            u = self.blocks[-1](x)
            self.vodes[-1](u)
            if y is not None:
                self.vodes[-1].set("h", y)
            return u

    net = make_mlp(np.random.default_rng(1), [3, 6, 6, 2], "relu", "after")
    x, y = data(np.random.default_rng(2), net, 4)
    wanted = equilibrium.sweeps(net, x, y, 3, 0.5, project=project, damping=0.1)
    solver = pxa.RedBlack(project, damping=0.1)
    algorithm = pxa.EquilibriumProp(Known(net), 3, solver, SGD, beta=0.5, mode="positive")
    _, record = algorithm.infer(x, y, trajectory=True)
    for k in range(net.L):
        assert_close(record.states[k], [h[k + 1] for h in wanted], atol=1e-12)
    plain = equilibrium.sweeps(net, x, y, 3, 0.5, damping=0.1)[-1]
    assert max(np.abs(a - b).max() for a, b in zip(plain, wanted[-1], strict=True)) > 1e-3
    with pytest.raises(ValueError, match=r"needs nodes that know their pre-activation"):
        make(net, T=1, state_optim=solver).infer(x, y)


def test_sweeps_serve_predictive_coding():
    net, x, y = problem("after")
    wanted = equilibrium.sweeps(net, x, y, 5)
    assert_inferred(pxa.PC(model_of(net), 5, pxa.RedBlack()), x, y, wanted)


class Residual(pxc.EnergyModule):
    """h_3 is predicted from h_2 and h_1."""

    def __init__(self):
        self.layers = [pxnn.Linear(3, 4), *(pxnn.Linear(4, 4) for _ in range(3)), pxnn.Linear(4, 2)]
        self.vodes = [pxc.Vode((4,)) for _ in range(4)] + [pxc.Vode((2,))]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        h = [x]
        for k, (layer, vode) in enumerate(zip(self.layers, self.vodes, strict=True)):
            h.append(vode(layer(jnp.tanh(h[-1])) + (h[1] if k == 2 else 0.0)))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


def test_states_of_one_colour_share_no_energy():
    x, y = jnp.ones((2, 3)), jnp.zeros((2, 2))
    model = Small((3, 5, 4, 4, 4, 2))
    pxa.PC(model).initialise(x, y)
    assert colours_of(x, y, model) == [[1, 3], [0, 2]]
    # h_1, h_2 and h_3 meet in the energy of h_3
    model = Residual()
    pxa.PC(model).initialise(x, y)
    assert colours_of(x, y, model) == [[2], [1], [0, 3]]


# --- the oracles of the theory --------------------------------------------------------------------------


def test_on_linear_networks_it_is_pc_with_an_output_of_precision_beta_over_one_plus_beta():
    net, x, y = problem("linear")
    algorithm = make(net, T=400, state_optim=pxa.RedBlack(damping=0.3), mode="positive")
    for beta in (0.4, -0.1):
        algorithm.beta.set(jnp.asarray(beta))
        algorithm.infer(x, y)
        closed = pxan.LinearNetwork.from_weights(
            [layer.W for layer in net.layers],
            [layer.b for layer in net.layers],
            precision=beta / (1 + beta),
        )
        states = [v.h.get() for v in pxc.vodes(algorithm.model)]
        assert_close(states[:-1], closed.equilibrium_states(x, y), atol=1e-9)
        # F* = 1/2 r' (I / beta + S)^-1 r
        r = y - net.forward(x)[-1]
        S = np.eye(2) / beta + linear.rescaling(net)
        F = algorithm.energy(x, y)
        np.testing.assert_allclose(F, 0.5 * (r * np.linalg.solve(S, r.T).T).sum(-1), rtol=1e-9)
        np.testing.assert_allclose(F, closed.equilibrium_energy(x, y), rtol=1e-9)


def test_a_negative_beta_has_a_minimum_up_to_one_over_the_largest_eigenvalue_of_s():
    net, x, y = problem("linear")
    bound = 1 / np.linalg.eigvalsh(linear.rescaling(net))[-1]
    algorithm = make(net, T=3000, state_optim=optax.sgd(0.1), mode="negative")
    ends = []
    for factor in (0.9, 1.1):
        algorithm.beta.set(jnp.asarray(factor * bound))
        energies = algorithm.infer(x, y)[1].energies.sum(-1)
        ends.append((abs(energies[-1] - energies[-2]) / abs(energies[-1]), energies[-1]))
    assert ends[0][0] < 1e-6  # it settled
    assert ends[1][1] < 1e3 * ends[0][1] < 0  # it falls without end


@pytest.mark.parametrize(("mode", "order"), [("negative", 1), ("centred", 2)])
def test_the_distance_to_backpropagation_has_its_order_in_beta(mode, order):
    net = tanh_net()
    x, y = data(np.random.default_rng(1), net, 3, one_hot=True)
    wanted = flatten(backprop(net, x, y, CE())[1])
    algorithm = make(net, CE(), 100, pxa.RedBlack(damping=0.3), mode=mode)
    errors = []
    for beta in (0.05, 0.025):
        algorithm.model = model_of(net, CE())
        algorithm.beta.set(jnp.asarray(beta))
        errors.append(relative(learned(algorithm, x, y)[0], wanted))
    assert errors[0] < 0.2
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.25)


def test_the_estimate_is_the_gradient_of_the_least_energy():
    net, output = tanh_net(3), CE()
    x, y = data(np.random.default_rng(1), net, 2, one_hot=True)
    beta = 0.2

    def least(net):
        F = lambda b: equilibrium.energy(
            net, equilibrium.newton(net, x, y, b, output), y, b, output
        )
        return (F(beta) - F(-beta)).mean() / (2 * beta)

    algorithm = make(net, output, 200, pxa.RedBlack(damping=0.3), beta=beta)
    grads, metrics = learned(algorithm, x, y)
    np.testing.assert_allclose(metrics["energy"], least(net), rtol=1e-9)
    assert_close(grads, param_gradients(least, net), atol=1e-7)


def test_as_many_sweeps_as_layers_and_a_small_nudge_are_backpropagation():
    net = tanh_net(4, (3, 5, 5, 5, 2))
    x, y = data(np.random.default_rng(1), net)
    grads, _ = learned(make(net, T=4, beta=1e-3), x, y)
    assert relative(grads, flatten(backprop(net, x, y)[1])) < 1e-4


# --- models --------------------------------------------------------------------------------------------


def residual_loss(weights, x, y):
    """By hand, batch mean; weights and biases in turns, in the order of the layers."""
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    h = [x]
    for k, (W, bias) in enumerate(layers):
        h.append(jnp.tanh(h[-1]) @ W.T + bias + (h[1] if k == 2 else 0.0))
    return 0.5 * jnp.sum(jnp.square(h[-1] - y)) / len(x)


def conv_loss(weights, x, y):
    kernel, conv_bias, W, bias = weights
    h = jnp.tanh(jax.lax.conv(x, kernel, (1, 1), "VALID") + conv_bias)
    h = h.reshape(len(x), 2, 2, 2, 2, 2).mean((3, 5)).reshape(len(x), -1)
    return -jnp.sum(y * jax.nn.log_softmax(h @ W.T + bias)) / len(x)


@pytest.mark.parametrize(
    ("cls", "loss", "shape", "T"),
    [(Conv, conv_loss, (3, 1, 6, 6), 2), (Residual, residual_loss, (3, 3), 30)],
)
def test_with_convolutions_and_skips_it_comes_close_to_backpropagation(cls, loss, shape, T):
    x = jax.random.normal(jax.random.key(0), shape)
    y = jnp.eye(2)[jnp.array([0, 1, 1])]
    algorithm = pxa.EquilibriumProp(cls(), T, None, SGD, beta=1e-3, donate=False)
    before = [w.get() for w in algorithm.weights()]
    wanted = jax.grad(loss)(before, x, y)
    algorithm.train_step(x, y)
    ours = [a - w.get() for a, w in zip(before, algorithm.weights(), strict=True)]
    assert relative(ours, wanted) < 1e-5  # O(beta^2)


@pytest.mark.wrong_types
def test_what_does_not_rest_after_the_forward_pass_is_refused():
    x, y = jnp.ones((2, 3)), jnp.zeros((2, 2))
    model = Small()
    model.vodes[0] = pxc.GaussianVode((5,))
    with pytest.raises(ValueError, match=r"must rest .* `vodes\[0\]` has a gradient"):
        pxa.EquilibriumProp(model).train_step(x, y)

    class Decaying(pxa.EquilibriumProp):
        def sample_energies(self, x, y, *, model):
            F = super().sample_energies(x, y, model=model)
            return F + 0.1 * jnp.sum(model.vodes[0].get("h") ** 2, axis=-1)

    with pytest.raises(ValueError, match=r"must rest .* `Decaying.sample_energies` that is not kn"):
        Decaying(Small()).train_step(x, y)
    unclamped = Small()
    unclamped.vodes[-1].h.frozen = False
    with (
        pytest.warns(UserWarning, match="not frozen"),
        pytest.raises(ValueError, match="no output"),
    ):
        pxa.EquilibriumProp(unclamped).train_step(x, y)
    with pytest.raises(ValueError, match="needs y"):
        pxa.EquilibriumProp(Small()).train_step(x)
    with pytest.raises(ValueError, match='init="forward"'):
        pxa.EquilibriumProp(Small(), init="zero")
    with pytest.raises(ValueError, match="mode must be one of"):
        pxa.EquilibriumProp(Small(), mode="forward")
    with pytest.raises(ValueError, match="beta must be positive"):
        pxa.EquilibriumProp(Small(), beta=-0.1)


def test_an_energy_of_a_subclass_that_is_declared_to_rest_is_used():
    class Halved(pxa.EquilibriumProp):
        @pxa.lazy_safe
        def inference_energy(self, x, y, *, model):
            return 0.5 * super().inference_energy(x, y, model=model)

    net, x, y = problem("after", CE())
    options = {"T": 3, "weight_optim": SGD, "beta": 0.1}
    ours, _ = learned(Halved(model_of(net, CE()), state_optim=optax.sgd(0.4), **options), x, y)
    slower = pxa.EquilibriumProp(model_of(net, CE()), state_optim=optax.sgd(0.2), **options)
    expected, _ = learned(slower, x, y)
    assert_close(ours, expected, atol=1e-12)


@pytest.mark.wrong_types
def test_red_black_refuses_what_it_cannot_sweep():
    x, y = jnp.ones((2, 3)), jnp.zeros((2, 2))
    with pytest.raises(ValueError, match="EPC steps other variables than the states"):
        pxa.EPC(Small(), state_optim=pxa.RedBlack()).infer(x, y)

    class Stacked(pxc.EnergyModule):
        def __init__(self):
            self.stack = pxc.Stack(lambda: pxnn.Linear(3, 3), 2, shape=(3,))
            self.out = pxc.Vode((3,))
            self.out.h.frozen = True

        def __call__(self, x, y=None):
            self.out(self.stack(x))
            if y is not None:
                self.out.set("h", y)
            return self.out.get("u")

    with pytest.raises(ValueError, match="layers of a Stack are one state"):
        pxa.PC(Stacked(), state_optim=pxa.RedBlack()).infer(x, jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="project must be"):
        pxa.RedBlack("relu")
    with pytest.raises(ValueError, match="damping must be in"):
        pxa.RedBlack(damping=1.0)
