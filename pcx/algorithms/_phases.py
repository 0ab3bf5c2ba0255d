"""`Phases`: what one training step consists of, each part a method that an algorithm may override.

    initialise(x, y)                 states, by a forward pass; gives the prediction
    inference_step(x, y, t, reached) one step on the states (called T times by `_inference.run`)
    learn(x, y, plan)                one step on the weights

These run inside one compiled function, on batches. `Algorithm` adds the constructor and the public methods.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..core import RKG, BaseModule, BaseParam, Mask, is_param, named_params
from ..nn import LayerParam
from ..predictive_coding import EnergyModule, VodeParam
from ..utils import Optim, step
from ._energy_fn import CACHE, forward, gradient, sample_energies, vode_energies, vodes_of
from ._inference import Plan, Record, Stop, free_states, make_plan, run
from ._wave import Initial, forward_initialise, is_frozen

Start = Literal["forward", "zero", "normal", "persistent"]


class Phases(BaseModule):
    """The phases of a training step in their plainest form, which is predictive coding."""

    model: EnergyModule
    T: int
    init: Start
    lazy: bool
    unroll: bool | Literal["auto"]
    state_optim: Optim
    weight_optim: Optim
    _stop: Any
    _solver: Any

    @property
    def stop(self) -> Stop | None:
        """When inference ends early, or None."""
        return self._stop.get()

    @property
    def vode_names(self) -> tuple[str, ...]:
        """Paths of the vodes, in the order of recorded energies."""
        wanted = {id(v): k for k, v in enumerate(vodes_of(self.model))}
        leaves = jax.tree_util.tree_flatten_with_path(
            self.model, is_leaf=lambda x: id(x) in wanted
        )[0]
        names = {
            wanted[id(x)]: jax.tree_util.keystr(path).lstrip(".")
            for path, x in leaves
            if id(x) in wanted
        }
        return tuple(names[k] for k in sorted(names))

    def weights_mask(self) -> Mask:
        """Selects the params that learning changes."""
        return Mask(LayerParam).hasnot(frozen=True)

    def start_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch; for schedules of the algorithm itself."""

    def initialise(self, x: Any, y: Any) -> tuple[Any, Initial | None]:
        """Give every state its first value.

        Returns:
            The prediction of a forward pass, and what is known of the states (None: nothing).
        """
        model = self.model
        if self.init == "persistent" and self._fits_states(x, y):
            kept = [(vode.h, vode.h.get()) for vode in vodes_of(model)]
            prediction = forward(x, y, model)
            for h, value in kept:
                h.set(value)
            return prediction, None
        # states left by another batch (of another size, perhaps) are no part of this one
        model.clear_params(VodeParam)
        prediction, initial = forward_initialise(x, y, model)
        if self.init in ("zero", "normal"):
            for vode in vodes_of(model):
                if not is_frozen(vode.h):
                    h = vode.h.get()
                    new = (
                        jax.random.normal(RKG(), h.shape, h.dtype)
                        if self.init == "normal"
                        else jnp.zeros_like(h)
                    )
                    vode.h.set(new)
            return prediction, None
        return prediction, initial

    def target(self, y: Any, prediction: Any) -> Any:
        """What the output vode is clamped to during inference and learning."""
        return y

    def plan(self, x: Any, y: Any, initial: Initial | None) -> Plan:
        """What can be skipped in the loop that follows."""
        return make_plan(x, y, self.model, self.T, initial, self.lazy, self.unroll)

    def infer_states(self, x: Any, y: Any, plan: Plan, **watch: bool) -> Record:
        """The whole of inference; in place."""
        solver = self._solver.get()
        if solver is not None:
            return solver.solve(self, x, y, **watch)
        self.start_states(self.state_optim)
        return run(self, x, y, plan, **watch)

    def start_states(self, optim: Optim) -> None:
        """Fresh optimiser state for every free state."""
        free = {id(h) for h in free_states(self.model)}
        if free:
            optim.init(Mask(lambda param: id(param) in free)(self.model))

    def inference_step(
        self, x: Any, y: Any, t: Any, reached: frozenset[int]
    ) -> tuple[jax.Array, list[jax.Array]]:
        """One step on the states, in place.

        Args:
            x, y: the batch; y is the target.
            t: number of the step, from 0 (traced if the loop is scanned).
            reached: the vodes (indices) whose state can have a gradient.

        Returns:
            The batch's energy before the step, and the gradients of the states, for `stop`.
        """
        states = self.states(reached)
        if not states:
            return jnp.zeros(()), []
        energy, grads = gradient(x, y, self.model, states, self.inference_energy)
        self.state_optim.step(self.model, grads, allow_none=True)
        return energy, jax.tree_util.tree_leaves(grads)

    def sample_energies(self, x: Any, y: Any, *, model: Any) -> jax.Array:
        """The energy of each sample, shape (batch,): what inference and learning descend."""
        return sample_energies(x, y, model=model)[0]

    def inference_energy(self, x: Any, y: Any, *, model: Any) -> jax.Array:
        """What inference descends, summed over the batch, as a function of the states."""
        return jnp.sum(self.sample_energies(x, y, model=model))

    def learning_energy(self, x: Any, y: Any, *, model: Any) -> jax.Array:
        """What learning descends, summed over the batch, as a function of the weights."""
        return jnp.sum(self.sample_energies(x, y, model=model))

    def mean_energy(self, x: Any, y: Any) -> jax.Array:
        """The batch's mean energy in the present states."""
        with step(self.model, clear_params=(CACHE, CACHE)):
            return jnp.mean(self.sample_energies(x, y, model=self.model))

    def watch(self, x: Any, y: Any, energies: bool, states: bool) -> tuple[Any, Any]:
        """What `Record` keeps of the present states: the energy of each vode, and the states."""
        model = self.model
        return (
            vode_energies(x, y, model=model) if energies else None,
            tuple(vode.h.get() for vode in vodes_of(model)) if states else None,
        )

    def states(self, reached: frozenset[int]) -> list[VodeParam]:
        """The states of the given vodes that inference may move."""
        vodes = vodes_of(self.model)
        return [vodes[k].h for k in sorted(reached) if not is_frozen(vodes[k].h)]

    def weights(self) -> list[BaseParam]:
        """The params that learning changes."""
        select = self.weights_mask().select
        return [param for _, param in named_params(self.model) if select(param)]

    def learn(self, x: Any, y: Any, plan: Plan | None) -> jax.Array:
        """One step on the weights, in place; the batch's mean energy before it."""
        energy, grads = self.weight_gradients(x, y, plan)
        self.step_weights(grads, x, y)
        return energy

    def step_weights(self, grads: Any, x: Any, y: Any) -> None:
        """One step of the weight optimiser with gradients that were summed over the batch."""
        if self.weight_optim.state.get() is not None:
            self.weight_optim.step(self.model, grads, scale_by=1.0 / batch_size(x, y))

    def weight_gradients(self, x: Any, y: Any, plan: Plan | None) -> tuple[jax.Array, Any]:
        """Mean energy, and the gradients summed over the batch, in the present states.

        Args:
            plan: what inference skipped, whose gradients are zero; None for nothing.
        """
        model, weights = self.model, self.weights()
        live = {id(p) for p in weights} if plan is None else plan.learning(len(plan.reached))
        active = [p for p in weights if id(p) in live]
        if active:
            energy, grads = gradient(x, y, model, active, self.learning_energy)
        else:
            energy = self.learning_energy(x, y, model=model)
            grads = Mask(lambda _: False)(model)
        grads = _with_zeros(grads, model, [p for p in weights if id(p) not in live])
        return energy / batch_size(x, y), grads

    def _fits_states(self, x: Any, y: Any) -> bool:
        """Whether every vode holds a state for a batch of this size."""
        states = [vode.h.get() for vode in vodes_of(self.model)]
        return all(h is not None and h.shape[0] == batch_size(x, y) for h in states)


def _with_zeros(grads: Any, model: Any, params: list[Any]) -> Any:
    """Add zero gradients for `params` to a gradient tree."""
    if not params:
        return grads
    wanted = {id(p) for p in params}
    zeros = jax.tree_util.tree_map(jnp.zeros_like, Mask(lambda p: id(p) in wanted)(model))
    return jax.tree_util.tree_map(
        lambda g, z: z if g is None else g, grads, zeros, is_leaf=lambda x: x is None or is_param(x)
    )


def batch_size(x: Any, y: Any) -> int:
    """Number of samples in a batch."""
    return int(jax.tree_util.tree_leaves((x, y))[0].shape[0])
