"""`pxf.vmap` against `jax.vmap` and against a loop over the elements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.predictive_coding as pxc
import pcx.utils as pxu


class State(px.Param):
    pass


class Model(px.Module):
    def __init__(self, n=4):
        self.w = px.Param(jnp.arange(1.0, 4.0))
        self.h = State(jnp.arange(3.0 * n).reshape(n, 3))
        self.act = jnp.tanh


MASK = pxu.M(State).to((None, 0))
X = jnp.arange(12.0).reshape(4, 3) / 7


def energy(x, *, model):
    model.h += model.act(model.w) * x
    return jnp.sum(model.h**2)


def by_hand(x, h, w):
    h = h + np.tanh(w) * x
    return (h**2).sum(-1), h


MASKS = {
    "mask for everything": MASK,
    "mask without values": pxu.M(State),
    "type": State,
    "union": State | pxc.VodeParam,
    "callable": lambda p: isinstance(p, State),
    "dict of masks": {"model": MASK},
    "dict of types": {"model": State},
    "dict of callables": {"model": lambda p: isinstance(p, State)},
    "tuple of names": {("model", "other"): MASK},
    "mask tree": {"model": MASK(Model())},
    "mask tree of params": {"model": pxu.M(State)(Model())},
}


@pytest.mark.parametrize("name", MASKS)
def test_every_form_of_a_mask_maps_the_params_it_selects(name):
    model, other = Model(), px.Param(1.0)
    want, h = by_hand(np.asarray(X), np.asarray(model.h.get()), np.asarray(model.w.get()))
    f = pxf.vmap(MASKS[name], in_axes=(0,))(lambda x, *, model, other: energy(x, model=model))
    got = f(X, model=model, other=other)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(model.h.get(), h, rtol=1e-6)
    assert model.w.get().tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_any_axis_of_params_arguments_and_results(axis, jit):
    model = Model()
    _, h = by_hand(np.asarray(X), np.asarray(model.h.get()), np.asarray(model.w.get()))
    model.h.set(jnp.moveaxis(model.h.get(), 0, axis))

    def fn(x, *, model):
        energy(x, model=model)
        return model.h * 1

    f = pxf.vmap(pxu.M(State).to((None, axis)), in_axes=(axis,), out_axes=axis)(fn)
    f = pxf.jit()(f) if jit else f
    out = f(jnp.moveaxis(X, 0, axis), model=model)
    np.testing.assert_allclose(jnp.moveaxis(out, axis, 0), h, rtol=1e-6)
    np.testing.assert_allclose(jnp.moveaxis(model.h.get(), axis, 0), h, rtol=1e-6)


def test_an_axis_for_a_param_by_name():
    h, w = px.Param(jnp.ones((4, 3))), px.Param(jnp.array(2.0))
    f = pxf.vmap({"h": 0, "w": None})(lambda *, h, w: jnp.sum(h * w))
    assert f(h=h, w=w).tolist() == [6.0] * 4


def test_plain_arrays_among_the_keyword_arguments_can_be_mapped():
    f = pxf.vmap({"x": 1}, in_axes=(0,))(lambda s, *, x: s * x)
    np.testing.assert_array_equal(f(jnp.arange(3.0), x=jnp.ones((2, 3))), [[0, 0], [1, 1], [2, 2]])


def test_params_that_are_pytrees_are_mapped_at_every_array():
    p = px.Param({"a": jnp.arange(3.0), "b": (jnp.ones((3, 2)), None, "name")})

    @pxf.vmap({"p": 0})
    def f(*, p):
        value = p.get()
        p.set({**value, "a": value["a"] + jnp.sum(value["b"][0])})
        return value["a"]

    assert f(p=p).tolist() == [0.0, 1.0, 2.0]
    assert p.get()["a"].tolist() == [2.0, 3.0, 4.0]
    assert p.get()["b"][1:] == (None, "name")


def test_prefixes_and_none_in_axes_are_those_of_jax():
    def fn(a, b, c):
        return a["x"] + b, c

    args = {"x": jnp.arange(3.0)}, jnp.arange(6.0).reshape(2, 3), jnp.array(5.0)
    for in_axes in [(0, 1, None), ({"x": 0}, 1, None), [0, 1, None]]:
        got = pxf.vmap({}, in_axes=in_axes, out_axes=(1, None))(fn)(*args)
        want = jax.vmap(fn, in_axes=tuple(in_axes), out_axes=(1, None))(*args)
        jax.tree.map(np.testing.assert_array_equal, got, want)
    got = pxf.vmap({}, in_axes=0)(lambda a, b: a * b)(jnp.arange(3.0), jnp.arange(3.0))
    assert got.tolist() == [0.0, 1.0, 4.0]


def test_collectives_over_a_named_axis():
    model = Model()

    @pxf.vmap(MASK, in_axes=(0,), out_axes=(None, 0), axis_name="batch")
    def f(x, *, model):
        return jax.lax.psum(jnp.sum(model.h * x), "batch"), jax.lax.axis_index("batch")

    total, index = f(X, model=model)
    np.testing.assert_allclose(total, (np.asarray(model.h.get()) * np.asarray(X)).sum(), rtol=1e-6)
    assert index.tolist() == [0, 1, 2, 3]


def test_a_param_that_is_first_set_inside_gets_its_axis():
    for axis in (0, 1):
        model = Model()
        model.h.set(None)
        pxf.vmap(pxu.M(State).to((None, axis)), in_axes=(0,))(
            lambda x, *, model: (model.h.set(x * 2), None)[1]
        )(X, model=model)
        np.testing.assert_allclose(model.h.get(), np.moveaxis(np.asarray(X) * 2, 0, axis))


def test_a_param_that_is_not_mapped_may_be_written_with_what_is_common():
    model = Model()
    pxf.vmap(MASK, in_axes=(0,), axis_name="b")(
        lambda x, *, model: (model.w.set(jax.lax.pmean(x, "b")), None)[1]
    )(X, model=model)
    np.testing.assert_allclose(model.w.get(), np.asarray(X).mean(0), rtol=1e-6)


def test_a_size_may_be_given_where_nothing_is_mapped():
    f = pxf.vmap({}, axis_size=3)(lambda x: x + jax.random.uniform(px.RKG()))
    assert len(set(f(1.0).tolist())) == 3


# --- random keys


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["default", "mapped"])
def test_each_element_has_its_own_stream_of_keys(own, jit):
    rkg = px.RandomKeyGenerator(1)

    def fn(x, *, rkg):
        draw = rkg if own else px.RKG
        return jnp.stack([draw(), draw()])

    f = pxf.vmap({"rkg": 0} if own else {}, in_axes=(0,))(fn)
    f = pxf.jit()(f) if jit else f
    keys = np.concatenate([f(X, rkg=rkg) for _ in range(3)]).reshape(-1, 2)
    assert len({tuple(k) for k in keys.tolist()}) == 24


def test_the_same_seed_gives_the_same_streams():
    f = pxf.vmap({}, in_axes=(0,))(lambda x: px.RKG())
    px.RKG.seed(1)
    first = f(X).tolist()
    px.RKG.seed(1)
    assert f(X).tolist() == first


def test_the_callers_key_moves_on_only_if_randomness_was_used():
    key = px.RKG.key.get()
    pxf.vmap({}, in_axes=(0,))(lambda x: x * 2)(X)
    assert px.RKG.key.get() is key
    pxf.vmap({}, in_axes=(0,))(lambda x: jax.random.normal(px.RKG()))(X)
    assert px.RKG.key.get().shape == key.shape
    assert px.RKG.key.get().tolist() != key.tolist()


def test_a_generator_that_is_not_mapped_is_shared():
    one, two = px.RandomKeyGenerator(1), px.RandomKeyGenerator(1)
    f = pxf.vmap({}, in_axes=(0,))(lambda x, *, rkg: rkg())
    for _ in range(2):
        want = two().tolist()
        assert f(X, rkg=one).tolist() == [want] * 4
    assert one.key.tolist() == two.key.tolist()


def test_a_generator_goes_on_from_the_state_of_the_first_element():
    def draw_and_seed(x, *, rkg):
        draws = px.RKG(), rkg()
        px.RKG.key.set(jnp.stack([x, x]).astype(jnp.uint32))
        rkg.key.set(jnp.stack([x, 2 * x]).astype(jnp.uint32))
        return draws

    rkg = px.RandomKeyGenerator(1)
    pxf.vmap({}, in_axes=(0,))(draw_and_seed)(jnp.arange(3.0, 6.0), rkg=rkg)
    assert px.RKG.key.tolist() == [3, 3]
    assert rkg.key.tolist() == [3, 6]
    px.RKG.seed(0)


def test_a_batch_of_keys_may_be_mapped():
    rkg = px.RandomKeyGenerator(0)
    keys = jax.random.split(jax.random.PRNGKey(7), 4)
    rkg.key.set(keys)
    got = pxf.vmap({"rkg": 0}, in_axes=(0,))(lambda x, *, rkg: rkg())(X, rkg=rkg)
    want = jax.vmap(lambda key: jax.random.split(key)[1])(keys)
    assert got.tolist() == want.tolist()
    assert rkg.key.shape == (4, 2)


def test_noise_of_one_element_does_not_depend_on_that_of_others():
    def fn(x, *, rkg):
        return jax.random.normal(rkg(), (1000,))

    noise = pxf.vmap({"rkg": 0}, in_axes=(0,))(fn)(X, rkg=px.RandomKeyGenerator(0))
    correlation = np.corrcoef(noise)
    assert np.abs(correlation - np.eye(4)).max() < 0.12  # 4 standard errors of 1/sqrt(1000)


# --- states of another batch


def initialise(x, *, model):
    model.h.set(x * 2)


@pytest.mark.parametrize("jit", [False, True])
def test_a_state_of_another_batch_may_be_overwritten(jit):
    f = pxf.vmap(MASK, in_axes=(0,))(initialise)
    f = pxf.jit()(f) if jit else f
    model = Model(n=7)
    for n in (4, 2, 4):
        f(X[:n], model=model)
        np.testing.assert_allclose(model.h.get(), X[:n] * 2)


@pytest.mark.parametrize("use", [energy, lambda x, *, model: jnp.sum(model.h**2)])
def test_a_state_of_another_batch_that_is_used_is_an_error(use):
    model = Model(n=7)
    before = model.h.get()
    match = (
        r"the mapped arrays have different sizes along their mapped axis: positional argument 0 has "
        r"4, `model.h` has 7. If a vode still holds the states of a batch of another size, initialise"
    )
    with pytest.raises(ValueError, match=match):
        pxf.vmap(MASK, in_axes=(0,))(use)(X, model=model)
    assert model.h.get() is before


def test_a_state_of_another_batch_that_is_not_touched_stays():
    model = Model(n=7)
    out = pxf.vmap(MASK, in_axes=(0,))(lambda x, *, model: x * model.w)(X, model=model)
    np.testing.assert_allclose(out, np.asarray(X) * [1, 2, 3], rtol=1e-6)
    assert model.h.shape == (7, 3)


# --- errors


def test_nothing_mapped_is_an_error_that_says_what_to_write():
    match = r"pxf.vmap\(energy\): nothing is mapped. Give an axis .* `in_axes=\(0,\)`"
    with pytest.raises(ValueError, match=match):
        pxf.vmap()(energy)(X, model=Model())
    with pytest.raises(ValueError, match="The mask selects no param"):
        pxf.vmap(pxu.M(pxc.VodeParam).to((None, 0)))(energy)(X, model=Model())
    empty = Model()
    empty.h.set(None)
    with pytest.raises(ValueError, match="nothing is mapped"):
        pxf.vmap(MASK)(energy)(X, model=empty)


def test_positional_arguments_of_different_sizes_are_an_error():
    match = "different sizes .*: positional argument 0 has 4, positional argument 1 has 3"
    with pytest.raises(ValueError, match=match):
        pxf.vmap({}, in_axes=(0, 0))(lambda x, y: x)(X, jnp.ones(3))
    with pytest.raises(ValueError, match=r"different sizes .*: `a` has 4, `b` has 3"):
        pxf.vmap({"a": 0, "b": 0})(lambda *, a, b: a)(a=px.Param(X), b=px.Param(jnp.ones(3)))


def test_many_sizes_are_shown_in_part():
    params = [px.Param(jnp.ones(i + 1)) for i in range(12)]
    with pytest.raises(ValueError, match=r"`p\[3\]` has 4, \.\.\., `p\[8\]` has 9"):
        pxf.vmap({"p": 0})(lambda *, p: None)(p=params)


def test_a_written_param_that_is_not_mapped_is_an_error_naming_those_not_mapped():
    match = (
        r"the function returns or writes a value that differs for each mapped element, but "
        r"the corresponding axis is None.*Params not mapped: `model.w`"
    )
    model = Model()
    for body in (
        lambda x, *, model: (model.w.set(x), None)[1],
        lambda x, *, model: (model.w.__iadd__(x), None)[1],
    ):
        with pytest.raises(ValueError, match=match):
            pxf.vmap(MASK, in_axes=(0,))(body)(X, model=model)
    assert model.w.get().tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=match):
        pxf.vmap(MASK, in_axes=(0,), out_axes=None)(lambda x, *, model: x)(X, model=model)


@pytest.mark.parametrize("in_axes", [(0, 0), (0, None, None)])
def test_in_axes_of_another_length_are_an_error(in_axes):
    match = rf"in_axes has {len(in_axes)} entries for 1 positional arguments"
    with pytest.raises(ValueError, match=match):
        pxf.vmap(MASK, in_axes=in_axes)(energy)(X, model=Model())


def test_an_axis_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"argument 0 is to be mapped along axis 2, but its shape"):
        pxf.vmap(MASK, in_axes=(2,))(energy)(X, model=Model())
    with pytest.raises(ValueError, match=r"`model.h` is to be mapped along axis 5, .* \(4, 3\)"):
        pxf.vmap(pxu.M(State).to((None, 5)), in_axes=(0,))(energy)(X, model=Model())


def test_in_axes_of_another_structure_are_an_error():
    with pytest.raises(
        ValueError, match=r"in_axes has .* for positional argument 0, which has another struct"
    ):
        pxf.vmap({}, in_axes=({"y": 0},))(lambda x: x)({"x": X})


def test_a_name_that_is_not_an_argument_is_an_error():
    match = r"names 'net', which is not a keyword argument of this call \(they are: 'model'\)"
    with pytest.raises(ValueError, match=match):
        pxf.vmap({"net": MASK}, in_axes=(0,))(energy)(X, model=Model())


@pytest.mark.parametrize("mask", [3, "model", [MASK], np.ones(2)])
def test_what_is_no_mask_is_an_error(mask):
    with pytest.raises(
        TypeError, match=r"kwargs_mask is a mask .*, or a dict from keyword argument"
    ):
        pxf.vmap(mask, in_axes=(0,))(energy)(X, model=Model())


def test_a_mask_tree_of_another_object_is_an_error_that_says_where():
    class Other(px.Module):
        def __init__(self, n):
            self.items = [Model() for _ in range(n)]

    match = (
        r"the mask tree given for 'model' does not fit the object passed: at `model.items` the mask "
        r"has a list of 2 and the object has a list of 3"
    )
    with pytest.raises(ValueError, match=match):
        pxf.vmap({"model": MASK(Other(2))}, axis_size=1)(lambda *, model: 0)(model=Other(3))
    with pytest.raises(
        ValueError, match="at `model` the mask has a Model and the object has a Oth"
    ):
        pxf.vmap({"model": MASK(Model())}, axis_size=1)(lambda *, model: 0)(model=Other(3))


def test_a_shared_param_with_two_axes_is_an_error():
    a = px.Param(X)
    match = (
        "the param `a` is shared with `b`, and the mask gives it two different values, 0 and None"
    )
    with pytest.raises(ValueError, match=match):
        pxf.vmap({"a": 0})(lambda *, a, b: 0)(a=a, b=a)


# --- mask trees


def test_a_mask_tree_can_be_edited_and_be_shallower_than_the_object():
    class Net(px.Module):
        def __init__(self):
            self.vodes = [Model(), Model()]

    net = Net()
    mask = MASK(net)
    mask.vodes[1].h = None
    seen = []
    g = pxf.vmap({"net": mask}, in_axes=(0,))(
        lambda x, *, net: (seen.append([v.h.shape for v in net.vodes]), x)[1]
    )
    g(X, net=net)
    assert seen == [[(3,), (4, 3)]]
    mask.vodes = None
    g(X, net=net)
    assert seen[-1] == [(4, 3), (4, 3)]


def test_a_mask_tree_fits_in_any_mode_and_status_and_after_new_attributes():
    class Net(pxc.EnergyModule):
        def __init__(self):
            self.vode = pxc.Vode()

        def __call__(self, x):
            return self.vode(x)

    net = Net()
    mask = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))(net)
    f = pxf.vmap({"net": mask}, in_axes=(0,))(lambda x, *, net: net(x))
    net.train()
    with pxu.step(net, pxc.STATUS.INIT):
        f(X, net=net)
    net.note = "something new"
    net.eval()
    np.testing.assert_allclose(f(X, net=net), X)
    assert net.vode.h.shape == (4, 3)
