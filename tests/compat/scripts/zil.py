"""Zero-divergence inference learning: one layer learns per inference step, and the sum is backprop.

With forward initialisation, a state step size of 1 and layer L - t learning at step t, the updates
are exactly those of gradient descent on the squared error.
"""
# ruff: noqa: T201

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

LEARNING_RATE = 0.3


class Model(pxc.EnergyModule):
    def __init__(self, dims):
        super().__init__()
        self.layers = [pxnn.Linear(a, b) for a, b in itertools.pairwise(dims)]
        self.vodes = [pxc.Vode((d,)) for d in dims[1:]]

    def __call__(self, x, y=None):
        for i, (vode, layer) in enumerate(zip(self.vodes, self.layers, strict=True)):
            x = vode(layer(x if i == 0 else jnp.tanh(x)))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


STATES = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))


@pxf.vmap(STATES, in_axes=(0, 0))
def forward(x, y, *, model):
    return model(x, y)


@pxf.vmap(STATES, in_axes=(0,), out_axes=None, axis_name="batch")
def energy(x, *, model):
    model(x)
    return jax.lax.psum(model.energy(), "batch")


@pxf.jit()
def train_on_batch(x, y, *, model, optim_w, optim_h):
    n_layers = len(model.layers)
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, y, model=model)
    for t in range(n_layers):
        # all weights and states, then by hand: only layer L - t, and never the clamped state
        mask = pxu.M(pxnn.LayerParam | pxc.VodeParam).to((False, True))(model)
        for j in range(n_layers):
            if j != n_layers - 1 - t:
                mask.layers[j] = pxu.M(pxnn.LayerParam).to((False, False))(model.layers[j])
        mask.vodes[-1].h = False
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, g = pxf.value_and_grad({"model": mask})(energy)(x, model=model)
        optim_h.step(model, g["model"])
        optim_w.step(model, g["model"], scale_by=1.0 / x.shape[0])


def backprop(weights, x, y):
    """The same network and one step of gradient descent, in plain JAX."""

    def loss(weights):
        h = x
        for i, (w, b) in enumerate(weights):
            h = (h if i == 0 else jnp.tanh(h)) @ w.T + b
        return 0.5 * jnp.mean(jnp.sum((h - y) ** 2, axis=-1))

    grads = jax.grad(loss)(weights)
    return jax.tree_util.tree_map(lambda w, g: w - LEARNING_RATE * g, weights, grads)


def weights_of(model):
    return [(layer.nn.weight.get(), layer.nn.bias.get()) for layer in model.layers]


def make_moons(n, noise, rng):
    half = n // 2
    t = np.pi * rng.random(half)
    upper = np.stack([np.cos(t), np.sin(t)], 1)
    lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)
    x = np.concatenate([upper, lower]) + noise * rng.normal(size=(2 * half, 2))
    y = np.repeat([0, 1], half)
    order = rng.permutation(2 * half)
    return x[order].astype(np.float32), y[order]


def main():
    px.RKG.seed(0)
    x, y = make_moons(512, 0.1, np.random.default_rng(0))
    onehot = np.eye(2, dtype=np.float32)[y]
    model = Model([2, 16, 16, 2])
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x[:64], onehot[:64], model=model)

    free = pxu.M(pxc.VodeParam)(model)
    free.vodes[-1].h = None
    optim_h = pxu.Optim(lambda: optax.sgd(1.0), free)
    optim_w = pxu.OptimTree(
        lambda: optax.sgd(LEARNING_RATE),
        lambda node: isinstance(node, pxnn.Linear),
        pxu.M(pxnn.LayerParam)(model),
    )

    want = weights_of(model)
    step = jax.jit(backprop)
    difference = 0.0
    for epoch in range(60):
        for i in range(0, len(x), 64):
            batch, target = x[i : i + 64], onehot[i : i + 64]
            train_on_batch(batch, target, model=model, optim_w=optim_w, optim_h=optim_h)
            if epoch == 0:
                want = step(want, batch, target)
                difference = max(
                    float(jnp.abs(a - b).max())
                    for got, ref in zip(weights_of(model), want, strict=True)
                    for a, b in zip(got, ref, strict=True)
                )
    print(f"largest difference from backprop after one epoch {difference:.2e}")
    assert difference < 1e-5

    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam | pxc.VodeParam.Cache):
        y_ = forward(x, onehot, model=model)
    accuracy = float((y_.argmax(-1) == y).mean())
    print(f"accuracy {accuracy:.4f}")
    assert accuracy > 0.95
    return difference


if __name__ == "__main__":
    main()
