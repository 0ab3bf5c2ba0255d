"""JAX transforms that keep track of params (`pxf`)."""

from ._control_flow import Cond as Cond
from ._control_flow import Scan as Scan
from ._control_flow import Switch as Switch
from ._control_flow import WhileLoop as WhileLoop
from ._control_flow import cond as cond
from ._control_flow import scan as scan
from ._control_flow import switch as switch
from ._control_flow import while_loop as while_loop
from ._transforms import Jit as Jit
from ._transforms import Transform as Transform
from ._transforms import ValueAndGrad as ValueAndGrad
from ._transforms import Vmap as Vmap
from ._transforms import jit as jit
from ._transforms import value_and_grad as value_and_grad
from ._transforms import vmap as vmap
