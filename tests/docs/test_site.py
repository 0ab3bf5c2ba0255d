"""What the pages say about the repository is so."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def load(path: Path) -> ModuleType:
    """A module from a file that is not in a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def subpackages() -> set[str]:
    return {p.parent.name for p in (ROOT / "pcx").glob("*/__init__.py")}


def test_the_picture_on_the_architecture_page_is_the_tree():
    text = (DOCS / "architecture.md").read_text()
    picture = text[text.index("```text\npcx/") : text.index("A test compares")]
    assert set(re.findall(r"^  (\w+)/", picture, re.MULTILINE)) == subpackages()


def test_the_results_and_the_tables_of_the_readme_are_what_the_records_say():
    stale = [
        path.relative_to(ROOT)
        for path, text in load(DOCS / "_generate.py").generate().items()
        if path.read_text() != text
    ]
    assert not stale, f"out of date: {stale}; run `python docs/_generate.py`"


def test_no_relative_link_of_the_readme_is_broken():
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    targets += re.findall(r'(?:src|srcset)="([^":]+)"', text)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_readme_program_has_at_most_thirty_lines():
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert program is not None
    assert len(program[1].splitlines()) <= 30


def test_every_algorithm_is_in_the_zoo_and_in_the_readme():
    import pcx.algorithms as pxa

    zoo, readme = (DOCS / "algorithms.md").read_text(), (ROOT / "README.md").read_text()
    algorithms = [
        name
        for name, value in vars(pxa).items()
        if isinstance(value, type) and issubclass(value, pxa.Algorithm) and name != "Algorithm"
    ]
    assert "PC" in algorithms
    assert [name for name in algorithms if f"`{name}`" not in zoo] == []
    assert [name for name in algorithms if f"| `{name}` |" not in readme] == []


def test_every_name_of_pcx_in_the_migration_table_exists():
    import pcx as px
    import pcx.functional as pxf
    import pcx.nn as pxnn
    import pcx.predictive_coding as pxc
    import pcx.utils as pxu

    modules = {"pcx": px, "px": px, "pxf": pxf, "pxnn": pxnn, "pxc": pxc, "pxu": pxu}
    text = (DOCS / "migration.md").read_text()
    table = text[text.index("### Every name") : text.index("### What behaves")]
    names = re.findall(r"\b(pcx|px|pxf|pxnn|pxc|pxu)\.(\w+)", table)
    assert len(names) > 50
    missing = [f"{m}.{name}" for m, name in names if not hasattr(modules[m], name)]
    assert missing == []


def test_the_site_builds_without_a_warning(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package, reason="the site needs the docs extra", exc_type=ImportError)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    built = subprocess.run(
        [*command, "--site-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    home = (tmp_path / "index.html").read_text()
    assert "Thirty lines" in home
    pages = list(tmp_path.rglob("*.html"))
    assert "<math" in (tmp_path / "algorithms.html").read_text()
    fetched = re.compile(r'<(?:script|link|img)[^>]*?(?:src|href)="(https?:[^"]+)"')
    elsewhere = {url for page in pages for url in fetched.findall(page.read_text())}
    assert elsewhere == set(), "the site must work without a network"
    assert not [page for page in pages if 'class="arithmatex"' in page.read_text()]
    shutil.rmtree(tmp_path)
