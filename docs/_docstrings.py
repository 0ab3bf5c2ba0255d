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
        if obj.docstring is not None:
            if obj.is_class and obj.path.startswith("pcx.nn._layers."):
                obj.docstring.value = layer(obj.name)
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = REFERENCES.sub(paragraph, text)


def paragraph(match: re.Match[str]) -> str:
    return f"*References*: {textwrap.dedent(match[1]).strip()}\n"


def layer(name: str) -> str:
    """Docstring of a named layer, with how it is called."""
    import pcx.nn

    cls = getattr(pcx.nn, name)
    parameters = [str(p) for p in inspect.signature(cls).parameters.values() if p.name != "rkg"]
    call = ", ".join([*parameters, "rkg=px.RKG"])
    return f"{inspect.getdoc(cls)}\n\n    {name}({call})\n"
