"""Convolutional chains: VGG-5, -7, -9, -19 and a small network."""

import math
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


NO_DEPTH = """{name}: there is no VGG-{depth} here; pass one of {known}, or the output channels of each \
convolution: `pxm.VGG([64, 128], [True, True])`."""

NO_SKIP = """{name}: skip={skip} is none of the {count} convolutions; pass a number from 1 to {count}, True \
for the last convolution before the first pooling, or False."""

# channels, where 2x2 pooling follows, and paddings
_DEPTHS: dict[int, tuple[tuple[int, ...], tuple[bool, ...], tuple[int, ...]]] = {
    5: ((128, 256, 512, 512), (True,) * 4, (1, 1, 1, 0)),
    7: ((128, 128, 256, 256, 512, 512), (False, True) * 3, (1, 1, 1, 0, 1, 0)),
    9: ((128, 128, 256, 256, 512, 512, 512, 512), (False, True) * 4, (1,) * 8),
    19: (
        (64,) * 2 + (128,) * 2 + (256,) * 4 + (512,) * 8,
        (False, True) * 2 + (False, False, False, True) * 3,
        (1,) * 16,
    ),
}


class VGG(Chain):
    """Convolutions, some followed by 2x2 max pooling, then linear layers; a vode after each layer.

        u_l = pool(f(W_l * h_{l-1} + b_l)),      u_L = W_L h_{L-1} + b_L

    A state lies after the pooling, so it is as small as what the next layer needs. With `skip` the
    state h_s of an early convolution, flattened, goes through a linear layer and is added to the
    flattened input of the first linear layer: h_{L-1} + W_s h_s + b_s in the place of h_{L-1}.

    Args:
        channels: output channels of each convolution; or 5, 7, 9 or 19 for the network of that depth
            (`VGG(5)` is `VGG5()`). VGG-19 has sixteen convolutions in blocks of 64, 128, 256, 512
            and 512 channels, as Simonyan & Zisserman's, and one linear layer, because only one pixel
            of a 32x32 image is left.
        pools: for each convolution, whether 2x2 max pooling of stride 2 follows.
        in_shape: `(channels, height, width)` of one image.
        classes: size of the output.
        act: the activation f.
        energy_fn: energy of the output vode.
        kernel: size of all convolution kernels.
        paddings: zeros added around the image before each convolution; one number or one for each.
        strides: strides of the convolutions; one number or one for each.
        hidden: sizes of hidden linear layers, none by default.
        skip: True for a skip connection from the last convolution before the first pooling, a number
            from 1 for one from that convolution. The paper says "an early layer" and not which.
        width: factor on the number of channels.
        rkg: where initial weights come from.

    Raises:
        ValueError: an unknown depth, a list of another length than `channels`, or an image too small
            for the layers.

    Example:
        >>> import jax.numpy as jnp, pcx.models as pxm, pcx.utils as pxu
        >>> model = pxm.VGG([4, 8], [False, True], in_shape=(1, 8, 8), classes=3)
        >>> [vode.shape for vode in model.vodes]
        [(4, 8, 8), (8, 4, 4), (3,)]
        >>> with pxu.step(model, "init"):
        ...     model(jnp.ones((1, 8, 8))).shape
        (3,)
        >>> [vode.shape[-1] for vode in pxm.VGG(19, skip=True, width=1 / 64).vodes]
        [32, 16, 16, 8, 8, 8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 1, 10]

    References:
        Simonyan & Zisserman, 2014; Pinchetti et al., 2024, Table 5 and Appendix E.
    """

    def __init__(
        self,
        channels: Sequence[int] | int,
        pools: Sequence[bool] | None = None,
        *,
        in_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        act: Activation = jax.nn.gelu,
        energy_fn: EnergyFn = se_energy,
        kernel: int = 3,
        paddings: int | Sequence[int] | None = None,
        strides: int | Sequence[int] = 1,
        hidden: Sequence[int] = (),
        skip: bool | int = False,
        width: float = 1.0,
        rkg: RandomKeyGenerator = RKG,
    ):
        name = type(self).__name__
        if isinstance(channels, int):
            if channels not in _DEPTHS:
                known = ", ".join(map(str, _DEPTHS))
                raise ValueError(NO_DEPTH.format(name=name, depth=channels, known=known))
            channels, own_pools, own_paddings = _DEPTHS[channels]
            pools = own_pools if pools is None else pools
            paddings = own_paddings if paddings is None else paddings
        channels, count = _scaled(channels, width), len(channels)
        pools = (False,) * count if pools is None else pools
        paddings = 1 if paddings is None else paddings
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
        for index, size in enumerate(channels):
            padding, stride, pooled = paddings[index], strides[index], self.pools[index]
            layers.append(Conv2d(depth, size, kernel, stride, padding, rkg=rkg))
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
            shapes.append((size, *sides))
            depth = size
        features = size = depth * sides[0] * sides[1]
        for wanted in (*hidden, classes):
            layers.append(Linear(size, wanted, rkg=rkg))
            shapes.append((wanted,))
            size = wanted
        self.skip = _skipped(name, skip, self.pools)
        self.shortcut = None
        if self.skip is not None:
            self.shortcut = Linear(math.prod(shapes[self.skip]), features, rkg=rkg)
        super().__init__(layers, shapes, energy_fn)

    def predict(self, index: int, h: Any) -> Any:
        """The prediction of vode `index`."""
        convolutions = len(self.pools)
        if index >= convolutions:
            u = self.layers[index](h.reshape(-1) if index == convolutions else h)
            return u if index == len(self.layers) - 1 else self.act(u)
        u = self.act(self.layers[index](h))
        return self.pool(u) if self.pools[index] else u

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Pass one sample through the network; see `Chain`."""
        early: Any = None
        for index, vode in enumerate(self.vodes):
            if index == len(self.pools) and self.shortcut is not None:
                x = x.reshape(-1) + self.shortcut(early.reshape(-1))
            x = vode(self.predict(index, x))
            if index == self.skip:
                early = x
        if y is not None:
            self.vodes[-1].set("h", y)
        return self.vodes[-1].get("u")


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
        super().__init__(5, width=width, **options)


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
        super().__init__(7, width=width, **options)


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
        super().__init__(9, width=width, **options)


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


def _skipped(name: str, skip: bool | int, pools: Sequence[bool]) -> int | None:
    """The index of the convolution whose state skips the others."""
    if skip is False:
        return None
    number = [*pools, True].index(True) + 1 if skip is True else skip
    if not 1 <= number <= len(pools):
        raise ValueError(NO_SKIP.format(name=name, skip=skip, count=len(pools)))
    return number - 1


def _each(name: str, what: str, value: Any, count: int) -> tuple[Any, ...]:
    values = (value,) * count if isinstance(value, int) else tuple(value)
    if len(values) != count:
        raise ValueError(
            f"{name}: `{what}` has {len(values)} entries for {count} convolutions; give "
            "one for each"
        )
    return values
