"""A decoder: states are inferred from data alone; own initialisation and a "forward" status."""
# ruff: noqa: T201

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

FORWARD = "forward"
LATENT, HIDDEN, DATA = 2, 16, 8
STATES = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
FREE = pxu.M_hasnot(pxc.VodeParam, frozen=True)


def to_init(vode, key, value, rkg):
    return 0.1 * jax.random.normal(rkg(), vode.shape)


class Decoder(pxc.EnergyModule):
    def __init__(self):
        super().__init__()
        self.layers = [pxnn.Linear(LATENT, HIDDEN), pxnn.Linear(HIDDEN, DATA)]
        self.vodes = [
            # the latent state has no prior: it is a free state without an energy of its own
            pxc.Vode(
                (LATENT,),
                energy_fn=None,
                ruleset={pxc.STATUS.INIT: ("h, u <- u:to_init",)},
                tforms={"to_init": to_init},
            ),
            pxc.Vode((HIDDEN,), ruleset={FORWARD: ("h -> u",)}),
            pxc.Vode((DATA,), ruleset={FORWARD: ("h -> u",)}),
        ]
        self.vodes[-1].h.frozen = True

    def __call__(self, y=None):
        x = self.vodes[0](jnp.empty(()))
        x = self.vodes[1](jnp.tanh(self.layers[0](x)))
        x = self.vodes[2](self.layers[1](x))
        if y is not None:
            self.vodes[-1].set("h", y)
        return x


@pxf.vmap(STATES, in_axes=(0,))
def init(y, *, model):
    return model(y)


@pxf.vmap(STATES)
def decode(*, model):
    return model()


@pxf.vmap(STATES, out_axes=None, axis_name="batch")
def energy(*, model):
    model()
    return jax.lax.psum(model.energy(), "batch")


def inference_step(_, *, model, optim_h):
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        e, g = pxf.value_and_grad(FREE.to((False, True)))(energy)(model=model)
    optim_h.step(model, g["model"])
    return (), e


def infer(T, y, model, optim_h):
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        init(y, model=model)
    optim_h.init(FREE(model))
    pxf.scan(inference_step, length=T)(model=model, optim_h=optim_h)
    optim_h.clear()


@pxf.jit(static_argnums=0)
def train_on_batch(T, y, *, model, optim_w, optim_h):
    infer(T, y, model, optim_h)
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        e, g = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to((False, True)))(energy)(model=model)
    optim_w.step(model, g["model"], scale_by=1.0 / len(y))
    return e


@pxf.jit(static_argnums=0)
def reconstruct(T, y, *, model, optim_h):
    infer(T, y, model, optim_h)
    # in this status every vode hands on its prediction: what the latent state alone says
    with pxu.step(model, FORWARD, clear_params=pxc.VodeParam.Cache):
        return decode(model=model)


def main():
    px.RKG.seed(0)
    rng = np.random.default_rng(0)
    z = rng.uniform(-1, 1, size=(256, LATENT))
    y = np.tanh(z @ rng.normal(size=(LATENT, DATA))).astype(np.float32)

    model = Decoder()
    optim_h = pxu.Optim(lambda: optax.sgd(0.2, momentum=0.5))
    optim_w = pxu.Optim(lambda: optax.adamw(1e-2), pxu.M(pxnn.LayerParam)(model))
    for _ in range(100):
        for i in range(0, len(y), 64):
            train_on_batch(16, y[i : i + 64], model=model, optim_w=optim_w, optim_h=optim_h)
    y_ = np.concatenate(
        [reconstruct(64, y[i : i + 64], model=model, optim_h=optim_h) for i in range(0, 256, 64)]
    )
    unexplained = float(((y_ - y) ** 2).mean() / y.var(0).mean())
    print(f"unexplained share of the variance {unexplained:.4f}")
    assert unexplained < 0.1
    # outside of that status the states, not the predictions, are handed on
    np.testing.assert_array_equal(decode(model=model), y[-64:])
    return unexplained


if __name__ == "__main__":
    main()
