# ruff: noqa: T201
"""Faults by the hundred: damaged files, full disks, exceptions at any line, kills at any moment.

    python -m tests.faults                                  # the short form, as CI runs it
    python -m tests.faults --kills 500 --flips 2000 --points 1000 --record

Each fault must end in one of two ways: the state of before or of after, bit for bit, or an error that
names the file and changes nothing. Anything else is counted as wrong, and shown.
"""

import argparse
import collections
import os
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import optax

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.training as pxt
import pcx.utils as pxu
from benchmarks import machine
from pcx.core import named_params

ROOT = Path(__file__).resolve().parents[1]
STATE, WEIGHT = optax.sgd(0.1, momentum=0.5), optax.adam(1e-2)


def algorithm(seed=0):
    px.RKG.seed(seed)
    return pxa.PC(pxm.MLP([3, 8, 2]), 3, STATE, WEIGHT)


def data(n=24):
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 3)).astype(np.float32)
    return x, np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2]], axis=1).astype(np.float32)


def content(owner):
    """All values of an algorithm and the default key, as bytes by name."""
    values = {name: param.get() for name, param in named_params(owner)}
    values["RKG"] = px.RKG.key.get()
    as_bytes = lambda leaf: np.asarray(
        jax.random.key_data(leaf)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    ).tobytes()
    return {name: [as_bytes(v) for v in jax.tree.leaves(value)] for name, value in values.items()}


class Tally:
    """How often each outcome was seen; an outcome that starts with WRONG fails the run."""

    def __init__(self, name):
        self.name, self.counts, self.examples = name, collections.Counter(), {}

    def note(self, outcome, example=""):
        self.counts[outcome] += 1
        self.examples.setdefault(outcome, str(example))

    @property
    def wrong(self):
        return sum(n for outcome, n in self.counts.items() if outcome.startswith("WRONG"))

    def show(self):
        print(f"\n{self.name}: {sum(self.counts.values())} tried, {self.wrong} wrong")
        for outcome, n in self.counts.most_common():
            shown = f"   e.g. {self.examples[outcome][:150]}" if self.examples[outcome] else ""
            print(f"  {n:5d}  {outcome}{shown}")


def damaged(raw, rng):
    """One fault of a file: a flipped bit, an overwritten stretch, an end or a middle that is missing."""
    kind, place = (
        rng.choice(["flip", "flip", "flip", "stretch", "truncate", "gap"]),
        rng.randrange(len(raw)),
    )
    if kind == "flip":
        return kind, raw[:place] + bytes([raw[place] ^ 1 << rng.randrange(8)]) + raw[place + 1 :]
    if kind == "stretch":
        noise = rng.randbytes(min(rng.randrange(1, 64), len(raw) - place))
        return kind, raw[:place] + noise + raw[place + len(noise) :]
    if kind == "truncate":
        return kind, raw[:place]
    return kind, raw[:place] + raw[place + rng.randrange(1, 64) :]


