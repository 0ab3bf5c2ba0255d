"""ResNet-18 for 32x32 images, with a vode at the output of every block."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..core import RKG, Module, RandomKeyGenerator
from ..nn import BatchNorm, Conv2d, GroupNorm, Linear
from ..predictive_coding import se_energy
from ._chain import Activation, Chain, EnergyFn

Norm = Literal["group", "batch"]


class ResNet18(Chain):
    """ResNet-18 for small images: a stem, eight blocks of two convolutions, mean pooling and a
    linear layer.

        u = f(N(W_2 * f(N(W_1 * h))) + shortcut(h))     for a block, N the normalisation

    A vode lies after the stem, after every block and at the output: ten in all. The skip
    connections are inside the blocks, so that errors pass them unweakened. The stem is a 3x3
    convolution, as usual for CIFAR; stages have 64, 128, 256 and 512 channels and halve the image
    from the second on.

    Args:
        in_shape: `(channels, height, width)` of one image.
        classes: size of the output.
        act: the activation f.
        energy_fn: energy of the output vode.
        norm: "group" (at most 32 groups), "batch" or None. Group normalisation is the default
            because it treats every sample by itself, as inference does: with batch normalisation
            the state of one sample has a gradient from the energy of the others, and running means
            move at every inference step.
        width: factor on the number of channels.
        rkg: where initial weights come from.

    Raises:
        ValueError: an unknown norm.

    Example:
        >>> import pcx.models as pxm
        >>> model = pxm.ResNet18(width=1 / 16)
        >>> [vode.shape for vode in model.vodes][::3]
        [(4, 32, 32), (8, 16, 16), (16, 8, 8), (10,)]

    References:
        He, Zhang, Ren & Sun, 2016.
    """

    def __init__(
        self,
        *,
        in_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        act: Activation = jax.nn.gelu,
        energy_fn: EnergyFn = se_energy,
        norm: Norm | None = "group",
        width: float = 1.0,
        rkg: RandomKeyGenerator = RKG,
    ):
        if norm not in ("group", "batch", None):
            raise ValueError(f'norm must be "group", "batch" or None; got {norm!r}')
        stages = [max(1, round(width * n)) for n in (64, 128, 256, 512)]
        depth, height, breadth = in_shape
        layers: list[Any] = [Stem(depth, stages[0], act, norm, rkg)]
        shapes: list[tuple[int, ...]] = [(stages[0], height, breadth)]
        depth = stages[0]
        for stage, channels in enumerate(stages):
            for stride in (1 if stage == 0 else 2, 1):
                layers.append(Block(depth, channels, stride, act, norm, rkg))
                height, breadth = -(-height // stride), -(-breadth // stride)
                shapes.append((channels, height, breadth))
                depth = channels
        layers.append(Head(depth, classes, rkg))
        super().__init__(layers, [*shapes, (classes,)], energy_fn)


class Stem(Module):
    """A 3x3 convolution, normalised and activated."""

    def __init__(self, m: int, n: int, act: Activation, norm: Norm | None, rkg: RandomKeyGenerator):
        self.act = act
        self.conv = _conv(m, n, 3, 1, norm, rkg)
        self.norm = _norm(norm, n)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.act(self.norm(self.conv(x)))


class Block(Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape
    changes."""

    def __init__(
        self,
        m: int,
        n: int,
        stride: int,
        act: Activation,
        norm: Norm | None,
        rkg: RandomKeyGenerator,
    ):
        self.act = act
        self.convs = [_conv(m, n, 3, stride, norm, rkg), _conv(n, n, 3, 1, norm, rkg)]
        self.norms = [_norm(norm, n), _norm(norm, n)]
        changes = stride != 1 or m != n
        self.shortcut = _conv(m, n, 1, stride, norm, rkg) if changes else _same
        self.shortcut_norm = _norm(norm, n) if changes else _same

    def __call__(self, x: jax.Array) -> jax.Array:
        u = self.act(self.norms[0](self.convs[0](x)))
        u = self.norms[1](self.convs[1](u))
        return self.act(u + self.shortcut_norm(self.shortcut(x)))


class Head(Module):
    """The mean over the image, then a linear layer."""

    def __init__(self, m: int, n: int, rkg: RandomKeyGenerator):
        self.linear = Linear(m, n, rkg=rkg)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear(jnp.mean(x, axis=(1, 2)))


def _conv(
    m: int, n: int, kernel: int, stride: int, norm: Norm | None, rkg: RandomKeyGenerator
) -> Any:
    # a normalisation takes the mean away, and a bias with it
    return Conv2d(m, n, kernel, stride, kernel // 2, use_bias=norm is None, rkg=rkg)


def _norm(norm: Norm | None, channels: int) -> Any:
    if norm == "batch":
        # the name of the batch axis in pcx.algorithms
        return BatchNorm(channels, "batch")
    if norm == "group":
        return GroupNorm(
            next(g for g in range(min(32, channels), 0, -1) if channels % g == 0), channels
        )
    return _same


def _same(x: Any) -> Any:
    return x
