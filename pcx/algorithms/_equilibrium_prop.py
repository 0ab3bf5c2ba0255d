"""Equilibrium propagation: the output is free, and a cost nudges it.

While a batch is inferred, the algorithm's copy of the model is another one: its outputs are free
states with the energy `1/2 |h - u|^2 + beta C(h, y)`, and it is called without y. So the loop, the
solvers and the recording are those of any other algorithm.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import RKG, Param, ParamCache
from ..functional import pure
from ..nn import statistics
from ..predictive_coding import (
    STATUS,
    EnergyModule,
    Vode,
    energy_modules,
    free_states,
    state_and_prediction,
    vodes,
)
from ..utils import step
from . import _lazy
from ._energies import CACHE, batch_size, batched
from ._lazy import lazy_safe
from ._options import ADAMW_0_001, StateOptim, WeightOptim
from ._pc import PC, Trained
from ._red_black import RedBlack

NO_OUTPUT = """EquilibriumProp: y is clamped on no frozen vode, so there is no output to nudge. Clamp it in \
the model's `__call__(self, x, y=None)`: `if y is not None: self.vodes[-1].set("h", y)`, and freeze it when the \
model is made: `self.vodes[-1].h.frozen = True`"""

OWN_ENERGY = """EquilibriumProp: the output `{name}` computes its energy in a method of its own, so its cost at \
another prediction is not known. Write it as an energy function: `pxc.Vode(shape, energy_fn)`"""

NOT_AT_REST = """EquilibriumProp: without a nudge the states must rest where the forward pass puts them, but \
{names} has a gradient there (noise, dropout, an energy of its own, a learned variance, a node used twice?). Put \
the model in eval mode, or use NudgedPC"""

OWN_HOOK = """EquilibriumProp: without a nudge the states must rest where the forward pass puts them, and of \
`{cls}.{hook}` that is not known. If its gradient in the states is zero after the forward pass, mark the \
method with `@pxa.lazy_safe`; if not, use NudgedPC"""

NEEDS = """EquilibriumProp.train_step needs {what}: the estimate is of the gradient of a cost C(h_L, y) of the \
output that follows from x. Use PC for a model without it"""

_SIGNS = {"positive": (1.0,), "negative": (-1.0,), "random": (1.0,), "centred": (1.0, -1.0)}


class OfSample(Param, ParamCache):
    """What differs from sample to sample, (batch, ...), and outlasts the states."""

    __slots__ = ()


