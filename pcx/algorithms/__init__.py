"""Learning algorithms (`pxa`), each one class over one contract."""

from ._backprop import Backprop as Backprop
from ._bidirectional import BidirectionalPC as BidirectionalPC
from ._compiled import compiled as compiled
from ._epc import EPC as EPC
from ._equilibrium import Anderson as Anderson
from ._equilibrium_prop import EquilibriumProp as EquilibriumProp
from ._gauss_newton import GaussNewton as GaussNewton
from ._gradient import gradient as gradient
from ._hybrid import HybridPC as HybridPC
from ._ipc import IPC as IPC
from ._langevin import langevin as langevin
from ._lazy import lazy_safe as lazy_safe
from ._local import LocalUpdate as LocalUpdate
from ._local import hebbian as hebbian
from ._loop import Record as Record
from ._loop import Stop as Stop
from ._mcpc import MCPC as MCPC
from ._nudging import NudgedPC as NudgedPC
from ._pc import PC as Algorithm  # noqa: F401
from ._pc import PC as PC
from ._pc import Trained as Trained
from ._pcalm import PCALM as PCALM
from ._red_black import RedBlack as RedBlack
from ._solvers import Diffrax as Diffrax
from ._solvers import StateSolver as StateSolver
from ._torch2pc import PCGradients as PCGradients
from ._torch2pc import mean_squared_error as mean_squared_error
from ._torch2pc import pc_gradients as pc_gradients
from ._zil import ZIL as ZIL
