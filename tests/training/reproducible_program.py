"""Trains a network; prints a digest of its weights, and its energy. Run by `test_reproducible.py`.

python reproducible_program.py [one-core]
"""

# ruff: noqa: T201

import hashlib
import json
import os
import sys
import warnings

import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.training as pxt


def trained() -> tuple[str, float]:
    """Of the bits of the weights after two epochs, and the energy of the last."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(640, 200)).astype(np.float32)
    y = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 640)]
    px.RKG.seed(0)
    algorithm = pxa.PC(pxm.MLP([200, 128, 128, 10]), 6, weight_optim=optax.adamw(1e-3))
    trainer = pxt.Trainer(algorithm, progress=False)
    history = trainer.fit(pxt.batches(x, y, 128, shuffle=True), 2)
    bits = b"".join(np.asarray(p.get()).tobytes() for p in algorithm.weights())
    return hashlib.sha256(bits).hexdigest(), history.last("energy")


if __name__ == "__main__":
    warnings.simplefilter("error")
    if sys.argv[1:] == ["one-core"]:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before XLA makes its threads
    print(json.dumps(trained()))
