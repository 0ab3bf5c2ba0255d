"""Langevin sampling with noisy state optimisers, against the closed-form Gaussian posterior.

h ~ N(m, I) and y ~ N(W h, I), so F = 1/2 |h - m|^2 + 1/2 |y - W h|^2 and the posterior of h is
N(K^-1 (m + W' y), K^-1) with K = I + W' W. The chain h <- h - gamma grad F + sqrt(2 gamma) xi has
the exact stationary covariance K^-1 (I - gamma K / 2)^-1.
"""
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

GAMMA, STEPS, CHAINS, DIM, OBSERVED = 0.05, 300, 4000, 2, 3
STATES = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))


class Model(pxc.EnergyModule):
    def __init__(self, mean):
        super().__init__()
        self.mean = pxnn.LayerParam(mean)
        self.layer = pxnn.Linear(DIM, OBSERVED, bias=False)
        self.vodes = [pxc.Vode((DIM,)), pxc.Vode((OBSERVED,))]
        self.vodes[-1].h.frozen = True

    def __call__(self, y=None):
        h = self.vodes[0](self.mean.get())
        self.vodes[1](self.layer(h))
        if y is not None:
            self.vodes[1].set("h", y)


@pxf.vmap(STATES, in_axes=(0,))
def init(y, *, model):
    model(y)


@pxf.vmap(STATES, out_axes=None, axis_name="batch")
def energy(*, model):
    model()
    return jax.lax.psum(model.energy(), "batch")


def noise(scale):
    """Adds `scale` times normal noise to the updates, drawn from the default generator."""

    def update(updates, state, params=None):
        leaves, treedef = jax.tree_util.tree_flatten(updates)
        keys = px.RKG(len(leaves))
        noisy = [
            g + scale * jax.random.normal(k, g.shape) for g, k in zip(leaves, keys, strict=True)
        ]
        return jax.tree_util.tree_unflatten(treedef, noisy), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def inference_step(_, *, model, optim_h):
    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        e, g = pxf.value_and_grad(pxu.M_hasnot(pxc.VodeParam, frozen=True).to((False, True)))(
            energy
        )(model=model)
    optim_h.step(model, g["model"])
    return (), e


@pxf.jit()
def sample(y, *, model, optim_h):
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        init(y, model=model)
    optim_h.init(pxu.M_hasnot(pxc.VodeParam, frozen=True)(model))
    pxf.scan(inference_step, length=STEPS)(model=model, optim_h=optim_h)
    optim_h.clear()
    return model.vodes[0].h.get()


def check(name, samples, y, model):
    W, m = np.asarray(model.layer.nn.weight.get()), np.asarray(model.mean.get())
    K = np.eye(DIM) + W.T @ W
    mean = np.linalg.solve(K, m + W.T @ y)
    covariance = np.linalg.inv(K @ (np.eye(DIM) - GAMMA * K / 2))
    got_mean, got = samples.mean(0), np.cov(samples.T)
    # standard errors of a mean and of a covariance of independent chains
    variances = np.diag(covariance)
    mean_error = np.sqrt(variances / CHAINS)
    error = np.sqrt((covariance**2 + np.outer(variances, variances)) / CHAINS)
    z = max(np.abs((got_mean - mean) / mean_error).max(), np.abs((got - covariance) / error).max())
    print(f"{name}: mean {got_mean}, posterior {mean}; largest deviation {z:.2f} standard errors")
    assert z < 4.5
    return float(z)


def main():
    px.RKG.seed(0)
    model = Model(jnp.array([1.0, -0.5]))
    y = np.array([0.5, 2.0, -1.0], np.float32)
    batch = np.tile(y, (CHAINS, 1))
    # sgd multiplies by gamma: noise of standard deviation sqrt(2 / gamma) on the gradient
    ours = optax.chain(noise(np.sqrt(2 / GAMMA)), optax.sgd(GAMMA))
    theirs = optax.chain(optax.add_noise(2 / GAMMA, 0.0, 7), optax.sgd(GAMMA))
    deviations, all_samples = [], []
    for name, transformation in (("drawing from px.RKG", ours), ("optax.add_noise", theirs)):
        optim_h = pxu.Optim(lambda t=transformation: t)
        samples = np.asarray(sample(batch, model=model, optim_h=optim_h))
        deviations.append(check(name, samples, y, model))
        all_samples.append(samples)
    again = np.asarray(sample(batch, model=model, optim_h=pxu.Optim(ours)))
    assert not np.allclose(again, all_samples[0]), "another call draws other numbers"
    check("again", again, y, model)
    return max(deviations)


if __name__ == "__main__":
    main()
