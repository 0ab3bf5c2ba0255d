"""How long inference takes to equilibrium, by depth.

    python -m benchmarks.equilibrium

Chains of L layers, linear and tanh, with weights from N(0, 1/n) and a squared error. Every method iterates
until the gradient of each sample's energy in the states (in the errors, for EPC) is a thousandth of what it
was after the forward pass, or to a cap. The rate of gradient descent, of EPC and of Anderson is half of the
largest stable one, measured on the batch. The methods take turns, so that all meet the same machine; the
time is that of a training step with its inference, the least of the rounds, compilation left out. Writes a
JSON record.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.predictive_coding as pxc
from benchmarks import machine
from pcx.algorithms._equilibrium import EquilibriumSolver, Problem
from pcx.algorithms._red_black import colours_of
from pcx.functional import pure

TOLERANCE = 1e-3
WIDTH, OUTPUTS, BATCH = 32, 10, 16
ACTIVATIONS = {"linear": lambda h: h, "tanh": jnp.tanh}


@dataclass(frozen=True)
class Steps(EquilibriumSolver):
    """An optax transformation as a solver that stops at the tolerance."""

    optim: Any = None

    def start(self, problem: Problem, h: jax.Array, slope: jax.Array) -> Any:
        return self.optim.init(h)

    def advance(self, problem: Problem, h: jax.Array, slope: jax.Array, memory: Any) -> Any:
        updates, memory = self.optim.update(slope, memory, h)
        return h + updates, memory


@dataclass(frozen=True)
class Sweeps(EquilibriumSolver):
    """Red-black sweeps that stop at the tolerance."""

    damping: float = 0.5

    def advance(self, problem: Problem, h: jax.Array, slope: jax.Array, memory: Any) -> Any:
        solver, x, y = pxa.RedBlack(damping=self.damping), problem.x, problem.y
        colours = colours_of(x, y, problem.algorithm.model)

        def sweep(parts: Any, *, algorithm: Any) -> Any:
            for state, part in zip(pxc.free_states(algorithm.model), parts, strict=True):
                state.set(part)
            for colour in colours:
                solver._set(algorithm, x, y, colour)
            return [state.get() for state in pxc.free_states(algorithm.model)]

        new = pure(sweep, algorithm=problem.algorithm)(problem.split(h))
        return problem.join(new), memory


def methods(
    rate: float, error_rate: float
) -> dict[str, tuple[type[pxa.PC], EquilibriumSolver, int]]:
    """Algorithm, solver and cap of each."""
    return {
        "SGD": (pxa.PC, Steps(TOLERANCE, optax.sgd(rate)), 20000),
        "Adam 0.01": (pxa.PC, Steps(TOLERANCE, optax.adam(0.01)), 5000),
        "EPC": (pxa.EPC, Steps(TOLERANCE, optax.sgd(error_rate)), 5000),
        "red-black, damped": (pxa.PC, Sweeps(TOLERANCE, 0.5), 5000),
        "Anderson": (pxa.PC, pxa.Anderson(TOLERANCE, rate, window=10), 2000),
        "Gauss-Newton": (pxa.PC, pxa.GaussNewton(TOLERANCE, "direct"), 50),
        "Gauss-Newton, CG": (pxa.PC, pxa.GaussNewton(TOLERANCE, "cg"), 50),
    }


def case(kind: str, depth: int) -> tuple[Callable[[], Any], jax.Array, jax.Array]:
    """A network of `depth` layers (the same each time), and a batch."""
    sizes = [WIDTH] * depth + [OUTPUTS]
    init = jax.nn.initializers.lecun_normal(in_axis=1, out_axis=0)

    def make() -> Any:
        rkg = px.RandomKeyGenerator(0)
        return pxm.MLP(sizes, act=ACTIVATIONS[kind], weight_init=init, rkg=rkg)

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(BATCH, WIDTH)), rng.normal(size=(BATCH, OUTPUTS))
    return make, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def measure(kind: str, depth: int, rounds: int) -> dict[str, dict[str, float]]:
    """{method: {"iterations", "met", "ms"}} on one chain."""
    make, x, y = case(kind, depth)
    rates = [0.5 * float(cls(make(), 0).largest_state_rate(x, y)) for cls in (pxa.PC, pxa.EPC)]
    runs, found = {}, {}
    for name, (cls, solver, cap) in methods(*rates).items():
        runs[name] = cls(make(), cap, solver, optax.sgd(0.0))
        metrics = runs[name].train_step(x, y)  # compiles
        found[name] = {"iterations": int(metrics["steps"]), "met": int(metrics["met"])}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, algorithm in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(algorithm.train_step(x, y))
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: {**values, "ms": min(times[name])} for name, values in found.items()}


def table(kind: str, by_depth: dict[int, dict[str, dict[str, float]]]) -> str:
    """Milliseconds (iterations) of each method, by depth; a dash where the tolerance was not met."""
    depths = list(by_depth)
    lines = [f"{kind:<18}" + "".join(f"{f'L = {d}':>20}" for d in depths)]
    for name in by_depth[depths[0]]:
        cells = []
        for depth in depths:
            run = by_depth[depth][name]
            done = run["met"] == BATCH
            cells.append(f"{run['ms']:.1f} ({run['iterations']})" if done else f"- ({run['met']})")
        lines.append(f"{name:<18}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, dict[int, Any]] = {}
    for kind in ACTIVATIONS:
        found[kind] = {}
        for depth in arguments.depths:
            found[kind][depth] = measure(kind, depth, arguments.rounds)
        print(table(kind, found[kind]), flush=True)
    print(
        "milliseconds (iterations) to a residual of 1e-3; - (samples of 16 that met it within the cap)"
    )
    record = {"machine": machine.describe(), "tolerance": TOLERANCE, "batch": BATCH}
    record["chains"] = found
    print(machine.write_record(record, "equilibrium", arguments.out))


if __name__ == "__main__":
    main()
