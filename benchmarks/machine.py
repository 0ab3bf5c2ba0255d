"""Where and on what a record was made."""

import contextlib
import datetime
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git(*arguments: str) -> str | None:
    """What git prints; None without git, or outside a repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe() -> dict:
    """Hardware, versions, date and commit."""
    import jax

    packages = ("jax", "jaxlib", "optax", "equinox", "numpy")
    code = ("pcx", "benchmarks", ":!benchmarks/results")
    changed = git("status", "--porcelain", "--", *code)
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{jax.default_backend()}: {jax.devices()[0].device_kind}",
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in packages},
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": None if changed is None else bool(changed),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write_record(record: dict, kind: str, out: Path | None = None) -> Path:
    """Write a record that holds `describe()` as "machine"; its path.

    Args:
        kind: the folder below benchmarks/results.
        out: another file name.
    """
    stamp = record["machine"]["date"][:19].replace("-", "").replace(":", "")
    folder = REPOSITORY / "benchmarks" / "results" / kind
    text = json.dumps(record, indent=1) + "\n"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        return out
    folder.mkdir(parents=True, exist_ok=True)
    # another process may write one in the same second
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        path = folder / f"{stamp}{suffix}.json"
        with contextlib.suppress(FileExistsError), path.open("x") as file:
            file.write(text)
            return path
    raise FileExistsError(f"{folder} holds a hundred records of {stamp}")
