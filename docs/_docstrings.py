"""Docstrings as the reference shows them: a griffe extension, named in mkdocs.yml.

The parser knows `Examples:`, our docstrings say `Example:`; and it makes a coloured box of
`References:`, which are better a paragraph.
"""

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
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = REFERENCES.sub(paragraph, text)


def paragraph(match: re.Match[str]) -> str:
    return f"*References*: {textwrap.dedent(match[1]).strip()}\n"
