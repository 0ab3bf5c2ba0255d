"""The generative hierarchy of pcn-torch: predictions go down, a read-out names the label."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp

from ..core import RKG, RandomKeyGenerator
from ..nn import Linear
from ..predictive_coding import EnergyModule, Vode, se_energy, zero_energy


class OptionalVode(Vode):
    """A vode that counts only while it holds something: an output whose target may be unknown."""

    def energy(self) -> Any:
        """As `Vode.energy`; 0.0 while h is empty."""
        return 0.0 if self.h.get() is None else super().energy()


class Hierarchy(EnergyModule):
    """Predictive coding from the top down, with a supervised read-out of the top level.

        x_0 = data;   level l < L is predicted from above:  u_l = f(W_l x_{l+1} + b_l)  ("after")
                                                            u_l = W_l f(x_{l+1}) + b_l  ("before")
        label = V x_L + c;      E = sum_l 1/2 |x_l - u_l|^2 + loss(y, label)

    Inference finds the latents x_1 ... x_L that explain the data (and, in training, the label). A
    prediction therefore needs inference, without the label: give the algorithm `T_predict`. The
    settings of pcn-torch are here

        pcn-torch                                   here
        TrainConfig(T_infer, lr_infer, lr_learn)    pxa.PC(model, T, optax.sgd(lr_infer),
                                                           optax.sgd(lr_learn), init="normal",
        test_pcn with T_infer_test steps                   T_predict=...)
        layers without biases                       Hierarchy(..., bias=False, readout_bias=False)

    but for the steps on the weights: a training step of PC makes one, pcn-torch makes T_learn for
    each batch, in the same states. docs/migration.md has a subclass of PC that does.

    Args:
        dims: sizes of the levels, data first: `[784, 256, 64]` has latents of 256 and 64.
        outputs: size of the label.
        act: the activation f.
        place: "after" the weights (pcn-torch), or "before" them.
        prior: whether the top level has a standard normal prior, `1/2 |x_L|^2`; else it has none.
        energy_fn: energy of the label, `pxc.se_energy` or `pxc.ce_energy`.
        bias: whether the levels' layers have a bias.
        rkg: where the random keys of the weights come from.
        readout_bias: whether the read-out has one, c.

    Attributes:
        layers: layer l predicts level l from level l + 1.
        readout: the layer of the label.
        vodes: the levels x_0 ... x_L, then the label. The first and the last are clamped.

    Raises:
        ValueError: fewer than two levels; an unknown place.

    Example:
        >>> import jax.numpy as jnp, optax, pcx.algorithms as pxa, pcx.models as pxm
        >>> model = pxm.Hierarchy([6, 5, 4], 3)
        >>> pc = pxa.PC(model, 20, optax.sgd(0.1), optax.sgd(0.01), init="normal", T_predict=50)
        >>> x, y = jnp.ones((2, 6)), jnp.ones((2, 3))
        >>> _ = pc.train_step(x, y)
        >>> pc.predict(x).shape
        (2, 3)

    References:
        Stenlund, "Introduction to predictive coding networks for machine learning", 2025,
        arXiv:2506.06332.
    """

    def __init__(
        self,
        dims: Sequence[int],
        outputs: int,
        act: Callable[[Any], Any] = jnp.tanh,
        place: Literal["after", "before"] = "after",
        prior: bool = False,
        energy_fn: Callable[..., Any] = se_energy,
        bias: bool = True,
        rkg: RandomKeyGenerator = RKG,
        *,
        readout_bias: bool = True,
    ):
        if len(dims) < 2:
            raise ValueError(f"a Hierarchy has at least two levels, data and latent; got {dims!r}")
        if place not in ("after", "before"):
            raise ValueError(f'place must be "after" or "before"; got {place!r}')
        self.act, self.place = act, place
        self.layers = [
            Linear(above, below, bias=bias, rkg=rkg) for below, above in itertools.pairwise(dims)
        ]
        self.readout = Linear(dims[-1], outputs, bias=readout_bias, rkg=rkg)
        levels = [Vode((n,)) for n in dims[:-1]]
        top = Vode((dims[-1],), se_energy if prior else zero_energy)
        self.vodes = [*levels, top, OptionalVode((outputs,), energy_fn)]
        for vode in (self.vodes[0], self.vodes[-1]):
            vode.h.frozen = True

    def predict(self, index: int, above: Any) -> Any:
        """The prediction of level `index` from the state of the level above."""
        if self.place == "after":
            return self.act(self.layers[index](above))
        return self.layers[index](self.act(above))

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Pass one sample down the levels.

        Args:
            x: data of the lowest level; None leaves it at its prediction (generation).
            y: the label; None if unknown.

        Returns:
            The label as read out of the present top level.
        """
        *levels, label = self.vodes
        weight = self.readout.nn.weight
        h = levels[-1](jnp.zeros(weight.shape[-1], weight.dtype))
        u = self.readout(h)
        for index in reversed(range(len(self.layers))):
            h = levels[index](self.predict(index, h))
        if x is not None:
            levels[0].set("h", x)
        label(u)
        label.set("h", y)
        return u
