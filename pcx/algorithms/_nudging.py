"""Nudged predictive coding: positive, negative, centred."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..core import RKG, Param, RandomKeyGenerator
from ..predictive_coding import ce_energy
from ..utils import step
from ._base import Algorithm
from ._energy_fn import CACHE, call, vodes_of
from ._inference import Plan, Record
from ._wave import is_frozen

BAD_BETA = """NudgedPC: beta is the strength of nudging, 0 < beta <= 1; its sign follows from `mode`. \
Got beta={beta!r}. (beta = 1 with mode="positive" is PC.)"""

_SIGN = {"positive": 1.0, "negative": -1.0, "centred": 1.0}


class NudgedPC(Algorithm):
    """Nudged predictive coding: the output is clamped near its prediction, in the target's direction.

        h := u (forward pass);   h_L := u_L + beta (y - u_L), u_L of that pass;
        T times: h <- opt_h(h, dF/dh);   once: theta <- opt_theta(theta, dF/dtheta / beta)

    beta > 0 is positive nudging (PN), beta < 0 negative nudging (NN): away from the target, with the
    sign of the update flipped by the factor 1/beta. Centred nudging (CN) alternates between both, or
    averages them, in which the odd orders of beta cancel. beta = 1 is exactly PC. For an output with
    `ce_energy` the distribution is nudged, softmax(u_L) in place of u_L.

    Args:
        model, T, state_optim, weight_optim, and all options: see `Algorithm`.
        beta: strength of nudging at epoch 0, in (0, 1].
        mode: "positive", "negative" or "centred".
        beta_increase: beta grows by this much per epoch, up to 1 (`start_epoch`).
        alternate: how centred nudging chooses: "epoch" draws PN or NN for each epoch, "batch" for each
            batch, "average" runs both from the same initial states and averages the gradients.
        scale: what the weight gradient is multiplied by: "beta" for 1/beta, "sign" for the sign of beta
            alone (as printed in Pinchetti et al., Appendix B). With Adam the difference is slight.
        rkg: where "epoch" draws its random numbers.

    Attributes:
        beta: a param with the present, signed beta; changing it does not compile anything again.

    Raises:
        ValueError: beta outside (0, 1], a negative `beta_increase`, an unknown mode, alternate or scale;
            "average" with `init="persistent"`, whose two runs would not start alike.

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
        model: Any,
        T: int = 8,
        state_optim: Any = None,
        weight_optim: Any = None,
        *,
        beta: float = 1.0,
        mode: Literal["positive", "negative", "centred"] = "positive",
        beta_increase: float = 0.0,
        alternate: Literal["epoch", "batch", "average"] = "epoch",
        scale: Literal["beta", "sign"] = "beta",
        rkg: RandomKeyGenerator = RKG,
        **options: Any,
    ):
        super().__init__(model, T, state_optim, weight_optim, **options)
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
        self.mode, self.scale, self.alternate = mode, scale, alternate
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
            sign = 1.0 if bool(jax.random.bernoulli(self._rkg())) else -1.0
        self.beta.set(jnp.asarray(sign * size, self.beta.dtype))

    def target(self, y: Any, prediction: Any) -> Any:
        """The prediction, moved by beta towards y; y=None stays None."""
        if y is None:
            return None
        if self.mode == "centred" and self.alternate == "batch":
            self.beta *= jnp.where(jax.random.bernoulli(RKG()), 1.0, -1.0)
        mean = self._mean(prediction)
        return mean + self.beta.astype(mean.dtype) * (y - mean)

    def infer_states(self, x: Any, y: Any, plan: Plan, **watch: bool) -> Record:
        """Inference towards the nudged target, which a recorded trajectory starts with."""
        if watch.get("states"):
            with step(self.model, clear_params=(CACHE, CACHE)):
                call(x, y, model=self.model)
        return super().infer_states(x, y, plan, **watch)

    def weight_gradients(self, x: Any, y: Any, plan: Plan | None) -> tuple[jax.Array, Any]:
        """Mean energy, and the gradients times 1/beta (or its sign), summed over the batch."""
        energy, grads = super().weight_gradients(x, y, plan)
        factor = 1 / self.beta if self.scale == "beta" else jnp.sign(self.beta.get())
        return energy, jax.tree_util.tree_map(lambda g: g * factor.astype(g.dtype), grads)

    def learn(self, x: Any, y: Any, plan: Plan | None) -> jax.Array:
        """One step on the weights; "average" infers once more, with the opposite nudge, before it."""
        if not (self.mode == "centred" and self.alternate == "average") or y is None:
            return super().learn(x, y, plan)
        energy, grads = self.weight_gradients(x, y, plan)
        prediction, initial = self.initialise(x, y)
        other = 2 * self._mean(prediction) - y
        self.infer_states(x, other, self.plan(x, other, initial))
        self.beta *= -1
        mirrored = self.weight_gradients(x, other, plan)
        self.beta *= -1
        grads = jax.tree_util.tree_map(lambda a, b: (a + b) / 2, grads, mirrored[1])
        self.step_weights(grads, x, y)
        return (energy + mirrored[0]) / 2

    def _mean(self, prediction: Any) -> Any:
        """The mean of the output under the model."""
        outputs = [v for v in vodes_of(self.model) if is_frozen(v.h) and v.energy_fn is ce_energy]
        return jax.nn.softmax(prediction, axis=-1) if outputs else prediction


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"NudgedPC: {name} must be one of {', '.join(map(repr, known))}; got {value!r}"
        )
