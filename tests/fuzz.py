# ruff: noqa: T201
"""Random programs, run by pcx and by an interpreter that does not know pcx; the results must be equal.

    python -m tests.fuzz                                    # the short form, as CI runs it
    python -m tests.fuzz --programs 100000 --masks 100000 --rules 100000 --record
    python -m tests.fuzz --programs 1 --masks 0 --rules 0 --seed 47    # one again, printed if wrong

A program is a tree of params (nested, shared, frozen, empty, with keys) and statements on it under
nested transforms. It ends with equal values (float64), or, where the plain program has no meaning, with
an error of pcx that says so and that leaves every value as it was. Anything else is counted as wrong.
Masks are compared with sets, and the rules of vodes with dictionaries, in the same way.
"""

import argparse
import collections
import pprint
import sys
import time
import traceback
import unittest.mock

import jax
import numpy as np

from benchmarks import machine
from tests.fuzzing import masks, rules
from tests.fuzzing.generate import Generator
from tests.fuzzing.plain import Meaningless, Plain
from tests.fuzzing.tracked import Tracked

# what pcx raises on purpose
DOCUMENTED = (ValueError, TypeError, RuntimeError)
# what the body of a function raises where it uses an array as a param, or one of another shape
USED_WITHIN = ("replace", "misshape")
OF_THE_BODY = (TypeError, AttributeError, ValueError)


def differences(tracked, plain):
    """What is not equal after a program."""
    (values, local), (expected, expected_local) = tracked.observed(), plain.observed()
    found = []
    for name, value in expected.items():
        if not equal(values[name], value):
            found.append(f"param {name}: {values[name]} instead of {value}")
    if len(local) != len(expected_local):
        found.append(f"{len(local)} local values instead of {len(expected_local)}")
    for i, (value, other) in enumerate(zip(local, expected_local, strict=False)):
        if not equal(value, other):
            found.append(f"local {i}: {value} instead of {other}")
    return found


def equal(value, expected):
    if value is None or expected is None:
        return value is expected
    value, expected = np.asarray(value), np.asarray(expected)
    return value.shape == expected.shape and np.allclose(
        value, expected, rtol=1e-9, atol=1e-11, equal_nan=True
    )


def judge(seed, traced=0.03):
    """One program: `(outcome, details)`; an outcome that starts with WRONG is a fault."""
    program = Generator(seed, traced).program()
    tracked, plain = Tracked(program), Plain(program)
    try:
        failed, illegal = tracked.run(), plain.run()
        if failed is not None and illegal is None:
            # JAX refuses by what any branch or iteration may do
            plain = Plain(program, joined=True)
            illegal = plain.run()
    except Meaningless as error:
        return f"no meaning: {error}", []
    except Exception:
        if "'swap'" not in repr([s[6] for s in program.body if s[0] == "call"]):
            raise
        # the later call finds params of other shapes, or without a value, than the body was made for
        return "no meaning: a swap between two calls", []
    if failed != illegal:
        error = tracked.error
        what = f"{type(error).__name__}: {error}" if error else f"no error; expected: {plain.error}"
        return "WRONG: one of the two refused it", [f"statements {failed}, {illegal}", what]
    if failed is not None:
        documented = isinstance(tracked.error, DOCUMENTED) and "pxf." in str(tracked.error)
        # what is no param, or has another shape, is used before the body ends and pcx can say so
        used = str(plain.error) in USED_WITHIN and isinstance(tracked.error, OF_THE_BODY)
        if not documented and not used:
            return "WRONG: an error without an explanation", [repr(tracked.error)[:500]]
    if found := differences(tracked, plain):
        return "WRONG: other values", found
    if failed is not None:
        return f"refused: {plain.error}", []
    return "equal, compiled" if program.traced else "equal", []


SPLIT = jax.random.split


def split(key, num=2):
    # hundreds of primitives, were they run one by one
    with jax.disable_jit(False):
        return SPLIT(key, num)


def judge_program(seed):
    with unittest.mock.patch.object(jax.random, "split", split):
        return judge(seed)


def simple(judge_one):
    """The outcome of a part that says what is wrong, or None."""

    def judged(seed):
        wrong = judge_one(seed)
        return ("equal", []) if wrong is None else ("WRONG: other values", [wrong])

    return judged


PARTS = {
    "programs": judge_program,
    "masks": simple(masks.judge),
    "rules": simple(rules.judge),
}


def run(name, count, seed, seconds):
    """Judge `count` cases, or fewer in that time; a table of outcomes."""
    counts, wrong, start, n = collections.Counter(), [], time.perf_counter(), seed
    while n < seed + count and time.perf_counter() - start < seconds:
        try:
            outcome, details = PARTS[name](n)
        except Exception:
            outcome, details = "WRONG: the fuzzer failed", [traceback.format_exc()]
        counts[outcome] += 1
        if outcome.startswith("WRONG"):
            wrong.append(n)
            print(f"{name}, seed {n}: {outcome}", *details, sep="\n  ", flush=True)
            if name == "programs" and count == 1:
                pprint.pp(Generator(n).program(), width=140)
        n += 1
    took = time.perf_counter() - start
    print(f"{name}: {n - seed} tried, {len(wrong)} wrong, {took:.0f} s", flush=True)
    for outcome, number in counts.most_common():
        print(f"  {number:6d}  {outcome}")
    return {
        "tried": n - seed,
        "wrong": len(wrong),
        "seeds": [seed, n - 1],
        "wrong_seeds": wrong,
        "outcomes": dict(counts.most_common()),
        "seconds": round(took),
    }


SHORT = {"programs": 15, "masks": 500, "rules": 500}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, number in SHORT.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each part")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="at most, for each part"
    )
    parser.add_argument(
        "--record", action="store_true", help="write benchmarks/results/fuzz/DATE.json"
    )
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # compiling takes most of the time
    found = {}
    for name in PARTS:
        if count := getattr(arguments, name):
            found[name] = run(name, count, arguments.seed, 60 * arguments.minutes)
    if arguments.record:
        record = {
            "machine": machine.describe(),
            "command": " ".join(["python -m tests.fuzz", *sys.argv[1:]]),
            "fuzz": found,
        }
        print(f"\nwrote {machine.write_record(record, 'fuzz')}")
    sys.exit(any(part["wrong"] for part in found.values()))


if __name__ == "__main__":
    main()
