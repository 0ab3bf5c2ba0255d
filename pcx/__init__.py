"""pcx: predictive coding networks and other energy-based models in JAX, in the manner of PyTorch."""

from typing import TYPE_CHECKING, Any

from . import core as core
from . import functional as functional
from . import nn as nn
from . import predictive_coding as predictive_coding
from . import utils as utils
from ._distribution import __version__ as __version__
from .core import RKG as RKG
from .core import BaseModule as BaseModule
from .core import BaseParam as BaseParam
from .core import DynamicParam as DynamicParam
from .core import Module as Module
from .core import Param as Param
from .core import ParamCache as ParamCache
from .core import ParamDict as ParamDict
from .core import RandomKeyGenerator as RandomKeyGenerator
from .core import StaticParam as StaticParam
from .core import get as get
from .core import set as set
from .core import static as static
from .core import tree_apply as tree_apply
from .core import tree_extract as tree_extract
from .core import tree_inject as tree_inject
from .core import tree_ref as tree_ref
from .core import tree_unref as tree_unref
from .predictive_coding import STATUS as STATUS
from .predictive_coding import EnergyModule as EnergyModule
from .predictive_coding import Vode as Vode
from .predictive_coding import VodeParam as VodeParam
from .predictive_coding import ce_energy as ce_energy
from .predictive_coding import se_energy as se_energy
from .predictive_coding import zero_energy as zero_energy

if TYPE_CHECKING:
    from . import algorithms as algorithms
    from . import analysis as analysis
    from . import data as data
    from . import models as models
    from . import training as training
else:
    _LATER = ("algorithms", "analysis", "data", "models", "training")

    def __getattr__(name: str) -> Any:
        # not needed to write models, and slower to import than the rest
        if name in _LATER:
            import importlib

            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module 'pcx' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})
