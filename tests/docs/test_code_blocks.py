"""Every Python block of the documentation runs, page by page, from top to bottom.

A block below a comment `<!-- needs: torch -->` runs where that package is installed.
"""

import importlib.util
import re
from pathlib import Path

import jax
import pytest

import pcx as px

ROOT = Path(__file__).resolve().parents[2]
NEEDS = re.compile(r"<!-- needs: ([\w, ]+) -->\n$")
FENCE = re.compile(r"^( *)(`{3,})([\w+-]*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
# packages of other makers that blocks use, and that the tests need not have
OPTIONAL = {
    "torch",
    "grain",
    "datasets",
    "tensorboardX",
    "wandb",
    "mlflow",
    "sqlalchemy",
    "alembic",
}
# what is not Python of ours; `py` marks code of another library, shown beside ours
NOT_RUN = {"bash", "text", "json", "toml", "py"}


def blocks(path: Path) -> list[tuple[int, str, str]]:
    """`(line, language, code)` of every fenced block of a page."""
    text = path.read_text()
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        indent = len(match[1])
        code = "\n".join(row[indent:] for row in match[4].splitlines())
        needs = NEEDS.search(text[: match.start()])
        packages = needs[1].split(", ") if needs else []
        assert set(packages) <= OPTIONAL
        missing = [p for p in packages if importlib.util.find_spec(p) is None]
        found.append((line, "text" if missing else match[3], code))
    return found


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_PYTHON = [page for page in PAGES if any(kind == "python" for _, kind, _ in blocks(page))]


@pytest.fixture
def config_kept():
    """What a page sets in JAX's configuration ends with the page."""
    before = dict(jax.config.values)
    yield
    for name, value in before.items():
        if jax.config.values[name] != value:
            jax.config.update(name, value)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("config_kept")
def test_the_python_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    px.RKG.seed(0)
    namespace = {"__name__": "__page__"}
    for line, language, code in blocks(page):
        if language == "python":
            # empty lines put the block where it is on the page, for the traceback
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_its_language_and_only_foreign_code_is_not_run(page):
    languages = {language for _, language, _ in blocks(page)}
    assert languages <= {"python"} | NOT_RUN
    assert "py" not in languages or page.name == "migration.md"


def test_all_of_pcx_fits_on_its_page():
    assert len((ROOT / "docs" / "all-of-pcx.md").read_text().splitlines()) <= 160
