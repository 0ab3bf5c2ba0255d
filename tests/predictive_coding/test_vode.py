"""Vodes: construction, declared shapes, calling, storing, copies through transforms."""

import copy
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

STATES = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))


class Special(pxc.VodeParam):
    pass


@pytest.mark.parametrize(
    ("make", "shape", "energy_fn"),
    [
        (lambda: pxc.Vode(), None, pxc.se_energy),
        (lambda: pxc.Vode((128,)), (128,), pxc.se_energy),
        (lambda: pxc.Vode(128), (128,), pxc.se_energy),
        (lambda: pxc.Vode(()), (), pxc.se_energy),
        (lambda: pxc.Vode([3, 4]), (3, 4), pxc.se_energy),
        (lambda: pxc.Vode((np.int64(3),)), (3,), pxc.se_energy),
        (lambda: pxc.Vode(shape=(128,)), (128,), pxc.se_energy),
        (lambda: pxc.Vode(shape=5, energy_fn=pxc.ce_energy), (5,), pxc.ce_energy),
        (lambda: pxc.Vode((10,), pxc.ce_energy), (10,), pxc.ce_energy),
        (lambda: pxc.Vode(pxc.ce_energy), None, pxc.ce_energy),
        (lambda: pxc.Vode(pxc.ce_energy, shape=(2,)), (2,), pxc.ce_energy),
        (lambda: pxc.Vode(energy_fn=None), None, None),
        (lambda: pxc.Vode(None), None, None),
        (lambda: pxc.Vode((3,), None), (3,), None),
        (lambda: pxc.Vode(pxc.zero_energy, {}, {}, Special), None, pxc.zero_energy),
        (lambda: pxc.Vode((3,), pxc.zero_energy, {}, {}, Special), (3,), pxc.zero_energy),
    ],
)
def test_shape_and_energy_are_read_from_position_or_keyword(make, shape, energy_fn):
    vode = make()
    assert vode.shape == shape
    assert vode.energy_fn is energy_fn
    assert vode.h.get() is None, "a declared shape allocates nothing"
    assert vode.cache.get() is None


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: pxc.Vode((3,), shape=(3,)), "multiple values for argument 'shape'"),
        (lambda: pxc.Vode(pxc.se_energy, energy_fn=None), "multiple values for argument"),
        (lambda: pxc.Vode(colour=1), "unexpected keyword argument 'colour'"),
        (lambda: pxc.Vode((3,), None, {}, {}, Special, 1), "too many positional"),
        (lambda: pxc.Vode((3,), "se"), r"energy_fn must be a function \(vode, rkg\)"),
        (lambda: pxc.Vode(param_type=px.Param), "must be a subclass of VodeParam"),
        (lambda: pxc.Vode((3, 1.5)), r"tuple of ints, such as Vode\(\(128,\)\)"),
        (lambda: pxc.Vode((-1,)), "tuple of ints"),
        (lambda: pxc.Vode(shape="12"), "tuple of ints"),
        (lambda: pxc.Vode(True), "tuple of ints"),
    ],
)
def test_wrong_arguments_are_refused(make, match):
    with pytest.raises(TypeError, match=match):
        make()


def test_help_shows_the_arguments():
    names = ["shape", "energy_fn", "ruleset", "tforms", "param_type"]
    assert list(inspect.signature(pxc.Vode).parameters) == names
    assert inspect.signature(pxc.Vode).parameters["energy_fn"].default is pxc.se_energy

    class Mine(pxc.Vode):
        pass

    assert list(inspect.signature(Mine).parameters) == names


def test_calling_stores_the_prediction_and_gives_the_state():
    vode = pxc.Vode().set("h", jnp.zeros(2))
    u = jnp.array([1.0, 2.0])
    np.testing.assert_array_equal(vode(u), [0, 0])
    np.testing.assert_array_equal(vode.get("u"), u)


def test_a_layer_that_is_given_the_empty_state_of_a_vode_says_to_initialise():
    net = Net()
    with pytest.raises(TypeError, match=r"(?s)Linear was called with None.*pxc\.STATUS\.INIT"):
        net(jnp.ones(2))


