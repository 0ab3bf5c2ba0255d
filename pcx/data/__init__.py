"""Readers and batching for the data sets of the predictive-coding literature.

Readers and batches are NumPy on the host; flips and crops exist there and on the device. The readers
take the official files from a folder that the caller names and say which files they miss; they
download them only on request, `download=True`.

>>> from pcx.data import batches, two_moons
>>> data = two_moons(samples=100, seed=0)
>>> for x, y in batches(data.x_train, data.y_train, 40, shuffle=True):
...     print(x.shape, y.shape)
(40, 2) (40,)
(40, 2) (40,)
(20, 2) (20,)
"""

from pcx.data._augment import augmentation as augmentation
from pcx.data._augment import center_crop as center_crop
from pcx.data._augment import random_crop as random_crop
from pcx.data._augment import random_flip as random_flip
from pcx.data._augment_device import device_augmentation as device_augmentation
from pcx.data._augment_device import device_crop as device_crop
from pcx.data._augment_device import device_flip as device_flip
from pcx.data._batches import Batches as Batches
from pcx.data._batches import batches as batches
from pcx.data._cifar import load_cifar10 as load_cifar10
from pcx.data._cifar import load_cifar100 as load_cifar100
from pcx.data._dataset import NORMALIZATION as NORMALIZATION
from pcx.data._dataset import Dataset as Dataset
from pcx.data._dataset import one_hot as one_hot
from pcx.data._datasets import load_digits as load_digits
from pcx.data._datasets import load_idx as load_idx
from pcx.data._download import fetch as fetch
from pcx.data._emnist import load_emnist as load_emnist
from pcx.data._idx import read_idx as read_idx
from pcx.data._load import load as load
from pcx.data._pictures import load_celeba as load_celeba
from pcx.data._pictures import load_tiny_imagenet as load_tiny_imagenet
from pcx.data._prefetch import prefetch as prefetch
from pcx.data._svhn import load_svhn as load_svhn
from pcx.data._synthetic import two_circles as two_circles
from pcx.data._synthetic import two_moons as two_moons
from pcx.data._table import DATASETS as DATASETS
from pcx.data._table import Source as Source
