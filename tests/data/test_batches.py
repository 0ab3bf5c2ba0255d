"""`batches`: every sample once per epoch, in an order that can be had again."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcx.data import batches


def epoch_of(loader):
    return [x.tolist() for x, _ in loader]


def flat(loader):
    return np.concatenate([x for x, _ in loader]).tolist()


@given(
    n=st.integers(1, 50),
    batch_size=st.integers(1, 60),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_every_sample_once_and_len_counts_its_batches(
    n, batch_size, shuffle, drop_last
):
    if drop_last and batch_size > n:
        return
    loader = batches(
        np.arange(n), np.arange(n) * 10, batch_size, shuffle=shuffle, drop_last=drop_last
    )
    pairs = list(loader)

    assert len(pairs) == len(loader)
    sizes = [len(x) for x, _ in pairs]
    expected = [batch_size] * (n // batch_size)
    if n % batch_size and not drop_last:
        expected.append(n % batch_size)
    assert sizes == expected
    seen = [value for x, _ in pairs for value in x.tolist()]
    assert len(set(seen)) == len(seen) == sum(expected)
    assert [value for _, y in pairs for value in y.tolist()] == [value * 10 for value in seen]
    if not shuffle:
        assert seen == list(range(sum(expected)))


def test_every_epoch_has_another_order_and_a_second_loader_has_the_same_ones():
    x = np.arange(100)
    loader, again = (batches(x, x, 10, shuffle=True, rkg=3) for _ in range(2))
    orders = [flat(loader) for _ in range(3)]
    assert orders == [flat(again) for _ in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert list(range(100)) not in orders


def test_another_seed_gives_another_order():
    x = np.arange(100)
    assert flat(batches(x, x, 10, shuffle=True, rkg=0)) != flat(
        batches(x, x, 10, shuffle=True, rkg=1)
    )


def test_the_default_seed_is_fixed():
    x = np.arange(100)
    assert flat(batches(x, x, 10, True)) == flat(batches(x, x, 10, True, rkg=0))


def test_a_run_can_be_resumed_at_an_epoch():
    x = np.arange(40)
    whole = batches(x, x, 8, shuffle=True)
    orders = [flat(whole) for _ in range(5)]
    assert whole.epoch == 5

    resumed = batches(x, x, 8, shuffle=True)
    resumed.epoch = 3
    assert [flat(resumed) for _ in range(2)] == orders[3:]


def test_a_loop_left_early_counts_as_an_epoch():
    x = np.arange(40)
    expected = batches(x, x, 8, shuffle=True)
    flat(expected)
    loader = batches(x, x, 8, shuffle=True)
    next(iter(loader))
    assert loader.epoch == 1
    assert flat(loader) == flat(expected)


def test_two_loops_at_once_do_not_disturb_each_other():
    x = np.arange(40)
    alone = batches(x, x, 8, shuffle=True)
    orders = [epoch_of(alone), epoch_of(alone)]
    loader = batches(x, x, 8, shuffle=True)
    pairs = list(zip(loader, loader, strict=True))
    assert [[a.tolist() for (a, _), _ in pairs], [b.tolist() for _, (b, _) in pairs]] == orders


def test_orders_are_uniform():
    x = np.arange(3)
    loader = batches(x, x, 3, shuffle=True)
    orders = [tuple(flat(loader)) for _ in range(1200)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    # Binomial(1200, 1/6): mean 200, deviation 12.9; five of these.
    assert max(abs(count - 200) for count in counts) < 65


def test_without_shuffling_batches_are_views():
    x = np.arange(10)
    assert all(np.shares_memory(batch, x) for batch, _ in batches(x, x, 3))


def test_lists_and_jax_arrays_are_taken():
    loader = batches([[1, 2], [3, 4]], jax.numpy.arange(2), 2)
    x, y = next(iter(loader))
    assert isinstance(x, np.ndarray)
    assert isinstance(y, np.ndarray)
    assert (x.tolist(), y.tolist()) == ([[1, 2], [3, 4]], [0, 1])


class Keys:
    """What a `RandomKeyGenerator` is to `batches`: something called for a new key."""

    def __init__(self, make):
        self.key = make(0)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        self.key, key = jax.random.split(self.key)
        return key


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_a_key_generator_is_asked_once_and_decides_the_order(make):
    x = np.arange(100)
    keys = Keys(make)
    first, second = (batches(x, x, 10, shuffle=True, rkg=keys) for _ in range(2))
    assert keys.calls == 2
    order = flat(first)
    assert order != flat(second)
    assert order == flat(batches(x, x, 10, shuffle=True, rkg=Keys(make)))


def test_a_key_generator_is_left_alone_where_nothing_is_random():
    keys = Keys(jax.random.key)
    flat(batches(np.arange(4), np.arange(4), 2, rkg=keys))
    assert keys.calls == 0


def test_a_transform_gets_every_batch_and_a_generator_that_epochs_decide():
    def add_noise(x, rng):
        return x + rng.random(len(x))

    x = np.zeros(10)
    loader = batches(x, np.arange(10), 4, transform=add_noise)
    first, second = flat(loader), flat(loader)
    assert len(set(first + second)) == 20
    assert [y.tolist() for _, y in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    loader.epoch = 1
    assert flat(loader) == second
    assert flat(batches(x, x, 4, transform=add_noise)) == first
    assert flat(batches(x, x, 4, transform=add_noise, rkg=1)) != first


def test_repr_gives_the_sizes():
    text = "Batches(samples=5, batch_size=2, batches=3, shuffle=False, epoch=0)"
    assert repr(batches(np.arange(5), np.arange(5), 2)) == text


@pytest.mark.parametrize(
    ("x", "y"), [(np.zeros((3, 2)), np.zeros(2)), (np.zeros(()), np.zeros(()))]
)
def test_x_and_y_must_have_one_length(x, y):
    with pytest.raises(ValueError, match=r"x has shape \(.*\) and y \(.*\); their first axes must"):
        batches(x, y, 2)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_the_batch_size_must_be_positive(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}; it must be at least 1"):
        batches(np.arange(3), np.arange(3), batch_size)


@pytest.mark.wrong_types
@pytest.mark.parametrize(("batch_size", "kind"), [(2.0, "float"), (True, "bool"), (None, "NoneTy")])
def test_the_batch_size_must_be_an_integer(batch_size, kind):
    with pytest.raises(TypeError, match=f"batch_size={batch_size} is a {kind}"):
        batches(np.arange(3), np.arange(3), batch_size)


def test_a_seed_must_not_be_negative():
    with pytest.raises(ValueError, match="rkg=-1; a seed must be 0 or more"):
        batches(np.arange(3), np.arange(3), 2, shuffle=True, rkg=-1)


@pytest.mark.wrong_types
def test_a_source_of_keys_must_be_one():
    with pytest.raises(TypeError, match="rkg is a str; pass an integer seed or a RandomKeyGenerat"):
        batches(np.arange(3), np.arange(3), 2, shuffle=True, rkg="0")


@pytest.mark.parametrize(("n", "drop_last"), [(0, False), (3, True)])
def test_a_loader_without_batches_is_refused(n, drop_last):
    with pytest.raises(
        ValueError, match=f"{n} samples make no batch of 4 with drop_last={drop_last}"
    ):
        batches(np.arange(n), np.arange(n), 4, drop_last=drop_last)
