"""`Algorithm`: the contract of every learning algorithm.

A training step has three phases, each a method that an algorithm may override:

    initialise(x, y)                 states, by a forward pass; gives the prediction
    inference_step(x, y, t, reached) one step on the states (called T times by `_inference.run`)
    learn(x, y, plan)                one step on the weights

Batching, compilation, clamping, statuses, clearing and metrics are done here, once. The public methods
(`train_step`, `eval_step`, `predict`, `energy`, `infer`) are jitted and track the algorithm object itself,
so whatever a method changes in the model, the optimisers or the algorithm's own params is kept.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax as ox

from ..core import RKG, BaseModule, Mask, is_param, static
from ..functional import jit
from ..nn import LayerParam, compute_dtype
from ..predictive_coding import STATUS, EnergyModule, VodeParam
from ..utils import Optim, OptimTree
from ._energy_fn import forward, gradient, sample_energies, total_energy, vode_energies, vodes_of
from ._inference import Plan, Record, Stop, free_states, keeps_zeros, make_plan, run
from ._wave import Initial, forward_initialise, is_frozen

Metric = Callable[[Any, Any], jax.Array]
Start = Literal["forward", "zero", "normal", "persistent"]

BAD_MODEL = """{cls} needs an EnergyModule whose `__call__(x, y=None)` clamps y on its output vode when given \
and returns the prediction; got {got}"""


class Algorithm(BaseModule):
    """Base of all learning algorithms, and predictive coding itself in its plainest form.

    Args:
        model: an `EnergyModule` whose `__call__(x, y=None)` takes one sample, clamps y on its output vode
            (`self.vodes[-1].set("h", y)`, with `h.frozen = True`) when given, and returns the prediction.
        T: number of inference steps.
        state_optim: an optax transformation for the states, started afresh for every batch; or a solver
            such as `pxa.Diffrax(...)`. Gradients are those of each sample's own energy.
        weight_optim: an optax transformation (or `pxu.Optim`, `pxu.OptimTree`) for the weights. Gradients
            are averaged over the batch.
        init: how states start: "forward" (h := u), "zero", "normal" (standard normal), or "persistent"
            (where the last training batch left them; forward the first time, and for a batch of another
            size).
        stop: end inference early, see `pxa.Stop`.
        metrics: `{name: f(prediction, y) -> per-sample array}`; their batch means are part of what
            `train_step` and `eval_step` give. The prediction is that of the initial forward pass.
        T_predict: number of inference steps, without y, before `predict` and `eval_step` read the
            prediction; for models that infer their output. 0: the forward pass alone.
        record: also give "energies", the energy of each vode at each inference step.
        lazy: skip what is exactly zero in the first steps (same numbers, less work).
        unroll: unroll the inference loop: True, False, or "auto" for what is fastest.
        compute_dtype: precision in which layers compute, such as `jnp.bfloat16`; params, states, energies
            and optimisers stay in float32.
        donate: let XLA reuse the memory of old params (arrays that something else holds are copied).

    Raises:
        TypeError: the model is no EnergyModule, or an optimiser no optax transformation.
        ValueError: T is negative, or an unknown `init`.
    """

    def __init__(
        self,
        model: EnergyModule,
        T: int = 8,
        state_optim: Any = None,
        weight_optim: Any = None,
        *,
        init: Start = "forward",
        stop: Stop | None = None,
        metrics: Mapping[str, Metric] | None = None,
        T_predict: int = 0,
        record: bool = False,
        lazy: bool = True,
        unroll: bool | Literal["auto"] = "auto",
        donate: bool = True,
        compute_dtype: Any = None,
    ):
        if not isinstance(model, EnergyModule):
            raise TypeError(BAD_MODEL.format(cls=type(self).__name__, got=type(model).__name__))
        if not isinstance(T, int) or T < 0:
            raise ValueError(f"T is the number of inference steps, an int >= 0; got {T!r}")
        if not isinstance(T_predict, int) or T_predict < 0:
            raise ValueError(
                f"T_predict is the number of steps before a prediction, an int >= 0; got {T_predict!r}"
            )
        if init not in ("forward", "zero", "normal", "persistent"):
            raise ValueError(
                f'init must be "forward", "zero", "normal" or "persistent"; got {init!r}'
            )
        self.model = model
        self.T, self.T_predict = T, T_predict
        self.init, self.record, self.unroll, self.donate = init, record, unroll, donate
        self.metrics = dict(metrics or {})
        self.compute_dtype = compute_dtype
        self._stop = static(stop)
        self._solver = static(None)
        if hasattr(state_optim, "solve"):
            self._solver = static(state_optim)
            state_optim = None
        self.state_optim = Optim(ox.sgd(5e-2) if state_optim is None else state_optim)
        steps = min(max(T, 3), 64)
        self.lazy = lazy and keeps_zeros(self.state_optim._optax.get(), steps=steps)
        optim = ox.adamw(1e-3) if weight_optim is None else weight_optim
        self.weight_optim = optim if isinstance(optim, Optim | OptimTree) else Optim(optim)
        mask = self.weights_mask()
        if self.weight_optim.state.get() is None and any(map(mask.select, _params(model))):
            self.weight_optim.init(mask(model))
        # whether the present call may change weights; set by `_train` on its own copy
        self._learning = False

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

    # --- the phases, inside one compiled step -----------------------------------------------------

    def initialise(self, x: Any, y: Any) -> tuple[Any, Initial | None]:
        """Give every state its first value.

        Returns:
            The prediction of a forward pass, and what is known of the states (None: nothing).
        """
        model = self.model
        if self.init == "persistent" and self._fits_states(x, y):
            kept = [(vode.h, vode.h.get()) for vode in vodes_of(model)]
            prediction = forward_prediction(x, y, model)
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
        self, x: Any, y: Any, t: Any, reached: frozenset[int], with_gradient_norm: bool = False
    ) -> Any:
        """One step on the states, in place.

        Args:
            x, y: the batch; y is the target.
            t: number of the step, from 0 (traced if the loop is scanned).
            reached: the vodes (indices) whose state can have a gradient.
            with_gradient_norm: also give the largest gradient in absolute value.

        Returns:
            The batch's energy before the step.
        """
        params = self.states(reached)
        if not params:
            return (jnp.zeros(()), jnp.zeros(())) if with_gradient_norm else jnp.zeros(())
        energy, grads = gradient(x, y, self.model, params, self.inference_energy)
        self.state_optim.step(self.model, grads, allow_none=True)
        if not with_gradient_norm:
            return energy
        largest = [jnp.max(jnp.abs(g)) for g in jax.tree_util.tree_leaves(grads)]
        return energy, jnp.max(jnp.stack(largest))

    def inference_energy(self, x: Any, y: Any, *, model: Any) -> jax.Array:
        """What inference descends: the batch's total energy, as a function of the states."""
        return total_energy(x, y, model=model)

    def sample_energies(self, x: Any, y: Any, *, model: Any) -> jax.Array:
        """What learning descends: the energy of each sample, as a function of the weights."""
        return sample_energies(x, y, model=model)[0]

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

    def learn(self, x: Any, y: Any, plan: Plan | None) -> jax.Array:
        """One step on the weights, in place; the batch's mean energy before it."""
        energy, grads = self.weight_gradients(x, y, plan)
        if self.weight_optim.state.get() is not None:
            self.weight_optim.step(self.model, grads, scale_by=1.0 / _batch_size(x, y))
        return energy

    def weight_gradients(self, x: Any, y: Any, plan: Plan | None) -> tuple[jax.Array, Any]:
        """Mean energy, and the gradients summed over the batch, in the present states.

        Args:
            plan: what inference skipped, whose gradients are zero; None for nothing.
        """
        model = self.model
        selected = [p for p in _params(model) if self.weights_mask().select(p)]
        live = {id(p) for p in selected} if plan is None else plan.learning(len(plan.reached))
        active = [p for p in selected if id(p) in live]

        def total(x: Any, y: Any, *, model: Any) -> jax.Array:
            return jnp.sum(self.sample_energies(x, y, model=model))

        if active:
            energy, grads = gradient(x, y, model, active, total)
        else:
            energy = total(x, y, model=model)
            grads = Mask(lambda _: False)(model)
        grads = with_zeros(grads, model, [p for p in selected if id(p) not in live])
        return energy / _batch_size(x, y), grads

    # --- what the compiled functions run ----------------------------------------------------------

    def _train(self, x: Any, y: Any) -> dict[str, Any]:
        self._learning = True
        prediction, initial = self.initialise(x, y)
        target = self.target(y, prediction)
        plan = self.plan(x, target, initial)
        record = self.infer_states(x, target, plan, **({"energies": True} if self.record else {}))
        energy = self.learn(x, target, plan)
        out = {"energy": energy, **(record.info or {}), **self._metrics(prediction, y)}
        if self.record:
            out["energies"] = record.energies
        if self.stop is not None or self._solver.get() is not None:
            out["steps"] = record.steps
        self._clear()
        return out

    def _evaluate(self, x: Any, y: Any) -> dict[str, Any]:
        kept = self._set_aside()
        if self.T_predict:
            prediction = self._inferred_prediction(x)
        else:
            prediction = forward_prediction(x, y, self.model)
        energies = self.sample_energies(x, y, model=self.model)
        out = {"energy": jnp.mean(energies), **self._metrics(prediction, y)}
        self._put_back(kept)
        return out

    def _predict(self, x: Any) -> Any:
        kept = self._set_aside()
        if self.T_predict:
            prediction = self._inferred_prediction(x)
        else:
            prediction = forward_prediction(x, None, self.model)
        self._put_back(kept)
        return prediction

    def _inferred_prediction(self, x: Any) -> Any:
        """The model's prediction in the states that T_predict steps without y lead to."""
        self.T = self.T_predict
        _, initial = self.initialise(x, None)
        self.infer_states(x, None, self.plan(x, None, initial))
        return forward(x, None, self.model, None)

    def _infer(self, x: Any, y: Any, energies: bool, states: bool) -> tuple[Any, Record]:
        prediction, initial = self.initialise(x, y)
        target = self.target(y, prediction)
        record = self.infer_states(
            x, target, self.plan(x, target, initial), energies=energies, states=states
        )
        self.state_optim.clear()
        return prediction, record

    def _energy(self, x: Any, y: Any) -> Any:
        kept = self._set_aside()
        prediction, initial = self.initialise(x, y)
        target = self.target(y, prediction)
        self.infer_states(x, target, self.plan(x, target, initial))
        energies = self.sample_energies(x, target, model=self.model)
        self._put_back(kept)
        return energies

    def _metrics(self, prediction: Any, y: Any) -> dict[str, Any]:
        return {name: jnp.mean(jnp.asarray(f(prediction, y))) for name, f in self.metrics.items()}

    def _clear(self) -> None:
        self.state_optim.clear()
        self.model.clear_params(VodeParam.Cache)
        if self.init != "persistent":
            self.model.clear_params(VodeParam)

    def _fits_states(self, x: Any, y: Any) -> bool:
        """Whether every vode holds a state for a batch of this size."""
        states = [vode.h.get() for vode in vodes_of(self.model)]
        return all(h is not None and h.shape[0] == _batch_size(x, y) for h in states)

    def _set_aside(self) -> list[tuple[VodeParam, Any]]:
        """Empty the model's states; gives those that persist, for `_put_back`."""
        kept = []
        if self.init == "persistent":
            kept = [(vode.h, vode.h.get()) for vode in vodes_of(self.model)]
        self.model.clear_params(VodeParam)
        return kept

    def _put_back(self, kept: list[tuple[VodeParam, Any]]) -> None:
        """Clear what a call left behind, and restore what `_set_aside` took."""
        self._clear()
        self.model.clear_params(VodeParam)
        for h, value in kept:
            h.set(value)

    # --- the public interface -----------------------------------------------------------------------

    def train_step(self, x: Any, y: Any = None) -> dict[str, jax.Array]:
        """Learn from one batch; the model is updated in place.

        Args:
            x: inputs, (batch, *event), or None for a model without input.
            y: targets, (batch, *event).

        Returns:
            Arrays on the device, nothing waits for them: "energy", the mean over the batch after inference;
            each of `metrics`; "energies" (T + 1, vodes) with `record`; "steps" if they can vary.
        """
        return (_TRAIN_DONATE if self.donate else _TRAIN)(x, y, algorithm=self)

    def eval_step(self, x: Any, y: Any) -> dict[str, jax.Array]:
        """Energy and metrics of the forward prediction for one batch; nothing is learned."""
        return _EVAL(x, y, algorithm=self)

    def predict(self, x: Any) -> Any:
        """The model's prediction for a batch, by a forward pass (and T_predict steps of inference).

        y is never needed, and never known to that inference.
        """
        return _PREDICT(x, algorithm=self)

    def energy(self, x: Any, y: Any = None, T: int | None = None) -> jax.Array:
        """Energy of each sample after inference, shape (batch,), in nats.

        Args:
            T: number of inference steps instead of the algorithm's own; 0 for the energy of the forward
                pass, which is the loss of back-propagation.
        """
        return self._with_steps(T, lambda: _ENERGY(x, y, algorithm=self))

    def infer(
        self,
        x: Any,
        y: Any = None,
        T: int | None = None,
        energies: bool = True,
        trajectory: bool = False,
    ) -> tuple[Any, Record]:
        """Run initialisation and inference for a batch, without learning; the states stay in the model.

        Args:
            T: number of inference steps instead of the algorithm's own.
            energies: record the energy of each vode at every step.
            trajectory: record the states at every step.

        Returns:
            The forward prediction, and a `Record` with `steps`, `energies` (T + 1, vodes), `states`.
        """
        energies = energies and self.stop is None
        return self._with_steps(T, lambda: _INFER(x, y, energies, trajectory, algorithm=self))

    def _with_steps(self, T: int | None, run: Callable[[], Any]) -> Any:
        before, self.T = self.T, self.T if T is None else T
        try:
            return run()
        finally:
            self.T = before

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.model).__name__}, T={self.T})"