def flips(count, folder, rng):
    """Damaged files of params and of checkpoints: equal, or refused by name with nothing changed."""
    tally = Tally("damaged files")
    path = folder / "damaged.npz"

    def load_params(trainer):
        pxu.load_params(trainer.algorithm.model, path)

    def load_checkpoint(trainer):
        pxt.load_checkpoint(trainer, path)

    trained = pxt.Trainer(algorithm(1), progress=False)
    trained.fit(pxt.batches(*data(), 8, shuffle=True, rkg=1), 2)
    pxu.save_params(trained.algorithm.model, folder / "params.npz")
    pxt.save_checkpoint(trained, folder / "checkpoint.npz")
    other = pxt.Trainer(algorithm(2), progress=False)
    other.fit(pxt.batches(*data(), 8, shuffle=True, rkg=1), 1)
    pxt.save_checkpoint(other, folder / "other.npz")
    for load, name in ((load_params, "params.npz"), (load_checkpoint, "checkpoint.npz")):
        raw = (folder / name).read_bytes()
        path.write_bytes(raw)
        pxt.load_checkpoint(other, folder / "other.npz")
        before = content(other.algorithm)
        load(other)
        whole = content(other.algorithm)
        assert whole != before
        for _ in range(count // 2):
            pxt.load_checkpoint(other, folder / "other.npz")
            kind, bad = damaged(raw, rng)
            path.write_bytes(bad)
            try:
                load(other)
            except Exception as error:
                if content(other.algorithm) != before:
                    tally.note(f"WRONG: changed by a refused file ({name}, {kind})", error)
                elif not isinstance(error, ValueError) or path.name not in str(error):
                    what = f"WRONG: {type(error).__name__} without the file's name ({name}, {kind})"
                    tally.note(what, error)
                else:
                    tally.note(f"{name}: refused", error)
            else:
                same = content(other.algorithm) == whole
                tally.note(f"{name}: equal" if same else f"WRONG: other values ({name}, {kind})")
    return tally


def full_disk(count, folder, rng):
    """Writing stops after so many bytes: the old file stays, and nothing is left beside it."""
    tally = Tally("full disk")
    trainer = pxt.Trainer(algorithm(), progress=False)
    trainer.fit(pxt.batches(*data(), 8), 1)
    path = folder / "kept" / "run.npz"
    pxt.save_checkpoint(trainer, path)
    old, names = path.read_bytes(), sorted(p.name for p in path.parent.iterdir())
    trainer.fit(pxt.batches(*data(), 8), 1)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for _ in range(count):
            resource.setrlimit(resource.RLIMIT_FSIZE, (rng.randrange(len(old) - 1), unlimited[1]))
            try:
                pxt.save_checkpoint(trainer, path)
            except OSError as error:
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
                kept = (
                    path.read_bytes() == old
                    and sorted(p.name for p in path.parent.iterdir()) == names
                )
                tally.note("error, old file kept" if kept else "WRONG: the old file is lost", error)
            else:
                tally.note("WRONG: no error")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        signal.signal(signal.SIGXFSZ, handler)
    return tally


class Injected(BaseException):
    """Nothing in the library catches it by its class."""


def interrupted(run, stop):
    """Call `run` and raise at the `stop`-th line of pcx that it reaches; how many lines there were."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if f"{os.sep}pcx{os.sep}" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
            if count == stop:
                sys.settrace(None)
                raise Injected
        return trace

    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
    return count


def points(count, folder, rng):
    """Exceptions at any line of a step that traces and of one that is compiled: before or after."""
    tally = Tally("exceptions inside a step")
    batch = data(8)

    def fresh(warm):
        own = algorithm()
        for _ in range(warm):
            own.train_step(*batch)
        return own

    for name, warm, share in (("compiled", 2, 0.5), ("traced", 0, 0.5)):
        own = fresh(warm)
        before = content(own)
        lines = interrupted(lambda own=own: own.train_step(*batch), None)
        after = content(own)
        own.train_step(*batch)
        further = content(own)
        for _ in range(int(count * share)):
            own, stop = fresh(warm), rng.randrange(1, lines + 1)
            assert content(own) == before
            if not warm:
                jax.clear_caches()
            try:
                interrupted(lambda own=own: own.train_step(*batch), stop)
            except Injected:
                outcome = "raised"
            except BaseException as error:
                outcome = f"it became {type(error).__name__}"
            else:
                outcome = "held back, raised nowhere"  # in a destructor or a callback of C code
            now = content(own)
            state = "before" if now == before else "after" if now == after else None
            if state is None:
                tally.note(f"WRONG: {name}: between before and after", f"line {stop} of {lines}")
                continue
            try:
                for _ in range(1 if state == "after" else 2):
                    own.train_step(*batch)
            except Exception as error:
                tally.note(f"WRONG: {name}: the next step failed", f"line {stop}: {error}")
                continue
            what = f"{name}: {outcome}, {state}"
            if outcome.startswith("it became"):
                what = f"WRONG: {what}"
            same = content(own) == further
            tally.note(what if same else f"WRONG: {name}: other values later", stop)
    return tally


def train_to_the_end(path):
    """What each killed process was doing; writes the final values beside the checkpoint."""
    # what one has compiled the others read, so that most of their time is training
    jax.config.update("jax_compilation_cache_dir", str(path.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    trainer = pxt.Trainer(algorithm(), [pxt.Checkpoint(path)], progress=False)
    trainer.fit(pxt.batches(*data(), 4, shuffle=True, rkg=3), 30, resume=True)
    final = path.with_suffix(".final")
    temporary = path.with_suffix(".part")
    temporary.write_text(repr(content(trainer.algorithm)))
    temporary.rename(final)


def cpu_seconds(pid):
    """The processor time of a process so far, of all its threads."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def forked(path, delay=None):
    """Train in a child process, killed after `delay` seconds of its processor time.

    Returns:
        Whether it came to its end; the processor time that it took, and that until its first
        checkpoint. The time of a clock would kill all runs before their first step where other
        work keeps the machine busy.
    """
    saved = None
    child = os.fork()
    if child == 0:
        try:
            train_to_the_end(path)
        finally:
            os._exit(0)
    while not (ended := os.wait4(child, os.WNOHANG))[0]:
        if saved is None and path.exists():
            saved = cpu_seconds(child)
        if delay is not None and cpu_seconds(child) >= delay:
            os.kill(child, signal.SIGKILL)
            delay = None
        time.sleep(0.003)
    usage = ended[2]
    at_end = ended[1] == 0 and path.with_suffix(".final").exists()
    total = usage.ru_utime + usage.ru_stime
    return at_end, total, total if saved is None else saved


def kills(count, folder, rng):
    """`kill -9` at any moment, then `resume=True`, until each run is at its end."""
    tally = Tally("kill -9")
    reference = folder / "reference.npz"
    for path in (folder / "compile.npz", reference):
        at_end, seconds, first = forked(path)
        assert at_end, "a run without a kill failed"
    expected = reference.with_suffix(".final").read_text()
    killed = run = 0
    while killed < count:
        path = folder / f"run{run}.npz"
        run += 1
        while not forked(path, rng.uniform(0.8 * first, 1.1 * seconds))[0]:
            killed += 1
            tally.note("killed before its first checkpoint" if not path.exists() else "killed")
        same = path.with_suffix(".final").read_text() == expected
        tally.note(
            "run ended, bit-equal" if same else "WRONG: run ended with other values", path.name
        )
    return tally


SHORT = {"kills": 6, "flips": 200, "disk": 20, "points": 40}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, number in SHORT.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--record", action="store_true", help="write benchmarks/results/faults/DATE.json"
    )
    arguments = parser.parse_args()
    parts = {"kills": kills, "flips": flips, "disk": full_disk, "points": points}
    tallies = {}
    with tempfile.TemporaryDirectory() as folder:
        # kills first: a process that has used JAX must not fork
        for name, part in parts.items():
            if number := getattr(arguments, name):
                start = time.perf_counter()
                tally = part(number, Path(folder), random.Random(arguments.seed))
                tally.show()
                tallies[tally.name] = {
                    "tried": sum(tally.counts.values()),
                    "wrong": tally.wrong,
                    "outcomes": dict(tally.counts.most_common()),
                    "seconds": round(time.perf_counter() - start),
                }
    if arguments.record:
        record = {
            "machine": machine.describe(),
            "command": " ".join(["python -m tests.faults", *sys.argv[1:]]),
            "faults": tallies,
        }
        print(f"\nwrote {machine.write_record(record, 'faults')}")
    sys.exit(any(tally["wrong"] for tally in tallies.values()))


if __name__ == "__main__":
    main()
