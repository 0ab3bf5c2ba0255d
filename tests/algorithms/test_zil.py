"""Z-IL: back-propagation's update, by local steps."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx.algorithms as pxa
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from tests.algorithms.networks import weights
from tests.algorithms.problems import (
    CE,
    OPTIMISERS,
    SQUARED,
    Small,
    assert_inferred,
    batch_of,
    float64,
    learned,
    model_of,
    problem,
)
from tests.oracles import zil
from tests.oracles.backprop import backprop
from tests.oracles.mlp import flatten
from tests.oracles.numerical import assert_close
from tests.oracles.optim import SGD, AdamW


@pytest.fixture(autouse=True)
def _float64():
    with float64():
        yield


@pytest.mark.parametrize(("kind", "output"), [("after", SQUARED), ("skip", CE()), ("before", CE())])
def test_the_update_is_that_of_backpropagation(kind, output):
    net, x, y = problem(kind, output)
    algorithm = pxa.ZIL(model_of(net, output), weight_optim=optax.sgd(1.0), record=True)
    grads, metrics = learned(algorithm, x, y)
    assert_close(grads, flatten(backprop(net, x, y, output)[1]), atol=1e-12)
    assert metrics["energies"].shape == (net.L + 1, net.L)


def test_states_are_the_oracles():
    net, x, y = problem("skip")
    expected = zil.zil(net, x, y)
    algorithm = pxa.ZIL(model_of(net))
    record = assert_inferred(algorithm, x, y, expected.states, nets=[net] * (net.L + 1))
    assert record.steps == net.L
    # and looking does not learn
    assert_close(weights(algorithm.model), net.params, atol=0)


@pytest.mark.parametrize("optim", [None, "transformation", "Optim", "OptimTree"])
def test_each_layer_has_its_own_optimiser_state(optim):
    # with Adam, a state shared by all layers would count L steps for each batch
    net, x, y = problem()
    transformation, theirs = optax.adamw(1e-2), AdamW(1e-2)
    if optim is None:
        ours, theirs = None, AdamW(1e-3)
    elif optim == "OptimTree":
        ours = pxu.OptimTree(transformation, lambda node: isinstance(node, pxnn.LayerParam))
    else:
        ours = transformation if optim == "transformation" else pxu.Optim(transformation)
    algorithm = pxa.ZIL(model_of(net), weight_optim=ours)
    state = theirs.init(net.params)
    for k in range(3):
        algorithm.train_step(x + k, y)
        params, state = theirs.step(net.params, flatten(backprop(net, x + k, y)[1]), state)
        net = net.with_params(params)
        assert_close(weights(algorithm.model), net.params, atol=1e-12)


@pytest.mark.parametrize(("T", "unroll"), [(4, True), (9, "auto"), (3, "auto")])
def test_the_hybrid_goes_on_with_pc(T, unroll):
    net, x, y = problem()
    ours, theirs = OPTIMISERS["momentum"]
    expected = zil.zil(net, x, y, weight_optim=SGD(0.1, 0.5), T=T, optim=theirs)
    algorithm = pxa.ZIL(model_of(net), T, ours, optax.sgd(0.1, 0.5), unroll=unroll)
    metrics = algorithm.train_step(x, y)
    assert_close(weights(algorithm.model), expected.net.params, atol=1e-12)
    # the energy of PC's weight step: in the last states, before that step
    before = expected.net.params
    assert np.isfinite(metrics["energy"])
    assert len(before) == 6


class Reversed(Small):
    """The same network with its parts listed from the output down, and a branch that merges again."""

    def __init__(self):
        super().__init__((3, 5, 5, 5, 2))
        self.side = pxnn.Linear(5, 5)
        self.side_vode = pxc.Vode((5,))
        self.layers.reverse()
        self.vodes.reverse()
        self.vodes[-1].h.frozen = False
        self.vodes[0].h.frozen = True

    def __call__(self, x, y=None):
        first, second, third, last = reversed(self.layers)
        h1, h2, h3, out = reversed(self.vodes)
        x = h1(first(x))
        x = jnp.tanh(h2(second(x))) + self.side_vode(self.side(jnp.tanh(x)))
        x = h3(third(x))
        u = last(jnp.tanh(x))
        out(u)
        if y is not None:
            out.set("h", y)
        return u


def test_layers_are_found_in_the_model_not_in_its_lists():
    x, y = batch_of()
    model, same = Reversed(), Reversed()
    for mine, other in zip(pxu.M(pxnn.LayerParam)(model).layers, same.layers, strict=True):
        other.nn.weight.set(mine.nn.weight.get())
        other.nn.bias.set(mine.nn.bias.get())
    same.side.nn.weight.set(model.side.nn.weight.get())
    same.side.nn.bias.set(model.side.nn.bias.get())
    pxa.ZIL(model, weight_optim=optax.sgd(0.1)).train_step(x, y)
    pxa.Backprop(same, weight_optim=optax.sgd(0.1)).train_step(x, y)
    for mine, other in zip([*model.layers, model.side], [*same.layers, same.side], strict=True):
        np.testing.assert_allclose(mine.nn.weight, other.nn.weight, atol=1e-12)
        np.testing.assert_allclose(mine.nn.bias, other.nn.bias, atol=1e-12)


class LongSkip(Small):
    def __call__(self, x, y=None):
        first = super().__call__(x, None)
        u = first + self.vodes[0].get("h")[:2]
        self.vodes[-1].set("u", u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


class Shared(Small):
    def __init__(self):
        super().__init__((3, 3, 3, 3))
        self.layers[2] = self.layers[1]


class Noisy(Small):
    def __init__(self):
        super().__init__()
        self.drop = pxnn.Dropout(0.5)
        self.act = lambda x: x

    def __call__(self, x, y=None):
        return super().__call__(self.drop(x), y)


def test_networks_that_cannot_learn_this_way_are_refused():
    x, y = batch_of()
    with pytest.raises(ValueError, match=r"`vodes\[0\]` is 1 steps away.*feeds `vodes\[1\]`"):
        pxa.ZIL(LongSkip()).train_step(x, y)
    with pytest.raises(
        ValueError, match=r"`layers\[1\]\.nn\.weight` is used in layers 0 and 1 steps"
    ):
        pxa.ZIL(Shared()).train_step(x, x)
    with pytest.raises(ValueError, match=r"but that of `vodes\[0\]` need not be"):
        pxa.ZIL(Noisy()).train_step(x, y)
    with pytest.raises(ValueError, match="at least 3 steps; got T=2"):
        pxa.ZIL(Small(), 2).train_step(x, y)


@pytest.mark.parametrize("options", [{"init": "zero"}, {"stop": pxa.Stop(energy_rtol=0.1)}])
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match="ZIL has steps of its own"):
        pxa.ZIL(Small(), **options)


def test_frozen_weights_do_not_move():
    net, x, y = problem()
    model = model_of(net)
    model.blocks[1].linear.nn.weight.frozen = True
    grads, _ = learned(pxa.ZIL(model, weight_optim=optax.sgd(1.0)), x, y)
    want = flatten(backprop(net, x, y)[1])
    want[2] = np.zeros_like(want[2])
    assert_close(grads, want, atol=1e-12)
