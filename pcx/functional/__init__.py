"""JAX transforms that keep track of params (`pxf`)."""

from ._branches import Cond as Cond
from ._branches import Switch as Switch
from ._branches import cond as cond
from ._branches import switch as switch
from ._checkpoint import Checkpoint as Checkpoint
from ._checkpoint import checkpoint as checkpoint
from ._explain import explain_recompiles as explain_recompiles
from ._grad import ValueAndGrad as ValueAndGrad
from ._grad import value_and_grad as value_and_grad
from ._jit import Jit as Jit
from ._jit import jit as jit
from ._loops import Scan as Scan
from ._loops import WhileLoop as WhileLoop
from ._loops import scan as scan
from ._loops import while_loop as while_loop
from ._pure import pure as pure
from ._transform import Transform as Transform
from ._vmap import Vmap as Vmap
from ._vmap import vmap as vmap
