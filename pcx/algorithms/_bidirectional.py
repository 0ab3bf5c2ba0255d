"""Bidirectional predictive coding: every node is predicted from below and from above."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree

from ..core import describe
from ..predictive_coding import EnergyModule, Vode, VodeParam, vodes
from ..utils import step
from ._compiled import compiled
from ._energies import CACHE, batched
from ._pc import PC

COUNT = """BidirectionalPC: the model has {nodes} vodes, so it needs as many backward layers: \
backward[0] predicts the input x from vode 0, backward[l] vode l - 1 from vode l. Got {got}; put \
None where a node has no prediction from above."""

SHAPE = """BidirectionalPC: backward[{index}] predicts {node}, which is {expected}, but its \
output is {got}"""

NO_INPUT = """BidirectionalPC: x is None, so it has to be inferred, {why}"""

NO_SHAPE = """which needs its shape: `BidirectionalPC(..., input_shape=(784,))`."""

NO_OUTPUT = """but y is None as well, and its first value is what the backward direction makes of y. \
Give x or y."""


class Bidirectional(EnergyModule):
    """A chain of nodes with layers in both directions, `BidirectionalPC`'s model.

        F = alpha_f * (energy of the forward model) + alpha_b * sum_l 1/2 |h_l - g_l(h_{l+1})|^2

    Args:
        forward: an `EnergyModule` with its vodes in a chain: h_1 ... h_L, h_0 = x.
        backward: g_0 ... g_{L-1}, callables on one sample; None for a node without one.
        alpha_f, alpha_b: weights of the two directions.
        input_shape: shape of one x, for a model that may be called without it.

    Attributes:
        input: with `input_shape`, the vode of h_0, without an energy of its own: clamped to x, or
            free where x is None. Else None.

    Raises:
        ValueError: not one backward layer for each vode; later, a prediction of the wrong shape, or
            no x where `input` is None.
    """

    def __init__(
        self,
        forward: EnergyModule,
        backward: Sequence[Callable[[Any], Any] | None],
        alpha_f: float = 1.0,
        alpha_b: float = 1.0,
        input_shape: Sequence[int] | None = None,
    ):
        nodes = len(vodes(forward))
        if len(backward) != nodes:
            raise ValueError(COUNT.format(nodes=nodes, got=len(backward)))
        self.forward: Any = forward
        self.backward: list[Any] = list(backward)
        self.alpha_f, self.alpha_b = alpha_f, alpha_b
        self.below = VodeParam.Cache()
        self.input = None if input_shape is None else Vode(tuple(input_shape), None)
        if self.input is not None:
            self.input.h.frozen = True

    def __call__(self, x: PyTree, y: PyTree = None) -> Any:
        """The forward model's prediction for one sample; without x, from the state of `input`."""
        if self.input is not None:
            self.input(self.generate(y) if x is None else x)
            if x is not None:
                self.input.set("h", x)
            x = self.input.get("h")
        elif x is None:
            raise ValueError(NO_INPUT.format(why=NO_SHAPE))
        self.below["x"] = x
        return self.forward(x, y)

    def generate(self, y: PyTree) -> Any:
        """What the backward direction alone makes of one output."""
        if y is None:
            raise ValueError(NO_INPUT.format(why=NO_OUTPUT))
        if None in self.backward:
            raise ValueError("generate: a backward layer is None, so x cannot be reached from y")
        for layer in reversed(self.backward):
            y = layer(y)
        return y

    def energy(self) -> Any:
        """F of one sample."""
        return self.alpha_f * self.forward.energy() + sum(self.backward_energies())

    def backward_energies(self) -> list[Any]:
        """`alpha_b / 2 |h_l - g_l(h_{l+1})|^2` for l = 0 ... L-1, of one sample."""
        h = [jnp.asarray(self.below["x"]), *(vode.get("h") for vode in vodes(self.forward))]
        return [
            0.5 * self.alpha_b * jnp.sum(jnp.square(h[k] - self._predict(k, h[k + 1], h[k])))
            for k in range(len(self.backward))
            if self.backward[k] is not None
        ]

    def _predict(self, index: int, above: Any, node: Any) -> Any:
        prediction = self.backward[index](above)
        if jnp.shape(prediction) != jnp.shape(node):
            raise ValueError(
                SHAPE.format(
                    index=index,
                    node=f"the state of vode {index - 1}" if index else "the input x",
                    expected=describe(node),
                    got=describe(prediction),
                )
            )
        return prediction


