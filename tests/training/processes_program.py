"""One of two processes that train together, each on its own part of the data and two devices.

    python processes_program.py RANK PORT FOLDER data|fsdp [die|unequal|seeds]

Run by `test_mesh.py`. With `die` the second process is killed in the middle of the third epoch.
"""

# ruff: noqa: T201

import os
import signal
import sys

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.training as pxt
import pcx.utils as pxu
from pcx.core import named_params

PROCESSES, BATCH, SAMPLES = 2, 16, 42  # batches of 16, 16 and 10, which four devices cannot divide


class Die(pxt.Callback):
    def on_batch_end(self, trainer, batch, logs):
        if trainer.step >= 7:
            os.kill(os.getpid(), signal.SIGKILL)


def noise(key, x):
    return x + 0.1 * jax.random.normal(key, x.shape)


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(SAMPLES, 6)), np.eye(3)[rng.integers(0, 3, SAMPLES)]


def part(rank):
    """The rows of a process, of each batch."""
    batches = [np.arange(s, min(s + BATCH, SAMPLES)) for s in range(0, SAMPLES, BATCH)]
    return np.concatenate([np.split(rows, PROCESSES)[rank] for rows in batches])


def train(x, y, batch, mesh, path, k, callbacks=(), seed=0):
    px.RKG.seed(0)
    optim = pxu.Optim(optax.adam, learning_rate=1e-2)
    model = pxm.MLP([6, 64, 3], rkg=px.RandomKeyGenerator(seed))
    algorithm = pxa.PC(model, 3, optax.sgd(0.1), optim)
    trainer = pxt.Trainer(
        algorithm,
        [pxt.Checkpoint(path), *callbacks],
        progress=mesh is not None,
        augment=noise,
        mesh=mesh,
        steps_per_call=k,
    )
    history = trainer.fit(
        pxt.batches(x, y, batch), 4, val=pxt.batches(x, y, batch), resume=mesh is not None
    )
    weights = {
        path: np.asarray(whole(param.get()))
        for path, param in named_params(model)
        if isinstance(param, pxnn.LayerParam)
    }
    energies = [*history.epoch["energy"], *history.epoch["val_energy"]]
    return trainer, weights, np.array(energies)


def whole(array):
    if array.is_fully_addressable or array.is_fully_replicated:
        return array
    return multihost_utils.process_allgather(array, tiled=True)


def main(rank, port, folder, axis, trouble=""):
    rank = int(rank)
    address = f"127.0.0.1:{port}"
    jax.distributed.initialize(address, PROCESSES, rank, heartbeat_timeout_seconds=20)
    assert (jax.process_count(), jax.device_count()) == (2, 4)
    x, y = data()
    own = part(rank)[: -1 if trouble == "unequal" and rank == 1 else None]
    k = {"data": 1, "fsdp": 2}[axis]
    mesh = jax.make_mesh((4,), (axis,))
    seed = rank if trouble == "seeds" else 0
    callbacks = [Die()] if trouble == "die" and rank == 1 else []
    trainer, weights, energies = train(
        x[own], y[own], BATCH // 2, mesh, f"{folder}/run.npz", k, callbacks, seed
    )
    prediction = trainer.predict(x[own], batch_size=9)
    if rank == 0:
        alone, whole_weights, found = train(x, y, BATCH, None, f"{folder}/alone.npz", k)
        np.testing.assert_allclose(energies, found, rtol=1e-10)
        for name, value in whole_weights.items():
            np.testing.assert_allclose(weights[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(prediction, alone.predict(x[own]), rtol=1e-9, atol=1e-12)
        print(f"{axis} equal after {trainer.epoch} epochs", flush=True)
    else:
        print("predictions", prediction.shape, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
