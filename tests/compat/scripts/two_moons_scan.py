"""The classifier of two moons with its inference in one `pxf.scan`: compile time free of T."""
# ruff: noqa: T201

import itertools

import jax
import numpy as np
import optax

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

STATES = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
FREE = pxu.M(pxc.VodeParam).hasnot(frozen=True)


class Model(pxc.EnergyModule):
    def __init__(self, dims, act_fn):
        super().__init__()
        self.act_fn = act_fn
        self.layers = [pxnn.Linear(a, b) for a, b in itertools.pairwise(dims)]
        self.vodes = [pxc.Vode((d,)) for d in dims[1:]]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        for i, (vode, layer) in enumerate(zip(self.vodes, self.layers, strict=True)):
            x = vode(layer(x if i == 0 else self.act_fn(x)))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


@pxf.vmap(STATES, in_axes=(0, 0), out_axes=0)
def forward(x, y, *, model):
    return model(x, y)


@pxf.vmap(STATES, in_axes=(0,), out_axes=(None, 0), axis_name="batch")
def energy(x, *, model):
    y_ = model(x)
    return jax.lax.psum(model.energy(), "batch"), y_


def inference_step(_, x, *, model, optim_h):
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        (e, _), g = pxf.value_and_grad(FREE.to((False, True)), has_aux=True)(energy)(x, model=model)
    optim_h.step(model, g["model"])
    return x, e


@pxf.jit(static_argnums=0)
def train_on_batch(T, x, y, *, model, optim_w, optim_h):
    model.train()
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, y, model=model)
    optim_h.init(FREE(model))
    _, energies = pxf.scan(inference_step, length=T)(x, model=model, optim_h=optim_h)
    optim_h.clear()
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        _, g = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to((False, True)), has_aux=True)(energy)(
            x, model=model
        )
    optim_w.step(model, g["model"], scale_by=1.0 / x.shape[0])
    return energies


@pxf.jit()
def predict(x, *, model):
    model.eval()
    # the states of the training batches are dropped: this batch may have another size
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam | pxc.VodeParam.Cache):
        return forward(x, None, model=model).argmax(-1)


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
    rng = np.random.default_rng(0)
    x, y = make_moons(1024, 0.1, rng)
    x_test, y_test = make_moons(512, 0.1, rng)
    onehot = np.eye(2, dtype=np.float32)[y]

    model = Model([2, 32, 32, 2], jax.nn.tanh)
    optim_h = pxu.Optim(lambda: optax.sgd(0.1, momentum=0.5))
    optim_w = pxu.Optim(lambda: optax.adamw(1e-2), pxu.M(pxnn.LayerParam)(model))

    for _ in range(15):
        for i in range(0, len(x), 64):
            energies = train_on_batch(
                8, x[i : i + 64], onehot[i : i + 64], model=model, optim_w=optim_w, optim_h=optim_h
            )
    assert energies.shape == (8,)
    assert energies[-1] < energies[0], "inference descends the energy"
    accuracy = float((predict(x_test, model=model) == y_test).mean())
    print(f"test accuracy {accuracy:.4f}")
    assert accuracy > 0.95
    return accuracy


if __name__ == "__main__":
    main()
