"""`regime`: how far inference goes, and how what is learned then differs from back-propagation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..algorithms import EPC, IPC, PC, ZIL, Algorithm, Backprop
from ..algorithms._first_batch import untouched
from ._probes import measure

NOT_AN_ALGORITHM = (
    """regime takes an algorithm of pcx.algorithms, such as `pxa.PC(model)`; got {got}"""
)

STOPS = """regime: IPC with `stop=` learns at a number of steps that is not known beforehand. Measure \
one without `stop`"""


class Regime(NamedTuple):
    """What `regime` measured. Dicts are by layer, from the input to the output.

    Attributes:
        gradient_ratio: |dF/dh| after inference over that before, the median over the samples: 1,
            nothing was inferred; 0, equilibrium. h is what inference steps on.
        worst_gradient_ratio: the largest of any sample.
        relaxed_fraction: 1 - g_0'g_T / |g_0|^2 with g the gradient in the errors (see `EPC`), the
            median. If the energy is quadratic and T steps of size eta are made on the errors, this
            is sum_k w_k (1 - (1 - eta lambda_k)^T), w_k being the share of |g_0|^2 along
            eigenvector k. Below 0.1 learning is like back-propagation, above 0.9 like that at the
            equilibrium. nan where states do not follow from errors.
        lambda_max: the largest eigenvalue of d2F/dh2 after initialisation, over all samples.
        largest_state_rate: 2 / lambda_max, the largest rate at which gradient descent is stable.
        stable: whether `state_optim` lowers lambda_max / 2 h^2 in the course of 200 steps; None
            where something else moves the states.
        cosine, norm_ratio: of the weight gradient of a training step and that of back-propagation.
        total_cosine: the cosine over all weights.
        reach: the steps of inference after which a layer's weights can have a gradient; inf if they
            never have one, nan where a solver moves the states.
        error_ratio: |e_l| / |e_L| after inference, with e_l = -dF/du_l of what the layer predicts
            and e_L that of the outputs.
        effective_depth: how many layers, from the output down, have 99 % of sum_l |g_l|^2 /
            |theta_l|^2, with g_l the weight gradient.
        alignment: the cosine between how a small weight step on one sample moves its output u and
            -dF/du there (y - u for `se_energy`), mean over the samples with an error.
        interference: how much such a step raises the loss of the other samples, over how much it
            changes its own, mean over the samples whose loss it changes. Negative: the others gain as well.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.analysis as pxan, pcx.models as pxm
        >>> bp = pxa.Backprop(pxm.MLP([2, 8, 2]))
        >>> print(pxan.regime(bp, jnp.eye(2), 2 * jnp.eye(2)))  # doctest: +ELLIPSIS
        gradient left    1 (worst sample 1)
        relaxed          0
        ...
    """

    gradient_ratio: float
    worst_gradient_ratio: float
    relaxed_fraction: float
    lambda_max: float
    largest_state_rate: float
    stable: bool | None
    cosine: dict[str, float]
    norm_ratio: dict[str, float]
    total_cosine: float
    reach: dict[str, float]
    error_ratio: dict[str, float]
    effective_depth: int
    alignment: float
    interference: float

    def __str__(self) -> str:
        n = lambda value: "-" if math.isnan(value) else f"{value:.3g}"
        stable = {True: "stable", False: "NOT STABLE", None: "not by an optimiser"}[self.stable]
        lines = [
            f"gradient left    {n(self.gradient_ratio)} (worst sample {n(self.worst_gradient_ratio)})",
            f"relaxed          {n(self.relaxed_fraction)}",
            f"state steps      {stable}: lambda_max {n(self.lambda_max)}, "
            f"gradient descent below {n(self.largest_state_rate)}",
            f"cosine with BP   {n(self.total_cosine)}",
            f"effective depth  {self.effective_depth} of {len(self.cosine)} layers",
            f"alignment        {n(self.alignment)}",
            f"interference     {n(self.interference)}",
            "",
        ]
        # long paths keep their end, which tells them apart
        names = [name if len(name) <= 32 else "..." + name[-29:] for name in self.cosine]
        width = max([5, *map(len, names)])
        heads = ("cosine", "norm / BP", "reach", "error")
        lines.append("layer".ljust(width) + "".join(head.rjust(11) for head in heads))
        columns = (self.cosine, self.norm_ratio, self.reach, self.error_ratio)
        for name, *row in zip(names, *(column.values() for column in columns), strict=True):
            lines.append(name.ljust(width) + "".join(n(value).rjust(11) for value in row))
        return "\n".join(lines)


def regime(algorithm: Algorithm, x: Any, y: Any = None, samples: int = 8) -> Regime:
    """Measure how an algorithm trains: like back-propagation, like its equilibrium, or in between.

    Nothing is learned; states, optimisers and random keys stay as they are. States start afresh.
    The gradients compared are those that one training step hands to the weight optimiser, with the
    weights held still (`IPC` and `ZIL` hand over several, which are added up). A model in train
    mode is measured in train mode: dropout without `hold=True` then adds its noise, and batch
    statistics leave alignment and interference undefined.

    Args:
        algorithm: of `pcx.algorithms`, your own as well.
        x, y: a batch.
        samples: on how many of its samples alignment and interference are measured, each by itself; 0
            for none, which leaves the two nan and compiles sooner.

    Returns:
        A `Regime`; `print` shows it as a table.

    Raises:
        TypeError: not an algorithm.
        ValueError: `IPC` that stops early.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.analysis as pxan, pcx.models as pxm
        >>> epc = pxa.EPC(pxm.MLP([2, 8, 8, 2]), T=1, state_optim=optax.sgd(1e-3))
        >>> found = pxan.regime(epc, jnp.eye(2), 2 * jnp.eye(2))
        >>> round(found.cosine["layers[0]"], 2), found.reach["layers[0]"], found.stable
        (1.0, 1.0, True)

    References:
        Goemaere et al., "Error optimization: overcoming exponential signal decay in deep predictive
        coding networks", 2025; Song et al., "Inferring neural activity before plasticity as a
        foundation for learning beyond backpropagation", 2024.
    """
    if not isinstance(algorithm, Algorithm):
        raise TypeError(NOT_AN_ALGORITHM.format(got=type(algorithm).__name__))
    if isinstance(algorithm, IPC) and algorithm.stop is not None:
        raise ValueError(STOPS)
    if samples < 0:
        raise ValueError(f"regime: samples is how many to take, 0 or more; got {samples}")
    x, y = jax.tree_util.tree_map(jnp.asarray, (x, y))

    def run() -> tuple[Any, bool | None]:
        seen = jax.device_get(measure(algorithm, x, y, samples))
        return seen, _is_stable(algorithm, float(np.max(seen["curvatures"])))

    seen, stable = untouched(algorithm, run)
    # from the input to the output; layers of one depth as they come
    order = sorted(range(len(seen["layers"])), key=lambda k: -float(seen["depth"][k]))
    column = lambda key: {seen["layers"][k]: float(seen[key][k]) for k in order}
    top = float(np.max(seen["curvatures"]))
    parts = np.cumsum([*column("share").values()][::-1])
    aligned, interfered = (
        v[known] if any(known) else np.array(np.nan) for v, known in seen["alone"]
    )
    return Regime(
        gradient_ratio=float(np.median(seen["ratio"])),
        worst_gradient_ratio=float(np.max(seen["ratio"])),
        relaxed_fraction=float(np.median(seen["relaxed"])),
        lambda_max=top,
        largest_state_rate=2 / top if top > 0 else math.inf,
        stable=stable,
        cosine=column("cosine"),
        norm_ratio=column("norm_ratio"),
        total_cosine=float(seen["total_cosine"]),
        reach=column("reach"),
        error_ratio=column("error_ratio"),
        effective_depth=int(np.sum(parts < 0.99 * parts[-1])) + 1 if np.any(parts) else 0,
        alignment=float(np.mean(aligned)),
        interference=float(np.mean(interfered)),
    )


def _is_stable(algorithm: Any, curvature: float) -> bool | None:
    """Whether the state optimiser comes nearer to the minimum of curvature / 2 h^2 in 200 steps."""
    own = type(algorithm).step_states not in (PC.step_states, EPC.step_states)
    scaled = isinstance(algorithm, EPC) and algorithm.step != "fixed"
    if own or scaled or isinstance(algorithm, ZIL | Backprop) or algorithm.solver is not None:
        return None
    optax = algorithm.state_optim.optax

    def one_step(carry: Any, _: Any) -> Any:
        h, state = carry
        update, state = optax.update(curvature * h, state, h)
        return (h + update, state), None

    start = jnp.full((1,), 1e3)  # far above the noise that an optimiser may add
    (end, _), _ = jax.lax.scan(one_step, (start, optax.init(start)), None, 200)
    return bool(jnp.abs(end) < jnp.abs(start))
