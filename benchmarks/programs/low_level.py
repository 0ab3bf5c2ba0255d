"""The training step through PCX's object API: modules, vodes, masks, transforms.

Written in the published spelling only, so the very same file runs on this library and, in its own
environment, on PCX 0.6.3: what differs between the two rows of the table is the library.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from benchmarks import cases
from benchmarks.programs._program import Program

FREE_STATES = pxu.M_hasnot(pxc.VodeParam, frozen=True)
PER_SAMPLE = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))


class Network(pxc.EnergyModule):
    """A feed-forward PCN: one vode after every layer, the last one clamped to the target."""

    def __init__(self, case: cases.Case):
        super().__init__()
        channels = case.input_shape[0]
        self.layers, self.pools = [], []
        for layer, (weight, _) in zip(case.layers, case.weight_shapes(), strict=True):
            if layer.kind == "dense":
                self.layers.append(pxnn.Linear(weight[1], weight[0]))
            else:
                self.layers.append(
                    pxnn.Conv2d(
                        channels,
                        layer.out,
                        layer.kernel,
                        stride=layer.stride,
                        padding=layer.padding,
                    )
                )
            self.pools.append(pxnn.MaxPool2d(layer.pool, layer.pool) if layer.pool > 1 else None)
            channels = layer.out
        self.act = px.static(getattr(jax.nn, case.act))
        self.flattens = px.static(tuple(layer.kind == "dense" for layer in case.layers))
        energies = [pxc.se_energy] * (len(case.layers) - 1) + [
            pxc.ce_energy if case.loss == "ce" else pxc.se_energy
        ]
        self.vodes = [pxc.Vode(energy) for energy in energies]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        last = len(self.layers) - 1
        for index, (layer, pool, vode) in enumerate(
            zip(self.layers, self.pools, self.vodes, strict=True)
        ):
            u = layer(jnp.reshape(x, -1) if self.flattens.get()[index] else x)
            if index < last:
                u = self.act.get()(u)
            if pool is not None:
                u = pool(u)
            x = vode(u)
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


@pxf.vmap(PER_SAMPLE, in_axes=(0, 0), out_axes=0)
def forward(x, y, *, model):
    return model(x, y)


@pxf.vmap(PER_SAMPLE, in_axes=(0,), out_axes=None, axis_name="batch")
def energy(x, *, model):
    model(x)
    return jax.lax.psum(model.energy(), "batch")


def state_step(x, *, model, optim_h):
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        _, gradients = pxf.value_and_grad(FREE_STATES.to([False, True]))(energy)(x, model=model)
    optim_h.step(model, gradients["model"])


def infer(T: int, x, *, model, optim_h, loop: str) -> None:
    if loop == "scan":

        def body(_, x, *, model, optim_h):
            state_step(x, model=model, optim_h=optim_h)
            return (x,), None

        # The loop must find the model in the status that its own steps leave it in.
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            pxf.scan(body, length=T)(x, model=model, optim_h=optim_h)
    else:
        for _ in range(T):
            state_step(x, model=model, optim_h=optim_h)


def make_train_step(T: int, loop: str) -> Callable:
    @pxf.jit()
    def train_on_batch(x, y, *, model, optim_w, optim_h):
        model.train()
        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            forward(x, y, model=model)
        optim_h.init(FREE_STATES(model))
        infer(T, x, model=model, optim_h=optim_h, loop=loop)
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, gradients = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to([False, True]))(energy)(
                x, model=model
            )
        optim_w.step(model, gradients["model"], scale_by=1.0 / x.shape[0])
        # Else the second call would find states where the first found none, and compile again.
        model.clear_params(pxc.VodeParam)
        optim_h.clear()

    return train_on_batch


def load_weights(model: Network, weights) -> None:
    for layer, (weight, bias) in zip(model.layers, weights, strict=True):
        layer.nn.weight.set(jnp.asarray(weight))
        layer.nn.bias.set(jnp.asarray(bias))


def layer_weights(model: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (np.asarray(layer.nn.weight.get()), np.asarray(layer.nn.bias.get()))
        for layer in model.layers
    ]


def make(case: cases.Case, loop: str) -> Program:
    """`loop`: "for" (a Python loop, unrolled by the trace) or "scan" (`pxf.scan`)."""
    model = Network(case)
    load_weights(model, cases.initial_weights(case))
    optim_w = pxu.Optim(lambda: optax.adamw(case.weight_lr), pxu.M(pxnn.LayerParam)(model))
    optim_h = pxu.Optim(lambda: optax.sgd(case.state_lr, momentum=case.momentum))
    x, y = (jax.device_put(array) for array in cases.batch(case))
    train_on_batch = make_train_step(case.T, loop)

    # One output stands for all: they come out of the same compiled call.
    awaited = model.layers[0].nn.weight

    def step():
        train_on_batch(x, y, model=model, optim_w=optim_w, optim_h=optim_h)
        return awaited.get()

    return Program(step, lambda: layer_weights(model))
