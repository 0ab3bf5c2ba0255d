"""The work that every program does: layers, batch, T, learning rates, data, first weights.

NumPy and the standard library only, because this file is also imported in the peers' environments.
All arrays are float32 and drawn from the case's own seed, so every program starts from the same
weights and sees the same batch.
"""

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layer:
    """A dense layer, or a convolution followed by the activation and a max pool of `pool` x `pool`.

    Dense layers flatten what they get. The last layer of a case has no activation.
    """

    kind: str  # "dense" | "conv"
    out: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    pool: int = 1


@dataclass(frozen=True)
class Case:
    """A training step of predictive coding: forward init, T state steps, one weight step.

    States descend by SGD with momentum on the energy summed over the batch; weights by AdamW on the
    energy averaged over it. `loss` is the energy of the output node: "se" or "ce"; `act` the
    activation of all layers but the last, "leaky_relu" or "sigmoid".
    """

    name: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    batch: int
    T: int = 8
    state_lr: float = 0.05
    momentum: float = 0.5
    weight_lr: float = 1e-3
    loss: str = "se"
    seed: int = 0
    act: str = "leaky_relu"

    @property
    def is_dense(self) -> bool:
        return all(layer.kind == "dense" for layer in self.layers)

    @property
    def dims(self) -> tuple[int, ...]:
        """Widths from input to output; dense cases only."""
        if not self.is_dense:
            raise ValueError(
                f"case {self.name!r} has convolutions, so no list of widths; use state_shapes"
            )
        return (math.prod(self.input_shape), *(layer.out for layer in self.layers))

    @property
    def classes(self) -> int:
        return self.layers[-1].out

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Shape of every node's state for one sample, from the first hidden node to the output."""
        shapes: list[tuple[int, ...]] = []
        shape = self.input_shape
        for layer in self.layers:
            if layer.kind == "dense":
                shape = (layer.out,)
            else:
                side = (shape[-1] + 2 * layer.padding - layer.kernel) // layer.stride + 1
                shape = (layer.out, side // layer.pool, side // layer.pool)
            if min(shape) < 1:
                raise ValueError(
                    f"case {self.name!r}: layer {len(shapes)} ({layer}) leaves the shape {shape}"
                )
            shapes.append(shape)
        return shapes

    def weight_shapes(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(weight, bias): (out, in), (out,) dense; (out, in, k, k), (out, 1, 1) convolutional."""
        shapes = []
        for layer, inner in zip(
            self.layers, [self.input_shape, *self.state_shapes()[:-1]], strict=True
        ):
            if layer.kind == "dense":
                shapes.append(((layer.out, math.prod(inner)), (layer.out,)))
            else:
                shapes.append(
                    ((layer.out, inner[0], layer.kernel, layer.kernel), (layer.out, 1, 1))
                )
        return shapes

    def products(self) -> list[int]:
        """Multiplications of each layer for one sample: in * out, of a convolution at every place."""
        counts = []
        inner = self.input_shape
        for layer, (weight, _), shape in zip(
            self.layers, self.weight_shapes(), self.state_shapes(), strict=True
        ):
            places = 1
            if layer.kind == "conv":
                side = (inner[-1] + 2 * layer.padding - layer.kernel) // layer.stride + 1
                places = side**2
            counts.append(math.prod(weight) * places)
            inner = shape
        return counts

    def flops(self, rule: str) -> int | None:
        """Operations in matrix products (a product and a sum are two) that a training step needs.

        Predictive coding ("pc") with every layer at every step: a prediction of each layer at the start, T
        times the error sent back through every layer but the first, T predictions from states that have moved,
        and the gradient of each weight; what the input alone decides is computed once. Back-propagation ("bp"):
        forward, back, gradients. None for another rule.
        """
        first, *others = self.products()
        if rule == "pc":
            products = 2 * first + (2 * self.T + 2) * sum(others)
        elif rule == "bp":
            products = 2 * first + 3 * sum(others)
        else:
            return None
        return 2 * self.batch * products

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Case":
        fields = json.loads(text)
        fields["layers"] = tuple(Layer(**layer) for layer in fields["layers"])
        fields["input_shape"] = tuple(fields["input_shape"])
        return Case(**fields)


def initial_weights(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight, bias) of every layer: N(0, 1/fan_in) and zeros."""
    rng = np.random.default_rng(case.seed)
    weights = []
    for weight, bias in case.weight_shapes():
        scale = 1 / math.sqrt(math.prod(weight[1:]))
        weights.append(
            ((scale * rng.standard_normal(weight)).astype(np.float32), np.zeros(bias, np.float32))
        )
    return weights


def batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Normal inputs (batch, *input_shape) and one-hot targets (batch, classes)."""
    rng = np.random.default_rng(case.seed + 1)
    x = rng.standard_normal((case.batch, *case.input_shape)).astype(np.float32)
    y = np.eye(case.classes, dtype=np.float32)[np.arange(case.batch) % case.classes]
    return x, y


def mlp(name: str, dims: list[int], batch: int, **more) -> Case:
    """A dense case from its widths."""
    return Case(name, (dims[0],), tuple(Layer("dense", width) for width in dims[1:]), batch, **more)


def vgg(
    name: str, channels: list[int], paddings: list[int], pools: list[int], batch: int = 8, **more
) -> Case:
    """A VGG on 3x32x32 images: 3x3 convolutions (paper, Table 5), one dense layer to 10."""
    layers = [
        Layer("conv", c, 3, 1, p, q) for c, p, q in zip(channels, paddings, pools, strict=True)
    ]
    # Does not diverge on convolutions; the published runs use 0.015-0.03.
    return Case(
        name, (3, 32, 32), (*layers, Layer("dense", 10)), batch, **{"state_lr": 0.01, **more}
    )


VGG5 = ([128, 256, 512, 512], [1, 1, 1, 0], [2, 2, 2, 2])
# Table 5 gives a pool window and no positions; after every second layer is what ends at 1x1.
VGG7 = ([128, 128, 256, 256, 512, 512], [1, 1, 1, 0, 1, 0], [2, 1, 2, 1, 2, 1])
# The paper times an AlexNet on CIFAR-10 without giving it; this is the usual CIFAR variant of it.
ALEXNET = (
    Layer("conv", 64, 3, 2, 1, 2),
    Layer("conv", 192, 3, 1, 1, 2),
    Layer("conv", 384, 3, 1, 1, 1),
    Layer("conv", 256, 3, 1, 1, 1),
    Layer("conv", 256, 3, 1, 1, 2),
    Layer("dense", 4096),
    Layer("dense", 4096),
    Layer("dense", 10),
)

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        mlp("tiny", [2, 32, 32, 2], 32),
        mlp("mlp", [784, 128, 128, 128, 10], 128),
        mlp("deep", [64] + [64] * 16 + [10], 32),
        mlp("wide-deep", [512] + [512] * 16 + [10], 256),
        # what Deepity's authors compare libraries on
        mlp("sigmoid-t20", [784, 512, 512, 10], 250, T=20, act="sigmoid"),
        vgg("vgg5-t5", *VGG5, T=5),
        vgg("vgg5-t7", *VGG5, T=7),
        vgg("vgg5-ce", *VGG5, T=8, loss="ce"),
        vgg("vgg7", *VGG7, T=8),
        Case("alexnet", (3, 32, 32), ALEXNET, 8, state_lr=0.01),
    )
}
DEFAULT_CASES = ("tiny", "mlp", "deep")
