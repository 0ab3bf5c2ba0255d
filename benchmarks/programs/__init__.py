"""The programs that are timed, by name.

Each entry names a module and the extra arguments of its `make(case, **arguments)`, which returns a
`Program`. Modules are imported when asked for, so that a peer's environment needs only its own.
"""

import importlib
from typing import Any, NamedTuple

from benchmarks.cases import Case
from benchmarks.programs._program import Program as Program


class Entry(NamedTuple):
    module: str
    arguments: dict[str, Any]
    description: str
    learns_by: str = "pc"  # "pc" | "bp" | "ep": what its time is compared with; "none": a product
    dense_only: bool = False


PROGRAMS: dict[str, Entry] = {
    "hand-scan": Entry(
        "benchmarks.programs.handwritten",
        {"loop": "scan"},
        "hand-written JAX, inference in lax.scan",
        dense_only=True,
    ),
    "hand-unroll": Entry(
        "benchmarks.programs.handwritten",
        {"loop": "unroll"},
        "hand-written JAX, inference unrolled",
    ),
    "hand-lazy": Entry(
        "benchmarks.programs.handwritten",
        {"loop": "lazy"},
        "hand-written JAX, unrolled, only nodes the error has reached",
    ),
    "hand-bp": Entry(
        "benchmarks.programs.handwritten",
        {"loop": "bp"},
        "hand-written JAX, back-propagation",
        learns_by="bp",
    ),
    "low-level": Entry(
        "benchmarks.programs.low_level", {"loop": "for"}, "pcx objects and transforms, Python loop"
    ),
    "low-level-scan": Entry(
        "benchmarks.programs.low_level",
        {"loop": "scan"},
        "pcx objects and transforms, pxf.scan",
        dense_only=True,
    ),
    "pxa-pc": Entry(
        "benchmarks.programs.algorithms", {"algorithm": "PC"}, "pxa.PC(...).train_step"
    ),
    "pxa-bp": Entry(
        "benchmarks.programs.algorithms",
        {"algorithm": "Backprop"},
        "pxa.Backprop(...).train_step",
        learns_by="bp",
    ),
    "hand-ep": Entry(
        "benchmarks.programs.handwritten",
        {"loop": "ep"},
        "hand-written JAX, centred equilibrium propagation by red-black sweeps",
        learns_by="ep",
    ),
    "pxa-ep": Entry(
        "benchmarks.programs.algorithms",
        {"algorithm": "EquilibriumProp"},
        "pxa.EquilibriumProp(...).train_step",
        learns_by="ep",
    ),
    "matrix-product": Entry(
        "benchmarks.programs.matrix_product",
        {},
        "one product of two matrices of 1024 x 1024",
        learns_by="none",
    ),
}


def make(name: str, case: Case) -> Program:
    """The named program on a case, with compiled functions not yet compiled."""
    if name not in PROGRAMS:
        raise ValueError(f"unknown program {name!r}; one of {', '.join(PROGRAMS)}")
    entry = PROGRAMS[name]
    return importlib.import_module(entry.module).make(case, **entry.arguments)
