"""`Interface`: what every learning algorithm has, whatever its equations: public methods, metrics.

The options are in `Options`, the equations in `PC`. The public methods (`train_step`, `eval_step`, `predict`,
`energy`, `infer`) are compiled; each runs on a copy of the algorithm, and what it writes into the params of the
model, the optimisers or the algorithm itself is kept.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from ..core import Mask, named_params
from ..nn import statistics, training_batch
from ..predictive_coding import Clamp, EnergyModule, VodeParam, free_states, vodes
from ..predictive_coding._states import vode_paths
from ..utils import step
from . import _lazy
from ._compiled import compiled
from ._curvature import largest_curvatures
from ._energies import CACHE, call, forward, vode_energies
from ._first_batch import first_step
from ._loop import Record
from ._options import Options
from ._reconstruct import codes, decode

ADDED = """{cls}: `{path}` was added to the model after the algorithm was made, so its weight optimiser does not \
know it. Make a new algorithm, or let the optimiser start afresh: \
`algorithm.weight_optim.init(algorithm.weights_mask()(algorithm.model))`."""


class Interface(Options):
    """The public methods of every algorithm; `PC` has the arguments and the equations."""

    # --- what algorithms may ask or override ---------------------------------------------------------

    @property
    def vode_names(self) -> tuple[str, ...]:
        """Paths of the vodes, in the order of recorded energies."""
        return vode_paths(self.model)

    # the equations are in PC

    def train(self, x: PyTree, y: PyTree) -> Any:
        """One training step on a batch."""
        raise NotImplementedError

    def start(self, x: PyTree, y: PyTree) -> tuple[Any, Any]:
        """The first values of the states; `(prediction, target)`."""
        raise NotImplementedError

    def initialise(self, x: PyTree, y: PyTree) -> Any:
        """The first values of the states; the prediction."""
        raise NotImplementedError

    def infer_states(
        self, x: PyTree, y: PyTree, *, energies: bool = False, states: bool = False
    ) -> Record:
        """All of inference."""
        raise NotImplementedError

    def sample_energies(
        self, x: PyTree, y: PyTree, *, model: EnergyModule
    ) -> Float[jax.Array, " batch"]:
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

    def mean_energy(self, x: PyTree, y: PyTree) -> Float[jax.Array, ""]:
        """The batch's mean energy in the present states."""
        with step(self.model, clear_params=(CACHE, CACHE)):
            return jnp.mean(self.sample_energies(x, y, model=self.model))

    def watch(self, x: PyTree, y: PyTree, energies: bool, states: bool) -> tuple[Any, Any]:
        """What `Record` keeps of the present states: the energy of each vode, and the states."""
        if states:
            self._settle(x, y)
        return (
            vode_energies(x, y, model=self.model) if energies else None,
            tuple(vode.h.get() for vode in vodes(self.model)) if states else None,
        )

    # --- the public interface -----------------------------------------------------------------------

    @compiled(donate=True, first=first_step)
    def train_step(self, x: PyTree, y: PyTree = None) -> dict[str, jax.Array]:
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
    def eval_step(self, x: PyTree, y: PyTree) -> dict[str, jax.Array]:
        """Energy and metrics of the forward prediction for one batch; nothing is learned."""
        with self._aside():
            prediction = self._prediction(x, y)
            return {"energy": self.mean_energy(x, y), **self._metrics(prediction, y)}

    @compiled()
    def predict(self, x: PyTree) -> Any:
        """The model's prediction for a batch, by a forward pass (and T_predict steps of inference).

        y is never needed, and never known to that inference.
        """
        with self._aside():
            return self._prediction(x, None)

    @compiled(static=("T",))
    def energy(
        self, x: PyTree, y: PyTree = None, T: int | None = None
    ) -> Float[jax.Array, " batch"]:
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
        x: PyTree,
        y: PyTree = None,
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
    def reconstruct(self, y: PyTree, x: PyTree = None, T: int | None = None) -> Any:
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
    def largest_state_rate(self, x: PyTree, y: PyTree = None) -> jax.Array:
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

    def passes(self, phase: str) -> Any:
        """A context for the passes of a phase: they move running statistics if the option says so."""
        return statistics(self.model, update=self.statistics == phase)

    def _settle(self, x: PyTree, y: PyTree) -> None:
        """Clamp, so that the states are those that the energies are of."""
        with step(self.model, clear_params=(CACHE, CACHE)):
            call(x, y, model=self.model)

    # --- what these share -----------------------------------------------------------------------------

    def _prediction(self, x: PyTree, y: PyTree) -> Any:
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

    def _metrics(self, prediction: PyTree, y: PyTree) -> dict[str, Any]:
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
