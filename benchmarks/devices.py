"""Training divided over devices: step time, what each device holds, and the difference to one device.

    python -m benchmarks.devices

On a machine without several devices it makes the CPU into eight, which share its cores: the numbers then show
that the result is the same, and what dividing costs, not how much faster several devices are. That is
predicted, by

    t(n) = t_1(B / n) + 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency

the measured step of one device on its part of the batch, and a ring all-reduce of the weight gradients that
nothing hides. Writes a JSON record.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import jax
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
from benchmarks import machine
from pcx.core import named_params

FORCED = 8
# GB/s that each device sends, and seconds of a message
NETWORKS = {
    "NVLink, 300 GB/s, 3 µs": (300.0, 3e-6),
    "InfiniBand, 25 GB/s, 5 µs": (25.0, 5e-6),
    "Ethernet, 1.25 GB/s, 30 µs": (1.25, 30e-6),
}
# sizes, batch
CASES = {
    "mlp": ([784, 256, 256, 256, 10], 512),
    "wide": ([784, 1024, 1024, 1024, 10], 512),
}
CLUSTER = (1, 2, 4, 8, 16, 32, 64)


def make(sizes: list[int], mesh: jax.sharding.Mesh | None) -> pxa.PC:
    model = pxm.MLP(sizes, rkg=px.RandomKeyGenerator(0))
    optim = optax.sgd(0.05, momentum=0.9)
    return pxa.PC(model, T=8, weight_optim=optim, mesh=mesh)


def batch(sizes: list[int], samples: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, sizes[0])).astype(np.float32)
    return x, np.eye(sizes[-1], dtype=np.float32)[rng.integers(0, sizes[-1], samples)]


def weights(algorithm: pxa.PC) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(p.get())) for p in algorithm.weights()])


def held(algorithm: pxa.PC) -> int:
    """Bytes of params and optimiser state on the first device, between steps."""
    leaves = jax.tree_util.tree_leaves([p.get() for _, p in named_params(algorithm)])
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    return sum(array.addressable_shards[0].data.nbytes for array in arrays)


def step_ms(algorithm: pxa.PC, x: np.ndarray, y: np.ndarray, rounds: int, steps: int) -> float:
    """Median over rounds of the time of a step, in milliseconds."""
    for _ in range(2):
        jax.block_until_ready(algorithm.train_step(x, y))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            out = algorithm.train_step(x, y)
        jax.block_until_ready(out)
        times.append((time.perf_counter() - start) / steps * 1e3)
    return statistics.median(times)


def measure(sizes: list[int], samples: int, counts: list[int], rounds: int, steps: int) -> dict:
    """Each way to divide on each number of devices, against the run without a mesh."""
    x, y = batch(sizes, samples)

    def run(mesh: jax.sharding.Mesh | None) -> tuple[dict, np.ndarray]:
        algorithm = make(sizes, mesh)
        for _ in range(3):
            algorithm.train_step(x, y)
        found, mib = weights(algorithm), held(algorithm) / 2**20
        return {"ms": step_ms(algorithm, x, y, rounds, steps), "mib_held": round(mib, 3)}, found

    row, alone = run(None)
    rows = {"no mesh": {**row, "difference": 0.0}}
    for axis in ("data", "fsdp"):
        for n in counts:
            row, found = run(jax.make_mesh((n,), (axis,), devices=jax.devices()[:n]))
            difference = float(np.max(np.abs(found - alone)) / np.max(np.abs(alone)))
            rows[f"{axis} {n}"] = {**row, "difference": difference}
    return rows


def predict(
    sizes: list[int], samples: int, rounds: int, steps: int, cluster: tuple[int, ...] = CLUSTER
) -> dict:
    """Step times of a cluster of such devices, by the equation above."""
    weight_bytes = 4 * sum(a * b + b for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    compute = {}
    for n in cluster:
        if samples % n == 0:
            x, y = batch(sizes, samples // n)
            compute[n] = step_ms(make(sizes, None), x, y, rounds, steps)
    times = {
        name: {
            n: ms + 2e3 * (n - 1) / n * weight_bytes / (bandwidth * 1e9) + 2e3 * (n - 1) * latency
            for n, ms in compute.items()
        }
        for name, (bandwidth, latency) in NETWORKS.items()
    }
    return {"weight_mib": weight_bytes / 2**20, "one_device_ms": compute, "predicted_ms": times}


def show(name: str, case: dict) -> None:
    print(f"\n{name}: {'-'.join(map(str, case['sizes']))}, batch {case['batch']}, PC, T = 8\n")
    print("| mesh | ms of a step | MiB held by a device | relative difference |")
    print("| --- | --- | --- | --- |")
    for mesh, row in case["measured"].items():
        print(f"| {mesh} | {row['ms']:.2f} | {row['mib_held']:.2f} | {row['difference']:.1e} |")
    predicted = case["predicted"]
    counts = list(predicted["one_device_ms"])
    print(
        f"\nPredicted, {predicted['weight_mib']:.2f} MiB of gradients in a ring all-reduce that nothing "
        "hides,\ndevices like this one, the batch divided:\n"
    )
    print(f"| network | {' | '.join(f'{n} devices' for n in counts)} |")
    print(f"| --- |{' --- |' * len(counts)}")
    rows = {"none: compute alone": predicted["one_device_ms"], **predicted["predicted_ms"]}
    for network, times in rows.items():
        print(f"| {network} | {' | '.join(f'{times[n]:.2f} ms' for n in counts)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps in a round")
    parser.add_argument("--out", type=Path, help="where the record goes")
    arguments = parser.parse_args()
    # read when JAX starts its backends; it concerns CPUs alone
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={FORCED}")
    counts = [n for n in (1, 2, 4, 8) if n <= jax.device_count()]
    record: dict = {
        "machine": {**machine.describe(), "devices": jax.device_count()},
        "networks": NETWORKS,
        "cases": {},
    }
    for name in arguments.cases:
        sizes, samples = CASES[name]
        how = (arguments.rounds, arguments.steps)
        case = {
            "sizes": sizes,
            "batch": samples,
            "measured": measure(sizes, samples, counts, *how),
            "predicted": predict(sizes, samples, *how),
        }
        record["cases"][name] = case
        show(name, case)
    print(f"\n{machine.write_record(record, 'devices', arguments.out)}")


if __name__ == "__main__":
    main()
