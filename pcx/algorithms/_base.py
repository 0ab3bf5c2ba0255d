"""`Interface`: what every learning algorithm has, whatever its equations: options, public methods, metrics.

The equations are in `PC`. The public methods (`train_step`, `eval_step`, `predict`, `energy`, `infer`) are
compiled; each runs on a copy of the algorithm, and what it writes into the params of the model, the optimisers
or the algorithm itself is kept.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from ..core import BaseModule, BaseParam, Mask, named_params, static
from ..nn import statistics, training_batch
from ..predictive_coding import Clamp, EnergyModule, VodeParam, free_states, vodes
from ..predictive_coding._states import vode_paths
from ..utils import _mesh, step
from . import _lazy
from ._compiled import compiled
from ._curvature import largest_curvatures
from ._energies import CACHE, call, forward, vode_energies
from ._first_batch import first_step
from ._loop import Record, Stop
from ._options import (
    ADAMW_0_001,
    SGD_0_05,
    StateOptim,
    WeightOptim,
    as_optim,
    show_options,
    tell_options,
)
from ._reconstruct import codes, decode
from ._solvers import StateSolver
from ._start import TRAINABLE, Start, check_start, once_unfrozen

Metric = Callable[[Any, Any], jax.Array]

BAD_MODEL = """{cls} needs an EnergyModule whose `__call__(x, y=None)` clamps y on its output vode when given \
and returns the prediction; got {got}"""

NO_VODES = """{cls}: {got} has no vodes, so no energy to descend. Hold a `pxc.Vode` for each layer in an \
attribute (in lists, tuples and dicts as well), and call it with the layer's output: `x = vode(layer(x))`"""

SOLVER = """{cls} cannot use the solver {solver}: {why}. Give an optax transformation as \
`state_optim`, or use PC"""

ADDED = """{cls}: `{path}` was added to the model after the algorithm was made, so its weight optimiser does not \
know it. Make a new algorithm, or let the optimiser start afresh: \
`algorithm.weight_optim.init(algorithm.weights_mask()(algorithm.model))`."""

RENAMED = """{cls}.{old}: this method is called `{new}` now. {why}"""

_OLD = {
    "inference_step": ("step_states(self, x, y, t)", "It returns `(F, dF/dh)`, and moves all free states: \
`pxc.free_states(self.model)`."),
    "learn": ("step_weights(self, x, y)", "It returns the batch's mean energy."),
    "plan": ("pxa.lazy_safe", "Lazy inference is decided by the loop; mark an override that keeps it exact."),
    "states": ("pxc.free_states(model)", "All free states are stepped."),
}  # fmt: skip


