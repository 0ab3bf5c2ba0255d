"""Training in the modes of JAX that watch over types, keys and transfers; the rest is in `tests/modes.py`.

The oracle is the same run in JAX's default mode.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.training as pxt
import pcx.utils as pxu
from tests import modes

X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = np.eye(2, dtype=np.float32)[np.arange(24) % 2]


class Noisy(pxc.EnergyModule):
    """Dropout draws from the default key, layers from one of their own."""

    def __init__(self):
        rkg = px.RandomKeyGenerator(1)
        self.layers = [pxnn.Linear(3, 8, rkg=rkg), pxnn.Linear(8, 2, rkg=rkg)]
        self.drop = pxnn.Dropout(0.3)
        self.vodes = [pxc.Vode((8,)), pxc.Vode((2,), pxc.ce_energy)]
        self.vodes[-1].h.frozen = True

    def __call__(self, x, y=None):
        x = self.vodes[0](self.drop(jnp.tanh(self.layers[0](x))))
        u = self.vodes[1](self.layers[1](x))
        if y is not None:
            self.vodes[1].set("h", y)
        return u


def made():
    px.RKG.seed(3)
    return pxa.PC(Noisy(), 3, optax.sgd(0.1, momentum=0.5), optax.adamw(1e-2))


def weights(algorithm):
    return [np.asarray(p.get()) for p in algorithm.weights()]


def fitted(algorithm, path, **options):
    trainer = pxt.Trainer(algorithm, [pxt.Checkpoint(path)], progress=False, **options)
    batches = pxt.batches(X, Y, 8, shuffle=True)
    trainer.fit(batches, 1, val=batches)
    trainer.fit(batches, 2, val=batches, resume=True)
    trainer.predict(X, batch_size=10)
    pxu.save_params(algorithm.model, f"{path}-weights")
    pxu.load_params(algorithm.model, f"{path}-weights")
    return trainer.history.epoch["val_energy"], weights(algorithm)


def same(one, other):
    np.testing.assert_array_equal(one[0], other[0])
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_makes_no_implicit_promotion_of_types(tmp_path):
    default = fitted(made(), tmp_path / "default")
    with jax.numpy_dtype_promotion("strict"):
        same(fitted(made(), tmp_path / "strict"), default)


def test_keys_are_typed_where_jax_refuses_raw_ones_and_draw_the_same(tmp_path):
    default = fitted(made(), tmp_path / "default")
    with jax.legacy_prng_key("error"):
        same(fitted(made(), tmp_path / "typed"), default)
        px.RKG.seed(5)
        typed = jax.random.normal(px.RKG(), (3,))  # JAX takes what a user is given
    px.RKG.seed(5)
    np.testing.assert_array_equal(typed, jax.random.normal(px.RKG(), (3,)))
    assert px.RKG().dtype == jnp.uint32  # as in PCX


def test_a_raw_key_from_before_draws_where_jax_refuses_raw_ones():
    rkg = px.RandomKeyGenerator(7)
    expected = jax.random.normal(px.RandomKeyGenerator(7)(), (3,))
    with jax.legacy_prng_key("error"):
        np.testing.assert_array_equal(jax.random.normal(rkg(), (3,)), expected)


@pytest.mark.parametrize("options", [{}, {"steps_per_call": 2}], ids=["one", "two in a call"])
def test_training_makes_no_implicit_transfer(tmp_path, options):
    default = fitted(made(), tmp_path / "default", **options)
    algorithm = made()  # JAX itself refuses `jnp.zeros` below
    with jax.transfer_guard("disallow"):
        same(fitted(algorithm, tmp_path / "guarded", **options), default)


def test_a_guard_still_watches_over_functions_of_the_users_own():
    with (
        jax.transfer_guard("disallow"),
        pytest.raises(Exception, match="Disallowed host-to-device"),
    ):
        jax.jit(lambda a: a)(X)


@pytest.mark.slow
@pytest.mark.parametrize("mode", modes.MODES)
def test_the_demo_trains_in_every_mode(mode):
    found = modes.run(mode, epochs=4)
    if mode in modes.REFUSED:
        assert not found["trained"]
        assert modes.REFUSED[mode] in found["error"]
    else:
        assert found["trained"], found["stderr"][-2000:]
        first, last = found["energies"]
        assert last < 0.5 * first
