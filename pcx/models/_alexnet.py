"""AlexNet for 32x32 images."""

from collections.abc import Sequence
from typing import Any

from ._vgg import VGG, _scaled


class AlexNet(VGG):
    """AlexNet for small images: five convolutions and three linear layers.

    The first convolution has stride 2, all have 3x3 kernels and padding 1; pooling follows the
    first, the second and the last. A 32x32 image is 8, 4, 4, 4 and 2 pixels wide, so the first
    linear layer sees 256 x 2 x 2 = 1024 numbers. There is no dropout and no response normalisation.

    Args:
        in_shape, classes, act, energy_fn, rkg: see `VGG`.
        hidden: sizes of the hidden linear layers.
        width: factor on the number of channels.

    Example:
        >>> import pcx.models as pxm
        >>> [vode.shape for vode in pxm.AlexNet(width=1 / 16, hidden=(32, 32)).vodes[3:]]
        [(16, 4, 4), (16, 2, 2), (32,), (32,), (10,)]

    References:
        Krizhevsky, Sutskever & Hinton, 2012; the sizes are those commonly used for CIFAR.
    """

    def __init__(self, *, hidden: Sequence[int] = (4096, 4096), width: float = 1.0, **options: Any):
        super().__init__(
            _scaled((64, 192, 384, 256, 256), width),
            (True, True, False, False, True),
            strides=(2, 1, 1, 1, 1),
            hidden=hidden,
            **options,
        )
