"""What the site is made of beside the pages in docs/: MkDocs calls the functions below.

* README.md is the home page, CHANGELOG.md and CONTRIBUTING.md are pages: one source each.
* Every notebook of tutorials/ becomes a page.
* Every subpackage gets a reference page that lists what its `__init__.py` exports.
* Equations become MathML when the site is built: no script, nothing to fetch.
"""

import ast
import base64
import html
import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

# what a reader looks for first comes first
SUBPACKAGES = (
    "algorithms",
    "training",
    "models",
    "predictive_coding",
    "nn",
    "functional",
    "utils",
    "core",
    "data",
    "analysis",
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the empty sections of the navigation."""
    filled = {
        "Tutorials": [*tutorial_index(), *({title: path} for path, title in notebook_titles())],
        "Reference": [{f"pcx.{name}": f"api/{name}.md"} for name in subpackages()],
    }
    nav = []
    for entry in config.nav or []:
        (section, content) = next(iter(entry.items()))
        content = filled.get(section, content) if content == [] else content
        if content:
            nav.append({section: content})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, not written."""
    made: dict[str, str | bytes] = {"index.md": home()}
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        made[name.lower()] = (ROOT / name).read_text()
    for name in subpackages():
        made[f"api/{name}.md"] = reference(name)
    for path in notebooks():
        made |= notebook_page(path, config.repo_url or "")
    if tutorial_index():
        made["tutorials/index.md"] = linked((ROOT / "tutorials" / "README.md").read_text())
    for uri, content in made.items():
        if existing := files.get_file_from_path(uri):
            files.remove(existing)
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_content(html_text: str, **_: Any) -> str:
    """Replace equations (as pymdownx.arithmatex marks them) by MathML."""
    return EQUATION.sub(mathml, html_text)


# --- the home page -------------------------------------------------------------------------------

HOME = """---
title: pcx
hide: [navigation, toc]
---

<style>
.md-content { max-width: 46rem; margin: auto }
.md-content img { margin: auto }
</style>

"""


PICTURE = re.compile(
    r'<picture>.*?<img alt="(.*?)" src="docs/(.*?)-light\.svg".*?</picture>', re.DOTALL
)
ELSEWHERE = re.compile(r"\[([^\]]*)\]\((?:LICENSE|examples/[^)]*|tutorials/?|benchmarks/?)\)")


def home() -> str:
    """README.md, with its links as the site has them."""
    text = (ROOT / "README.md").read_text()
    text = PICTURE.sub(r"![\1](\2-light.svg#only-light)\n![\1](\2-dark.svg#only-dark)", text)
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(r"\]\((CHANGELOG|CONTRIBUTING)\.md", lambda m: f"]({m[1].lower()}.md", text)
    text = re.sub(r"\]\(tutorials/README\.md\)", "](tutorials/index.md)", text)
    text = re.sub(r"\]\(tutorials/([\w-]+)\.ipynb\)", r"](tutorials/\1.md)", text)
    # what is not part of the site is named, not linked
    text = ELSEWHERE.sub(r"\1", text)
    return HOME + text


# --- the reference -------------------------------------------------------------------------------


def subpackages() -> list[str]:
    """The public subpackages of pcx that exist, in the order of the reference."""
    found = {p.parent.name for p in (ROOT / "pcx").glob("*/__init__.py") if p.parent.name[0] != "_"}
    known = [name for name in SUBPACKAGES if name in found]
    return known + sorted(found - set(known))


# what the other names of a subpackage build on; the rest follow in the order of the code
FIRST = ("PC", "Trainer", "MLP", "Vode", "EnergyModule", "Layer", "jit", "Mask", "Param", "Module")


def exported(name: str) -> list[str]:
    """The names that `pcx/<name>/__init__.py` exports (`X as X`), classes and functions alike."""
    tree = ast.parse((ROOT / "pcx" / name / "__init__.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = [a.name for node in imports for a in node.names if a.asname == a.name]
    return [n for n in FIRST if n in names] + [n for n in names if n not in FIRST]


ALIAS = {
    "algorithms": "pxa",
    "training": "pxt",
    "models": "pxm",
    "predictive_coding": "pxc",
    "nn": "pxnn",
    "functional": "pxf",
    "utils": "pxu",
    "analysis": "pxan",
}


# classes that users subclass: their page also lists what they inherit and one may override
EXTENDED = {"Algorithm"}
WITH_INHERITED = """
    options:
        inherited_members: true"""


def reference(name: str) -> str:
    """A page with every exported object of a subpackage."""
    names = exported(name)
    docstring = (
        ast.get_docstring(ast.parse((ROOT / "pcx" / name / "__init__.py").read_text())) or ""
    )
    alias = f"`import pcx.{name} as {ALIAS[name]}`" if name in ALIAS else f"`import pcx.{name}`"
    if name == "core":
        alias = (
            "`import pcx as px`: the names that users need are at the top level, as in `px.Param`"
        )
    index = ", ".join(f"[{n}][pcx.{name}.{n}]" for n in names)
    parts = [f"# pcx.{name}", docstring, f"By convention {alias}.", index]
    parts += [f"::: pcx.{name}.{n}{WITH_INHERITED if n in EXTENDED else ''}" for n in names]
    return "\n\n".join(parts) + "\n"


# --- notebooks -----------------------------------------------------------------------------------


def notebooks() -> list[Path]:
    return sorted((ROOT / "tutorials").glob("*.ipynb"))


def tutorial_index() -> list[str]:
    """The overview of the tutorials, if there is one."""
    return ["tutorials/index.md"] if (ROOT / "tutorials" / "README.md").exists() else []


def linked(text: str) -> str:
    """Text with its links to notebooks as links to their pages; to one that is missing, none."""
    known = {path.stem for path in notebooks()}

    def page(match: re.Match[str]) -> str:
        return f"[{match[1]}]({match[2]}.md)" if match[2] in known else match[1]

    return re.sub(r"\[([^\]]*)\]\((?:\./)?([\w-]+)\.ipynb\)", page, text)


def notebook_titles() -> list[tuple[str, str]]:
    """`(page, title)` of each notebook; the title is its first heading."""
    out = []
    for path in notebooks():
        cells = json.loads(path.read_text())["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        heading = next((m for t in texts if (m := re.search(r"^#\s+(.+)$", t, re.MULTILINE))), None)
        title = heading[1].replace("`", "").strip() if heading else path.stem
        out.append((f"tutorials/{path.stem}.md", title))
    return out


def colab(path: Path, repo_url: str) -> str:
    """A link that opens a notebook in Colab, once `repo_url` in mkdocs.yml names a repository on GitHub."""
    found = re.match(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?$", repo_url)
    where = f"https://colab.research.google.com/github/{found[1]}/blob/main" if found else ""
    return f" [Open it in Colab]({where}/tutorials/{path.name})." if where else ""


def notebook_page(path: Path, repo_url: str = "") -> dict[str, str | bytes]:
    """A notebook as a Markdown page, and its images as files."""
    made: dict[str, str | bytes] = {}
    parts = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"]).strip()
        if not source:
            continue
        if cell["cell_type"] == "markdown":
            parts.append(linked(source))
        elif cell["cell_type"] == "code":
            parts.append(fenced(source, "python"))
            for k, output in enumerate(cell.get("outputs", [])):
                name = f"{path.stem}-{number}-{k}"
                text, files = output_of(output, name)
                parts.append(text)
                made |= {f"tutorials/{file}": content for file, content in files.items()}
    source_note = f"*This page is the notebook `tutorials/{path.name}` of the repository.*"
    source_note += colab(path, repo_url)
    made[f"tutorials/{path.stem}.md"] = "\n\n".join([*filter(None, parts), source_note]) + "\n"
    return made


def output_of(output: dict[str, Any], name: str) -> tuple[str, dict[str, str | bytes]]:
    """The Markdown of one output of a cell, and the files it needs."""
    if output["output_type"] == "stream":
        return ("" if output["name"] == "stderr" else printed("".join(output["text"]))), {}
    if output["output_type"] == "error":
        return printed(f"{output['ename']}: {output['evalue']}"), {}
    data = output.get("data", {})
    if "image/svg+xml" in data:
        return f"![output]({name}.svg)", {f"{name}.svg": "".join(data["image/svg+xml"])}
    if "image/png" in data:
        return f"![output]({name}.png)", {
            f"{name}.png": base64.b64decode("".join(data["image/png"]))
        }
    if "text/plain" in data:
        return printed("".join(data["text/plain"])), {}
    return "", {}


def printed(text: str) -> str:
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]
    return '<div class="output" markdown="1">\n' + fenced("\n".join(lines), "text") + "\n</div>"


def fenced(text: str, language: str) -> str:
    ticks = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{ticks}{language}\n{text}\n{ticks}"


# --- equations -----------------------------------------------------------------------------------

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    # latex2mathml leaves nothing to escape, and drops the space that a comma has in text
    made = convert(html.unescape(match[2]).strip(), display=display)
    # a norm's bars have one size, as written, not the height of the line on one side
    return made.replace("<mo>&#x02016;</mo>", '<mo stretchy="false">&#x02016;</mo>')
