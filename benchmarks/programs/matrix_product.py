"""Products of two square matrices: the rate that limits every other program."""

import jax
import jax.numpy as jnp

from benchmarks import cases
from benchmarks.programs._program import Program

SIZE = 1024
FLOPS = 2 * SIZE**3


def make(case: cases.Case) -> Program:
    """The same for every case; float32, at the precision that JAX has by default."""
    a = jax.random.normal(jax.random.key(0), (SIZE, SIZE))
    product = jax.jit(jnp.matmul)
    return Program(lambda: product(a, a), lambda: None)
