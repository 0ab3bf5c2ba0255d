"""What to say when the energy is no longer a number."""

import math
from typing import Any

import jax
import numpy as np

from ..core import named_params
from ..utils._mesh import own_part

GROWTH = 1e6

REPORT = """Training diverged in epoch {epoch}, batch {batch} (step {step}): the energy is {energy}.
{where}
What to try, in this order:
{advice}
{state}"""

DATA = "  - look at the data: {name} of this batch holds {count} values that are not finite"
STATES = """  - a smaller learning rate for the states: it must stay below 2 over the largest \
curvature of
    the energy, which grows with depth and with the weights
  - fewer inference steps, or an optimiser for the states without momentum
  - bounded activations (tanh), or weights that start smaller"""
WEIGHTS = """  - a smaller learning rate for the weights, or one that starts small \
(`pxt.warmup_cosine(..., start=0)`)
  - gradient clipping: `optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lr))`
  - weight decay, where outputs may grow without bound (cross entropy)"""
NO_VODE = "Which vode it was is not known: no energies were recorded in this batch."
KEPT = "The model, its optimiser and the random key are as they were before this batch."
LOST = "The model has taken the step; load a checkpoint to go back."


class Diverged(RuntimeError):
    """Training produced an energy that is not finite, or has grown beyond all measure.

    Attributes:
        epoch, batch: where, both counted from 1.
        vode: path of the first vode whose energy diverged; None if unknown.
        inference_step: the inference step at which it did, from 0; None if unknown.
        energies: energy of each vode at each inference step of that batch, or None.
        energy: that of the batch.

    Example:
        >>> import numpy as np, pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
        >>> trainer = pxt.Trainer(pxa.PC(pxm.MLP([2, 4, 1]), T=2), progress=False)
        >>> good, bad = np.ones((8, 2)), np.full((8, 2), np.inf)
        >>> try:
        ...     _ = trainer.fit([(good, np.ones((8, 1))), (bad, np.ones((8, 1)))], epochs=3)
        ... except pxt.Diverged as error:
        ...     print(f"epoch {error.epoch}, batch {error.batch}")
        epoch 1, batch 2
    """

    def __init__(
        self,
        message: str,
        epoch: int,
        batch: int,
        vode: str | None = None,
        inference_step: int | None = None,
        energies: np.ndarray | None = None,
        energy: float = math.nan,
    ):
        super().__init__(message)
        self.epoch, self.batch, self.energy = epoch, batch, energy
        self.vode, self.inference_step, self.energies = vode, inference_step, energies


def is_bad(energy: Any, limit: float) -> bool:
    """Whether an energy shows divergence: not finite, or above the limit."""
    return not math.isfinite(energy) or abs(energy) > limit


def report(
    *,
    epoch: int,
    batch: int,
    step: int,
    energy: float,
    limit: float,
    x: Any,
    y: Any,
    algorithm: Any,
    energies: np.ndarray | None,
    kept: bool,
) -> Diverged:
    """The error to raise.

    Args:
        epoch, batch, step: where; all from 1.
        energy: the batch's.
        limit: the energy above which training counts as diverged.
        x, y: the batch.
        algorithm: in its state before the batch if `kept`, else after.
        energies: `(T + 1, vodes)`, recorded in this batch; or None.
    """
    names = tuple(algorithm.vode_names)
    advice = [
        DATA.format(name=label, count=count) for label, count in _bad_values(x, y).items() if count
    ]
    vode, moment = (None, None) if energies is None else _locate(energies, limit, names)
    if energies is not None and vode is not None and moment is not None:
        trace = _trace(energies[:, names.index(vode)])
        where = f"The energy of `{vode}` diverged first, at inference step {moment}: {trace}."
        if moment == 0:
            where += "\nInference had done nothing yet, so the weights or the data are the cause."
        advice += [WEIGHTS] if moment == 0 else [STATES, WEIGHTS]
    else:
        bad = [] if kept else _bad_params(algorithm)
        where = NO_VODE
        if bad:
            where = f"Params that are no longer finite: {', '.join(f'`{p}`' for p in bad[:6])}."
        advice += [WEIGHTS, STATES]
    message = REPORT.format(
        epoch=epoch,
        batch=batch,
        step=step,
        energy=f"{energy:.4g}",
        where=where,
        advice="\n".join(advice),
        state=KEPT if kept else LOST,
    )
    return Diverged(message, epoch, batch, vode, moment, energies, energy)


def _locate(
    energies: np.ndarray, limit: float, names: tuple[str, ...]
) -> tuple[str | None, int | None]:
    bad = ~np.isfinite(energies) | (np.abs(energies) > limit)
    if not bad.any():
        return None, None
    row = int(np.argmax(bad.any(axis=1)))
    # with several at once, the largest while it still was a number
    before = np.nan_to_num(energies[max(row - 1, 0)], nan=math.inf)
    column = int(max(np.flatnonzero(bad[row]), key=lambda k: before[k]))
    return names[column], row


def _trace(column: np.ndarray) -> str:
    shown = [f"{value:.3g}" for value in column]
    return ", ".join(shown if len(shown) <= 9 else [*shown[:4], "...", *shown[-4:]])


def _bad_values(x: Any, y: Any) -> dict[str, int]:
    found = {}
    for label, value in (("x", x), ("y", y)):
        leaves = [own_part(leaf) for leaf in jax.tree_util.tree_leaves(value)]
        found[label] = sum(
            int(np.sum(~np.isfinite(leaf))) for leaf in leaves if leaf.dtype.kind == "f"
        )
    return found


def _bad_params(algorithm: Any) -> list[str]:
    return [
        path
        for path, param in named_params(algorithm)
        if any(
            not np.all(np.isfinite(np.asarray(leaf)))
            for leaf in jax.tree_util.tree_leaves(param.get())
            if np.asarray(leaf).dtype.kind == "f"
        )
    ]
