"""Nudged predictive coding: positive, negative, centred."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import RKG, Param, RandomKeyGenerator
from ..predictive_coding import mean, vodes
from ..utils import step
from ._energies import CACHE, batched
from ._lazy import lazy_safe
from ._pc import PC, Trained

BAD_BETA = """NudgedPC: beta is the strength of nudging, 0 < beta <= 1; its sign follows from `mode`. \
Got beta={beta!r}. (beta = 1 with mode="positive" is PC.)"""

NOT_CLAMPED = """NudgedPC mixes each target with the mean of the output that it is clamped on, but {part} is \
not found on any vode. Clamp it as it is, `vode.set("h", y)` with `vode.h.frozen = True`"""

_SIGN = {"positive": 1.0, "negative": -1.0, "centred": 1.0}


@lazy_safe
class NudgedPC(PC):
    """Nudged predictive coding: the output is clamped near its prediction, in the target's direction.

        h := u (forward pass);   h_L := u_L + beta (y - u_L), u_L of that pass;
        T times: h <- opt_h(h, dF/dh);   once: theta <- opt_theta(theta, dF/dtheta / beta)

    beta > 0 is positive nudging (PN), beta < 0 negative nudging (NN): away from the target, with the
    sign of the update flipped by the factor 1/beta. Centred nudging (CN) alternates between both, or
    averages them, in which the odd orders of beta cancel. beta = 1 is exactly PC. What is nudged is the
    mean of the output: softmax(u_L) in place of u_L with `ce_energy`, sigmoid(u_L) with
    `bernoulli_energy`, and so on (`pxc.Traits.mean`). With several outputs y is a tuple, or any tree.

    Args:
        model, T, state_optim, weight_optim, and all options: see `PC`.
        beta: strength of nudging at epoch 0, in (0, 1].
        mode: "positive", "negative" or "centred".
        beta_increase: beta grows by this much per epoch, up to 1 (`start_epoch`).
        alternate: how centred nudging chooses: "epoch" for each epoch, "batch" for each batch; "average"
            runs both from the same initial states and averages the gradients.
        random: whether centred nudging draws PN or NN; else they take turns, PN first (in each epoch).
        scale: what the weight gradient is multiplied by: "beta" for 1/beta, "sign" for the sign of beta
            alone (as printed in Pinchetti et al., Appendix B). With Adam the difference is slight.
        rkg: where "epoch" draws its random numbers.

    Attributes:
        beta: a param with the present, signed beta; changing it does not compile anything again.

    Raises:
        ValueError: beta outside (0, 1], a negative `beta_increase`, an unknown mode, alternate or scale;
            "average" with `init="persistent"`, whose two runs would not start alike. When first called:
            an output whose mean is not known, or that y is not found on.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> nudged = pxa.NudgedPC(
        ...     pxm.MLP([2, 8, 2]), T=4, beta=0.2, mode="negative", beta_increase=0.1
        ... )
        >>> _ = nudged.train_step(jnp.eye(2), jnp.eye(2))
        >>> nudged.start_epoch(1)
        >>> round(float(nudged.beta), 3)
        -0.3

    References:
        Scellier et al., "Energy-based learning algorithms for analog computing", 2023; Pinchetti et al.,
        "Benchmarking predictive coding networks", Appendix B.
    """

    def __init__(
        self,
        *args: Any,
        beta: float = 1.0,
        mode: Literal["positive", "negative", "centred"] = "positive",
        beta_increase: float = 0.0,
        alternate: Literal["epoch", "batch", "average"] = "epoch",
        scale: Literal["beta", "sign"] = "beta",
        random: bool = True,
        rkg: RandomKeyGenerator = RKG,
        **options: Any,
    ):
        super().__init__(*args, **options)
        _check("mode", mode, ("positive", "negative", "centred"))
        _check("alternate", alternate, ("epoch", "batch", "average"))
        _check("scale", scale, ("beta", "sign"))
        if not 0 < beta <= 1:
            raise ValueError(BAD_BETA.format(beta=beta))
        if beta_increase < 0:
            raise ValueError(f"NudgedPC: beta_increase must be >= 0; got {beta_increase!r}")
        if mode == "centred" and alternate == "average" and self.init == "persistent":
            raise ValueError(
                'NudgedPC: alternate="average" runs inference twice from the same initial states, which '
                'init="persistent" cannot give; use init="forward", or alternate="batch"'
            )
        self.mode, self.scale, self.alternate, self.random = mode, scale, alternate, random
        # params, so that another value compiles nothing anew
        self.initial_beta = Param(jnp.asarray(float(beta)))
        self.beta_increase = Param(jnp.asarray(float(beta_increase)))
        self._rkg = rkg
        self.beta = Param(jnp.asarray(_SIGN[mode] * beta))

    def start_epoch(self, epoch: int) -> None:
        """Set beta for an epoch (from 0); centred nudging draws its sign."""
        size = min(float(self.initial_beta) + epoch * float(self.beta_increase), 1.0)
        sign = _SIGN[self.mode]
        if self.mode == "centred" and self.alternate == "epoch":
            positive = bool(jax.random.bernoulli(self._rkg())) if self.random else epoch % 2 == 0
            sign = 1.0 if positive else -1.0
        self.beta.set(jnp.asarray(sign * size, self.beta.dtype))

    def start(self, x: PyTree, y: PyTree) -> tuple[Any, Any]:
        """Forward initialisation, and the target near each output's mean in that pass."""
        prediction = self.initialise(x, y)
        if y is None:
            return prediction, None
        if self.mode == "centred" and self.alternate == "batch" and self.random:
            self.beta *= jnp.where(jax.random.bernoulli(RKG()), 1.0, -1.0)
        return prediction, self.target(y, output_means(x, y, self.model))

    def target(self, y: PyTree, prediction: PyTree) -> Any:
        """The outputs' means, moved by beta towards y."""
        mix = lambda m, y: m + self.beta.astype(m.dtype) * (y - m)
        return jax.tree_util.tree_map(mix, prediction, y)

    def train(self, x: PyTree, y: PyTree) -> Trained:
        """One training step; "average" infers twice, with opposite nudges from the same initial states."""
        centred = self.mode == "centred" and y is not None
        if not (centred and self.alternate == "average"):
            trained = super().train(x, y)
            if centred and self.alternate == "batch" and not self.random:
                self.beta *= -1
            return trained
        runs = []
        for _ in range(2):
            prediction, nudged = self.start(x, y)
            record = self.infer_states(x, nudged, energies=self.record)
            runs.append((prediction, record, *self.weight_gradients(x, nudged)))
            self.beta *= -1
        (prediction, record, F, grads), (_, _, mirrored_F, mirrored) = runs
        average = jax.tree_util.tree_map(lambda a, b: (a + b) / 2, grads, mirrored)
        self.apply_gradients(average, x, y)
        return Trained(prediction, (F + mirrored_F) / 2, record)

    def weight_gradients(self, x: PyTree, y: PyTree) -> tuple[jax.Array, Any]:
        """Mean energy, and the gradients times 1/beta (or its sign), summed over the batch."""
        F, grads = super().weight_gradients(x, y)
        factor = 1 / self.beta if self.scale == "beta" else jnp.sign(self.beta.get())
        return F, jax.tree_util.tree_map(lambda g: g * factor.astype(g.dtype), grads)


def output_means(x: PyTree, y: PyTree, model: Any) -> Any:
    """The mean of each clamped output under the model in a forward pass, a tree like y.

    Raises:
        ValueError: a part of y is not found on any vode; an energy function whose mean is not known.
    """
    with step(model, clear_params=(CACHE, CACHE)):
        return _output_means(x, y, model=model)


@batched
def _output_means(x: PyTree, y: PyTree, *, model: Any) -> Any:
    model(x, y)
    outputs = [vode for vode in vodes(model) if vode.is_frozen]
    leaves, treedef = jax.tree_util.tree_flatten(y)
    found = []
    for index, leaf in enumerate(leaves):
        clamped = [v for v in outputs if v.h.get() is leaf]
        if not clamped and len(outputs) == len(leaves) == 1:
            clamped = outputs  # y was converted on its way
        if not clamped:
            part = f"part {index} of y" if len(leaves) > 1 else "y"
            raise ValueError(NOT_CLAMPED.format(part=part))
        found.append(mean(clamped[0], clamped[0].get("u")))
    return jax.tree_util.tree_unflatten(treedef, found)


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"NudgedPC: {name} must be one of {', '.join(map(repr, known))}; got {value!r}"
        )
