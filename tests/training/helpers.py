"""A learning algorithm that is not part of pcx: what `pxt.Trainable` lists, and nothing else.

A linear map trained by noisy gradient descent on 1/2 |y - Wx|^2, with momentum. The noise comes
from `px.RKG` and the step counts, so that a run is reproduced only if all of its state is.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu


class Linear(pxc.EnergyModule):
    def __init__(self, inputs, outputs):
        self.weight = pxnn.LayerParam(jnp.zeros((outputs, inputs)))

    def __call__(self, x):
        return self.weight @ x


class Log:
    """A static object, compared by identity: filling it does not make the step compile again."""

    def __init__(self):
        self.epochs = []


class LeastSquares(px.BaseModule):
    """A third-party algorithm; before step `explode_at` its weights become huge."""

    def __init__(self, inputs=3, outputs=2, optim=None, noise=0.0, explode_at=None):
        self.model = Linear(inputs, outputs)
        self.weight_optim = pxu.Optim(
            optax.sgd(0.1, momentum=0.9) if optim is None else optim,
            pxu.M(pxnn.LayerParam)(self.model),
        )
        self.metrics = {}
        self.record = False
        self.noise = noise
        self.explode_at = explode_at
        self.steps = px.Param(jnp.zeros((), jnp.int32))
        self.log = Log()

    vode_names = ("first", "second")

    def start_epoch(self, epoch):
        self.log.epochs.append(epoch)

    def train_step(self, x, y):
        return _train(x, y, algorithm=self)

    def eval_step(self, x, y):
        return _evaluate(x, y, algorithm=self)

    def predict(self, x):
        return jnp.asarray(x) @ self.model.weight.T


def _losses(x, y, *, algorithm):
    prediction = x @ algorithm.model.weight.T
    return 0.5 * jnp.sum((y - prediction) ** 2, axis=-1), prediction


def _results(x, y, algorithm):
    losses, prediction = _losses(x, y, algorithm=algorithm)
    metrics = {name: jnp.mean(f(prediction, y)) for name, f in algorithm.metrics.items()}
    return {"energy": jnp.mean(losses), **metrics}


@pxf.jit()
def _train(x, y, *, algorithm):
    if algorithm.explode_at is not None:
        factor = jnp.where(algorithm.steps.get() == algorithm.explode_at, 1e38, 1.0)
        algorithm.model.weight.set(algorithm.model.weight * factor + (factor - 1))
    results = _results(x, y, algorithm)
    if algorithm.record:
        energy = results["energy"]
        results["energies"] = jnp.stack(
            [jnp.stack([energy * t if t else 0.0, energy]) for t in range(3)]
        )

    def loss(x, y, *, algorithm):
        return jnp.sum(_losses(x, y, algorithm=algorithm)[0])

    _, grads = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to((False, True)))(loss)(
        x, y, algorithm=algorithm
    )
    algorithm.weight_optim.step(algorithm.model, grads["algorithm"].model, scale_by=1 / x.shape[0])
    noise = jax.random.normal(px.RKG(), algorithm.model.weight.shape)
    algorithm.model.weight.set(algorithm.model.weight + algorithm.noise * noise)
    algorithm.steps.set(algorithm.steps + 1)
    return results


@pxf.jit()
def _evaluate(x, y, *, algorithm):
    return _results(x, y, algorithm)


def regression(samples=20, seed=0):
    """Inputs, and one-hot targets that a linear map can mostly tell apart."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 3)).astype(np.float32)
    return x, np.eye(2, dtype=np.float32)[(x @ [1.0, -2.0, 0.5] > 0).astype(int)]
