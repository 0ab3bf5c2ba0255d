"""A pcx model with the very weights of a NumPy oracle network, in float64."""

import contextlib

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np

import pcx.nn as pxnn
import pcx.predictive_coding as pxc

ACTIVATIONS = {
    "identity": lambda x: x,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
}


@contextlib.contextmanager
def float64():
    # older versions of JAX have it in `jax.experimental`
    place = jax if hasattr(jax, "enable_x64") else jax.experimental
    with place.enable_x64(True):
        yield


def linear(W, b):
    layer = pxnn.Linear(W.shape[1], W.shape[0], bias=b is not None)
    layer.nn.weight.set(jnp.asarray(W))
    if b is not None:
        layer.nn.bias.set(jnp.asarray(b))
    return layer


class Block(pxnn.Sequential):
    """One layer of an oracle network: `u = [h +] f(a W h + b)` or `[h +] a W f(h) + b`."""

    def __init__(self, layer):
        self.linear = linear(layer.W, layer.b)
        self.act, self.place = ACTIVATIONS[layer.activation], layer.place
        self.a, self.skip = layer.a, layer.skip

    def affine(self, h):
        z = self.a * (self.linear.nn.weight @ h)
        return z if self.linear.nn.bias is None else z + self.linear.nn.bias

    def __call__(self, h):
        u = self.affine(self.act(h)) if self.place == "before" else self.act(self.affine(h))
        return h + u if self.skip else u


class Network(pxc.EnergyModule):
    def __init__(self, net, energy_fn=pxc.se_energy):
        self.blocks = [Block(layer) for layer in net.layers]
        sizes = [len(layer.W) for layer in net.layers]
        self.vodes = [pxc.Vode((n,)) for n in sizes[:-1]] + [pxc.Vode((sizes[-1],), energy_fn)]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        for block, vode in zip(self.blocks, self.vodes, strict=True):
            u = block(x)
            x = vode(u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


def weights(model):
    """[W_1, b_1, W_2, …], absent biases skipped, as the oracles' `flatten`."""
    return pairs(model.blocks)


def pairs(blocks):
    out = []
    for block in blocks:
        nn = getattr(block, "linear", block).nn
        out.append(np.asarray(nn.weight.get()))
        if nn.bias is not None:
            out.append(np.asarray(nn.bias.get()))
    return out


def states(model):
    """[h_1, …, h_L]."""
    return [np.asarray(v.h.get()) for v in model.vodes]
