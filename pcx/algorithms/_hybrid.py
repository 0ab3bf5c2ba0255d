"""Hybrid predictive coding: an amortiser guesses the states, inference refines them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import describe, locate
from ..predictive_coding import STATUS, EnergyModule, Vode, se_energy, vodes
from ._compiled import compiled
from ._energies import batched, forward
from ._loop import Record
from ._pc import PC

COUNT = """HybridPC: the generator has {nodes} vodes, so the amortiser needs as many layers: \
amortiser[0] predicts the generator's input from vode 0, amortiser[l] vode l - 1 from vode l. Got \
{got}."""

SHAPE = """HybridPC: amortiser[{index}] predicts {node}, of shape {expected}, but its output is \
{got}"""

LABEL = """`{where}`: y (of one sample) is {y}, but amortiser[0] predicts {guess}. HybridPC takes \
data as x and labels as y, also where the generator takes them the other way round."""


class Amortised(EnergyModule):
    """A generator with an amortiser, `HybridPC`'s model. Its first vode holds h_0.

    Args:
        generator: an `EnergyModule` `generator(h_0, data)` with its vodes in a chain.
        amortiser: q_0 ... q_{L-1}, callables on one sample.
        inputs: "amortised": q_l reads its own guess of h_{l+1} when it learns; "inferred": the
            state.
        prior: mean of h_0, an array (or number); None for a flat prior.
    """

    def __init__(
        self,
        generator: EnergyModule,
        amortiser: Sequence[Callable[[Any], Any]],
        inputs: Literal["amortised", "inferred"] = "amortised",
        prior: Any = None,
    ):
        nodes = len(vodes(generator))
        if len(amortiser) != nodes:
            raise ValueError(COUNT.format(nodes=nodes, got=len(amortiser)))
        if inputs not in ("amortised", "inferred"):
            raise ValueError(f'inputs must be "amortised" or "inferred"; got {inputs!r}')
        self.first = Vode(energy_fn=None if prior is None else se_energy)
        self.generator: Any = generator
        self.amortiser = list(amortiser)
        self.inputs, self.prior = inputs, prior

    def __call__(self, x: PyTree, y: PyTree = None) -> Any:
        """Predict the data x of one sample from h_0, which is y if that is given.

        Returns:
            h_0; in the initialisation, the amortiser's guess of it.
        """
        guesses = self.guess(x) if self.status == STATUS.INIT else []
        if guesses and y is not None and jnp.shape(y) != jnp.shape(guesses[0]):
            where = locate(self.first) or "vode 0"
            raise ValueError(LABEL.format(where=where, y=describe(y), guess=describe(guesses[0])))
        h = guesses[0] if guesses else self.first.get("h")
        if self.prior is not None:
            self.first.set("u", jnp.broadcast_to(jnp.asarray(self.prior), jnp.shape(h)))
        self.first.set("h", h if y is None else y)
        self.generator(self.first.get("h"), x)
        for index, (vode, guess) in enumerate(zip(self._inner(), guesses[1:], strict=False)):
            got, expected = jnp.shape(guess), jnp.shape(vode.get("u"))
            if got != expected:
                node = f"the state of vode {index}"
                raise ValueError(
                    SHAPE.format(index=index + 1, node=node, expected=expected, got=describe(guess))
                )
            vode.set("h", guess)
        return h

    def _inner(self) -> list[Vode]:
        return vodes(self.generator)[:-1]

    def guess(self, x: PyTree) -> list[Any]:
        """The amortiser's h_0 ... h_{L-1} for one sample of data."""
        out = [x]
        for layer in reversed(self.amortiser):
            out.append(layer(out[-1]))
        return out[:0:-1]

    def amortiser_energy(self, x: PyTree) -> Any:
        """`sum_l 1/2 |h_l - q_l(.)|^2` of one sample; states and layers' inputs are constants."""
        states = [vode.get("h") for vode in (self.first, *self._inner())]
        total: Any = 0.0
        above = x
        for layer, h in zip(reversed(self.amortiser), reversed(states), strict=True):
            q = layer(jax.lax.stop_gradient(above))
            total = total + 0.5 * jnp.sum(jnp.square(jax.lax.stop_gradient(h) - q))
            above = q if self.inputs == "amortised" else h
        return total


