"""A classifier of two moons: 8 unrolled inference steps, then one learning step, per batch."""
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


class Model(pxc.EnergyModule):
    def __init__(self, input_dim, hidden_dim, output_dim, nm_layers, act_fn):
        super().__init__()
        self.act_fn = px.static(act_fn)
        dims = [input_dim] + [hidden_dim] * (nm_layers - 1) + [output_dim]
        self.layers = [pxnn.Linear(a, b) for a, b in itertools.pairwise(dims)]
        self.vodes = [pxc.Vode() for _ in range(nm_layers - 1)] + [pxc.Vode(pxc.ce_energy)]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        for vode, layer in zip(self.vodes[:-1], self.layers[:-1], strict=True):
            x = vode(self.act_fn(layer(x)))
        x = self.vodes[-1](self.layers[-1](x))
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


@pxf.vmap(pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0)), in_axes=(0, 0), out_axes=0)
def forward(x, y, *, model):
    return model(x, y)


@pxf.vmap(
    pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0)),
    in_axes=(0,),
    out_axes=(None, 0),
    axis_name="batch",
)
def energy(x, *, model):
    y_ = model(x, None)
    return jax.lax.pmean(model.energy(), "batch"), y_


@pxf.jit(static_argnums=0)
def train_on_batch(T, x, y, *, model, optim_w, optim_h):
    model.train()
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, y, model=model)
    optim_h.init(pxu.M_hasnot(pxc.VodeParam, frozen=True)(model))

    for _ in range(T):
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            (e, _), g = pxf.value_and_grad(
                pxu.M_hasnot(pxc.VodeParam, frozen=True).to([False, True]), has_aux=True
            )(energy)(x, model=model)
        optim_h.step(model, g["model"], scale_by=x.shape[0])
    optim_h.clear()

    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        (e, _), g = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to([False, True]), has_aux=True)(
            energy
        )(x, model=model)
    optim_w.step(model, g["model"])
    return e


@pxf.jit()
def eval_on_batch(x, y, *, model):
    model.eval()
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        y_ = forward(x, None, model=model).argmax(axis=-1)
    return (y_ == y).mean(), y_


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

    model = Model(2, 32, 2, 3, jax.nn.leaky_relu)
    # the states get their first values here, so that their optimiser knows them
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(jnp.zeros((64, 2)), None, model=model)
    optim_h = pxu.Optim(lambda: optax.sgd(0.1), pxu.M_hasnot(pxc.VodeParam, frozen=True)(model))
    optim_w = pxu.Optim(lambda: optax.adamw(5e-3), pxu.M(pxnn.LayerParam)(model))

    for _ in range(30):
        for i in range(0, len(x), 64):
            train_on_batch(
                8, x[i : i + 64], onehot[i : i + 64], model=model, optim_w=optim_w, optim_h=optim_h
            )
    accuracies = [
        float(eval_on_batch(x_test[i : i + 64], y_test[i : i + 64], model=model)[0])
        for i in range(0, len(x_test), 64)
    ]
    accuracy = sum(accuracies) / len(accuracies)
    print(f"test accuracy {accuracy:.4f}")
    assert accuracy > 0.93  # a line between the moons reaches 0.83
    return accuracy


if __name__ == "__main__":
    main()
