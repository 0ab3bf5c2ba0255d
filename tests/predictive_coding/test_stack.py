"""`Stack` is the separate layers, computed at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

N, WIDTH = 5, 6


def block():
    return pxnn.Sequential(pxnn.Linear(WIDTH, WIDTH), jax.nn.tanh)


class Separate(pxc.EnergyModule):
    def __init__(self):
        self.first = pxnn.Linear(3, WIDTH)
        self.first_vode = pxc.Vode((WIDTH,))
        self.blocks = [block() for _ in range(N)]
        self.vodes = [pxc.Vode((WIDTH,)) for _ in range(N)]
        self.last = pxnn.Linear(WIDTH, 2)
        self.output = pxc.Vode((2,))
        self.output.h.frozen = True

    def hidden(self, x):
        for layer, vode in zip(self.blocks, self.vodes, strict=True):
            x = vode(layer(x))
        return x

    def __call__(self, x, y=None):
        x = self.hidden(self.first_vode(self.first(x)))
        self.output(self.last(x))
        if y is not None:
            self.output.set("h", y)
        return self.output.get("u")


class Stacked(Separate):
    def __init__(self):
        super().__init__()
        del self.blocks, self.vodes
        self.stack = pxc.Stack(block, N, shape=(WIDTH,))

    def hidden(self, x):
        return self.stack(x)


@pytest.fixture
def pair():
    """The same network twice, separate and stacked."""
    separate, stacked = Separate(), Stacked()
    for name in ("first", "last"):
        for attribute in ("weight", "bias"):
            value = getattr(getattr(separate, name).nn, attribute).get()
            getattr(getattr(stacked, name).nn, attribute).set(value)
    for attribute in ("weight", "bias"):
        values = [getattr(b[0].nn, attribute).get() for b in separate.blocks]
        getattr(stacked.stack.block[0].nn, attribute).set(jnp.stack(values))
    return separate, stacked


@pytest.fixture
def batch():
    x = jax.random.normal(jax.random.PRNGKey(1), (4, 3))
    return x, jax.nn.one_hot(jnp.array([0, 1, 1, 0]), 2)


def test_a_forward_pass_gives_the_states_of_the_separate_layers(pair):
    x = jnp.arange(3.0)
    for model in pair:
        with pxu.step(model, pxc.STATUS.INIT):
            model(x)
    separate, stacked = pair
    expected = jnp.stack([v.h.get() for v in separate.vodes])
    np.testing.assert_allclose(stacked.stack.vode.h.get(), expected, atol=1e-6)


@pytest.mark.parametrize("T", [1, 3, 8])
def test_training_steps_equal_those_of_the_separate_layers(pair, batch, T):
    results = []
    for model in pair:
        pc = pxa.PC(model, T, optax.sgd(0.1, momentum=0.5), optax.sgd(0.05))
        results.append([float(pc.train_step(*batch)["energy"]) for _ in range(3)])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
    separate, stacked = pair
    expected = jnp.stack([b[0].nn.weight.get() for b in separate.blocks])
    np.testing.assert_allclose(stacked.stack.block[0].nn.weight.get(), expected, atol=1e-6)


def test_the_compiled_program_is_as_long_at_any_depth():
    def size(n):
        stack = pxc.Stack(block, n, shape=(WIDTH,))
        stack.vode.h.set(jnp.zeros((n, WIDTH)))

        def energy(x, *, stack):
            stack(x)
            return stack.energy()

        f = pxf.jit()(pxf.value_and_grad(pxu.M(pxc.VodeParam))(energy))
        return len(f.lower(jnp.ones(WIDTH), stack=stack).as_text().splitlines())

    assert size(40) == size(4)


def test_a_forward_status_makes_the_states_follow():
    stack = pxc.Stack(block, 3, shape=(WIDTH,), ruleset={"forward": "h -> u"})
    with pxu.step(stack, pxc.STATUS.INIT):
        stack(jnp.ones(WIDTH))
    before = stack.vode.h.get()
    with pxu.step(stack, "forward"):
        top = stack(2 * jnp.ones(WIDTH))
        np.testing.assert_allclose(top, stack.vode.get("u")[-1])
    np.testing.assert_array_equal(stack.vode.h.get(), before)
    assert not np.allclose(top, before[-1])


def test_random_layers_draw_different_numbers_in_each_layer():
    stack = pxc.Stack(lambda: pxnn.Sequential(pxnn.Dropout(0.5)), 3, shape=(50,))
    stack.vode.h.set(jnp.ones((3, 50)))
    px.RKG.seed(1)
    stack(jnp.ones(50))
    u = np.asarray(stack.vode.get("u"))
    assert not np.array_equal(u[0], u[1])
    assert set(np.unique(u)) == {0.0, 2.0}


def test_wrong_blocks_are_refused():
    with pytest.raises(ValueError, match=r"at least one layer; got n = 0"):
        pxc.Stack(block, 0)
    with pytest.raises(TypeError, match="builds a callable module"):
        pxc.Stack(lambda: jax.nn.relu, 1)
    sizes = iter([4, 5])
    with pytest.raises(ValueError, match="must be equal but for their numbers"):
        pxc.Stack(lambda: pxnn.Linear(4, next(sizes)), 2)
    with pytest.raises(ValueError, match="states are empty"):
        pxc.Stack(block, 2)(jnp.ones(WIDTH))
    noisy = pxc.Stack(
        block, 2, ruleset={"init": "h, u <- u:f"}, tforms={"f": lambda vode, key, value, rkg: value}
    )
    with (
        pytest.raises(ValueError, match="transforms the state of one layer"),
        pxu.step(noisy, "init"),
    ):
        noisy(jnp.ones(WIDTH))


def test_all_predictions_equal_bare_equinox(pair):
    _, stacked = pair
    stack = stacked.stack
    layers = [
        eqx.tree_at(
            lambda m: (m.weight, m.bias),
            eqx.nn.Linear(WIDTH, WIDTH, key=jax.random.PRNGKey(0)),
            (stack.block[0].nn.weight.get()[i], stack.block[0].nn.bias.get()[i]),
        )
        for i in range(N)
    ]
    h = jax.random.normal(jax.random.PRNGKey(2), (N, WIDTH))
    stack.vode.h.set(h)
    x = jnp.ones(WIDTH)
    below = [x, *h[:-1]]
    expected = jnp.stack([jnp.tanh(f(b)) for f, b in zip(layers, below, strict=True)])
    stack(x)
    np.testing.assert_allclose(stack.vode.get("u"), expected, atol=1e-6)
    assert float(stack.energy()) == pytest.approx(
        float(0.5 * jnp.sum((h - expected) ** 2)), rel=1e-5
    )


class Shares(px.Module):
    """A block with a layer of its own and one that it was given."""

    def __init__(self, given):
        self.own, self.given = pxnn.Linear(WIDTH, WIDTH), given

    def __call__(self, x):
        return jnp.tanh(self.given(jnp.tanh(self.own(x))))


class Chain(pxc.EnergyModule):
    def __init__(self, make_block):
        self.stack = pxc.Stack(make_block, N, shape=(WIDTH,))
        self.out = pxc.Vode((WIDTH,))
        self.out.h.frozen = True

    def __call__(self, x, y=None):
        u = self.stack(x)
        self.out(u)
        if y is not None:
            self.out.set("h", y)
        return u


def test_a_layer_that_all_blocks_share_stays_one_and_has_the_sum_of_their_gradients():
    given = pxnn.Linear(WIDTH, WIDTH)
    net = Chain(lambda: Shares(given))
    assert net.stack.block.given.nn.weight is given.nn.weight
    assert [p.shape for p in px.tree_extract(net, pxnn.LayerParam)] == [
        (WIDTH, WIDTH), (WIDTH,), (N, WIDTH, WIDTH), (N, WIDTH)
    ]  # fmt: skip
    nn, own = given.nn, net.stack.block.own.nn
    params = tuple(p.get() for p in (nn.weight, nn.bias, own.weight, own.bias))
    rng = np.random.default_rng(3)
    xs, ys = (rng.normal(size=(6, WIDTH)).astype("f4") for _ in range(2))

    def layer(params, k, h):
        w, b, v, c = params
        return jnp.tanh(w @ jnp.tanh(v[k] @ h + c[k]) + b)

    def energy(params, hs, x, y):
        total, below = 0.0, x
        for k, h in enumerate(hs):
            total = total + 0.5 * jnp.sum((h - layer(params, k, below)) ** 2)
            below = h
        return total + 0.5 * jnp.sum((y - below) ** 2)

    def one(x, y):
        hs, below = [], x
        for k in range(N):
            below = layer(params, k, below)
            hs.append(below)
        for _ in range(4):
            grads = jax.grad(energy, 1)(params, hs, x, y)
            hs = [h - 0.1 * g for h, g in zip(hs, grads, strict=True)]
        return jax.grad(energy)(params, hs, x, y)

    grads = jax.vmap(one)(xs, ys)
    pxa.PC(net, 4, optax.sgd(0.1), optax.sgd(1.0)).train_step(xs, ys)
    for p, old, g in zip((nn.weight, nn.bias, own.weight, own.bias), params, grads, strict=True):
        np.testing.assert_allclose(p, old - g.mean(0), rtol=1e-4, atol=1e-5)


def test_a_layer_that_a_block_uses_twice_stays_one_in_each_block():
    def make():
        layer = pxnn.Linear(WIDTH, WIDTH)
        return pxnn.Sequential(layer, jnp.tanh, layer)

    stack = pxc.Stack(make, N, shape=(WIDTH,))
    assert stack.block[0].nn.weight is stack.block[2].nn.weight
    w, b = stack.block[0].nn.weight.get(), stack.block[0].nn.bias.get()
    with pxu.step(stack, pxc.STATUS.INIT):
        top = stack(jnp.ones(WIDTH))
    h = jnp.ones(WIDTH)
    for k in range(N):
        h = w[k] @ jnp.tanh(w[k] @ h + b[k]) + b[k]
    np.testing.assert_allclose(top, h, rtol=1e-5)


def test_what_a_stack_cannot_share_is_refused():
    given = pxnn.Linear(WIDTH, WIDTH)
    others = iter([given, given, pxnn.Linear(WIDTH, WIDTH)])
    with pytest.raises(
        ValueError, match=r"`given\.nn\.weight` is one param in some of the 3 blocks"
    ):
        pxc.Stack(lambda: Shares(next(others)), 3)
    chain = [pxnn.Linear(WIDTH, WIDTH) for _ in range(4)]
    pairs = iter([pxnn.Sequential(*chain[k : k + 2]) for k in range(3)])
    with pytest.raises(ValueError, match="is one param in some of the 3 blocks"):
        pxc.Stack(lambda: next(pairs), 3)
    norm = pxnn.BatchNorm(WIDTH, "batch")
    with pytest.raises(ValueError, match=r"share `given\.state`, the state of a layer"):
        pxc.Stack(lambda: Shares(norm), 3)


def test_a_generator_in_a_block_draws_other_numbers_in_each_layer():
    class Noise(px.Module):
        def __init__(self):
            self.rkg = px.RandomKeyGenerator(1)

        def __call__(self, x):
            return x + jax.random.normal(self.rkg(), x.shape)

    stack = pxc.Stack(Noise, 3, shape=(5,))
    noise = []
    for _ in range(2):
        with pxu.step(stack, pxc.STATUS.INIT):
            stack(jnp.zeros(5))
        noise.append(jnp.diff(stack.vode.h.get(), axis=0, prepend=0.0))
        stack(jnp.zeros(5))
        noise.append(stack.vode.get("u") - jnp.concatenate([jnp.zeros((1, 5)), stack.vode.h[:-1]]))
    rows = np.concatenate(noise).round(4)
    assert len(np.unique(rows, axis=0)) == 12
