"""Learning rates: the schedule of the benchmarks, and reading or changing one during training."""

from collections.abc import Callable, Iterable, Sized
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..utils import Optim

NOT_INJECTED = """The learning rate of this optimiser is fixed inside it and cannot be changed. \
Give it to the optimiser as a number:

    pxu.Optim(optax.adamw, learning_rate=1e-3)

in place of `optax.adamw(1e-3)`; `optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3)` will do, too."""


def warmup_cosine(
    lr: float,
    total_steps: int,
    *,
    warmup: float = 0.1,
    start: float = 1.0,
    peak: float = 1.1,
    end: float = 0.1,
) -> Callable[[Any], Any]:
    """The schedule of the benchmarks: a linear rise from lr to `1.1 lr`, then a cosine down to `0.1
    lr`.

    Args:
        lr: the learning rate that the others are multiples of.
        total_steps: number of weight updates, see `total_steps`.
        warmup: share of the steps that the rise takes.
        start, peak, end: the values at the beginning, after the rise and at the end, in units of
            lr.

    Returns:
        An optax schedule, a function from the number of updates made to the learning rate.

    Raises:
        ValueError: `total_steps` is not positive, or `warmup` not in [0, 1).

    Example:
        >>> import pcx.training as pxt
        >>> schedule = pxt.warmup_cosine(1.0, 100)
        >>> [round(float(schedule(step)), 3) for step in (0, 10, 55, 100)]
        [1.0, 1.1, 0.6, 0.1]

    References:
        Pinchetti et al., "Benchmarking predictive coding networks - made simple", 2024, Appendix B.
    """
    if total_steps < 1 or not 0 <= warmup < 1:
        raise ValueError(
            f"warmup_cosine: total_steps must be positive and warmup in [0, 1); got "
            f"total_steps={total_steps}, warmup={warmup}"
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=start * lr,
        peak_value=peak * lr,
        warmup_steps=round(warmup * total_steps),
        decay_steps=total_steps,
        end_value=end * lr,
    )


def total_steps(batches: Iterable[Any], epochs: int, updates_per_batch: int = 1) -> int:
    """The number of weight updates of a run: what a schedule has to last for.

    Args:
        batches: the training batches; anything with a length.
        epochs: how often they are gone through.
        updates_per_batch: 1; T for an algorithm that learns at every inference step, such as
            `pxa.IPC`.

    Raises:
        TypeError: the batches have no length.

    Example:
        >>> import numpy as np, pcx.training as pxt
        >>> data = pxt.batches(np.ones((10, 2)), np.ones((10, 1)), 4)  # batches of 4, 4 and 2
        >>> pxt.total_steps(data, epochs=5)
        15
        >>> schedule = pxt.warmup_cosine(1e-3, pxt.total_steps(data, epochs=5))
    """
    if not isinstance(batches, Sized):
        raise TypeError(
            f"total_steps: a {type(batches).__name__} has no length, so the number of updates is "
            "not known; pass the number of batches times epochs to the schedule instead"
        )
    return len(batches) * epochs * updates_per_batch


def learning_rate(optim: Optim, schedule: Callable[[Any], Any] | None = None) -> float | None:
    """The present learning rate of an optimiser; None if it cannot be told.

    Args:
        optim: an optimiser made with `learning_rate=` or `optax.inject_hyperparams`, or with
        schedule: this schedule, evaluated at the number of updates that the optimiser has counted.

    Example:
        >>> import jax.numpy as jnp, optax, pcx as px, pcx.training as pxt, pcx.utils as pxu
        >>> schedule = optax.linear_schedule(1.0, 0.5, transition_steps=2)
        >>> model = [px.Param(jnp.ones(2))]
        >>> optim = pxu.Optim(optax.sgd(schedule), model)
        >>> _ = optim.step(model, [jnp.ones(2)])
        >>> pxt.learning_rate(optim, schedule)
        0.75
    """
    found = _injected(_of(optim))
    if found:
        return float(found[0]["learning_rate"])
    if schedule is None:
        return None
    counts = [
        leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(optim.state.get())[0]
        if getattr(path[-1], "name", None) == "count"
    ]
    return float(schedule(counts[0])) if counts else None


def set_learning_rate(optim: Optim, lr: float) -> None:
    """Change the learning rate of an optimiser made with `learning_rate=` or
    `optax.inject_hyperparams`.

    Nothing is compiled again.

    Raises:
        ValueError: the optimiser was not made that way.

    Example:
        >>> import jax.numpy as jnp, optax, pcx as px, pcx.training as pxt, pcx.utils as pxu
        >>> optim = pxu.Optim(optax.adam, [px.Param(jnp.ones(2))], learning_rate=1e-3)
        >>> pxt.set_learning_rate(optim, 0.5)
        >>> pxt.learning_rate(optim)
        0.5
    """
    found = _injected(_of(optim))
    if not found:
        raise ValueError(NOT_INJECTED)
    ids = {id(node) for node in found}

    def change(node: Any) -> Any:
        if id(node) not in ids:
            return node
        old = node["learning_rate"]
        return {**node, "learning_rate": jnp.asarray(lr, jnp.result_type(old))}

    for param in (optim.numbers, optim.state):
        if param is not None:
            is_leaf = lambda node: id(node) in ids
            param.set(jax.tree_util.tree_map(change, param.get(), is_leaf=is_leaf))


def _of(optim: Optim) -> Any:
    """Where the hyper-parameters of an optimiser may be."""
    return None if optim.numbers is None else optim.numbers.get(), optim.state.get()


def _injected(state: Any) -> list[dict[str, Any]]:
    """The dictionaries of hyper-parameters that hold a learning rate."""
    found = []

    def visit(node: Any) -> bool:
        if isinstance(node, dict) and "learning_rate" in node:
            found.append(node)
            return True
        return False

    jax.tree_util.tree_leaves(state, is_leaf=visit)
    return found
