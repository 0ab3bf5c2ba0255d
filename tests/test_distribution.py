"""The distribution: its name, its version everywhere, and the other project called pcx."""

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import pcx
from pcx import _distribution

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def installed(folder, name, version, package):
    """What pip leaves of a distribution in a folder of `sys.path`."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if package:
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("")


def test_importing_beside_another_pcx_warns_and_says_what_to_do(tmp_path):
    installed(tmp_path, "pcx", "0.6.3", "pcx")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import pcx"
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stderr
    assert "another distribution, pcx 0.6.3, is installed in this environment" in out
    assert "`pip uninstall pcx pcx-networks`" in out
    assert str(tmp_path / "pcx" / "__init__.py") in out
    assert out.count("another distribution") == 1
    assert out.startswith("<string>:1: ")  # the line that imports pcx


def test_our_own_name_and_an_editable_install_do_not_warn(tmp_path, monkeypatch):
    installed(tmp_path, "pcx_networks", "9.9", None)
    installed(tmp_path, "pcx", "0.0.9", None)  # an editable install has no folder of that name
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    _distribution.warn_of_another()  # warnings are errors here


def test_every_message_names_the_distribution():
    assert PROJECT["name"] == _distribution.NAME
    for path in [*ROOT.glob("pcx/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]:
        for name, extra in re.findall(r'"([\w-]+)\[(\w+)\]"', path.read_text()):
            assert name != "pcx", path
            if name == PROJECT["name"]:
                assert extra in PROJECT["optional-dependencies"], path


def test_the_version_is_the_same_in_all_places():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == pcx.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d\S*)\]", changelog, re.MULTILINE)
    # nothing is released yet
    assert released[:1] in ([], [pcx.__version__])


TRAINS = """
import warnings; warnings.simplefilter("error")
import numpy as np, optax, pcx, pcx.algorithms as pxa, pcx.models as pxm, pcx.training as pxt
assert "site-packages" in pcx.__file__, pcx.__file__
x = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
y = np.eye(2, dtype=np.float32)[(x[:, 0] > 0).astype(int)]
trainer = pxt.Trainer(pxa.PC(pxm.MLP([2, 16, 2]), T=4, weight_optim=optax.adam(1e-2)), progress=False)
history = trainer.fit(pxt.batches(x, y, 32, shuffle=True), epochs=5)
print(trainer.evaluate(pxt.batches(x, y, 64))["accuracy"])
"""


@pytest.mark.slow
def test_a_built_wheel_in_a_fresh_environment_imports_and_trains(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    if subprocess.run(build, capture_output=True).returncode:
        pytest.skip("the wheel needs hatchling, from an index that is out of reach")
    (wheel,) = tmp_path.glob("pcx_networks-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(install, check=True)
    run = subprocess.run([python, "-I", "-c", TRAINS], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) > 0.9