def test_output_picks_another_key_or_the_vode():
    vode = pxc.Vode().set("h", jnp.zeros(2))
    u = jnp.ones(2)
    np.testing.assert_array_equal(vode(u, output="u"), u)
    assert vode(u, output=None) is vode
    assert vode(u, output="nothing") is None


def test_extra_keys_are_stored_and_read_back():
    vode = pxc.Vode()
    assert vode(jnp.ones(2), a=jnp.array(3.0), output="a") == 3.0
    assert float(vode.get("a")) == 3.0
    assert vode(output=None).get("u") is not None


def test_set_returns_the_vode_and_get_has_a_default():
    vode = pxc.Vode()
    assert vode.set("x", 1.0) is vode
    assert vode.get("x") == 1.0
    assert vode.get("y") is None
    assert vode.get("y", 5) == 5
    assert vode.get("h", default=4) == 4


def test_params_are_unwrapped_when_set():
    vode = pxc.Vode().set("h", px.Param(jnp.ones(2)))
    assert isinstance(vode.h.get(), jax.Array)


def test_h_lives_in_its_param_and_everything_else_in_the_cache():
    vode = pxc.Vode().set("h", jnp.ones(2)).set("u", jnp.zeros(2)).set("x", 1.0)
    assert vode.h.shape == (2,)
    assert set(vode.cache) == {"u", "x"}


def test_a_param_of_a_subclass_is_set_and_got_by_its_name():
    class WithBias(pxc.Vode):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.bias = pxnn.LayerParam(jnp.zeros(2))

    vode = WithBias((2,)).set("bias", jnp.ones(2))
    assert "bias" not in vode.cache
    np.testing.assert_array_equal(vode.get("bias"), 1.0)


def test_param_type_gives_h_and_cache_their_classes_for_masks():
    special, plain = pxc.Vode(param_type=Special), pxc.Vode()
    model = [special.set("h", 1.0), plain.set("h", 2.0)]
    assert type(special.h) is Special
    picked = pxu.M(Special)(model)
    assert picked[0].h is special.h
    assert picked[1].h is None
    assert pxu.M(pxc.VodeParam)(model)[1].h is plain.h
    assert isinstance(special.cache, pxc.VodeParam.Cache)
    assert isinstance(special.cache, px.ParamCache)


class Net(pxc.EnergyModule):
    def __init__(self):
        self.layers = [pxnn.Linear(2, 3), pxnn.Linear(3, 4)]
        self.vodes = [pxc.Vode((3,)), pxc.Vode((5,))]

    def __call__(self, x):
        for layer, vode in zip(self.layers, self.vodes, strict=True):
            x = vode(layer(x))
        return x


def test_a_wrong_shape_names_the_vode_the_key_what_it_got_and_what_was_expected():
    net = Net()
    match = (
        r"`net\.vodes\[1\]` was declared as Vode\(\(5,\)\), but h is set to f32\[4\]. "
        r"Expected shape \(5,\)"
    )
    with pxu.step(net, pxc.STATUS.INIT), pytest.raises(ValueError, match=match):
        net(jnp.ones(2))
    with pytest.raises(ValueError, match=r"`net\.vodes\[0\]`.*but h is set to f32\[2,4\]"):
        net.vodes[0].set("h", jnp.ones((2, 4)))
    assert net.vodes[0].h.shape == (3,)


def test_a_wrong_shape_is_named_inside_jit_and_vmap_too():
    @pxf.jit()
    def forward(x, *, model):
        pxf.vmap(STATES, in_axes=(0,))(lambda x, *, model: model(x))(x, model=model)

    net = Net().train()
    net.status = pxc.STATUS.INIT
    with pytest.raises(ValueError, match=r"`model\.vodes\[1\]` was declared"):
        forward(jnp.ones((6, 2)), model=net)
    assert net.vodes[0].h.get() is None


def test_batch_axes_in_front_of_the_declared_shape_are_accepted():
    vode = pxc.Vode((3,)).set("h", jnp.ones((2, 3))).set("u", jnp.ones((7, 2, 3)))
    assert vode.h.shape == (2, 3)


