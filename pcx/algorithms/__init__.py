"""Learning algorithms (`pxa`), each one class over one contract."""

from ._backprop import Backprop as Backprop
from ._base import Algorithm as Algorithm
from ._epc import EPC as EPC
from ._inference import Record as Record
from ._inference import Stop as Stop
from ._pc import PC as PC