class HybridPC(PC):
    """Predictive coding that starts from an amortiser's guess: fast first, then slow and exact.

        guess:      q_L = x,  q_l = q_l(q_{l+1}),  l = L-1 ... 0        (bottom-up, from the data)
        inference:  from h = q, T steps on F, the energy of the generator with the data clamped
        learning:   generator: dF/dtheta at h*
                    amortiser: d/dphi sum_l 1/2 |h*_l - q_l(q_{l+1})|^2

    The model is a *generator*: its input is a label (or latent) and its output vode holds the data.
    But the algorithm's x is what is observed and its y what is to be predicted, as for any
    algorithm:

        train_step(x, y)     data and labels: the label is clamped
        train_step(x)        data alone: the generator's input is inferred, too
        predict(x)           the label: the amortiser's guess, refined by T_predict steps
        generate(y)          data, by a forward pass of the generator

    Args:
        model: the generator, `model(label, data)`, a chain of vodes with the last one clamped.
        weight_optim: as for `PC`, for generator and amortiser together.
        init: "forward" starts at the guess; with "zero" or "normal" inference has to do without.
        T, state_optim, and all other options: see `PC`.
        amortiser: `[q_0, ..., q_{L-1}]`, one layer (any callable on one sample) for each of the
            generator's L vodes: q_0 predicts the generator's input, q_l vode l - 1 (counted from
            0).
        inputs: what q_l reads when it learns: "amortised", its own input at the guess; or
            "inferred", the state h*_{l+1}.
        prior: mean of a standard normal prior of the generator's input; None for a flat one.

    Attributes:
        model: an `Amortised`, with the user's model in `.generator` and the layers in `.amortiser`.

    Raises:
        ValueError: not one amortiser layer for each vode of the generator; an unknown `inputs`.

    Example:
        >>> import jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm, pcx.nn as pxnn
        >>> generator = pxm.MLP([2, 8, 4])
        >>> amortiser = [pxnn.Linear(8, 2), pxnn.Linear(4, 8)]
        >>> hybrid = pxa.HybridPC(generator, T=4, amortiser=amortiser)
        >>> data, labels = jnp.ones((3, 4)), jnp.ones((3, 2))
        >>> sorted(hybrid.train_step(data, labels))
        ['amortiser', 'energy']
        >>> hybrid.predict(data).shape, hybrid.generate(labels).shape
        ((3, 2), (3, 4))

    References:
        Tschantz, Millidge, Seth & Buckley, "Hybrid predictive coding: inferring, fast and slow",
        PLoS Computational Biology, 2023.
    """

    model: Any

    def __init__(
        self,
        model: EnergyModule,
        *args: Any,
        amortiser: Sequence[Callable[[Any], Any]],
        inputs: Literal["amortised", "inferred"] = "amortised",
        prior: Any = None,
        **options: Any,
    ):
        if isinstance(model, EnergyModule):
            model = Amortised(model, amortiser, inputs, prior)
        super().__init__(model, *args, **options)

    def initialise(self, x: PyTree, y: PyTree) -> Any:
        """States at the amortiser's guess; the generator's input is free unless y is given."""
        self.model.first.h.frozen = y is not None
        return super().initialise(x, y)

    def infer_states(self, x: PyTree, y: PyTree, **watch: bool) -> Record:
        """See `PC.infer_states`; also measures the amortiser's error."""
        record = super().infer_states(x, y, **watch)
        error = jnp.mean(jnp.asarray(_amortiser_energy(x, y, model=self.model)))
        return record._replace(info={**(record.info or {}), "amortiser": error})

    def weight_gradients(self, x: PyTree, y: PyTree) -> tuple[jax.Array, Any]:
        """Mean energy of the generator, and the gradients of both parts summed over the batch."""
        _, grads = super().weight_gradients(x, y)
        return self.mean_energy(x, y), grads

    def learning_energy(self, x: PyTree, y: PyTree, *, model: Any) -> jax.Array:
        """Energy of the generator and error of the amortiser: they share no weights."""
        error = jnp.sum(jnp.asarray(_amortiser_energy(x, y, model=model)))
        return super().learning_energy(x, y, model=model) + error

    @compiled()
    def generate(self, y: PyTree) -> Any:
        """Data from labels (or latents) y, (batch, *event), by a forward pass of the generator."""
        with self._aside():
            return forward(y, None, self.model.generator)


@batched
def _amortiser_energy(x: PyTree, _: Any, *, model: Any) -> Any:
    return model.amortiser_energy(x)