def test_a_target_that_lacks_an_axis_is_refused():
    with pytest.raises(ValueError, match=r"h is set to i32\[\]"):
        pxc.Vode((3,)).set("h", jnp.array(1))


def test_a_vode_without_energy_takes_any_stand_in_for_its_prediction():
    vode = pxc.Vode((3,), None).set("h", jnp.ones(3))
    np.testing.assert_array_equal(vode(jnp.zeros(())), np.ones(3))
    with pytest.raises(ValueError, match="but h is set to"):
        vode.set("h", jnp.ones(4))


def test_an_undeclared_vode_takes_any_shape_at_any_time():
    vode = pxc.Vode()
    for shape in ((3,), (5, 2), ()):
        with pxu.step(vode, pxc.STATUS.INIT):
            assert vode(jnp.ones(shape)).shape == shape


def test_a_frozen_state_is_left_out_by_masks_and_keeps_its_mark_through_transforms():
    vode = pxc.Vode((2,)).set("h", jnp.ones(2))
    vode.h.frozen = True
    free = pxu.M_hasnot(pxc.VodeParam, frozen=True)
    assert not free.select(vode.h)

    @pxf.jit()
    def touch(*, vode):
        vode.set("h", 2 * vode.get("h"))
        assert vode.h.frozen is True

    touch(vode=vode)
    assert vode.h.frozen is True
    np.testing.assert_array_equal(vode.h, 2.0)


def test_the_first_state_of_a_vode_appears_inside_jit_and_comes_out():
    vode = pxc.Vode((3,))

    @pxf.jit()
    def init(x, *, vode):
        with pxu.step(vode, pxc.STATUS.INIT):
            return vode(x)

    init(jnp.arange(3.0), vode=vode)
    np.testing.assert_array_equal(vode.h, [0, 1, 2])
    np.testing.assert_array_equal(vode.get("u"), [0, 1, 2])


BY_POSITION = {
    "jit": lambda f: pxf.jit()(f),
    "vmap": lambda f: pxf.vmap(in_axes=(0, 0))(f),
    "value_and_grad": lambda f: pxf.value_and_grad(argnums=1)(lambda v, x: f(v, x).sum()),
    "scan": lambda f: lambda v, x: pxf.scan(lambda _, x: (x, f(v, x)), length=2)(x),
}


@pytest.mark.parametrize("transform", BY_POSITION)
def test_a_vode_passed_by_position_keeps_its_values_and_holds_no_tracer(transform):
    vode = pxc.Vode((2,)).set("h", jnp.ones((4, 2)))
    if transform == "scan":
        # what a body closes over is not tracked either: writing to it is an error, not a leak
        with pytest.raises(RuntimeError, match="dead tracer"):
            BY_POSITION[transform](lambda v, x: v.set("u", x).energy())(vode, jnp.zeros((4, 2)))
    else:
        body = lambda v, x: v.set("u", x).set("h", v.get("h") + x).energy()
        BY_POSITION[transform](body)(vode, jnp.zeros((4, 2)))
    np.testing.assert_array_equal(vode.h, np.ones((4, 2)))
    assert not isinstance(vode.h.get(), jax.core.Tracer)
    assert vode.cache.get() is None


@pytest.mark.parametrize("transform", ["jit", "vmap", "value_and_grad"])
def test_a_param_passed_by_position_keeps_its_value(transform):
    param = pxc.VodeParam(jnp.ones((4, 2)))

    def body(h, x):
        h += x
        return (h * 2).sum()

    BY_POSITION[transform](body)(param, jnp.ones((4, 2)))
    np.testing.assert_array_equal(param, np.ones((4, 2)))
    assert not isinstance(param.get(), jax.core.Tracer)


def test_writing_a_traced_value_to_an_untracked_vode_names_it():
    vode = pxc.Vode((2,))

    @pxf.jit()
    def leak(x):
        vode.set("h", 2 * x)

    with pytest.raises(RuntimeError, match=r"vode\.h.*would be left with a dead tracer"):
        leak(jnp.ones(2))
    assert vode.h.get() is None