@lazy_safe
class EquilibriumProp(PC):
    """Equilibrium propagation with a cost that nudges the free output.

        F_beta = sum_{l<L} E_l(h_l, u_l) + 1/2 |h_L - u_L|^2 + beta C(h_L, y),    every state is free
        h := u (forward pass, where F_0 is least);    inference to where dF_beta/dh = 0;
        theta <- opt_theta(theta, dF_beta/dtheta / beta)
        centred: h := u again, inference with -beta; (dF_beta/dtheta - dF_-beta/dtheta) / (2 beta)

    C is the energy of the model's own output vode with its prediction replaced by the state: with
    `se_energy` 1/2 |y - h_L|^2, with `ce_energy` -y log softmax(h_L). The model is called without y during
    inference, and learning is local. At the stationary points the estimates are the exact gradients of F*_beta
    / beta and (F*_beta - F*_-beta) / (2 beta), which differ from back-propagation's by O(beta) and O(beta^2).
    With squared error it is PC with an output of precision beta / (1 + beta). The "energy" of `train_step` is
    F_beta / beta, or its centred form, which is about the loss; `energy` and records have F_beta itself. A
    negative beta has such a point if |beta| is below 1 / lambda_max(S), with S = I + sum_{l=2..L} P_l P_l' and
    P_l the Jacobian of the output in h_{l-1}.

    Args:
        model, T, weight_optim, and all options: see `PC`.
        state_optim: by default `pxa.RedBlack()`, whose T = L sweeps come closest to back-propagation; or
            any other solver or optax transformation.
        beta: strength of the nudge, above 0.
        mode: "positive", "negative", "random" (a sign drawn for each sample of a batch), or "centred".

    Attributes:
        beta: a param; changing it does not compile anything again.

    Raises:
        ValueError: beta <= 0, an unknown mode, another `init` than "forward". When first called: no output that
            y is clamped on; states that do not rest after the forward pass, or an energy of a subclass of which
            that is not known.

    Example:
        >>> import jax, jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> model, x, y = pxm.MLP([2, 8, 8, 2], act=jnp.tanh), jnp.eye(2), jnp.eye(2)
        >>> ep = pxa.EquilibriumProp(
        ...     model, T=3, beta=0.02, mode="centred", weight_optim=optax.sgd(0.1)
        ... )
        >>> bp = pxa.Backprop(model)
        >>> loss, gradient = bp.energy(x, y).mean(), ep.train_step(x, y)["energy"]
        >>> bool(
        ...     jnp.allclose(gradient, loss, rtol=1e-2)
        ... )  # (F_beta - F_-beta) / (2 beta) is about C
        True

    References:
        Scellier & Bengio, 2017; Laborieux et al., 2021 (centred); Scellier et al., arXiv 2312.15103
        (signs); arXiv 2606.03584 (predictive coding energies, sweeps).
    """

    descends = False  # the energies of two phases are not compared with the forward pass's
    clamps_output = False

    def __init__(
        self,
        model: EnergyModule,
        T: int | None = None,
        state_optim: StateOptim | None = None,
        weight_optim: WeightOptim | None = ADAMW_0_001,
        *,
        beta: float = 0.02,
        mode: Literal["positive", "negative", "random", "centred"] = "centred",
        **options: Any,
    ):
        state_optim = RedBlack() if state_optim is None else state_optim
        super().__init__(model, T, state_optim, weight_optim, **options)
        if mode not in _SIGNS:
            raise ValueError(
                f"EquilibriumProp: mode must be one of {', '.join(map(repr, _SIGNS))}; got {mode!r}"
            )
        if not beta > 0:
            raise ValueError(
                f"EquilibriumProp: beta must be positive, its sign follows from `mode`; got {beta!r}"
            )
        if self.init != "forward":
            raise ValueError(
                f'EquilibriumProp: states start at the forward pass, init="forward"; got {self.init!r}'
            )
        self.mode = mode
        self.beta = Param(jnp.asarray(float(beta)))

    def train(self, x: PyTree, y: PyTree) -> Trained:
        """One training step on a batch: one phase, or two from the same states."""
        for what, missing in (("y", y is None), ("x", x is None)):
            if missing:
                raise ValueError(NEEDS.format(what=what))
        prediction, _ = self.start(x, y)
        rest = [(h, h.get()) for h in free_states(self.model)]
        phases = []
        for sign in _SIGNS[self.mode]:
            for h, value in rest:
                h.set(value)
            self._nudge(sign)
            record = self.infer_states(x, None, energies=self.record)
            phases.append((record, *self.weight_gradients(x, None)))
        records, energies, gradients = zip(*phases, strict=True)
        mean = lambda *parts: jnp.mean(jnp.stack(parts), axis=0)
        self.apply_gradients(jax.tree_util.tree_map(mean, *gradients), x, y)
        # of two phases, the one in which fewer samples met a solver's tolerance
        least = lambda *parts: jnp.min(jnp.stack(parts))
        info = jax.tree_util.tree_map(least, *(record.info for record in records))
        return Trained(prediction, mean(*energies), records[0]._replace(info=info))

    def start(self, x: PyTree, y: PyTree) -> tuple[Any, Any]:
        """h := u, with the outputs free and nudged; the target is in their cost."""
        self._hold()
        if y is not None:
            self._release(x, y)
        with self.passes("forward"):
            prediction = self.initialise(x, None)
        if y is not None:
            if (target := self.target(y, prediction)) is not y:
                self._hold()
                self._release(x, target)
            self._check_rest(x)
        return prediction, None

    def learning_energy(self, x: PyTree, y: PyTree, *, model: Any) -> jax.Array:
        """F / beta summed over the batch."""
        F = self.sample_energies(x, y, model=model)
        nudged = _nudged(model)
        return jnp.sum(F / nudged[0].beta.get().astype(F.dtype) if nudged else F)

    def _release(self, x: PyTree, y: PyTree) -> None:
        """Free the outputs, and give them a cost; on this call's copy of the model."""
        targets, names = _targets(x, y, self.model), self.vode_names
        if not targets:
            raise ValueError(NO_OUTPUT)
        by_state = {id(vodes(self.model)[k].h): k for k in targets}
        betas = self._betas(batch_size(x, y))
        for vode in energy_modules(self.model):
            if not isinstance(vode, Vode) or id(vode.h) not in by_state:
                continue
            k = by_state[id(vode.h)]
            if type(vode).energy is not Vode.energy:
                raise ValueError(OWN_ENERGY.format(name=names[k]))
            vode.energy_fn = Nudged(vode.energy_fn)
            vode.target, vode.beta = OfSample(targets[k]), OfSample(betas)
            vode.h.frozen = False

    def _hold(self) -> None:
        """The outputs as the model has them: clamped."""
        for vode in _nudged(self.model):
            vode.energy_fn = vode.energy_fn.cost
            del vode.target, vode.beta
            vode.h.frozen = True

    def _betas(self, n: int) -> jax.Array:
        """The nudge of each sample, (batch,)."""
        signs = jnp.full(n, _SIGNS[self.mode][0], self.beta.dtype)
        if self.mode == "random":
            signs = jnp.where(jax.random.bernoulli(RKG(), shape=(n,)), signs, -signs)
        return self.beta.get() * signs

    def _nudge(self, sign: float) -> None:
        if self.mode == "centred":
            for vode in _nudged(self.model):
                vode.beta.set(sign * jnp.abs(vode.beta.get()))

    def _check_rest(self, x: PyTree) -> None:
        """Refuse a model, or an energy of a subclass, whose states would move without a nudge."""
        for hook in ("sample_energies", "inference_energy"):
            if not getattr(getattr(type(self), hook), "lazy_safe", False):
                raise ValueError(OWN_HOOK.format(cls=type(self).__name__, hook=hook))
        nodes, names = vodes(self.model), self.vode_names
        dependencies = _lazy.trace_wave(x, None, self.model, _lazy.observed())
        moving = [dependencies.terms[i] for i in sorted(dependencies.active)]
        wrong = [
            "a module with an energy of its own" if k is None else f"`{names[k]}`"
            for k in moving
            if k is None or not isinstance(nodes[k].energy_fn, Nudged)
        ]
        if wrong:
            raise ValueError(NOT_AT_REST.format(names=", ".join(wrong)))

    def _clear(self) -> None:
        self._hold()
        super()._clear()


