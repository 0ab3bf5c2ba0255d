"""Masks, optimisers, the `step` context manager, saving and loading (`pxu`)."""

from ..core import Mask as Mask
from ._fit import LoadReport as LoadReport
from ._mask import M as M
from ._mask import M_has as M_has
from ._mask import M_hasnot as M_hasnot
from ._mask import M_is as M_is
from ._mask import m as m
from ._optim import Optim as Optim
from ._optim_tree import OptimTree as OptimTree
from ._serialisation import load_params as load_params
from ._serialisation import save_params as save_params
from ._step import step as step
from ._update import OptimParam as OptimParam