def forward_prediction(x: Any, y: Any, model: Any) -> Any:
    """Forward pass under the initialisation status: every state at its prediction."""
    return forward(x, y, model, STATUS.INIT)


def with_zeros(grads: Any, model: Any, params: list[Any]) -> Any:
    """Add zero gradients for `params` to a gradient tree."""
    if not params:
        return grads
    wanted = {id(p) for p in params}
    zeros = jax.tree_util.tree_map(jnp.zeros_like, Mask(lambda p: id(p) in wanted)(model))
    return jax.tree_util.tree_map(
        lambda g, z: z if g is None else g, grads, zeros, is_leaf=lambda x: x is None or is_param(x)
    )


def _params(model: Any) -> list[Any]:
    return [p for p in jax.tree_util.tree_leaves(model, is_leaf=is_param) if is_param(p)]


def _batch_size(x: Any, y: Any) -> int:
    return int(jax.tree_util.tree_leaves((x, y))[0].shape[0])


def _method(name: str) -> Callable[..., Any]:
    def run(*args: Any, algorithm: Algorithm) -> Any:
        with compute_dtype(algorithm.compute_dtype):
            return getattr(algorithm, name)(*args)

    run.__name__ = run.__qualname__ = name.lstrip("_")
    return run


# compiled functions for all algorithms: what differs between them is part of the structure
_TRAIN = jit()(_method("_train"))
_TRAIN_DONATE = jit(donate_params=True)(_method("_train"))
_EVAL = jit()(_method("_evaluate"))
_PREDICT = jit()(_method("_predict"))
_ENERGY = jit()(_method("_energy"))
_INFER = jit(static_argnums=(2, 3))(_method("_infer"))
