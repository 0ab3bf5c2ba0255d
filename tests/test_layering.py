"""Imports point one way: the layers of the package, read from its source."""

import ast
from pathlib import Path

import pytest

import pcx

PACKAGE = Path(pcx.__file__).parent

# A layer may import those before it, never those after. Readers and batches come first: they know
# nothing of models, so that they can be used without any.
LAYERS = [
    "data",
    "core",
    "functional",
    "nn",
    "predictive_coding",
    "utils",
    "algorithms",
    "training",
    "models",
    "analysis",
]
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE)


def layer_of(path):
    return path.relative_to(PACKAGE).parts[0]


def imports(path):
    """`(module, line)` of everything a file imports, with relative names resolved."""
    package = ["pcx", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, node.lineno
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


def test_every_folder_has_a_layer():
    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert folders <= set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_to_lower_layers(path):
    own = layer_of(path)
    allowed = set(LAYERS[: LAYERS.index(own) + 1])
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] == "pcx" and len(parts) > 1 and parts[1] in LAYERS:
            assert parts[1] in allowed, f"{path.name}:{line} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_private_names_of_other_packages_are_imported(path):
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "pcx":
            private = [p for p in parts[1:] if p.startswith("_")]
            assert not private, f"{path.name}:{line} imports {module}"


# the algorithms and populations work on the tracking protocol itself, which is no part of the public
# interface
PROTOCOL = ("algorithms", "training"), "pcx.functional._tracked"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_modules_of_core_and_functional_are_used_there_only(path):
    own = layer_of(path)
    for module, line in imports(path):
        package, *below = module.split(".")
        inner = below[0] if below else ""
        private = len(below) > 1 and below[1].startswith("_")
        if package == "pcx" and inner in ("core", "functional") and inner != own and private:
            known = own in PROTOCOL[0] and ".".join([package, *below[:2]]) == PROTOCOL[1]
            assert known, f"{path.name}:{line} imports {module}"


def test_nothing_is_star_imported():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), path


def test_the_top_level_only_re_exports():
    *body, later = ast.parse((PACKAGE / "__init__.py").read_text()).body
    # what is imported at its first use
    assert isinstance(later, ast.If)
    assert ast.unparse(later.test) == "TYPE_CHECKING"
    for node in body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert docstring or isinstance(node, ast.ImportFrom), ast.dump(node)
        if isinstance(node, ast.ImportFrom) and node.module != "typing":
            assert all(alias.asname == alias.name for alias in node.names), ast.dump(node)
