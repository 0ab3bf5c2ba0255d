"""What the tests of algorithms share: problems with an oracle, optimiser pairs, counters of traces."""

import collections
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx.nn as pxnn
import pcx.predictive_coding as pxc
from tests.algorithms.networks import Network, float64, weights
from tests.oracles import optim as oracle_optim
from tests.oracles import pc
from tests.oracles.energy import CE, SQUARED
from tests.oracles.numerical import assert_close, data, net_of

__all__ = ["CE", "SQUARED", "Decoder", "Traces", "float64", "learned", "model_of", "problem"]

# our optimiser, and the oracle's
OPTIMISERS = {
    "sgd": (optax.sgd(0.1), oracle_optim.SGD(0.1)),
    "momentum": (optax.sgd(0.1, 0.5), oracle_optim.SGD(0.1, 0.5)),
    "nesterov": (optax.sgd(0.1, 0.5, nesterov=True), oracle_optim.SGD(0.1, 0.5, True)),
    "adam": (optax.adam(0.05), oracle_optim.Adam(0.05)),
    "adamw": (optax.adamw(0.05), oracle_optim.AdamW(0.05)),
}


def problem(kind="after", output=SQUARED, seed=0, batch=3):
    """(oracle network, x, y)."""
    rng = np.random.default_rng(seed)
    net = net_of(kind, rng)
    return net, *data(rng, net, batch, one_hot=isinstance(output, CE))


def model_of(net, output=SQUARED):
    return Network(net, pxc.ce_energy if isinstance(output, CE) else pxc.se_energy)


def learned(algorithm, x, y):
    """(what one train_step subtracted from the weights, its metrics): the gradient, with sgd(1.0)."""
    before = weights(algorithm.model)
    metrics = algorithm.train_step(x, y)
    after = weights(algorithm.model)
    return [a - b for a, b in zip(before, after, strict=True)], metrics


def assert_inferred(algorithm, x, y, expected, output=SQUARED, nets=None, atol=1e-12):
    """Trajectory and node energies of `infer` against an oracle's list of states (h_0 ... h_L)."""
    _, record = algorithm.infer(x, y, trajectory=True)
    L = len(expected[0]) - 1
    for k in range(L):
        assert_close(record.states[k], [h[k + 1] for h in expected], atol=atol)
    nets = nets or [None] * len(expected)
    for energies, h, net in zip(record.energies, expected, nets, strict=True):
        if net is not None:
            np.testing.assert_allclose(
                energies, pc.node_energies(net, h, output)[1:].mean(-1), atol=atol
            )
    return record


class Traces:
    """A metric that counts how often a training step was traced."""

    # not in the object: a metric whose attributes change is another metric, and traced again
    counts: ClassVar = collections.Counter()

    def __init__(self):
        self.counts[id(self)] = 0

    @property
    def count(self):
        return self.counts[id(self)]

    def __call__(self, prediction, y):
        self.counts[id(self)] += 1
        return jnp.zeros(())


class Decoder(pxc.EnergyModule):
    """A generative network: a free latent node with a standard normal prior, and `y` at the other end."""

    def __init__(self, net):
        self.network = Network(net)
        self.latent = pxc.Vode((net[1].W.shape[1],))

    def __call__(self, x=None, y=None):
        del x
        return self.network(self.latent(jnp.zeros(self.latent.shape)), y)


class Conv(pxc.EnergyModule):
    """A convolution of 6 x 6 pixels, pooled, and a head with cross-entropy."""

    def __init__(self):
        self.conv, self.head = pxnn.Conv2d(1, 2, 3), pxnn.Linear(8, 2)
        self.vodes = [pxc.Vode((2, 4, 4)), pxc.Vode((2,), pxc.ce_energy)]
        self.vodes[-1].h.frozen = True
        self.pool = pxnn.AvgPool2d(2, 2)

    def __call__(self, x, y=None):
        u = self.head(jnp.ravel(self.pool(self.vodes[0](jnp.tanh(self.conv(x))))))
        self.vodes[1](u)
        if y is not None:
            self.vodes[1].set("h", y)
        return u


class Small(pxc.EnergyModule):
    """An MLP for tests that need no oracle."""

    def __init__(self, dims=(3, 5, 4, 2), energy_fn=pxc.se_energy, act=jnp.tanh):
        pairs = zip(dims[:-1], dims[1:], strict=True)
        self.layers = [pxnn.Linear(a, b) for a, b in pairs]
        self.vodes = [pxc.Vode((n,)) for n in dims[1:-1]] + [pxc.Vode((dims[-1],), energy_fn)]
        self.vodes[-1].h.frozen = True
        self.act = act

    def __call__(self, x, y=None):
        for layer, vode in zip(self.layers, self.vodes, strict=True):
            u = layer(self.act(x))
            x = vode(u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


def batch_of(n=6, dims=(3, 2), seed=0):
    a, b = jax.random.split(jax.random.PRNGKey(seed))
    return jax.random.normal(a, (n, dims[0])), jax.random.normal(b, (n, dims[1]))
