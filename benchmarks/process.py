"""Start worker processes and put questions to them."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cases import Case

REPOSITORY = Path(__file__).resolve().parents[1]


class WorkerFailed(Exception):
    """A worker stopped, took too long, or answered with an error."""


def environment(**more: str) -> dict[str, str]:
    """The caller's environment without what would make a run depend on an earlier one."""
    dropped = ("JAX_COMPILATION_CACHE_DIR", "PYTHONPATH", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    # Several processes share one accelerator; none may take all of its memory.
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **kept, **more}


class Worker:
    """A running `benchmarks.worker`; `hello` is what it said when it was ready."""

    def __init__(
        self,
        program: str,
        case: Case,
        python: str | Path = sys.executable,
        folder: Path = REPOSITORY,
        variables: Mapping[str, str] | None = None,
        start_timeout_s: float = 900,
    ):
        self.program = program
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
        self.process = subprocess.Popen(
            [
                str(python),
                "-m",
                "benchmarks.worker",
                "--program",
                program,
                "--case",
                case.to_json(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            cwd=folder,
            env=environment(**(variables or {})),
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self.hello = self._reply(start_timeout_s)
        except WorkerFailed:
            self.close()
            raise

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _reply(self, timeout_s: float) -> dict:
        try:
            line = self.lines.get(timeout=timeout_s)
        except queue.Empty:
            self.process.kill()
            raise WorkerFailed(f"no answer within {timeout_s:.0f} s") from None
        if line is None:
            self.process.wait()
            self.stderr.seek(0)
            said = [text for text in self.stderr.read().splitlines() if text.strip()]
            last = said[-1].strip() if said else "it said nothing"
            raise WorkerFailed(f"stopped with status {self.process.returncode}: {last}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerFailed(reply["error"])
        return reply

    def ask(self, request: str, timeout_s: float = 600) -> dict:
        # With a broken pipe the process has stopped, and the reply below says how.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        return self._reply(timeout_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.close()
