"""The data sets that pcx reads: sizes, normalisation, and where their official files are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class Source:
    """What is known of a data set.

    Attributes:
        shape, classes: of one sample (images channels first), and how many classes there are.
        mean, std: per channel, for pixels in 0..1; what `normalize=True` uses.
        folders: where a reader looks below `data_dir`; a download goes to the first.
        archives: official archives that are read as they are, without unpacking them.
        url: the folder on the official server or mirror; empty where none gives the files freely.
        files: `{file name: MD5}` of what a download fetches.

    Example:
        >>> import pcx.data
        >>> pcx.data.DATASETS["cifar10"].shape, pcx.data.DATASETS["cifar10"].std
        ((3, 32, 32), (0.2023, 0.1994, 0.201))
    """

    shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folders: tuple[str, ...]
    archives: tuple[str, ...] = ()
    url: str = ""
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _idx(
    train_images: str, train_labels: str, test_images: str, test_labels: str
) -> dict[str, str]:
    return {
        "train-images-idx3-ubyte.gz": train_images,
        "train-labels-idx1-ubyte.gz": train_labels,
        "t10k-images-idx3-ubyte.gz": test_images,
        "t10k-labels-idx1-ubyte.gz": test_labels,
    }


_HALF = ((0.5,), (0.5,))
_HALF_RGB = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_TORONTO = "https://www.cs.toronto.edu/~kriz/"


def _emnist(classes: int) -> Source:
    return Source(
        (1, 28, 28),
        classes,
        *_HALF,
        folders=("emnist", "EMNIST/raw"),
        archives=("gzip.zip", "emnist-gzip.zip"),
        url="https://biometrics.nist.gov/cs_links/EMNIST/",
        files={"gzip.zip": "58c8d27c78d21e728a6bc7b3cc06412e"},
    )


# Mean and deviation of MNIST, Fashion-MNIST, CIFAR and Tiny ImageNet are those of Table 6 of
# "Benchmarking Predictive Coding Networks -- Made Simple" (Pinchetti et al., 2024). The paper gives
# none for the others: 1/2 and 1/2 map pixels to -1..1, which for the sets like MNIST is the scale that
# a network trained on MNIST knows.
# The MD5 values are those that torchvision and many other programs check; those of MNIST,
# Fashion-MNIST and KMNIST's test files were compared with the files themselves.
DATASETS: Mapping[str, Source] = MappingProxyType(
    {
        "mnist": Source(
            (1, 28, 28),
            10,
            *_HALF,
            folders=("mnist", "MNIST/raw"),
            url="https://ossci-datasets.s3.amazonaws.com/mnist/",
            files=_idx(
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
        "fashion-mnist": Source(
            (1, 28, 28),
            10,
            *_HALF,
            folders=("fashion-mnist", "FashionMNIST/raw"),
            url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            files=_idx(
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ),
        "kmnist": Source(
            (1, 28, 28),
            10,
            *_HALF,
            folders=("kmnist", "KMNIST/raw"),
            url="http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            files=_idx(
                "bdb82020997e1d708af4cf47b453dcf7",
                "e144d726b3acfaa3e44228e80efcd344",
                "5c965bf0a639b31b8f53240b1b52f4d7",
                "7320c461ea6c1c855c0b718fb2a4b134",
            ),
        ),
        # no official server has it in this form
        "notmnist": Source((1, 28, 28), 10, *_HALF, folders=("notmnist",)),
        "emnist-byclass": _emnist(62),
        "emnist-bymerge": _emnist(47),
        "emnist-balanced": _emnist(47),
        "emnist-letters": _emnist(26),
        "emnist-digits": _emnist(10),
        "emnist-mnist": _emnist(10),
        "digits": Source((1, 8, 8), 10, *_HALF, folders=()),
        "cifar10": Source(
            (3, 32, 32),
            10,
            (0.4914, 0.4822, 0.4465),
            (0.2023, 0.1994, 0.2010),
            folders=(
                "cifar10",
                "cifar-10-batches-py",
                "cifar10/cifar-10-batches-py",
                "cifar-10-batches-bin",
                "cifar10/cifar-10-batches-bin",
            ),
            archives=("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
            url=_TORONTO,
            files={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        ),
        "cifar100": Source(
            (3, 32, 32),
            100,
            (0.5071, 0.4867, 0.4408),
            (0.2675, 0.2565, 0.2761),
            folders=(
                "cifar100",
                "cifar-100-python",
                "cifar100/cifar-100-python",
                "cifar-100-binary",
                "cifar100/cifar-100-binary",
            ),
            archives=("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
            url=_TORONTO,
            files={"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
        ),
        "svhn": Source(
            (3, 32, 32),
            10,
            *_HALF_RGB,
            folders=("svhn", "SVHN"),
            url="http://ufldl.stanford.edu/housenumbers/",
            files={
                "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
            },
        ),
        "tiny-imagenet": Source(
            (3, 64, 64),
            200,
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
            folders=("tiny-imagenet", "tiny-imagenet-200", "tiny-imagenet/tiny-imagenet-200"),
            archives=("tiny-imagenet-200.zip", "*.tar"),
            url="http://cs231n.stanford.edu/",
            files={"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"},
        ),
        # its server asks for a browser
        "celeba": Source(
            (3, 64, 64),
            1,
            *_HALF_RGB,
            folders=("celeba", "CelebA"),
            archives=("img_align_celeba.zip",),
        ),
    }
)
