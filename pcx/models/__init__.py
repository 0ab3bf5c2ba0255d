"""The architectures of the predictive coding literature, as `EnergyModule`s (`pxm`).

Each is a chain of layers with a vode after every one; only `Hierarchy` predicts from the top down.
`model(x, y=None)` takes one sample, clamps `y` on the output vode if it is given, and returns the
prediction; any algorithm of `pcx.algorithms` trains it.
"""

from ._alexnet import AlexNet as AlexNet
from ._chain import Chain as Chain
from ._decoders import ConvDecoder as ConvDecoder
from ._decoders import LinearDecoder as LinearDecoder
from ._hierarchy import Hierarchy as Hierarchy
from ._mlp import MLP as MLP
from ._mlp import multipliers as multipliers
from ._resnet import ResNet18 as ResNet18
from ._vgg import VGG as VGG
from ._vgg import VGG5 as VGG5
from ._vgg import VGG7 as VGG7
from ._vgg import VGG9 as VGG9
from ._vgg import ConvNet as ConvNet