class BidirectionalPC(PC):
    """Predictive coding with predictions in both directions: one model classifies and generates.

        F = alpha_f [sum_{l<L} 1/2 |h_l - f_l(h_{l-1})|^2 + loss(f_L(h_{L-1}), y)]
            + alpha_b sum_{l<L} 1/2 |h_l - g_l(h_{l+1})|^2,        h_0 = x,  h_L = y

    Inference and learning are those of PC on this energy; both directions learn. States start with
    a forward pass. With alpha_b = 0 (and alpha_f = 1) it is PC. The forward model may have skip
    connections, and a backward layer may be any function of the node above it, so
    `lambda h: h + g(h)` is a skip as well.

    With `input_shape`, x may be None wherever y is given: h_0 is then a free state, which starts at what the
    backward direction makes of y, and after `infer(None, y)` is in `model.input.h`.

    Args:
        model: the forward direction f, a chain of vodes, as for any algorithm.
        T, state_optim, weight_optim, and all other options: see `PC`.
        backward: the backward direction, `[g_0, ..., g_{L-1}]`: g_0 predicts x from the first vode,
            g_l vode l - 1 (counted from 0) from vode l. Layers, `Sequential`s, or any callables on
            one sample; None for no prediction.
        alpha_f, alpha_b: weights of the two directions.
        input_shape: shape of one x, to infer x where it is None.

    Attributes:
        model: a `Bidirectional` with the user's model in `.forward` and the layers in `.backward`.

    Raises:
        ValueError: not one backward layer for each vode; later, x is None without `input_shape`, or
            together with y.

    Example:
        >>> import jax, jax.numpy as jnp, pcx.algorithms as pxa, pcx.models as pxm, pcx.nn as pxnn
        >>> model = pxm.MLP([4, 8, 2])
        >>> backward = [pxnn.Linear(8, 4), pxnn.Linear(2, 8)]
        >>> bpc = pxa.BidirectionalPC(model, T=4, backward=backward, alpha_b=1e-2)
        >>> x, y = jnp.ones((3, 4)), jnp.ones((3, 2))
        >>> _ = bpc.train_step(x, y)
        >>> bpc.predict(x).shape, bpc.generate(y).shape
        ((3, 2), (3, 4))

    References:
        Oliviers, Tang & Bogacz, "Bidirectional predictive coding", 2025.
    """

    model: Any

    def __init__(
        self,
        model: EnergyModule,
        *args: Any,
        backward: Sequence[Callable[[Any], Any] | None],
        alpha_f: float = 1.0,
        alpha_b: float = 1.0,
        input_shape: Sequence[int] | None = None,
        **options: Any,
    ):
        if isinstance(model, EnergyModule):
            model = Bidirectional(model, backward, alpha_f, alpha_b, input_shape)
        super().__init__(model, *args, **options)

    def initialise(self, x: PyTree, y: PyTree) -> Any:
        """As `PC.initialise`; a missing x is one of the states that inference moves."""
        if self.model.input is not None:
            self.model.input.h.frozen = x is not None
        return super().initialise(x, y)

    @compiled()
    def generate(self, y: PyTree) -> Any:
        """What the backward direction alone makes of outputs y, (batch, *event): inputs x.

        Raises:
            ValueError: a node has no prediction from above.
        """
        return _backward_pass(y, None, model=self.model)

    def watch(self, x: PyTree, y: PyTree, energies: bool, states: bool) -> tuple[Any, Any]:
        """Energies of nodes: each vode's own, and that of its prediction of the node below."""
        _, seen = super().watch(x, y, False, states)
        if not energies:
            return None, seen
        with step(self.model, clear_params=(CACHE, CACHE)):
            both = _both_energies(x, y, model=self.model)
        return jnp.stack([jnp.mean(jnp.asarray(e)) for e in both]), seen


@batched
def _both_energies(x: PyTree, y: PyTree, *, model: Any) -> Any:
    model(x, y)
    total = [model.alpha_f * vode.energy() for vode in vodes(model)]
    predicting = [k for k, layer in enumerate(model.backward) if layer is not None]
    for k, energy in zip(predicting, model.backward_energies(), strict=True):
        total[k] = total[k] + energy
    return total


@batched
def _backward_pass(y: PyTree, _: Any, *, model: Any) -> Any:
    return model.generate(y)
