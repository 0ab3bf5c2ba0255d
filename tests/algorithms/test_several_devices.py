"""Data-parallel training: a batch sharded over devices gives what one device gives."""

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import pcx as px, pcx.algorithms as pxa, pcx.models as pxm

assert len(jax.devices()) == 2
x = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
y = np.eye(3, dtype=np.float32)[np.arange(16) % 3]

def energies(x, y):
    px.RKG.seed(0)
    pc = pxa.PC(pxm.MLP([6, 8, 8, 3]), 4, optax.sgd(0.1), optax.adam(1e-2))
    return [float(pc.train_step(x, y)["energy"]) for _ in range(4)]

mesh = Mesh(np.array(jax.devices()), ("batch",))
shard = lambda a: jax.device_put(a, NamedSharding(mesh, P("batch")))
one, two = energies(x, y), energies(shard(x), shard(y))
assert one[0] != one[-1]
np.testing.assert_allclose(two, one, rtol=1e-5)
print("equal on", len(jax.devices()), "devices")
"""


def test_a_sharded_batch_trains_as_on_one_device():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "equal on 2 devices" in done.stdout
