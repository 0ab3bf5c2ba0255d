"""Trains a small predictive coding network in each mode of JAX, in a process of its own.

    python -m tests.modes [MODE ...] [--record FILE]

Prints a matrix: mode, whether it trained, the accuracy, or the first line of the error.
"""

# ruff: noqa: T201

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# options of `jax.config`; modes that trade speed for checks, or change numbers or keys
MODES = {
    "default": {},
    "x64": {"jax_enable_x64": True},
    "debug_nans": {"jax_debug_nans": True},
    "debug_infs": {"jax_debug_infs": True},
    "check_tracer_leaks": {"jax_check_tracer_leaks": True},
    "disable_jit": {"jax_disable_jit": True},
    "rank_promotion=raise": {"jax_numpy_rank_promotion": "raise"},
    "dtype_promotion=strict": {"jax_numpy_dtype_promotion": "strict"},
    "legacy_prng_key=error": {"jax_legacy_prng_key": "error"},
    "enable_custom_prng": {"jax_enable_custom_prng": True},
    "default_prng_impl=rbg": {"jax_default_prng_impl": "rbg"},
    "threefry_partitionable=False": {"jax_threefry_partitionable": False},
    "random_seed_offset=1": {"jax_random_seed_offset": 1},
    "transfer_guard=disallow": {"jax_transfer_guard": "disallow"},
    "default_matmul_precision=bfloat16": {"jax_default_matmul_precision": "bfloat16"},
    "log_compiles": {"jax_log_compiles": True},
    "explain_cache_misses": {"jax_explain_cache_misses": True},
    "no_tracing": {"jax_no_tracing": True},
}
# what must not train, with a word of the error
REFUSED = {"no_tracing": "no_tracing"}


def train(epochs: int, guard: str | None = None) -> dict:
    """A network with dropout and batch statistics, through the trainer; its accuracy before and after."""
    import tempfile

    import jax
    import numpy as np
    import optax

    import pcx as px
    import pcx.algorithms as pxa
    import pcx.models as pxm
    import pcx.training as pxt
    import pcx.utils as pxu

    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 2)).astype(np.float32)
    y = np.eye(2, dtype=np.float32)[(x[:, 0] * x[:, 1] > 0).astype(int)]
    train, val = pxt.batches(x[:192], y[:192], 32, shuffle=True), pxt.batches(x[192:], y[192:], 32)
    px.RKG.seed(0)
    model = pxm.MLP([2, 32, 32, 2], act=jax.nn.gelu)
    algorithm = pxa.PC(model, 8, optax.sgd(0.1, momentum=0.5), optax.adam(1e-2))
    if guard is not None:
        # from here on, because under it JAX itself refuses `jnp.zeros`
        jax.config.update("jax_transfer_guard", guard)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pxt.Trainer(algorithm, [pxt.Checkpoint(f"{folder}/run")], progress=False)
        history = trainer.fit(train, epochs, val=val)
        pxu.save_params(model, f"{folder}/weights")
        pxu.load_params(model, f"{folder}/weights")
        trainer.fit(train, epochs + 1, val=val, resume=True)
    prediction = np.asarray(trainer.predict(x[192:], batch_size=50))
    energies = history.epoch["energy"]
    correct = float(np.mean(np.argmax(prediction, 1) == np.argmax(y[192:], 1)))
    return {"accuracy": correct, "energies": [energies[0], energies[-1]]}


def run(mode: str, epochs: int) -> dict:
    """One mode in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "tests.modes", "--inside", mode]
    done = subprocess.run(
        [*command, "--epochs", str(epochs)], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    if done.returncode == 0:
        return {"trained": True, **json.loads(done.stdout.splitlines()[-1])}
    return {"trained": False, "error": error_line(done.stderr), "stderr": done.stderr}


def error_line(text: str) -> str:
    """The first line of the last exception in a traceback."""
    lines = [line for line in text.splitlines() if line and not line[0].isspace()]
    named = [
        line
        for line in lines
        if ": " in line and line.split(": ")[0].replace(".", "").isidentifier()
    ]
    return (named or lines or [""])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", metavar="MODE", help="all, if none is given")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--inside", choices=MODES, help="train in this process")
    parser.add_argument("--record", type=Path, help="where to write the matrix as JSON")
    arguments = parser.parse_args()
    if arguments.inside:
        import jax

        options = dict(MODES[arguments.inside])
        guard = options.pop("jax_transfer_guard", None)
        for name, value in options.items():
            jax.config.update(name, value)
        print(json.dumps(train(arguments.epochs, guard)))
        return
    record = {}
    print("| mode | trained | accuracy | energy, first and last epoch | error |\n|" + " --- |" * 5)
    for mode in arguments.modes or MODES:
        found = run(mode, arguments.epochs)
        found.pop("stderr", None)
        record[mode] = found
        accuracy = f"{found['accuracy']:.0%}" if found["trained"] else ""
        energies = " → ".join(f"{e:.4f}" for e in found.get("energies", ()))
        row = [
            mode,
            "yes" if found["trained"] else "no",
            accuracy,
            energies,
            found.get("error", ""),
        ]
        print(f"| {' | '.join(row)} |", flush=True)
        if arguments.record:
            from benchmarks import machine

            # after each mode, because all together take a while
            text = json.dumps({"machine": machine.describe(), "modes": record}, indent=1)
            arguments.record.parent.mkdir(parents=True, exist_ok=True)
            arguments.record.write_text(text + "\n")


if __name__ == "__main__":
    main()
