"""The notebooks in tutorials/: kept with their outputs, and still true.

The marked test executes every notebook from clean, with nothing downloaded. What a notebook claims
it asserts itself; here it must run without an error and without compiling anything over and over.
"""

import json
import re
import shutil
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))

EXPECTED = [
    "00_two_moons",
    "01_inference",
    "02_randomness",
    "03_control_flow",
    "04_convolutional",
    "05_generative",
    "06_other_algorithms",
    "07_monte_carlo",
    "08_custom_energies_and_vodes",
    "09_going_deep",
    "10_extending",
    "11_coming_from",
    "12_time_and_graphs",
]

MAX_BYTES = 1_000_000
MAX_SECONDS = 240
# A cell may train several models, each compiled for itself. A function that is compiled anew in every
# step of a loop passes this number at once.
MAX_COMPILATIONS = 24


def is_one_operation(name):
    """Whether a compiled function is an operation outside any jit, compiled once for each shape."""
    name = name.lstrip("_")
    return any(hasattr(m, n) for m in (jnp, jax.lax) for n in (name, f"{name}_p"))


COUNT_COMPILATIONS = """
import collections as _collections, logging as _logging, re as _re
import jax as _jax

_compiled = _collections.Counter()


class _Count(_logging.Handler):
    def emit(self, record):
        found = _re.match(r"Finished XLA compilation of (?:jit\\()?([^\\s)]+)", record.getMessage())
        if found:
            _compiled[get_ipython().execution_count, found[1]] += 1


_logging.getLogger("jax").handlers[:] = [_Count()]
_logging.getLogger("jax").propagate = False
_jax.config.update("jax_log_compiles", True)
"""

REPORT = """
import json as _json
print(_json.dumps([[cell, name, n] for (cell, name), n in _compiled.items()]))
"""


def cells_of(notebook, kind):
    cells = json.loads(notebook.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def texts(cell):
    """What a code cell shows as text."""
    for output in cell["outputs"]:
        yield "".join(output.get("text", ""))
        yield "".join(output.get("data", {}).get("text/plain", ""))


each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def test_every_tutorial_is_there_and_in_the_index():
    assert [path.stem for path in NOTEBOOKS] == EXPECTED
    index = (TUTORIALS / "README.md").read_text()
    assert [name for name in EXPECTED if f"({name}.ipynb)" not in index] == []


@each_notebook
def test_a_notebook_opens_with_a_title_and_a_goal(notebook):
    first = json.loads(notebook.read_text())["cells"][0]
    assert first["cell_type"] == "markdown"
    assert re.match(rf"# {int(notebook.stem[:2])} · ", source(first))
    assert "**Goal:**" in source(first)


@each_notebook
def test_a_notebook_ends_with_where_to_go_next(notebook):
    assert "## Where to go next" in source(cells_of(notebook, "markdown")[-1])


@each_notebook
def test_outputs_and_pictures_are_kept(notebook):
    cells = cells_of(notebook, "code")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [kind for cell in cells for out in cell["outputs"] for kind in out.get("data", {})]
    assert "image/png" in kinds or notebook.stem == "11_coming_from"
    assert any(text for cell in cells for text in texts(cell))
    assert notebook.stat().st_size < MAX_BYTES


@each_notebook
def test_no_output_is_an_error_or_a_warning(notebook):
    outputs = [out for cell in cells_of(notebook, "code") for out in cell["outputs"]]
    assert [out for out in outputs if out["output_type"] == "error"] == []
    assert [out for out in outputs if out.get("name") == "stderr"] == []


@each_notebook
def test_a_notebook_tells_nothing_of_the_machine_it_ran_on(notebook):
    local = re.compile(r"/(?:home|root|work|tmp|Users|venv)/|site-packages|[A-Z]:\\\\")
    for cell in cells_of(notebook, "markdown"):
        assert not local.search(source(cell))
    for cell in cells_of(notebook, "code"):
        assert not local.search(source(cell))
        assert [text for text in texts(cell) if local.search(text)] == []
        assert cell["metadata"] == {}
    assert set(json.loads(notebook.read_text())["metadata"]) == {"kernelspec", "language_info"}


@each_notebook
def test_links_to_other_tutorials_lead_somewhere(notebook):
    for cell in cells_of(notebook, "markdown"):
        for target in re.findall(r"\]\(([\w./-]+)\)", source(cell)):
            assert (TUTORIALS / target).exists(), target


@each_notebook
def test_what_a_notebook_claims_it_asserts(notebook):
    assert sum(source(cell).count("assert ") for cell in cells_of(notebook, "code")) >= 3


@pytest.mark.tutorials
@pytest.mark.filterwarnings("default")
@each_notebook
def test_a_notebook_runs_from_clean(notebook, tmp_path, monkeypatch, record_property):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PCX_DATA_DIR", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    copy = nbformat.read(shutil.copy(notebook, tmp_path), as_version=4)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copy.cells.insert(0, nbformat.v4.new_code_cell(COUNT_COMPILATIONS))
    copy.cells.append(nbformat.v4.new_code_cell(REPORT))

    start = time.perf_counter()
    client = NotebookClient(
        copy,
        timeout=MAX_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    seconds = time.perf_counter() - start

    compiled = json.loads("".join(texts(copy.cells[-1])))
    record_property("seconds", round(seconds, 1))
    record_property("compilations", sum(n for _, _, n in compiled))
    assert seconds < MAX_SECONDS
    # the first cell is not the notebook's
    again = [
        (cell - 1, name, n)
        for cell, name, n in compiled
        if n > MAX_COMPILATIONS and not is_one_operation(name)
    ]
    assert again == [], textwrap.dedent(
        f"""
        compiled over and over, as (cell, function, times): {again}. A jitted function compiles again when
        the structure of its arguments changes, or when it is made anew in a loop.
        """
    )
