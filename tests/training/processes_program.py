"""One of two processes that train together, each on its own part of the data and two devices.

    python processes_program.py RANK PORT FOLDER [die]

Run by `test_mesh.py`. With `die` the second process is killed in the middle of the third epoch.
"""

import os
import signal
import sys

import jax
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.training as pxt
import pcx.utils as pxu
from pcx.core import named_params

rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
die = sys.argv[4:] == ["die"]
PROCESSES, BATCH, SAMPLES = 2, 16, 42  # batches of 16, 16 and 10, which four devices cannot divide


class Die(pxt.Callback):
    def on_batch_end(self, trainer, batch, logs):
        if die and rank == 1 and trainer.step == 7:
            os.kill(os.getpid(), signal.SIGKILL)


def noise(key, x):
    return x + 0.1 * jax.random.normal(key, x.shape)


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(SAMPLES, 6)), np.eye(3)[rng.integers(0, 3, SAMPLES)]


def part():
    """The rows of this process, of each batch."""
    batches = [np.arange(s, min(s + BATCH, SAMPLES)) for s in range(0, SAMPLES, BATCH)]
    return np.concatenate([np.split(rows, PROCESSES)[rank] for rows in batches])


def train(x, y, batch, mesh, path, k):
    px.RKG.seed(0)
    optim = pxu.Optim(optax.adam, learning_rate=1e-2)
    model = pxm.MLP([6, 64, 3], rkg=px.RandomKeyGenerator(0))
    algorithm = pxa.PC(model, 3, optax.sgd(0.1), optim)
    trainer = pxt.Trainer(
        algorithm, [pxt.Checkpoint(path), Die()], augment=noise, mesh=mesh, steps_per_call=k
    )
    history = trainer.fit(
        pxt.batches(x, y, batch), 4, val=pxt.batches(x, y, batch), resume=mesh is not None
    )
    weights = {
        path: np.asarray(trainer.algorithm.model and _whole(param.get()))
        for path, param in named_params(model)
        if isinstance(param, pxnn.LayerParam)
    }
    energies = [*history.epoch["energy"], *history.epoch["val_energy"]]
    return trainer, weights, np.array(energies)


def _whole(array):
    from jax.experimental import multihost_utils

    if array.is_fully_addressable or array.is_fully_replicated:
        return array
    return multihost_utils.process_allgather(array, tiled=True)


def main():
    if jax.__version_info__ < (0, 9):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES, rank, initialization_timeout=60)
    assert (jax.process_count(), jax.device_count()) == (2, 4)
    x, y = data()
    own = part()
    for axis, k in (("data", 1), ("fsdp", 2)):
        mesh = jax.make_mesh((4,), (axis,))
        path = f"{folder}/{axis}.npz"
        trainer, weights, energies = train(x[own], y[own], BATCH // 2, mesh, path, k)
        mine = trainer.predict(x[own], batch_size=9)
        assert mine.shape == (len(own), 3)
        _, alone, found = train(x, y, BATCH, None, f"{folder}/{rank}-alone.npz", k)
        np.testing.assert_allclose(energies, found, rtol=1e-10)
        for name, value in alone.items():
            np.testing.assert_allclose(weights[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    print("equal", trainer.epoch, flush=True)


if __name__ == "__main__":
    main()
