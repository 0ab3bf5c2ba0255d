"""Execute tutorials in place: their outputs and pictures are kept in the repository.

    python docs/_notebooks.py                      # all of them
    python docs/_notebooks.py 00_two_moons ...     # some

Only what the code says is kept: no times, no names of the machine, no metadata of cells.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"


def execute(path: Path) -> None:
    """Run a notebook from clean, in an empty folder, and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
        client.execute()
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{path.stem[:2]}-{number:02}", {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(p.stem for p in TUTORIALS.glob("*.ipynb")):
        execute(TUTORIALS / f"{name}.ipynb")
        print(f"executed: {name}")