class Interface(BaseModule):
    """Options and public methods of every algorithm; `PC` has the arguments and the equations."""

    # whether no batch was trained yet, and whether the params are on the mesh; in slots, so that they are
    # no part of what is compiled
    __slots__ = ("_placed", "_unseen")

    T: int
    # the number of steps, where an algorithm's own differs
    default_T = 8
    # why a solver cannot stand in for the steps on the states; None where it can
    no_solver: str | None = None
    # whether inference lowers the energy step by step
    descends = True
    # whether the steps are on the states themselves
    steps_states = True
    # whether frozen outputs stay at their target during inference
    clamps_output = True

    def __init__(
        self,
        model: EnergyModule,
        T: int | None = None,
        state_optim: StateOptim | None = SGD_0_05,
        weight_optim: WeightOptim | None = ADAMW_0_001,
        *,
        init: Start = "forward",
        stop: Stop | None = None,
        metrics: Mapping[str, Metric] | None = None,
        T_predict: int = 0,
        record: bool = False,
        lazy: bool = True,
        unroll: bool | Literal["auto"] = "auto",
        donate: bool = True,
        compute_dtype: DTypeLike | None = None,
        statistics: Literal["forward", "learning"] = "forward",
        mesh: Mesh | None = None,
    ):
        object.__setattr__(self, "_unseen", True)
        name = type(self).__name__
        if not isinstance(model, EnergyModule):
            raise TypeError(BAD_MODEL.format(cls=name, got=type(model).__name__))
        if not vodes(model) and _lazy.is_additive(model):
            raise ValueError(NO_VODES.format(cls=name, got=type(model).__name__))
        T = self.default_T if T is None else T
        if not isinstance(T, int) or T < 0:
            raise ValueError(f"T is the number of inference steps, an int >= 0; got {T!r}")
        if not isinstance(T_predict, int) or T_predict < 0:
            raise ValueError(
                f"T_predict is the number of steps before a prediction, an int >= 0; got {T_predict!r}"
            )
        check_start(init)
        if statistics not in ("forward", "learning"):
            raise ValueError(
                'statistics says which pass moves running statistics, "forward" or "learning"; '
                f"got {statistics!r}"
            )
        self.model = model
        self.T, self.T_predict = T, T_predict
        self.init, self.record, self.lazy = init, record, lazy
        self.unroll, self.donate = unroll, donate
        self.metrics = dict(metrics or {})
        self.compute_dtype, self.statistics = compute_dtype, statistics
        self.mesh = mesh
        self._stop, self._solver = static(stop), static(None)
        if isinstance(state_optim, StateSolver):
            self._accept(state_optim)
            state_optim = None
        self.state_optim = as_optim(SGD_0_05 if state_optim is None else state_optim)
        self.weight_optim = as_optim(ADAMW_0_001 if weight_optim is None else weight_optim)
        trainable = once_unfrozen(self.weights_mask())
        self._known = static(frozenset(path for path, _ in named_params(model)))
        if self.weight_optim.state.get() is None and any(map(trainable.select, _params(model))):
            self.weight_optim.init(trainable(model))

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for old, (new, why) in _OLD.items():
            if old in vars(cls):
                raise TypeError(RENAMED.format(cls=cls.__name__, old=old, new=new, why=why))
        if "__init__" in vars(cls):
            show_options(cls)
        tell_options(cls)

    def _accept(self, solver: StateSolver) -> None:
        why = self.no_solver
        own = [n for n in ("step_states", "start_states") if not _is_pcx(getattr(type(self), n))]
        if why is None and own:
            why = f"it has a `{own[0]}` of its own, which a solver would leave out"
        if why is None and self.stop is not None:
            why = "`stop=` ends a loop of steps, which a solver replaces"
        if why is not None:
            raise ValueError(
                SOLVER.format(cls=type(self).__name__, solver=type(solver).__name__, why=why)
            )
        self._solver = static(solver)

    # --- settings, and what algorithms may ask or override -----------------------------------------

    @property
    def stop(self) -> Stop | None:
        """When inference ends early, or None."""
        return self._stop.get()

    @property
    def solver(self) -> StateSolver | None:
        """What replaces the steps on the states, or None."""
        return self._solver.get()

    @property
    def mesh(self) -> Mesh | None:
        """The devices that divide each batch, or None."""
        return self._mesh.get()

    @mesh.setter
    def mesh(self, mesh: Mesh | None) -> None:
        checked = None if mesh is None else _mesh.checked(mesh, type(self).__name__)
        self._mesh = static(checked)
        object.__setattr__(self, "_placed", False)

    @property
    def vode_names(self) -> tuple[str, ...]:
        """Paths of the vodes, in the order of recorded energies."""
        return vode_paths(self.model)

    def weights_mask(self) -> Mask:
        """Selects the params that learning changes."""
        return TRAINABLE

    def weights(self) -> list[BaseParam]:
        """The params that learning changes."""
        select = self.weights_mask().select
        return [param for param in _params(self.model) if select(param)]

    # the equations are in PC

    def train(self, x: Any, y: Any) -> Any:
        """One training step on a batch."""
        raise NotImplementedError

    def start(self, x: Any, y: Any) -> tuple[Any, Any]:
        """The first values of the states; `(prediction, target)`."""
        raise NotImplementedError

    def initialise(self, x: Any, y: Any) -> Any:
        """The first values of the states; the prediction."""
        raise NotImplementedError

    def infer_states(
        self, x: Any, y: Any, *, energies: bool = False, states: bool = False
    ) -> Record:
        """All of inference."""
        raise NotImplementedError

    def sample_energies(self, x: Any, y: Any, *, model: Any) -> jax.Array:
        """F of each sample."""
        raise NotImplementedError

    def start_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch; for schedules of the algorithm itself."""

    @_lazy.lazy_safe
    def start_states(self) -> None:
        """Fresh optimiser state for every free state."""
        free = {id(h) for h in free_states(self.model)}
        if free:
            self.state_optim.init(Mask(lambda param: id(param) in free)(self.model))

    def mean_energy(self, x: Any, y: Any) -> jax.Array:
        """The batch's mean energy in the present states."""
        with step(self.model, clear_params=(CACHE, CACHE)):
            return jnp.mean(self.sample_energies(x, y, model=self.model))

    def watch(self, x: Any, y: Any, energies: bool, states: bool) -> tuple[Any, Any]:
        """What `Record` keeps of the present states: the energy of each vode, and the states."""
        if states:
            self._settle(x, y)
        return (
            vode_energies(x, y, model=self.model) if energies else None,
            tuple(vode.h.get() for vode in vodes(self.model)) if states else None,
        )

    # --- the public interface -----------------------------------------------------------------------

    @compiled(donate=True, first=first_step)
    def train_step(self, x: Any, y: Any = None) -> dict[str, jax.Array]:
        """Learn from one batch; the model is updated in place.

        Args:
            x: inputs, (batch, *event), or None for a model without input.
            y: targets, (batch, *event).

        Returns:
            Arrays on the device, nothing waits for them: "energy", the mean over the batch after inference;
            each of `metrics`; "energies" (T + 1, vodes) with `record`; "steps" if they can vary.
        """
        with training_batch(self.model):
            prediction, energy, record = self.train(x, y)
        out = {"energy": energy, **(record.info or {}), **self._metrics(prediction, y)}
        if self.record:
            out["energies"] = record.energies
        if self.stop is not None or self.solver is not None:
            out["steps"] = record.steps
        self._clear()
        return out

    @compiled()
    def eval_step(self, x: Any, y: Any) -> dict[str, jax.Array]:
        """Energy and metrics of the forward prediction for one batch; nothing is learned."""
        with self._aside():
            prediction = self._prediction(x, y)
            return {"energy": self.mean_energy(x, y), **self._metrics(prediction, y)}

    @compiled()
    def predict(self, x: Any) -> Any:
        """The model's prediction for a batch, by a forward pass (and T_predict steps of inference).

        y is never needed, and never known to that inference.
        """
        with self._aside():
            return self._prediction(x, None)

    @compiled(static=("T",))
    def energy(self, x: Any, y: Any = None, T: int | None = None) -> jax.Array:
        """Energy of each sample after inference, shape (batch,), in nats.

        Args:
            T: number of inference steps instead of the algorithm's own; 0 for the energy of the forward
                pass, which is the loss of back-propagation.
        """
        self.T = self.T if T is None else T
        with self._aside():
            _, y = self.start(x, y)
            self.infer_states(x, y)
            return self.sample_energies(x, y, model=self.model)

    @compiled(static=("T", "energies", "trajectory"))
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
        self.T = self.T if T is None else T
        with statistics(self.model, update=False):
            prediction, y = self.start(x, y)
            energies = energies and self.stop is None
            record = self.infer_states(x, y, energies=energies, states=trajectory)
            self._settle(x, y)
        self.state_optim.clear()
        return prediction, record

    @compiled(static=("T",))
    def reconstruct(self, y: Any, x: Any = None, T: int | None = None) -> Any:
        """What a generative model makes of data: infer the code with y clamped, then decode it.

            h* = the states after T steps of inference with h_L = y;    y_hat = f_L(... f_1(h*_0))

        Only the code, the free nodes that nothing predicts, is taken from inference. The hidden states as
        inference left them carry errors of their own, and would tell more about y than the code does.
        Nothing is learned, and the states of the model stay as they are.

        Args:
            y: data, (batch, *event); or a `pxc.Clamp(data, mask)`, of which only the part in the mask is known:
                this is recall, and the output need not be unfrozen for it.
            x: inputs to condition on; None for a model without input.
            T: number of inference steps instead of the algorithm's own.

        Returns:
            The decoded data, (batch, *event).

        Raises:
            ValueError: the model has no such node, as a classifier has none.

        Example:
            >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
            >>> decoder = pxm.LinearDecoder([1, 3], bias=False)  # y = W h
            >>> _ = decoder.layers[1].nn.weight.set(jnp.array([[2.0], [1.0], [0.0]]))
            >>> pc = pxa.PC(decoder, T=50, state_optim=optax.sgd(0.1))
            >>> y_hat = pc.reconstruct(jnp.array([[4.0, 2.0, 9.0]]))  # the projection on W
            >>> [round(value, 3) for value in y_hat[0].tolist()]
            [4.0, 2.0, 0.0]

        References:
            Pinchetti et al., 2024, Section 4.2 (reconstruction, associative memory).
        """
        self.T = self.T if T is None else T
        # many steps, seldom: unrolled, 60 of a small decoder took 78 s to compile
        if self.unroll == "auto":
            self.unroll = False
        if isinstance(y, Clamp):
            for vode in vodes(self.model):
                vode.h.frozen = False  # in this call's copy
        roots = codes(type(self).__name__, self.model, x)
        with self._aside():
            _, target = self.start(x, y)
            self.infer_states(x, target)
            self._settle(x, target)
            return decode(x, self.model, roots)

    @compiled()
    def largest_state_rate(self, x: Any, y: Any = None) -> jax.Array:
        """The largest rate at which gradient descent on the states is stable for a batch, to about a percent.

            2 / lambda,   lambda the largest eigenvalue of d2F/dh2, over all samples, after initialisation

        h is what inference steps on: the states, for `EPC` the errors. Momentum and training, which moves lambda,
        call for less.

        Example:
            >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm
            >>> model = pxm.MLP([2, 2, 2], act=lambda a: a, bias=False)
            >>> for layer in model.layers:
            ...     _ = layer.nn.weight.set(2 * jnp.eye(2))
            >>> rate = pxa.PC(model).largest_state_rate(jnp.eye(2), jnp.eye(2))
            >>> round(float(rate), 3)  # F = 1/2 |h - u|^2 + 1/2 |y - 2 h|^2: the curvature is 1 + 4
            0.4
        """
        with self._aside():
            _, y = self.start(x, y)
            return 2 / jnp.maximum(jnp.max(largest_curvatures(self, x, y)), 0)

    def place(self) -> None:
        """Put the params on the devices of the mesh, once; every compiled method calls it.

        Again only after `mesh` was set anew.
        """
        if self.mesh is None:
            return
        if not getattr(self, "_placed", False):
            _mesh.place_params(self.mesh, self)
            object.__setattr__(self, "_placed", True)
        _mesh.place_key(self.mesh)

    def passes(self, phase: str) -> Any:
        """A context for the passes of a phase: they move running statistics if the option says so."""
        return statistics(self.model, update=self.statistics == phase)

    def _settle(self, x: Any, y: Any) -> None:
        """Clamp, so that the states are those that the energies are of."""
        with step(self.model, clear_params=(CACHE, CACHE)):
            call(x, y, model=self.model)

    # --- what these share -----------------------------------------------------------------------------

    def _prediction(self, x: Any, y: Any) -> Any:
        """Of a forward pass; or in the states that T_predict steps without y lead to."""
        if not self.T_predict:
            return forward(x, y, self.model)
        self.T = self.T_predict
        self.initialise(x, None)
        self.infer_states(x, None)
        return forward(x, None, self.model, None)

    def _check_learning(self, updates: Mapping[str, Any]) -> None:
        """Refuse to leave a layer untrained that came after the optimiser: `updates` by path."""
        select, known = self.weights_mask().select, self._known.get()
        for path, param in named_params(self.model):
            if path not in known and path not in updates and select(param):
                raise ValueError(ADDED.format(cls=type(self).__name__, path=path))

    def _metrics(self, prediction: Any, y: Any) -> dict[str, Any]:
        return {name: jnp.mean(jnp.asarray(f(prediction, y))) for name, f in self.metrics.items()}

    def _clear(self) -> None:
        self.state_optim.clear()
        self.model.clear_params(VodeParam.Cache)
        if self.init != "persistent":
            self.model.clear_params(VodeParam)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Start without states, and leave those that persist as they were found."""
        kept = [(v.h, v.h.get()) for v in vodes(self.model) if self.init == "persistent"]
        self._clear()
        self.model.clear_params(VodeParam)
        with statistics(self.model, update=False):
            yield
        self._clear()
        self.model.clear_params(VodeParam)
        for h, value in kept:
            h.set(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.model).__name__}, T={self.T})"


def _params(model: Any) -> list[BaseParam]:
    return [param for _, param in named_params(model)]


def _is_pcx(method: Any) -> bool:
    return method.__module__.startswith("pcx.")
