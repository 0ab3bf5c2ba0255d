"""The training step through `pcx.algorithms`: one call of `train_step`."""

import jax
import jax.numpy as jnp
import optax

import pcx.algorithms as pxa
from benchmarks import cases
from benchmarks.programs._program import Program
from benchmarks.programs.handwritten_ep import BETA
from benchmarks.programs.low_level import Network, layer_weights, load_weights


def make(case: cases.Case, algorithm: str) -> Program:
    """`algorithm`: a class of `pcx.algorithms`; "PC", "EquilibriumProp" or "Backprop"."""
    model = Network(case)
    load_weights(model, cases.initial_weights(case))
    settings = {"weight_optim": optax.adamw(case.weight_lr)}
    if algorithm == "PC":
        settings |= {"T": case.T, "state_optim": optax.sgd(case.state_lr, momentum=case.momentum)}
    if algorithm == "EquilibriumProp":
        settings |= {"T": case.T, "beta": BETA}
    trained = getattr(pxa, algorithm)(model, **settings)
    x, y = (jnp.asarray(array) for array in cases.batch(case))
    jax.block_until_ready((x, y))

    # One output stands for all: they come out of the same compiled call. Not a weight: one that the
    # harness still holds at the next step would have to be copied then instead of donated.
    return Program(lambda: trained.train_step(x, y)["energy"], lambda: layer_weights(model))