def retraces(shape, clear):
    """How often a train-like step is traced over five calls."""
    vodes = [pxc.Vode(*shape), pxc.Vode(*shape)]
    count = 0

    @pxf.jit()
    def step(x, *, vodes):
        nonlocal count
        count += 1
        with pxu.step(vodes, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache if clear else None):
            pxf.vmap(STATES, in_axes=(0,))(lambda x, *, vodes: vodes[1](vodes[0](x)))(
                x, vodes=vodes
            )

    for _ in range(5):
        step(jnp.ones((4, 3)), vodes=vodes)
    return count


@pytest.mark.parametrize("shape", [((3,),), ()], ids=["declared", "undeclared"])
@pytest.mark.parametrize("clear", [True, False], ids=["cleared", "kept"])
def test_a_step_that_leaves_its_states_is_traced_twice_at_most(shape, clear):
    # states that were empty before the first call are not at the second: one more trace, and no other
    assert retraces(shape, clear) == 2


def test_statuses_outside_of_jit_are_traced_once_each():
    vode, count = pxc.Vode((2,)), 0

    @pxf.jit()
    def call(x, *, vode):
        nonlocal count
        count += 1
        return vode(x)

    with pxu.step(vode, pxc.STATUS.INIT):
        call(jnp.ones(2), vode=vode)
    before = count
    for _ in range(3):
        call(jnp.ones(2), vode=vode)
        with pxu.step(vode, "init"):
            call(jnp.ones(2), vode=vode)
    # one for each status (the first call of each may also meet an empty vode)
    assert count - before <= 2


def test_another_model_of_the_same_structure_uses_the_same_compiled_function():
    count = 0

    @pxf.jit()
    def energy(*, vode):
        nonlocal count
        count += 1
        return vode.energy()

    for _ in range(3):
        energy(vode=pxc.Vode((2,)).set("h", jnp.ones(2)).set("u", jnp.zeros(2)))
    assert count == 1


def test_vodes_can_be_copied_and_pickled():
    vode = pxc.Vode((2,), pxc.ce_energy).set("h", jnp.ones(2)).set("u", jnp.zeros(2))
    vode.h.frozen = True
    for other in (copy.deepcopy(vode), pickle.loads(pickle.dumps(vode))):
        assert other.h is not vode.h
        assert other.h.frozen is True
        assert other.shape == (2,)
        np.testing.assert_array_equal(other.energy(), vode.energy())
        other.set("h", jnp.zeros(2))
        np.testing.assert_array_equal(vode.h, 1.0)


def test_in_place_operators_move_the_state_and_keep_the_param():
    vode = pxc.Vode((2,)).set("h", jnp.ones(2))
    h = vode.h
    vode.h += 2.0
    vode.h /= 3.0
    assert vode.h is h
    np.testing.assert_allclose(vode.get("h"), 1.0)


def test_the_repr_of_a_vode_is_short():
    vode = pxc.Vode((2,)).set("h", jnp.ones(2))
    assert repr(vode) == "Vode((2,), se_energy, h=VodeParam(f32[2]))"
    assert repr(pxc.Vode(None)) == "Vode(None, h=VodeParam(None))"


@pytest.mark.parametrize("shape", [(2, 4), (4,), (), (3, 5), (3, 4, 1), (4, 3)])
def test_every_axis_of_the_event_is_checked(shape):
    vode = pxc.Vode((3, 4))
    with pytest.raises(ValueError, match=r"declared as Vode\(\(3, 4\)\)"):
        vode.set("u", jnp.ones(shape))
    vode.set("u", jnp.ones((3, 4))).set("u", jnp.ones((2, 3, 4)))


def test_a_dict_or_tuple_is_not_what_a_node_holds():
    vode = pxc.Vode((2,))
    with pytest.raises(ValueError, match=r"h is set to tuple\(.*A node holds one array"):
        vode.set("h", (jnp.ones(2), jnp.ones(2)))
    with pytest.raises(
        ValueError, match=r"u is set to \{'a': .*give each of them a vode of its own"
    ):
        vode.set("u", {"a": jnp.ones(2)})
