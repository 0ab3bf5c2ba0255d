"""Convolutional chains: VGG-5, -7, -9 and a small network."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..core import RKG, RandomKeyGenerator
from ..nn import Conv2d, Linear, MaxPool2d
from ..predictive_coding import se_energy
from ._chain import Activation, Chain, EnergyFn

EMPTY = """{name}: an image of {given} is too small. After convolution {index} (kernel {kernel}, \
padding {padding}, stride {stride}{pooled}) nothing is left of it; give a larger `in_shape`, \
or other `paddings` and `pools`."""


class VGG(Chain):
    """Convolutions, some followed by 2x2 max pooling, then linear layers; a vode after each layer.

        u_l = pool(f(W_l * h_{l-1} + b_l)),      u_L = W_L h_{L-1} + b_L

    A state lies after the pooling, so it is as small as what the next layer needs.

    Args:
        channels: output channels of each convolution.
        pools: for each convolution, whether 2x2 max pooling of stride 2 follows.
        in_shape: `(channels, height, width)` of one image.
        classes: size of the output.
        act: the activation f.
        energy_fn: energy of the output vode.
        kernel: size of all convolution kernels.
        paddings: zeros added around the image before each convolution; one number or one for each.
        strides: strides of the convolutions; one number or one for each.
        hidden: sizes of hidden linear layers, none by default.
        rkg: where initial weights come from.

    Raises:
        ValueError: a list of another length than `channels`, or an image too small for the layers.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.utils as pxu
        >>> model = pxm.VGG([4, 8], [False, True], in_shape=(1, 8, 8), classes=3)
        >>> [vode.shape for vode in model.vodes]
        [(4, 8, 8), (8, 4, 4), (3,)]
        >>> with pxu.step(model, "init"):
        ...     model(jnp.ones((1, 8, 8))).shape
        (3,)

    References:
        Simonyan & Zisserman, 2014; Pinchetti et al., 2024, Table 5.
    """

    def __init__(
        self,
        channels: Sequence[int],
        pools: Sequence[bool],
        *,
        in_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        act: Activation = jax.nn.gelu,
        energy_fn: EnergyFn = se_energy,
        kernel: int = 3,
        paddings: int | Sequence[int] = 1,
        strides: int | Sequence[int] = 1,
        hidden: Sequence[int] = (),
        rkg: RandomKeyGenerator = RKG,
    ):
        name, count = type(self).__name__, len(channels)
        paddings, strides = (
            _each(name, "paddings", paddings, count),
            _each(name, "strides", strides, count),
        )
        pools = _each(name, "pools", pools, count)
        self.act = act
        self.pool = MaxPool2d(2, 2)
        self.pools = tuple(bool(p) for p in pools)
        layers: list[Callable[[Any], Any]] = []
        shapes: list[tuple[int, ...]] = []
        depth, *sides = in_shape
        for index, width in enumerate(channels):
            padding, stride, pooled = paddings[index], strides[index], self.pools[index]
            layers.append(Conv2d(depth, width, kernel, stride, padding, rkg=rkg))
            sides = [
                ((n + 2 * padding - kernel) // stride + 1) // (2 if pooled else 1) for n in sides
            ]
            if min(sides) < 1:
                raise ValueError(
                    EMPTY.format(
                        name=name,
                        given="x".join(map(str, in_shape[1:])),
                        index=index + 1,
                        kernel=kernel,
                        padding=padding,
                        stride=stride,
                        pooled=", pooled" if pooled else "",
                    )
                )
            shapes.append((width, *sides))
            depth = width
        size = depth * sides[0] * sides[1]
        for width in (*hidden, classes):
            layers.append(Linear(size, width, rkg=rkg))
            shapes.append((width,))
            size = width
        super().__init__(layers, shapes, energy_fn)

    def predict(self, index: int, h: Any) -> Any:
        """The prediction of vode `index`."""
        convolutions = len(self.pools)
        if index >= convolutions:
            u = self.layers[index](h.reshape(-1) if index == convolutions else h)
            return u if index == len(self.layers) - 1 else self.act(u)
        u = self.act(self.layers[index](h))
        return self.pool(u) if self.pools[index] else u


class VGG5(VGG):
    """Four convolutions and one linear layer, as in Table 5 of Pinchetti et al.

    Channels 128, 256, 512, 512 with paddings 1, 1, 1, 0; pooling after every convolution. A 32x32
    image becomes 16, 8, 4 and 1 pixels wide: the last convolution makes 2x2 of 4x4, its pooling
    1x1. The linear layer sees 512 numbers (2048 for the 56x56 images of Tiny ImageNet).

    Args:
        in_shape, classes, act, energy_fn, rkg: see `VGG`.
        width: factor on the number of channels.

    Example:
        >>> import pcx.models as pxm
        >>> [vode.shape for vode in pxm.VGG5(width=1 / 16).vodes]
        [(8, 16, 16), (16, 8, 8), (32, 4, 4), (32, 1, 1), (10,)]
    """

    def __init__(self, *, width: float = 1.0, **options: Any):
        channels = _scaled((128, 256, 512, 512), width)
        super().__init__(channels, (True,) * 4, paddings=(1, 1, 1, 0), **options)


class VGG7(VGG):
    """Six convolutions and one linear layer, as in Table 5 of Pinchetti et al.

    Channels 128, 128, 256, 256, 512, 512 with paddings 1, 1, 1, 0, 1, 0. The table says that
    pooling is 2x2 but not where, and after every convolution it would leave nothing of a 32x32
    image; so here it is where VGG networks have it, after every second one, when the number of
    channels changes. A 32x32 image is then 32, 16, 16, 7, 7 and 2 pixels wide, and the linear layer
    sees 512 x 2 x 2 = 2048 numbers.

    Args:
        in_shape, classes, act, energy_fn, rkg: see `VGG`.
        width: factor on the number of channels.

    Example:
        >>> import pcx.models as pxm
        >>> [vode.shape[-1] for vode in pxm.VGG7(width=1 / 64).vodes]  # pixels; then classes
        [32, 16, 16, 7, 7, 2, 10]
    """

    def __init__(self, *, width: float = 1.0, **options: Any):
        channels = _scaled((128, 128, 256, 256, 512, 512), width)
        super().__init__(channels, (False, True) * 3, paddings=(1, 1, 1, 0, 1, 0), **options)


class VGG9(VGG):
    """Eight convolutions and one linear layer.

    The paper reports results for a VGG-9 without its sizes; this one goes on as VGG-7 does, with
    padding 1 throughout: channels 128, 128, 256, 256, 512, 512, 512, 512, pooling after every
    second convolution. A 32x32 image is 32, 16, 16, 8, 8, 4, 4 and 2 pixels wide, and the linear
    layer sees 2048 numbers.

    Args:
        in_shape, classes, act, energy_fn, rkg: see `VGG`.
        width: factor on the number of channels.

    Example:
        >>> import pcx.models as pxm
        >>> [vode.shape[-1] for vode in pxm.VGG9(width=1 / 64).vodes]  # pixels; then classes
        [32, 16, 16, 8, 8, 4, 4, 2, 10]
    """

    def __init__(self, *, width: float = 1.0, **options: Any):
        channels = _scaled((128, 128, 256, 256, 512, 512, 512, 512), width)
        super().__init__(channels, (False, True) * 4, paddings=1, **options)


class ConvNet(VGG):
    """Two small convolutions of stride 2 and one linear layer, for tests and small images.

    Args:
        in_shape: `(channels, height, width)`, at least 2 pixels on a side.
        classes, act, energy_fn, rkg: see `VGG`.
        channels: output channels of the convolutions.

    Example:
        >>> import pcx.models as pxm
        >>> [vode.shape for vode in pxm.ConvNet().vodes]
        [(8, 4, 4), (16, 2, 2), (10,)]
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int] = (1, 8, 8),
        channels: Sequence[int] = (8, 16),
        **options: Any,
    ):
        super().__init__(
            channels, (False,) * len(channels), in_shape=in_shape, strides=2, **options
        )


def _scaled(channels: Sequence[int], width: float) -> tuple[int, ...]:
    return tuple(max(1, round(width * n)) for n in channels)


def _each(name: str, what: str, value: Any, count: int) -> tuple[Any, ...]:
    values = (value,) * count if isinstance(value, int) else tuple(value)
    if len(values) != count:
        raise ValueError(
            f"{name}: `{what}` has {len(values)} entries for {count} convolutions; give "
            "one for each"
        )
    return values
