"""Predictive coding: the equations, from which the other algorithms differ by a method each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from ..predictive_coding import EnergyModule, free_states
from ._base import Interface
from ._energies import batch_size, sample_energies
from ._gradient import gradient
from ._lazy import lazy_safe
from ._loop import Record, loop
from ._start import start_states


class Trained(NamedTuple):
    """What one training step saw.

    Attributes:
        prediction: of the initial forward pass, (batch, *event).
        energy: mean over the batch, after inference.
        record: of inference.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
        >>> class InBits(pxa.PC):
        ...     def train(self, x, y):
        ...         trained = super().train(x, y)
        ...         return trained._replace(energy=0.5 * trained.energy / jnp.log(2.0))
        >>> float(InBits(pxm.MLP([2, 4, 2])).train_step(jnp.eye(2), jnp.eye(2))["energy"]) > 0
        True
    """

    prediction: PyTree
    energy: jax.Array
    record: Record


@lazy_safe
class PC(Interface):
    """Predictive coding: T steps on the states, then one on the weights.

        F = sum_l E_l(h_l, u_l),   u_l = f_l(h_{l-1}; theta_l),   h_0 = x,  h_L = y

        h := u (forward pass);   T times: h <- opt_h(h, dF/dh);   once: theta <- opt_theta(theta, dF/dtheta)

    With `ce_energy` on the output vode this is PC-CE, with `se_energy` PC-SE; any other energy works too.
    `pxa.Algorithm` is another name of this class: an algorithm of your own is a subclass that overrides a
    method.

    Args:
        model: an `EnergyModule` whose `__call__(x, y=None)` takes one sample, clamps y on its output vode
            (`self.vodes[-1].set("h", y)`, with `h.frozen = True`) when given, and returns the prediction.
        T: number of inference steps; None for the default of the algorithm, 8 for PC.
        state_optim: an optax transformation (or `pxu.Optim`) for the states, started afresh for every
            batch; or a solver such as `pxa.Diffrax(...)`. Gradients are those of each sample's own energy. None
            for `optax.sgd(0.05)`.
        weight_optim: an optax transformation (or `pxu.Optim`, `pxu.OptimTree`) for the weights. Gradients
            are averaged over the batch. None for `optax.adamw(0.001)`.
        init: how states start: "forward" (h := u), "zero", "normal" (standard normal; `("normal", 0.1)` for
            another standard deviation), or "persistent" (where the last training batch left them; forward
            the first time, and for a batch of another size).
        stop: end inference early, see `pxa.Stop`.
        metrics: `{name: f(prediction, y) -> per-sample array}`; their batch means are part of what
            `train_step` and `eval_step` return. The prediction is that of the initial forward pass.
        T_predict: number of inference steps, without y, before `predict` and `eval_step` read the
            prediction; for models that infer their output. 0: the forward pass alone.
        record: also return "energies", the energy of each vode at each inference step.
        lazy: skip what is known to be exactly zero in the first steps (same numbers, less work); see
            `pxa.lazy_safe`.
        unroll: unroll the inference loop: True, False, or "auto" for what is fastest.
        compute_dtype: precision in which layers compute, such as `jnp.bfloat16`; params, states, energies
            and optimisers stay in float32.
        donate: let XLA reuse the memory of old params (arrays that something else holds are copied).
        statistics: which pass of a training step moves running statistics, such as `BatchNorm`'s: the
            "forward" initialisation, or the "learning" pass. They move once for a batch, and are held in
            all other passes.
        mesh: a `jax.sharding.Mesh` whose devices divide each batch, with the numbers of one device: its axes
            are "data" (params whole on every device) and "fsdp" (params divided, too).

    Raises:
        TypeError: the model is no EnergyModule, or an optimiser no optax transformation.
        ValueError: a model without vodes; T is negative; an unknown `init`; a solver for an algorithm with
            steps of its own, or together with `stop`.

    Example:
        >>> import jax, jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> model = pxm.MLP([2, 16, 2])
        >>> pc = pxa.PC(model, T=4, state_optim=optax.sgd(0.1), weight_optim=optax.adam(1e-2))
        >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> metrics = pc.train_step(x, jax.nn.one_hot(jnp.array([0, 1]), 2))
        >>> pc.predict(x).shape
        (2, 2)

    References:
        Rao & Ballard, 1999; Whittington & Bogacz, 2017; Pinchetti et al., "Benchmarking predictive coding
        networks - made simple", eqs 1-3.
    """

    def train(self, x: PyTree, y: PyTree) -> Trained:
        """One training step on a batch, in place: initialise, infer, learn."""
        prediction, y = self.start(x, y)
        record = self.infer_states(x, y, energies=self.record)
        energy = self.step_weights(x, y)
        return Trained(prediction, energy, record)

    def start(self, x: PyTree, y: PyTree) -> tuple[Any, Any]:
        """h := u, and what the output is clamped to; `(prediction, target)`."""
        with self.passes("forward"):
            prediction = self.initialise(x, y)
        return prediction, self.target(y, prediction)

    def initialise(self, x: PyTree, y: PyTree) -> Any:
        """h := u for every node, by a forward pass (or another `init`); the prediction of that pass."""
        return start_states(x, y, self.model, self.init)

    def target(self, y: PyTree, prediction: PyTree) -> Any:
        """What the output vode is clamped to during inference and learning: y."""
        return y

    def infer_states(
        self, x: PyTree, y: PyTree, *, energies: bool = False, states: bool = False
    ) -> Record:
        """T times h <- opt_h(h, dF/dh), or what a solver does instead."""
        if self.solver is not None:
            return self.solver.solve(self, x, y, energies=energies, states=states)
        self.start_states()
        return loop(self, type(self).step_states, x, y, energies=energies, states=states)

    def to_stepped(self, x: PyTree, y: PyTree) -> None:
        """Replace each free state by what inference steps on, in place: here that is the state."""

    def step_states(self, x: PyTree, y: PyTree, t: Any) -> tuple[Float[jax.Array, ""], Any]:
        """h <- opt_h(h, dF/dh): one step on the free states, from t = 0; F before it, and dF/dh."""
        h = free_states(self.model)
        F, dF_dh = gradient(self.inference_energy, x, y, self.model, h)
        if h:
            self.state_optim.step(self.model, dF_dh)
        return F, dF_dh

    def step_weights(self, x: PyTree, y: PyTree) -> Float[jax.Array, ""]:
        """theta <- opt_theta(theta, dF/dtheta), averaged over the batch; the batch's mean F before it."""
        F, dF_dtheta = self.weight_gradients(x, y)
        self.apply_gradients(dF_dtheta, x, y)
        return F

    def apply_gradients(self, dF_dtheta: Any, x: PyTree, y: PyTree) -> None:
        """theta <- opt_theta(theta, g / B) with gradients g that were summed over a batch of B."""
        if self.weights():
            updates = self.weight_optim.step(self.model, dF_dtheta, scale_by=1.0 / batch_size(x, y))
            self._check_learning(updates)

    def weight_gradients(self, x: PyTree, y: PyTree) -> tuple[Float[jax.Array, ""], Any]:
        """The batch's mean F in the present states, and dF/dtheta summed over the batch."""
        with self.passes("learning"):
            F, dF_dtheta = gradient(self.learning_energy, x, y, self.model, self.weights())
        return F / batch_size(x, y), dF_dtheta

    def inference_energy(
        self, x: PyTree, y: PyTree, *, model: EnergyModule
    ) -> Float[jax.Array, ""]:
        """What inference descends: F summed over the batch, so each state has its own sample's gradient."""
        return jnp.sum(self.sample_energies(x, y, model=model))

    def learning_energy(self, x: PyTree, y: PyTree, *, model: EnergyModule) -> Float[jax.Array, ""]:
        """What learning descends: F summed over the batch."""
        return jnp.sum(self.sample_energies(x, y, model=model))

    def sample_energies(
        self, x: PyTree, y: PyTree, *, model: EnergyModule
    ) -> Float[jax.Array, " batch"]:
        """F of each sample, shape (batch,), in nats."""
        return sample_energies(x, y, model=model)[0]
