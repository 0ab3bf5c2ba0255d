"""Decoders: generative networks from a free bottleneck to the data."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..core import RKG, Module, RandomKeyGenerator
from ..nn import ConvTranspose2d, Linear
from ..predictive_coding import Vode, se_energy
from ._chain import Activation, Chain, EnergyFn


class Bottleneck(Module):
    """Where a decoder begins: returns its input, or zeros if there is none."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def __call__(self, x: Any) -> Any:
        return jnp.zeros(self.shape) if x is None else x


class Decoder(Chain):
    """A chain from a free state, the bottleneck `h_0`, to the data, which is clamped on the output
    vode.

        u_0 = 0,      u_l = f(W_l h_{l-1} + b_l)  for 0 < l < L,      u_L = W_L h_{L-1} + b_L

    There is no input: train it with `algorithm.train_step(None, images)`. Inference finds the
    bottleneck that explains an image; `vodes[0].h` is its code. `model(code)` decodes: what is
    given as x takes the place of the zeros in `u_0`.

    Args:
        layers: the L layers; each but the last is followed by the activation.
        shapes: event shapes of the bottleneck and of every layer's output, `L + 1` tuples.
        act: the activation f.
        out_act: an activation after the last layer; None for none.
        energy_fn: energy of the output vode.
        prior: whether the bottleneck has the energy `1/2 (h_0 - u_0)^2`, a standard normal prior, as
            Monte-Carlo predictive coding needs it to generate. Without, it has no energy.

    Attributes:
        vodes: the bottleneck's and one for each layer, `L + 1`.
    """

    def __init__(
        self,
        layers: Sequence[Callable[[Any], Any]],
        shapes: Sequence[tuple[int, ...]],
        act: Activation,
        out_act: Activation | None,
        energy_fn: EnergyFn,
        prior: bool,
    ):
        super().__init__([Bottleneck(shapes[0]), *layers], shapes, energy_fn)
        self.vodes[0] = Vode(shapes[0], se_energy if prior else None)
        self.act, self.out_act = act, out_act

    def predict(self, index: int, h: Any) -> Any:
        """The prediction of vode `index`, from the state below it."""
        u = self.layers[index](h)
        if index == 0:
            return u
        act = self.act if index < len(self.layers) - 1 else self.out_act
        return u if act is None else act(u)

    def __call__(self, x: Any = None, y: Any = None) -> Any:
        """Decode one sample.

        Args:
            x: the bottleneck's prediction u_0, of its shape; None for zeros.
            y: the data, to clamp on the output vode; None to clamp nothing.

        Returns:
            The prediction of the data.
        """
        return super().__call__(x, y)


class LinearDecoder(Decoder):
    """A decoder of linear layers.

    Args:
        dims: sizes of the bottleneck and of every layer's output. By default the autoencoder of the
            paper: a bottleneck of 64 and three layers up to the 784 pixels of MNIST (the paper does
                not
            say how wide the layers between are).
        act, out_act, energy_fn, prior: see `Decoder`.
        bias: whether layers have a bias.
        rkg: where initial weights come from.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.utils as pxu
        >>> model = pxm.LinearDecoder([2, 8, 5])
        >>> with pxu.step(model, "init"):
        ...     model(y=jnp.ones(5)).shape, model.vodes[0].h.shape
        ((5,), (2,))

    References:
        Pinchetti et al., 2024, Appendix C.1 (autoencoders) and C.2 (MCPC).
    """

    def __init__(
        self,
        dims: Sequence[int] = (64, 128, 256, 784),
        act: Activation = jax.nn.hard_tanh,
        energy_fn: EnergyFn = se_energy,
        *,
        out_act: Activation | None = None,
        prior: bool = False,
        bias: bool = True,
        rkg: RandomKeyGenerator = RKG,
    ):
        if len(dims) < 2:
            raise ValueError(
                f"LinearDecoder takes the sizes of the bottleneck and of every layer; got {dims}"
            )
        layers = [Linear(m, n, bias=bias, rkg=rkg) for m, n in itertools.pairwise(dims)]
        super().__init__(layers, [(n,) for n in dims], act, out_act, energy_fn, prior)


class ConvDecoder(Decoder):
    """A decoder of transposed convolutions, each of stride 2.

    Args:
        out_shape: `(channels, height, width)` of the data. Going back from it, every layer halves
            the image, rounding up: 32, 16, 8, 4 or 28, 14, 7, 4 pixels for the default three
            layers.
        channels: those of the bottleneck and of the layers between, so one number for each layer.
            By default a bottleneck of 8 x 4 x 4, as in the paper, which does not say the others.
        act, out_act, energy_fn, prior: see `Decoder`.
        kernel: size of all kernels, at least 2.
        rkg: where initial weights come from.

    Example:
        >>> import pcx.models as pxm
        >>> [vode.shape for vode in pxm.ConvDecoder((1, 28, 28)).vodes]
        [(8, 4, 4), (64, 7, 7), (32, 14, 14), (1, 28, 28)]

    References:
        Pinchetti et al., 2024, Appendix C.1, Table 8.
    """

    def __init__(
        self,
        out_shape: tuple[int, int, int] = (3, 32, 32),
        channels: Sequence[int] = (8, 64, 32),
        act: Activation = jax.nn.hard_tanh,
        energy_fn: EnergyFn = se_energy,
        *,
        kernel: int = 4,
        out_act: Activation | None = None,
        prior: bool = False,
        rkg: RandomKeyGenerator = RKG,
    ):
        if len(channels) == 0 or kernel < 2:
            raise ValueError(
                "ConvDecoder takes at least one number of channels, and a kernel that covers its "
                f"stride of 2; got channels={tuple(channels)}, kernel={kernel}"
            )
        shapes: list[tuple[int, ...]] = [out_shape]
        for width in reversed(channels):
            shapes.append((width, *(-(-side // 2) for side in shapes[-1][1:])))
        shapes.reverse()
        layers = []
        for (m, *small), (n, *large) in itertools.pairwise(shapes):
            paddings, extra = zip(
                *(_padding(a, b, kernel) for a, b in zip(small, large, strict=True)), strict=True
            )
            layers.append(
                ConvTranspose2d(
                    m,
                    n,
                    kernel,
                    stride=2,
                    padding=[(p, p) for p in paddings],
                    output_padding=extra,
                    rkg=rkg,
                )
            )
        super().__init__(layers, shapes, act, out_act, energy_fn, prior)


def _padding(small: int, large: int, kernel: int) -> tuple[int, int]:
    """Padding and output padding with which a kernel of stride 2 makes `large` pixels of `small`.

    The output of a transposed convolution has `2 (small - 1) + kernel - 2 padding + extra` pixels.
    """
    surplus = 2 * (small - 1) + kernel - large
    padding = -(-surplus // 2)
    return padding, 2 * padding - surplus
