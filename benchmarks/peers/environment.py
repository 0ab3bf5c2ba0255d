"""Virtual environments for the peers: made once by name, with pip's own configuration."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import Peer

MARKER = "installed-by-benchmarks.txt"


class NotInstalled(Exception):
    """A peer could not be installed; the message says why."""


def default_root() -> Path:
    """A folder of the user's cache: outside of the repository, so that no search meets the peers' code."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pcx-benchmarks"


def folder_name(requirements: tuple[str, ...]) -> str:
    """A folder per set of requirements, so that two programs of one peer share an environment."""
    return "+".join(requirements).replace("=", "").replace("/", "_").replace(" ", "")


def interpreter(versions: tuple[str, ...]) -> str:
    """A Python of one of the versions, this one if it is or if any will do.

    Raises:
        NotInstalled: none is on the path.
    """
    if not versions or f"{sys.version_info[0]}.{sys.version_info[1]}" in versions:
        return sys.executable
    for version in versions:
        found = shutil.which(f"python{version}")
        # a version manager's shim may be there for a Python that is not
        if (
            found
            and not subprocess.run([found, "-c", "import venv"], capture_output=True).returncode
        ):
            return found
    raise NotInstalled(f"needs Python {' or '.join(versions)}, and none is on the path")


def ensure(peer: Peer, root: Path, torch_spec: str = "torch", timeout_s: float = 1200) -> Path:
    """The peer's Python, made under `root` when it is not there yet.

    Raises:
        NotInstalled: with pip's own last error line, or the version of Python that is not there.
    """
    requirements = tuple(item.replace("{torch}", torch_spec) for item in peer.requirements)
    folder = root.resolve() / folder_name(requirements)
    python = folder / "bin" / "python"
    marker = folder / MARKER
    if marker.exists() and marker.read_text().split() == list(requirements):
        return python
    root.mkdir(parents=True, exist_ok=True)
    run([interpreter(peer.pythons), "-m", "venv", "--clear", str(folder)], timeout_s)
    run(
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *requirements,
        ],
        timeout_s,
    )
    marker.write_text("\n".join(requirements))
    return python


def run(command: list[str], timeout_s: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{command[-1]}: no answer within {timeout_s:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        reason = (errors or lines or [f"exit status {done.returncode}"])[-1]
        raise NotInstalled(f"could not install: {reason.strip()}")


def link_package(root: Path) -> Path:
    """A folder that holds only a link to this package.

    A peer's process starts there, so `import benchmarks` works while `import pcx` does not find the
    repository's.
    """
    folder = root.resolve() / "path"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "benchmarks"
    target = Path(__file__).resolve().parents[1]
    if link.is_symlink() and link.resolve() != target:
        link.unlink()
    if not link.exists():
        link.symlink_to(target, target_is_directory=True)
    return folder
