"""Regularisers as energy terms, against raw JAX."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

RNG = np.random.default_rng(1)
X = RNG.normal(size=(6, 3)).astype("f4")
Y = RNG.normal(size=(6, 2)).astype("f4")


def activity(weights, states):
    return sum(0.5 * jnp.sum(h**2) for h in states)


def decay(weights, states):
    return sum(jnp.sum(w**2) for w in weights)


def spectral(weights, states):
    return sum(jnp.sum((w.T @ w - jnp.eye(w.shape[1])) ** 2) for w in weights)


PENALTIES = {
    "activity": (pxc.ActivityDecay, activity),
    "weights": (pxc.WeightDecay, decay),
    "spectral": (pxc.SpectralPenalty, spectral),
}


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("lazy", [True, False])
def test_a_training_step_with_it_is_that_of_raw_jax(name, lazy):
    cls, penalty = PENALTIES[name]
    net = pxm.MLP([3, 5, 4, 2], jnp.tanh)
    w = [layer.nn.weight.get() for layer in net.layers]
    b = [layer.nn.bias.get() for layer in net.layers]

    def predictions(w, x, states):
        return [f(w @ h + c) for f, w, h, c in zip(ACTS, w, (x, *states), b, strict=True)]

    ACTS = (jnp.tanh, jnp.tanh, lambda a: a)

    def energy(w, states, x, y):
        us = predictions(w, x, states)
        errors = sum(0.5 * jnp.sum((h - u) ** 2) for h, u in zip((*states, y), us, strict=True))
        return errors + 0.3 * penalty(w, states)

    def one(x, y):
        h = jnp.tanh(w[0] @ x + b[0])
        states = [h, jnp.tanh(w[1] @ h + b[1])]
        for _ in range(5):
            grads = jax.grad(energy, 1)(w, states, x, y)
            states = [h - 0.1 * g for h, g in zip(states, grads, strict=True)]
        return jax.value_and_grad(energy)(w, states, x, y)

    values, grads = jax.vmap(one)(X, Y)
    net.penalty = cls(0.3)
    pc = pxa.PC(net, 5, optax.sgd(0.1), optax.sgd(0.2), lazy=lazy)
    np.testing.assert_allclose(pc.train_step(X, Y)["energy"], values.mean(), rtol=1e-5)
    for layer, old, g in zip(net.layers, w, grads, strict=True):
        # of the mean over the batch, in which the penalty is once
        np.testing.assert_allclose(layer.nn.weight, old - 0.2 * g.mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("jitted", [False, True])
def test_penalties_add_up_and_equal_ones_are_two(jitted):
    net = pxm.MLP([3, 2])
    w = np.asarray(net.layers[0].nn.weight)
    with pxu.step(net, pxc.STATUS.INIT):
        net(X[0])
    net.first, net.second = pxc.WeightDecay(0.5), pxc.WeightDecay(0.5)
    net.third = net.second  # one object reached twice is one
    energy = lambda *, net: net.energy()
    energy = pxf.jit()(energy) if jitted else energy
    np.testing.assert_allclose(energy(net=net), (w**2).sum(), rtol=1e-6)


def test_changing_the_strength_does_not_compile_again():
    net, traces = pxm.MLP([3, 2]), 0
    net.decay = pxc.WeightDecay(1.0)
    with pxu.step(net, pxc.STATUS.INIT):
        net(X[0])

    @pxf.jit()
    def energy(*, net):
        nonlocal traces
        traces += 1
        return net.energy()

    one = energy(net=net)
    net.decay.strength.set(jnp.float32(3.0))
    np.testing.assert_allclose(energy(net=net), 3 * one, rtol=1e-6)
    assert traces == 1


def test_it_changes_no_path_no_file_and_no_mask(tmp_path):
    plain, regular = pxm.MLP([3, 5, 2]), pxm.MLP([3, 5, 2])
    regular.a_decay = pxc.WeightDecay(1e-3)
    regular.b_decay = pxc.ActivityDecay(1e-3)
    names = lambda net: [path for path, p in px.core.named_params(pxu.M(pxnn.LayerParam)(net))]
    assert names(plain) == names(regular)
    assert len(pxc.vodes(regular)) == 2
    pxu.save_params(plain, tmp_path / "net")
    pxu.load_params(regular, tmp_path / "net")
    np.testing.assert_array_equal(plain.layers[0].nn.weight, regular.layers[0].nn.weight)


def test_it_acts_on_the_module_that_holds_it_alone():
    class Pair(pxc.EnergyModule):
        def __init__(self):
            self.parts = [pxm.MLP([3, 2]), pxm.MLP([3, 2])]

        def __call__(self, x):
            return [part(x) for part in self.parts]

    pair = Pair()
    pair.parts[0].decay = pxc.WeightDecay(1.0)
    with pxu.step(pair, pxc.STATUS.INIT):
        pair(X[0])
    first, second = (np.asarray(part.layers[0].nn.weight) for part in pair.parts)
    np.testing.assert_allclose(pair.energy(), (first**2).sum(), rtol=1e-6)
    pair.decay = pair.parts[0].decay
    del pair.parts[0].decay
    np.testing.assert_allclose(pair.energy(), (first**2).sum() + (second**2).sum(), rtol=1e-6)


def test_a_stack_counts_each_layer_s_matrix_and_no_bias():
    stack = pxc.Stack(lambda: pxnn.Linear(4, 4), 3, shape=(4,))
    stack.decay, stack.spectral = pxc.WeightDecay(0.5), pxc.SpectralPenalty(0.1)
    with pxu.step(stack, pxc.STATUS.INIT):
        stack(jnp.ones(4))
    ws = list(stack.block.nn.weight.get())

    class Holder(pxc.EnergyModule):
        def __init__(self):
            self.stack = stack

    want = 0.5 * decay(ws, []) + 0.1 * spectral(ws, [])
    np.testing.assert_allclose(Holder().energy(), want, rtol=1e-5)


def test_frozen_weights_and_states_do_not_count_and_a_filter_chooses():
    net = pxm.MLP([3, 5, 2])
    net.decay = pxc.WeightDecay(1.0)
    with pxu.step(net, pxc.STATUS.INIT):
        net(X[0])
    first, second = (np.asarray(layer.nn.weight) for layer in net.layers)
    net.layers[0].nn.weight.frozen = True
    np.testing.assert_allclose(net.energy(), (second**2).sum(), rtol=1e-6)
    wide = lambda p: isinstance(p, pxnn.LayerParam) and p.shape == (5, 3)
    net.layers[0].nn.weight.frozen = False
    net.decay = pxc.WeightDecay(1.0, filter=wide)
    np.testing.assert_allclose(net.energy(), (first**2).sum(), rtol=1e-6)


def test_a_batch_of_states_has_one_activity_for_each_sample():
    vode = pxc.Vode((3,)).set("h", jnp.asarray(X)).set("u", jnp.asarray(X))

    class Net(pxc.EnergyModule):
        def __init__(self):
            self.vode, self.decay = vode, pxc.ActivityDecay(2.0)

    np.testing.assert_allclose(Net().energy(), (X**2).sum(-1), rtol=1e-6)


def test_a_model_with_penalties_can_be_copied_and_pickled():
    net = pxm.MLP([3, 2])
    net.decay = pxc.WeightDecay(1.0)
    with pxu.step(net, pxc.STATUS.INIT):
        net(X[0])
    want = float(net.energy())
    assert float(copy.deepcopy(net).energy()) == want
    assert float(pickle.loads(pickle.dumps(pxc.WeightDecay(0.25))).strength) == 0.25


def test_wrong_uses_say_what_to_write():
    with pytest.raises(ValueError, match=r"WeightDecay is not part of a model's energy yet"):
        pxc.WeightDecay(1.0).energy()
    with pytest.raises(ValueError, match=r"ActivityDecay: strength is a number >= 0; got -1"):
        pxc.ActivityDecay(-1)
    net = pxm.MLP([3, 5, 2])
    net.decay = pxc.WeightDecay(1.0, filter=pxnn.StateParam)
    with pxu.step(net, pxc.STATUS.INIT):
        net(X[0])
    with pytest.raises(ValueError, match=r"StateParam.* selects no param of this MLP"):
        net.energy()
    net.decay = pxc.ActivityDecay(1.0)
    net.clear_params(pxc.VodeParam)
    with pytest.raises(ValueError, match="has no state h"):
        net.decay.penalty(net)


def test_energy_modules_gives_penalties_that_know_their_model():
    net = pxm.MLP([3, 2])
    net.decay = pxc.WeightDecay(0.5)
    [penalty] = [m for m in pxc.energy_modules(net) if isinstance(m, pxc.Penalty)]
    want = 0.5 * (np.asarray(net.layers[0].nn.weight) ** 2).sum()
    np.testing.assert_allclose(penalty.energy(), want, rtol=1e-6)
