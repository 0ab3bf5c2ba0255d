"""`pxu.step`: statuses set and restored, temporaries cleared, unknown statuses warned about."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu

CACHE = pxc.VodeParam.Cache
RULES = {"a": "x <- u", "b": "x <- u", "outer": "x <- u"}


class Net(pxc.EnergyModule):
    def __init__(self):
        self.vodes = [pxc.Vode(ruleset=RULES), pxc.Vode(ruleset=RULES)]
        self.inner = pxnn.Sequential(pxc.Vode(ruleset=RULES))

    def all(self):
        return [self, *self.vodes, self.inner[0]]

    def statuses(self):
        return [m.status for m in self.all()]

    def fill(self):
        for vode in self.all()[1:]:
            vode.set("h", jnp.ones(2)).set("u", jnp.zeros(2))
        return self

    def cached(self):
        return [v.cache.get() is not None for v in self.all()[1:]]


def test_the_status_is_set_everywhere_inside_and_gone_outside():
    net = Net()
    with pxu.step(net, "a"):
        assert net.statuses() == ["a"] * 4
    assert net.statuses() == [None] * 4


def test_blocks_nest_and_each_restores_what_was_there():
    net = Net()
    with pxu.step(net, "a"):
        with pxu.step(net, "b"):
            with pxu.step(net):
                assert net.statuses() == [None] * 4
            assert net.statuses() == ["b"] * 4
        assert net.statuses() == ["a"] * 4
    assert net.statuses() == [None] * 4


def test_each_module_gets_back_its_own_status():
    net = Net()
    net.vodes[1].status = "b"
    with pxu.step(net, "a"):
        assert net.statuses() == ["a"] * 4
    assert net.statuses() == [None, None, "b", None]


def test_the_status_is_restored_and_the_cache_cleared_when_the_body_raises():
    net = Net().fill()
    net.status = "outer"

    def body():
        assert net.cached() == [True] * 3
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"), pxu.step(net, "a", clear_params=(None, CACHE)):
        body()
    assert net.statuses() == ["outer"] * 4
    assert net.cached() == [False] * 3


def test_the_status_is_restored_when_a_jitted_function_raises_in_the_block():
    net = Net()

    @pxf.jit()
    def broken(*, net):
        with pxu.step(net, "b"):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"), pxu.step(net, "a"):
        broken(net=net)
    assert net.statuses() == [None] * 4


def test_a_tuple_of_statuses_is_inside_and_after():
    net = Net()
    with pxu.step(net, ("a", "b")):
        assert net.statuses() == ["a"] * 4
    assert net.statuses() == ["b"] * 4
    with pxu.step(net, ("a", None)):
        pass
    assert net.statuses() == [None] * 4


def test_one_filter_clears_at_the_end_only():
    net = Net().fill()
    with pxu.step(net, clear_params=CACHE):
        assert net.cached() == [True] * 3
    assert net.cached() == [False] * 3
    np.testing.assert_array_equal(net.vodes[0].h, 1.0)


def test_a_tuple_of_filters_is_before_and_after():
    net = Net().fill()
    with pxu.step(net, clear_params=(CACHE, None)):
        assert net.cached() == [False] * 3
        net.fill()
    assert net.cached() == [True] * 3
    with pxu.step(net, clear_params=(None, CACHE | pxc.VodeParam)):
        assert net.cached() == [True] * 3
    assert net.cached() == [False] * 3
    assert net.vodes[0].h.get() is None


def test_a_mask_can_say_what_is_cleared():
    net = Net().fill()
    net.vodes[0].h.frozen = True
    with pxu.step(net, clear_params=pxu.M_hasnot(pxc.VodeParam, frozen=True)):
        pass
    assert net.vodes[0].h.get() is not None
    assert net.vodes[1].h.get() is None


def test_a_list_of_modules_and_a_plain_module_work_too():
    vodes = [pxc.Vode(), pxc.Vode()]
    with pxu.step(vodes, pxc.STATUS.INIT, clear_params=CACHE):
        vodes[0](jnp.ones(2))
        assert vodes[1].status == "init"
    assert vodes[0].cache.get() is None
    seq = pxnn.Sequential(pxc.Vode())
    with pxu.step(seq, pxc.STATUS.INIT, clear_params=CACHE):
        np.testing.assert_array_equal(seq(jnp.ones(2)), 1.0)
    assert seq[0].cache.get() is None


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"status": 3}, TypeError, "a status is a string or None, got 3"),
        ({"status": ("a", 3)}, TypeError, "a status is a string or None, got 3"),
        (
            {"status": ("a",)},
            ValueError,
            r"status is one value, or a tuple of two, \(inside, after\)",
        ),
        ({"clear_params": (CACHE,) * 3}, ValueError, r"clear_params is one.*\(before, after\)"),
        ({"clear_params": "cache"}, TypeError, "a mask filter must be"),
        ({"clear_params": (CACHE, 3)}, TypeError, "a mask filter must be"),
    ],
)
def test_bad_arguments_are_refused_before_anything_changes(arguments, error, match):
    net = Net().fill()
    with pytest.raises(error, match=match), pxu.step(net, **{"status": "a", **arguments}):
        pytest.fail("the body must not run")
    assert net.statuses() == [None] * 4
    assert net.cached() == [True] * 3


def test_an_unknown_status_warns_once_and_lists_the_known_ones():
    net = Net()
    match = (
        r"no rule of this Net mentions the status 'intt'.*known statuses: 'a', 'b', 'init', 'outer'"
    )
    with pytest.warns(UserWarning, match=match), pxu.step(net, "intt"):
        assert net.status == "intt"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pxu.step(net, "intt"):
            pass
    with pytest.warns(UserWarning, match="'other'"), pxu.step(net, "other"):
        pass


def test_the_warning_points_at_the_caller():
    with pytest.warns(UserWarning, match="intt") as caught, pxu.step(Net(), "intt"):
        pass
    assert caught[0].filename == __file__


def test_each_model_is_warned_about():
    for _ in range(2):
        with pytest.warns(UserWarning, match="intt"), pxu.step(Net(), "intt"):
            pass


def test_a_status_is_warned_about_once_for_all_the_copies_that_transforms_make():
    net = Net().fill()
    mask = pxu.M(pxc.VodeParam | CACHE).to((None, 0))

    def body(*, net):
        with pxu.step(net, "intt"):
            return net.energy()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            pxf.vmap(mask)(body)(net=net)
    assert len(caught) == 1


@pytest.mark.parametrize("status", ["a", "init", None])
def test_known_statuses_do_not_warn(status):
    with pxu.step(Net(), status):
        pass


def test_a_pattern_that_matches_anything_knows_every_status():
    vode = pxc.Vode(ruleset={pxc.STATUS.ALL: "x <- u"})
    with pxu.step(vode, "whatever"):
        pass
    with (
        pytest.warns(UserWarning, match="'part'"),
        pxu.step(pxc.Vode(ruleset={"partial": ()}), "part"),
    ):
        pass


def test_a_step_inside_and_outside_of_jit_is_the_same():
    def phase(x, *, vode):
        with pxu.step(vode, pxc.STATUS.INIT, clear_params=CACHE):
            vode(x)

    for run in (phase, pxf.jit()(phase)):
        vode = pxc.Vode()
        run(jnp.ones(2), vode=vode)
        np.testing.assert_array_equal(vode.h, 1.0)
        assert vode.cache.get() is None
        assert vode.status is None
