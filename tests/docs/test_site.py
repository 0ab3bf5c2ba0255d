"""What the pages say about the repository is so."""

import importlib
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
    generate, curves = load(DOCS / "_generate.py"), load(DOCS / "_curves.py")
    stale = [path for path, text in generate.generate().items() if path.read_text() != text]
    records = generate.read_records()
    drawn = generate.pictures(records) | generate.scoreboards(records)
    stale += [path for path, values in drawn.items() if not curves.shows(path, values)]
    analyses = load(DOCS / "_analyses.py")
    found = {analyses.image_of(record): record for record in analyses.read()}
    stale += [path for path, record in found.items() if not analyses.shows(path, record)]
    assert not stale, f"out of date: {stale}; run `python docs/_generate.py`"


def test_the_static_signatures_of_the_layers_are_what_the_script_makes():
    import equinox

    stubs = load(DOCS / "_stubs.py")
    text = stubs.STUB.read_text()
    if f"equinox {equinox.__version__}." not in text.splitlines()[0]:
        pytest.skip(
            "another equinox than the stubs are of; tests/nn/test_stubs.py compares arguments"
        )
    assert text == stubs.stub(), "run `python docs/_stubs.py`"


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


ALIASES = {
    "pcx": "pcx",
    "px": "pcx",
    "pxa": "pcx.algorithms",
    "pxan": "pcx.analysis",
    "pxc": "pcx.predictive_coding",
    "pxf": "pcx.functional",
    "pxm": "pcx.models",
    "pxnn": "pcx.nn",
    "pxt": "pcx.training",
    "pxu": "pcx.utils",
}


def mentioned(text: str) -> set[tuple[str, str]]:
    """`(alias, name)` of everything like `pxu.Mask` in a page, code of other libraries aside."""
    text = re.sub(r"^```(?:py|text|json|bash)\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    pattern = rf"(?<![\w.\[/-])({'|'.join(ALIASES)})\.([A-Za-z]\w*)"
    return set(re.findall(pattern, text))


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.stem
)
def test_every_name_of_pcx_that_a_page_mentions_exists(page):
    # a submodule such as `pcx.data` is an attribute only once it was imported
    for name in subpackages():
        importlib.import_module(f"pcx.{name}")
    missing = [
        f"{alias}.{name}"
        for alias, name in sorted(mentioned(page.read_text()))
        if not hasattr(importlib.import_module(ALIASES[alias]), name)
    ]
    assert missing == []


@pytest.mark.parametrize("name", sorted(subpackages()))
def test_every_public_class_and_function_has_a_docstring_of_its_own(name):
    module = importlib.import_module(f"pcx.{name}")
    public = {n: v for n, v in vars(module).items() if n[0] != "_" and callable(v)}
    assert public
    own = {
        n: (vars(v) if isinstance(v, type) else {"__doc__": v.__doc__}) for n, v in public.items()
    }
    assert [n for n, attributes in own.items() if not attributes.get("__doc__")] == []


# what programs written for PCX use, in the spelling of the paper and in that of later releases
OF_PCX = """
    Param ParamDict ParamCache BaseParam DynamicParam static StaticParam BaseModule Module train
    eval is_train is_eval submodules RandomKeyGenerator RKG get set tree_apply tree_ref tree_unref
    tree_extract tree_inject EnergyModule Vode
    jit vmap value_and_grad scan while_loop cond switch
    Jit Vmap ValueAndGrad Scan WhileLoop Cond Switch
    LayerParam StateParam Layer StatefulLayer shared Linear Conv Conv1d Conv2d ConvTranspose Pool
    MaxPool2d MaxPool1d AvgPool1d AdaptivePool AdaptiveAvgPool2d AdaptiveMaxPool2d Dropout LayerNorm
    GroupNorm RMSNorm BatchNorm Embedding MultiheadAttention GRUCell LSTMCell Identity Lambda PReLU
    VodeParam Cache h cache status energy ruleset tforms energy_fn param_type STATUS NONE ALL INIT
    clear_params se_energy ce_energy zero_energy
    M Mask m M_is M_has M_hasnot has hasnot has_not to Optim init step scale_by apply_updates
    allow_none clear mul OptimTree leaf_fn save_params load_params
"""


def test_every_name_of_pcx_s_users_is_in_the_migration_table():
    text = (DOCS / "migration.md").read_text()
    table = text[text.index("### Every name") : text.index("### What behaves")]
    assert [name for name in OF_PCX.split() if not re.search(rf"\b{name}\b", table)] == []


def rows(text: str) -> list[list[str]]:
    """The cells of every row of a page's tables whose last column names tests."""
    tables = re.findall(r"^\|.*\| test \|\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for table in tables for row in table.splitlines()]
    return [[cell.strip() for cell in row] for row in cells]


def test_every_test_that_the_migration_page_names_exists():
    found = rows((DOCS / "migration.md").read_text())
    files = [file for row in found for file in re.findall(r"`([^`]+)`", row[-1])]
    assert len(files) > 100
    assert [file for file in files if not (ROOT / "tests" / file).is_file()] == []


def test_the_tests_that_the_migration_page_names_for_a_name_of_pcx_use_it():
    text = (DOCS / "migration.md").read_text()
    table = text[text.index("### Every name") : text.index("### What behaves")]
    unused = []
    for names, *_, tests in rows(table):
        files = re.findall(r"`([^`]+)`", tests)
        code = "".join((ROOT / "tests" / file).read_text() for file in files)
        for name in re.findall(r"`([^`]+)`", names):
            if not re.search(rf"\b{re.escape(name)}\b", code):
                unused.append((name, files))
    assert unused == []


def test_both_bars_of_a_norm_have_one_size():
    pytest.importorskip("latex2mathml")
    made = load(DOCS / "_hooks.py").on_page_content(
        r'<span class="arithmatex">\(\lVert h \rVert^2\)</span>'
    )
    assert made.count('<mo stretchy="false">&#x02016;</mo>') == 2
    assert "<msup>" in made


def test_a_tutorial_opens_in_colab_once_the_repository_has_an_address():
    pytest.importorskip("latex2mathml")
    hooks, path = load(DOCS / "_hooks.py"), ROOT / "tutorials" / "00_two_moons.ipynb"
    page = hooks.notebook_page(path, "https://github.com/someone/pcx.git")[
        "tutorials/00_two_moons.md"
    ]
    where = "https://colab.research.google.com/github/someone/pcx/blob/main/tutorials/00_two_moons.ipynb"
    assert f"[Open it in Colab]({where})" in page
    assert "colab" not in hooks.notebook_page(path)["tutorials/00_two_moons.md"]


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
    # opened from disk, the search has its index as a script and no worker
    assert (tmp_path / "search" / "search_index.js").read_text().startswith("var __index = {")
    assert "assets/iframe-worker.js" in home
    style = (tmp_path / "assets" / "site.css").read_text()
    assert all((tmp_path / "assets" / f).exists() for f in re.findall(r'url\("(.*?)"\)', style))
    raw = re.compile(r"<p>(?:Example|Args|Returns|Raises|References):")
    assert [page.name for page in pages if raw.search(page.read_text())] == []
    shutil.rmtree(tmp_path)
