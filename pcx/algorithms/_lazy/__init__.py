"""Exact lazy inference: what is certainly zero is not computed. The loop asks `plan`, `gradient` asks `live`."""

from ...predictive_coding._depends import propagate as propagate
from ._plan import Plan as Plan
from ._plan import only_by_gradient as only_by_gradient
from ._plan import plan as plan
from ._safe import lazy_safe as lazy_safe
from ._session import live as live
from ._session import observe as observe
from ._session import observed as observed
from ._session import session as session
from ._session import set_live as set_live
from ._session import traced_once as traced_once
from ._wave import Dependencies as Dependencies
from ._wave import is_additive as is_additive
from ._wave import trace_wave as trace_wave
