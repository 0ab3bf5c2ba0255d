"""State that survives a pure transform: params, modules, masks, random keys."""

from ._describe import describe as describe
from ._filter import Mask as Mask
from ._filter import to_predicate as to_predicate
from ._module import BaseModule as BaseModule
from ._module import Module as Module
from ._param import BaseParam as BaseParam
from ._param import DynamicParam as DynamicParam
from ._param import Param as Param
from ._param import Unreadable as Unreadable
from ._param import get as get
from ._param import is_param as is_param
from ._param import set as set
from ._param_dict import ParamCache as ParamCache
from ._param_dict import ParamDict as ParamDict
from ._random import RKG as RKG
from ._random import RKG_LOCK as RKG_LOCK
from ._random import RandomKey as RandomKey
from ._random import RandomKeyGenerator as RandomKeyGenerator
from ._scope import Scope as Scope
from ._scope import check_write as check_write
from ._scope import enter as enter
from ._scope import has_tracer as has_tracer
from ._scope import locate as locate
from ._scope import state as scope_state  # noqa: F401
from ._static import StaticParam as StaticParam
from ._static import freeze as freeze
from ._static import static as static
from ._tree import kwargs_path_str as kwargs_path_str
from ._tree import named_params as named_params
from ._tree import path_str as path_str
from ._tree import tree_apply as tree_apply
from ._tree import tree_extract as tree_extract
from ._tree import tree_inject as tree_inject
from ._tree import tree_ref as tree_ref
from ._tree import tree_unref as tree_unref
