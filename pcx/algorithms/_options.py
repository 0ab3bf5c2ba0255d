"""`Options`: what algorithms are given, with types and defaults, declared once for all of them."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import optax as ox
from jax.sharding import Mesh
from jax.typing import DTypeLike

from ..core import BaseModule, BaseParam, Mask, named_params, static
from ..predictive_coding import EnergyModule, vodes
from ..utils import Optim, OptimTree, _mesh
from . import _lazy
from ._loop import Stop
from ._solvers import StateSolver
from ._start import TRAINABLE, Start, check_start, once_unfrozen

StateOptim: TypeAlias = ox.GradientTransformation | Optim | StateSolver
WeightOptim: TypeAlias = ox.GradientTransformation | Optim | OptimTree
Metric = Callable[[Any, Any], jax.Array]


class _Default(ox.GradientTransformationExtraArgs):
    """An optax transformation that prints as it is written, for signatures."""

    text: str

    def __repr__(self) -> str:
        return self.text


def default(text: str, optim: Any) -> Any:
    """A transformation that prints as `text`."""
    shown = _Default(*optim)
    shown.text = text
    return shown


def as_optim(optim: Any) -> Optim:
    """An `Optim` of an optax transformation; a default is then as if the caller had written it."""
    if isinstance(optim, _Default):
        optim = ox.GradientTransformationExtraArgs(*optim)
    return optim if isinstance(optim, Optim) else Optim(optim)


SGD_0_05 = default("optax.sgd(0.05)", ox.sgd(5e-2))
ADAMW_0_001 = default("optax.adamw(0.001)", ox.adamw(1e-3))

_SEE = re.compile(
    r"^    (?P<names>\w+(?:, \w+)*)(?P<all>,? and all(?: other)? options)?: see `PC`\.\n",
    re.MULTILINE,
)
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): .*\n(?:        .*\n)*", re.MULTILINE)


def show_options(cls: type) -> None:
    """Let `help` and editors see all options of a class that declares only its own."""
    own = inspect.signature(cls.__init__)  # type: ignore[misc]
    parameters = [
        p for p in own.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(parameters) == len(own.parameters):
        return  # it says all that it takes
    shared = inspect.signature(cls.__mro__[1].__init__).parameters  # type: ignore[misc]
    given = {p.name for p in parameters}
    merged = [*parameters, *(p for p in shared.values() if p.name not in given)]
    merged.sort(key=lambda p: p.kind)
    cls.__init__.__signature__ = own.replace(parameters=merged)  # type: ignore[misc]


def tell_options(cls: type) -> None:
    """Write out, in a class's docstring, the arguments for which it says "see `PC`"."""
    see = _SEE.search(doc := inspect.cleandoc(vars(cls).get("__doc__") or ""))
    base = next((base for base in cls.__mro__[1:] if base.__name__ == "PC"), None)
    if see is None or base is None:
        return
    texts = _entries(inspect.getdoc(base) or "")
    names = see["names"].split(", ")
    if see["all"]:
        own = _entries(doc[: see.start()] + doc[see.end() :])
        names = [
            name for name in inspect.signature(cls).parameters if name in texts and name not in own
        ]
    cls.__doc__ = doc[: see.start()] + "".join(texts[name] for name in names) + doc[see.end() :]


def _entries(doc: str) -> dict[str, str]:
    """`{argument: its lines}` of a docstring's Args."""
    _, _, args = f"{doc}\n".partition("Args:\n")
    args = re.split(r"^\S", args, maxsplit=1, flags=re.MULTILINE)[0]
    return {name: m[0] for m in _ENTRY.finditer(args) for name in m[1].split(", ")}


BAD_MODEL = """{cls} needs an EnergyModule whose `__call__(x, y=None)` clamps y on its output vode when given \
and returns the prediction; got {got}"""

NO_VODES = """{cls}: {got} has no vodes, so no energy to descend. Hold a `pxc.Vode` for each layer in an \
attribute (in lists, tuples and dicts as well), and call it with the layer's output: `x = vode(layer(x))`"""

OF_ANOTHER = """{cls}: weight_optim holds the state of another model: it was started (`init`) for other params \
and would go on with their moments. Make an optimiser for each algorithm, or let this one start afresh: \
`optim.clear()` before it is given to {cls}"""

SOLVER = """{cls} cannot use the solver {solver}: {why}. Give an optax transformation as \
`state_optim`, or use PC"""

RENAMED = """{cls}.{old}: this method is called `{new}` now. {why}"""

_OLD = {
    "inference_step": ("step_states(self, x, y, t)", "It returns `(F, dF/dh)`, and moves all free states: \
`pxc.free_states(self.model)`."),
    "learn": ("step_weights(self, x, y)", "It returns the batch's mean energy."),
    "plan": ("pxa.lazy_safe", "Lazy inference is decided by the loop; mark an override that keeps it exact."),
    "states": ("pxc.free_states(model)", "All free states are stepped."),
}  # fmt: skip


