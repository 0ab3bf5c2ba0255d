"""Docstrings as the reference shows them: a griffe extension, named in mkdocs.yml.

The parser knows `Examples:`, our docstrings say `Example:`; and it makes a coloured box of
`References:`, which are better a paragraph. The named layers get their signatures at run time, from
equinox; the parser, which only reads the code, is told here.
"""

import inspect
import re
import textwrap
from typing import Any

import griffe

REFERENCES = re.compile(r"^References:\n((?:    .*\n?|\n)+)", re.MULTILINE)


class Sections(griffe.Extension):
    """Rewrites two section names."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object that has been read."""
        if obj.is_class and obj.path.startswith("pcx.nn._layers."):
            give_signature(obj)
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = REFERENCES.sub(paragraph, text)


def paragraph(match: re.Match[str]) -> str:
    return f"*References*: {textwrap.dedent(match[1]).strip()}\n"


def give_signature(layer: Any) -> None:
    """Give a named layer the signature and docstring that it has at run time."""
    import pcx.nn

    cls = getattr(pcx.nn, layer.name)
    parameters = griffe.Parameters()
    for p in inspect.signature(cls).parameters.values():
        default = None if p.default is p.empty else "RKG" if p.name == "rkg" else repr(p.default)
        kind = griffe.ParameterKind[p.kind.name.lower()]
        parameters.add(griffe.Parameter(p.name, kind=kind, default=default))
    layer.set_member("__init__", griffe.Function("__init__", parameters=parameters))
    if layer.docstring is not None:
        layer.docstring.value = inspect.getdoc(cls) or ""
