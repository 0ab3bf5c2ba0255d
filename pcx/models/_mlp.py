"""Perceptrons, with skips and with the parameterisations that make depth work."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..core import RKG, RandomKeyGenerator
from ..nn import Linear
from ..predictive_coding import Weighted, se_energy
from ._chain import Activation, Chain, EnergyFn

Parameterisation = Literal["standard", "mupc", "ntp"]
Order = Literal["post", "pre"]


def multipliers(
    dims: Sequence[int], parameterisation: Parameterisation, skips: bool = False
) -> tuple[float, ...]:
    """The factors `a_1 ... a_L` in `u_l = a_l W_l f(h_{l-1})`, for weights drawn from N(0, 1).

        a_1 = 1/sqrt(D);  hidden: 1/sqrt(N L) with skips, 1/sqrt(N) without;
        a_L = 1/N for "mupc", 1/sqrt(N) for "ntp"

    with D the input size, N the layer's own fan-in and L the number of weight matrices. "standard"
    has no factors (all are 1).

    Args:
        dims: sizes of the input and of every layer, `L + 1` numbers.
        parameterisation: "standard", "mupc" or "ntp".
        skips: whether hidden layers have skip connections.

    Example:
        >>> multipliers([4, 16, 16, 2], "mupc")
        (0.5, 0.25, 0.0625)

    References:
        Innocenti et al., "μPC: scaling predictive coding to 100+ layer networks", 2025, Table 1.
    """
    if parameterisation not in ("standard", "mupc", "ntp"):
        raise ValueError(
            f'parameterisation must be "standard", "mupc" or "ntp"; got {parameterisation!r}'
        )
    depth = len(dims) - 1
    if parameterisation == "standard":
        return (1.0,) * depth
    hidden = [1 / math.sqrt(n * (depth if skips else 1)) for n in dims[1:-2]]
    fan_in = dims[-2]
    last = 1 / fan_in if parameterisation == "mupc" else 1 / math.sqrt(fan_in)
    return (1 / math.sqrt(dims[0]), *hidden, last)[-depth:]


class MLP(Chain):
    """A perceptron with a vode after every layer.

    The activation f comes after the weights ("post"), and the output is linear,

        u_l = f(a_l (W_l h_{l-1} + b_l))  for l < L,      u_L = a_L (W_L h_{L-1} + b_L)

    or before them ("pre"), except in the first layer:

        u_1 = a_1 (W_1 x + b_1),      u_l = a_l (W_l f(h_{l-1}) + b_l)

    All a_l are 1 in the standard parameterisation. With `skips`, hidden layers (1 < l < L) add
    `h_{l-1}`.

    Args:
        dims: sizes of the input and of every layer: `[784, 128, 128, 128, 10]`.
        act: the activation f.
        energy_fn: energy of the output vode: `pxc.se_energy`, or `pxc.ce_energy` for a classifier.
        bias: whether layers have a bias; None for "in the standard parameterisation only". In the
            others it is scaled with the weights: `a_l (W_l f(h_{l-1}) + b_l)`.
        skips: whether hidden layers have unit skip connections.
        order: where the activation comes, "post" or "pre"; None for "post" in the standard
            parameterisation and "pre" in the others.
        gamma: the output is divided by it, `a_L / gamma`; in "mupc" more than 1 means that features
            are learned more.
        precision: of the output, a factor on its energy: `precision / 2 (h_L - u_L)^2`.
        parameterisation: "standard"; "mupc" or "ntp", with weights drawn from N(0, 1) and the
            factors of `multipliers`.
        weight_init: `f(key, shape, dtype)` for the weights, of shape (outputs, inputs), such as
            `jax.nn.initializers.he_normal(in_axis=1, out_axis=0)`; biases are 0 then. None for
            equinox's default (uniform, also for the biases), or N(0, 1) with "mupc" and "ntp".
        rkg: where initial weights come from.

    Raises:
        ValueError: fewer than two sizes, an unknown parameterisation or order, gamma or precision
            not positive, or skips between hidden layers of different sizes.

    Example:
        >>> import jax, jax.numpy as jnp, pcx.functional as pxf, pcx.models as pxm, pcx.utils as pxu
        >>> model = pxm.MLP([4, 16, 16, 3], act=jax.nn.tanh)
        >>> model.layers[0].nn.weight
        LayerParam(f32[16,4])
        >>> with pxu.step(model, "init"):
        ...     model(jnp.ones(4)).shape
        (3,)

    References:
        Pinchetti et al., "Benchmarking predictive coding networks - made simple", 2024, Table 5;
        Innocenti et al., "μPC: scaling predictive coding to 100+ layer networks", 2025.
    """

    def __init__(
        self,
        dims: Sequence[int],
        act: Activation = jax.nn.gelu,
        energy_fn: EnergyFn = se_energy,
        *,
        bias: bool | None = None,
        skips: bool = False,
        order: Order | None = None,
        gamma: float = 1.0,
        precision: float = 1.0,
        parameterisation: Parameterisation = "standard",
        weight_init: Callable[..., Any] | None = None,
        rkg: RandomKeyGenerator = RKG,
    ):
        dims = list(dims)
        if len(dims) < 2:
            raise ValueError(
                f"MLP takes the sizes of the input and of every layer; got dims={dims}"
            )
        if skips and len(set(dims[1:-1])) > 1:
            raise ValueError(
                "MLP(skips=True) adds a hidden state to the next one, so all hidden layers must "
                f"have one size; got dims={dims}"
            )
        if order not in (None, "post", "pre"):
            raise ValueError(f'MLP: order must be "post" or "pre"; got {order!r}')
        if not gamma > 0:
            raise ValueError(
                f"MLP: gamma divides the output, so it must be positive; got {gamma!r}"
            )
        self.act = act
        self.skips = skips
        *hidden, last = multipliers(dims, parameterisation, skips)
        self.scales = (*hidden, last / gamma)
        standard = parameterisation == "standard"
        self.act_first = order == "pre" or (order is None and not standard)
        if bias is None:
            bias = standard
        if weight_init is None and not standard:
            weight_init = jax.nn.initializers.normal(1.0)
        layers = [Linear(m, n, bias=bias, rkg=rkg) for m, n in itertools.pairwise(dims)]
        if weight_init is not None:
            for layer in layers:
                weight = layer.nn.weight
                weight.set(weight_init(rkg(), weight.shape, weight.dtype))
                if bias:
                    layer.nn.bias.set(jnp.zeros_like(layer.nn.bias.get()))
        if precision != 1.0:
            energy_fn = Weighted(energy_fn, precision)
        super().__init__(layers, [(n,) for n in dims[1:]], energy_fn)

    def predict(self, index: int, h: Any) -> Any:
        """The prediction of vode `index`; an input of several axes is taken as one vector."""
        first, last = index == 0, index == len(self.layers) - 1
        if first:
            h = jnp.reshape(h, -1)
        scale = self.scales[index]
        u = self.layers[index](self.act(h) if self.act_first and not first else h)
        u = u if scale == 1.0 else scale * u
        if not (self.act_first or last):
            u = self.act(u)
        return h + u if self.skips and not (first or last) else u