class Options(BaseModule):
    """What every algorithm is given, checked and kept; `PC` describes the arguments."""

    # whether no batch was trained yet, and whether the params are on the mesh; in slots, so that they are
    # no part of what is compiled
    __slots__ = ("_placed", "_unseen")

    T: int
    # the number of steps, where an algorithm's own differs
    default_T = 8
    # why a solver cannot stand in for the steps on the states; None where it can
    no_solver: str | None = None
    # whether inference lowers the energy step by step
    descends = True
    # whether the steps are on the states themselves
    steps_states = True
    # whether frozen outputs stay at their target during inference
    clamps_output = True

    def __init__(
        self,
        model: EnergyModule,
        T: int | None = None,
        state_optim: StateOptim | None = SGD_0_05,
        weight_optim: WeightOptim | None = ADAMW_0_001,
        *,
        init: Start = "forward",
        stop: Stop | None = None,
        metrics: Mapping[str, Metric] | None = None,
        T_predict: int = 0,
        record: bool = False,
        lazy: bool = True,
        unroll: bool | Literal["auto"] = "auto",
        donate: bool = True,
        compute_dtype: DTypeLike | None = None,
        statistics: Literal["forward", "learning"] = "forward",
        mesh: Mesh | None = None,
    ):
        object.__setattr__(self, "_unseen", True)
        name = type(self).__name__
        if not isinstance(model, EnergyModule):
            raise TypeError(BAD_MODEL.format(cls=name, got=type(model).__name__))
        if not vodes(model) and _lazy.is_additive(model):
            raise ValueError(NO_VODES.format(cls=name, got=type(model).__name__))
        T = self.default_T if T is None else T
        if not isinstance(T, int) or T < 0:
            raise ValueError(f"T is the number of inference steps, an int >= 0; got {T!r}")
        if not isinstance(T_predict, int) or T_predict < 0:
            raise ValueError(
                f"T_predict is the number of steps before a prediction, an int >= 0; got {T_predict!r}"
            )
        check_start(init)
        if statistics not in ("forward", "learning"):
            raise ValueError(
                'statistics says which pass moves running statistics, "forward" or "learning"; '
                f"got {statistics!r}"
            )
        self.model = model
        self.T, self.T_predict = T, T_predict
        self.init, self.record, self.lazy = init, record, lazy
        self.unroll, self.donate = unroll, donate
        self.metrics = dict(metrics or {})
        self.compute_dtype, self.statistics = compute_dtype, statistics
        self.mesh = mesh
        self._stop, self._solver = static(stop), static(None)
        if isinstance(state_optim, StateSolver):
            self._accept(state_optim)
            state_optim = None
        self.state_optim = as_optim(SGD_0_05 if state_optim is None else state_optim)
        self.weight_optim = as_optim(ADAMW_0_001 if weight_optim is None else weight_optim)
        if self.weight_optim.is_of_another(model):
            raise ValueError(OF_ANOTHER.format(cls=name))
        trainable = once_unfrozen(self.weights_mask())
        self._known = static(frozenset(path for path, _ in named_params(model)))
        if self.weight_optim.state.get() is None and any(map(trainable.select, _params(model))):
            self.weight_optim.init(trainable(model))

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for old, (new, why) in _OLD.items():
            if old in vars(cls):
                raise TypeError(RENAMED.format(cls=cls.__name__, old=old, new=new, why=why))
        if "__init__" in vars(cls):
            show_options(cls)
        tell_options(cls)

    def _accept(self, solver: StateSolver) -> None:
        why = self.no_solver
        own = [n for n in ("step_states", "start_states") if not _is_pcx(getattr(type(self), n))]
        if why is None and own:
            why = f"it has a `{own[0]}` of its own, which a solver would leave out"
        if why is None and self.stop is not None:
            why = "`stop=` ends a loop of steps, which a solver replaces"
        if why is not None:
            raise ValueError(
                SOLVER.format(cls=type(self).__name__, solver=type(solver).__name__, why=why)
            )
        self._solver = static(solver)

    @property
    def stop(self) -> Stop | None:
        """When inference ends early, or None."""
        return self._stop.get()

    @property
    def solver(self) -> StateSolver | None:
        """What replaces the steps on the states, or None."""
        return self._solver.get()

    @property
    def mesh(self) -> Mesh | None:
        """The devices that divide each batch, or None."""
        return self._mesh.get()

    @mesh.setter
    def mesh(self, mesh: Mesh | None) -> None:
        checked = None if mesh is None else _mesh.checked(mesh, type(self).__name__)
        self._mesh = static(checked)
        object.__setattr__(self, "_placed", False)

    def weights_mask(self) -> Mask:
        """Selects the params that learning changes."""
        return TRAINABLE

    def weights(self) -> list[BaseParam]:
        """The params that learning changes."""
        select = self.weights_mask().select
        return [param for param in _params(self.model) if select(param)]

    def place(self) -> None:
        """Put the params on the devices of the mesh, once; every compiled method calls it.

        Again only after `mesh` was set anew. Without a mesh nothing happens.

        Example:
            >>> import jax, pcx.algorithms as pxa, pcx.models as pxm
            >>> pc = pxa.PC(pxm.MLP([2, 4, 1]), mesh=jax.make_mesh((1,), ("data",)))
            >>> pc.place()
            >>> len(pc.model.layers[0].nn.weight.get().sharding.device_set)
            1
        """
        if self.mesh is None:
            return
        if not getattr(self, "_placed", False):
            _mesh.place_params(self.mesh, self)
            object.__setattr__(self, "_placed", True)
        _mesh.place_key(self.mesh)


def _params(model: Any) -> list[BaseParam]:
    return [param for _, param in named_params(model)]


def _is_pcx(method: Any) -> bool:
    return method.__module__.startswith("pcx.")
