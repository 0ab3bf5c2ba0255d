"""The listing of the paper's Appendix A in its own spelling, vmapped over mini-batches."""
# The spelling and layout of the listing are kept.
# fmt: off
# ruff: noqa: A001, B007, B905, T201

import jax
import jax.nn as jnn
import numpy as np
import optax

import pcx
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu


class MLP(pcx.EnergyModule):
    def __init__(self, in_dim, h_dim, out_dim):
        self.layers = [
            pxnn.Linear(in_dim, h_dim),
            pxnn.Linear(h_dim, h_dim),
            pxnn.Linear(h_dim, out_dim)
        ]
        self.vodes = [
            pxc.Vode((dim,)) for dim in (h_dim, h_dim, out_dim)
        ]

    def __call__(self, x, y = None):
        for layer, vode in zip(self.layers, self.vodes):
            u = jnn.leaky_relu(layer(x))
            x = vode(u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


batched = pxu.Mask(pxc.VodeParam | pxc.VodeParam.Cache, [None, 0])

@pxf.vmap({"model": batched}, in_axes=(0,), out_axes=0)
def forward(x, *, model):
    return model(x)

# the mean over the batch: `True` in `optim_h.step` multiplies it by the batch size again
@pxf.vmap({"model": batched}, in_axes=(0, 0), out_axes=None, axis_name="batch")
def energy(x, y, *, model):
    model(x, y)
    return jax.lax.pmean(model.energy(), "batch")

grad_h = pxf.value_and_grad(
    pxu.Mask(pxc.VodeParam, [False, True])
)(energy)

grad_w = pxf.value_and_grad(
    pxu.Mask(pxc.LayerParam, [False, True])
)(energy)

@pxf.jit(static_argnums=0)
def train(T, x, y, *, model, optim_h, optim_w):
    model.train()
    # Initialization
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, model=model)

    # Inference steps
    for i in range(T):
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, g_h = grad_h(x, y, model=model)
            optim_h.step(model, g_h["model"], True)

    # Learning step
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        _, g_w = grad_w(x, y, model=model)
        optim_w.step(model, g_w["model"])

@pxf.jit()
def eval(x, *, model):
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        return forward(x, model=model)


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
    pcx.RKG.seed(0)
    x, y = make_moons(1024, 0.1, np.random.default_rng(0))
    onehot = np.eye(2, dtype=np.float32)[y]
    model = MLP(2, 32, 2)
    eval(x[:64], model=model)
    optim_h = pxu.Optim(optax.sgd(0.1), pxu.Mask(pxc.VodeParam)(model))
    optim_w = pxu.Optim(optax.adamw(3e-3), pxu.Mask(pxc.LayerParam)(model))
    for _ in range(20):
        for i in range(0, len(x), 64):
            train(
                8, x[i : i + 64], onehot[i : i + 64],
                model=model, optim_h=optim_h, optim_w=optim_w
            )
    accuracy = float((eval(x, model=model).argmax(-1) == y).mean())
    print(f"accuracy {accuracy:.4f}")
    assert accuracy > 0.97
    return accuracy


if __name__ == "__main__":
    main()
