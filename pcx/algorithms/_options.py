"""What algorithms are given: optimisers, their types and defaults, and the options that a class leaves to `PC`."""

import inspect
import re
from typing import Any, TypeAlias

import optax as ox

from ..utils import Optim, OptimTree
from ._solvers import StateSolver

StateOptim: TypeAlias = ox.GradientTransformation | Optim | StateSolver
WeightOptim: TypeAlias = ox.GradientTransformation | Optim | OptimTree


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
