"""Fixtures for every test and doctest. Must not import pcx: see CONTRIBUTING.md."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from typing import TypeVar

import jax
import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

T = TypeVar("T")

# An int is a float, as static checkers have it.
_CONF = BeartypeConf(is_pep484_tower=True)


def beartyped(function: T) -> T:
    """The type checker of `make test`: `--jaxtyping-packages=pcx,conftest.beartyped`.

    Beartype resolves `Self` only when it decorates the class, and jaxtyping decorates methods;
    those that mention it stay unchecked.
    """
    try:
        return beartype(conf=_CONF)(function)
    except BeartypeDecorHintPep673Exception:
        return function


_CACHE = pytest.StashKey[str]()
_PLAIN = "JAX_DISABLE_MOST_OPTIMIZATIONS"


def pytest_configure(config: pytest.Config) -> None:
    """One run compiles each computation once: its processes share a cache, which ends with it."""
    # a shell starts jobs in the background with Ctrl-C ignored, and tests raise it
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        config.stash[_CACHE] = tempfile.mkdtemp(prefix="pcx-tests-")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = config.stash[_CACHE]
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # two thirds of the time of these tests is XLA compiling programs that then run for microseconds;
    # `make test-slow` and files marked `optimised` have it optimise as users do
    os.environ.setdefault(_PLAIN, "1")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete the cache, in the process that made it."""
    if _CACHE in config.stash:
        shutil.rmtree(config.stash[_CACHE], ignore_errors=True)


@pytest.fixture(autouse=True)
def _annotations_unchecked(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("wrong_types") is None:
        yield
        return
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="module", autouse=True)
def _optimisation_of_xla(request: pytest.FixtureRequest) -> None:
    plain = os.environ[_PLAIN] == "1" and request.node.get_closest_marker("optimised") is None
    if jax.config.read("jax_disable_most_optimizations") != plain:
        jax.config.update("jax_disable_most_optimizations", plain)
        # a program compiled the other way must not be compared with one compiled this way
        jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def _garbage_collected_once() -> Iterator[None]:
    """What a module leaves alive (compiled functions above all) is not searched for garbage again."""
    yield
    gc.collect()
    gc.freeze()
