"""Docstrings as the reference shows them: a griffe extension, named in mkdocs.yml.

The parser knows `Examples:`, our docstrings say `Example:`; and it makes a coloured box of
`References:`, which are better a paragraph. Algorithms complete their arguments and docstrings at run
time; the parser, which only reads the code, is told here.
"""

import inspect
import re
import textwrap
from typing import Any

import griffe

REFERENCES = re.compile(r"^References:\n((?:    .*\n?|\n)+)", re.MULTILINE)


class Sections(griffe.Extension):
    """Rewrites two section names."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called when a whole package has been read."""
        if pkg.name == "pcx":
            complete_algorithms(pkg)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object that has been read."""
        if obj.docstring is not None:
            obj.docstring.value = sections(obj.docstring.value)


def sections(text: str) -> str:
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    return REFERENCES.sub(paragraph, text)


def paragraph(match: re.Match[str]) -> str:
    return f"*References*: {textwrap.dedent(match[1]).strip()}\n"


def complete_algorithms(package: griffe.Module) -> None:
    """Give algorithms the options that they leave to their base class, and the full docstring."""
    import pcx.algorithms as pxa

    known = package["algorithms._options.Options.__init__"].parameters
    for cls in vars(pxa).values():
        if not (isinstance(cls, type) and issubclass(cls, pxa.PC)):
            continue
        read = package[f"algorithms.{cls.__module__.rpartition('.')[2]}.{cls.__name__}"]
        read.docstring.value = sections(inspect.getdoc(cls) or "")
        if init := read.members.get("__init__"):
            own = {p.name: p for p in init.parameters}
            names = inspect.signature(cls).parameters
            every = [own[n] if n in own else known[n] for n in names]
            init.parameters = griffe.Parameters(*every)