@dataclass(frozen=True)
class Nudged:
    """`1/2 (h - u)^2 + beta C(h, y)`: the energy of a free output, from that of a clamped one, C(u, h)."""

    cost: Any

    def __call__(self, vode: Any, rkg: Any = RKG) -> jax.Array:
        """The energy, of h's shape."""
        h, u = state_and_prediction(vode)
        state, cache = vode.h.get(), vode.cache.get()
        try:
            vode.h.set(vode.target.get())
            vode.cache["u"] = h
            cost = self.cost(vode, rkg)
        finally:
            vode.h.set(state)
            vode.cache.set(cache)
        return 0.5 * jnp.square(h - u) + vode.beta.get().astype(h.dtype) * cost


def _nudged(model: Any) -> list[Any]:
    """The vodes with a nudge."""
    return [
        m for m in energy_modules(model) if isinstance(m, Vode) and isinstance(m.energy_fn, Nudged)
    ]


def _targets(x: PyTree, y: PyTree, model: Any) -> dict[int, jax.Array]:
    """What each output is clamped to: for the frozen vodes whose state depends on y."""
    with step(model, STATUS.INIT, clear_params=(CACHE, CACHE)), statistics(model, update=False):
        states = pure(_frozen_states, model=model)
        found = states(x, y)
        jaxpr = jax.make_jaxpr(states)(x, y).jaxpr
    leaves = jax.tree_util.tree_leaves
    inputs = [0] * len(leaves(x)) + [1] * len(leaves(y))
    masks = iter(_lazy.propagate(jaxpr, inputs, []))
    return {k: h for k, h in enumerate(found) if h is not None and next(masks)}


@batched
def _frozen_states(x: PyTree, y: PyTree, *, model: Any) -> Any:
    model(x, y)
    return [vode.h.get() if vode.is_frozen else None for vode in vodes(model)]
