"""Random key generators against `jax.random.split`."""

import copy
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

import pcx as px


def data(keys):
    return np.asarray(keys)


def expected_draws(seed, ns):
    """What a generator gives for a sequence of requests, by its definition."""
    key = jax.random.PRNGKey(seed)
    out = []
    for n in ns:
        keys = jax.random.split(key, 2 if n is None else n + 1)
        key = keys[0]
        out.append(keys[1] if n is None else keys[1:])
    return out


def test_draws_are_splits_of_the_key():
    rkg = px.RandomKeyGenerator(5)
    ns = [None, 3, None, 1, 0, 7]
    for n, want in zip(ns, expected_draws(5, ns), strict=True):
        np.testing.assert_array_equal(data(rkg(n)), data(want))


@pytest.mark.parametrize("n", range(6))
def test_any_number_of_keys_can_be_asked_for(n):
    keys = px.RandomKeyGenerator(0)(n)
    assert keys.shape == (n, 2)
    assert len({tuple(k) for k in data(keys).tolist()}) == n


def test_a_negative_number_is_refused_and_draws_nothing():
    rkg = px.RandomKeyGenerator(0)
    before = data(rkg.key.get())
    with pytest.raises(ValueError, match=r"rkg\(n\) returns n >= 0 keys, got n = -1"):
        rkg(-1)
    np.testing.assert_array_equal(data(rkg.key.get()), before)


def test_seeding_starts_again():
    a, b = px.RandomKeyGenerator(1), px.RandomKeyGenerator(2)
    assert data(a()).tolist() != data(b()).tolist()
    b.seed(1)
    a.seed(1)
    np.testing.assert_array_equal(data(a(4)), data(b(4)))


@pytest.mark.parametrize(
    "twin",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("which", ["own", "default"])
def test_a_copy_is_an_independent_generator_in_the_same_state(which, twin):
    original = px.RandomKeyGenerator(3) if which == "own" else px.RKG
    new = twin(original)
    assert type(new) is px.RandomKeyGenerator
    first = data(new())
    np.testing.assert_array_equal(first, data(original()))
    new()
    assert data(new.key.get()).tolist() != data(original.key.get()).tolist()


def test_the_default_generator_is_a_module_with_one_param():
    leaves = jax.tree.leaves(px.RKG)
    assert len(leaves) == 1
    assert leaves[0] is px.RKG.key.get()
    again = jax.tree.map(lambda x: x, px.RKG)
    assert type(again) is px.RandomKeyGenerator
    assert repr(px.RKG) == "px.RKG"


def run(code, **env):
    full = {**os.environ, "JAX_PLATFORMS": "cpu", **env}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=full)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_unseeded_script_is_reproducible_and_its_seed_is_zero():
    first, again = (run("import pcx as px; print(*px.RKG().tolist())") for _ in range(2))
    assert first == again == [str(x) for x in expected_draws(0, [None])[0].tolist()]


def test_importing_pcx_does_not_start_a_backend():
    # the number of host devices is read when the backend starts
    code = (
        "import os, pcx, jax\n"
        "os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=3'\n"
        "print(len(jax.devices()))"
    )
    assert run(code, XLA_FLAGS="") == ["3"]


def test_the_first_use_may_happen_while_tracing():
    code = (
        "import pcx as px, pcx.functional as pxf\n"
        "f = pxf.jit()(lambda: px.RKG())\n"
        "print(*f().tolist(), *px.RKG().tolist())"
    )
    want = [x for key in expected_draws(0, [None, None]) for x in key.tolist()]
    assert run(code) == [str(x) for x in want]


@pytest.mark.parametrize(
    "transform",
    [
        jax.jit,
        jax.checkpoint,
        lambda f: lambda x: jax.lax.scan(lambda c, _: (c, f(x)), 0, None, 2),
        lambda f: lambda x: jax.eval_shape(f, x),
    ],
    ids=["jit", "checkpoint", "scan", "eval_shape"],
)
@pytest.mark.parametrize("default", [True, False])
def test_drawing_inside_a_transform_of_jax_is_refused(transform, default):
    rkg = px.RKG if default else px.RandomKeyGenerator(0)
    rkg()
    before = data(rkg.key.get())
    with pytest.raises(RuntimeError, match="generator draws inside a JAX transform that does not"):
        transform(lambda x: jax.random.normal(rkg(), x.shape))(np.ones(3))
    np.testing.assert_array_equal(data(rkg.key.get()), before)
