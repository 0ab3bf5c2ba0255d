"""`Algorithm`: the contract of every learning algorithm.

What a training step consists of is in `Phases`, where an algorithm overrides it. Compilation, clearing and
metrics are done here, once. The public methods (`train_step`, `eval_step`, `predict`, `energy`, `infer`) are
jitted and track the algorithm object itself, so whatever a phase changes in the model, the optimisers or
the algorithm's own params is kept.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax as ox

from ..core import static
from ..functional import jit
from ..nn import compute_dtype
from ..predictive_coding import EnergyModule, VodeParam
from ..utils import Optim
from ._energy_fn import forward, vodes_of
from ._inference import Record, Stop, keeps_zeros
from ._phases import Phases, Start
from ._wave import is_additive

Metric = Callable[[Any, Any], jax.Array]

BAD_MODEL = """{cls} needs an EnergyModule whose `__call__(x, y=None)` clamps y on its output vode when given \
and returns the prediction; got {got}"""

NO_VODES = """{cls}: {got} has no vodes, so no energy to descend. Hold a `pxc.Vode` for each layer in an \
attribute (in lists, tuples and dicts as well), and call it with the layer's output: `x = vode(layer(x))`"""


class Algorithm(Phases):
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
        ValueError: a model without vodes; T is negative, or an unknown `init`.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
        >>> class Halfway(pxa.Algorithm):
        ...     def target(self, y, prediction):  # what the output is clamped to
        ...         return (y + prediction) / 2
        >>> model, x, y = pxm.MLP([2, 8, 2]), jnp.eye(2), jnp.eye(2)
        >>> ratio = Halfway(model).energy(x, y, T=0) / pxa.PC(model).energy(x, y, T=0)
        >>> bool(jnp.allclose(ratio, 0.25))  # half the error is a quarter of its square
        True
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
        if not vodes_of(model) and is_additive(model):
            raise ValueError(NO_VODES.format(cls=type(self).__name__, got=type(model).__name__))
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
        self.lazy = lazy and keeps_zeros(self.state_optim.optax, steps=steps)
        optim = ox.adamw(1e-3) if weight_optim is None else weight_optim
        self.weight_optim = optim if isinstance(optim, Optim) else Optim(optim)
        if self.weight_optim.state.get() is None and self.weights():
            self.weight_optim.init(self.weights_mask()(model))
        # whether the present call may change weights; set by `_train` on its own copy
        self._learning = False

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
            prediction = forward(x, y, self.model)
        out = {"energy": self.mean_energy(x, y), **self._metrics(prediction, y)}
        self._put_back(kept)
        return out

    def _predict(self, x: Any) -> Any:
        kept = self._set_aside()
        if self.T_predict:
            prediction = self._inferred_prediction(x)
        else:
            prediction = forward(x, None, self.model)
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
