"""Rules: parsing, exact matching, order, transformations, remembered results."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcx as px
import pcx.functional as pxf
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from pcx.predictive_coding._rules import parse_rule

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
spaces = st.sampled_from(["", " ", "  "])


def double(vode, key, value, rkg):
    return 2 * value


def increment(vode, key, value, rkg):
    return value + 1


TFORMS = {"double": double, "inc": increment}


@given(st.data(), st.lists(names, min_size=1, max_size=4), names, st.lists(names, max_size=3))
def test_every_set_rule_is_read_as_written(data, targets, key, tforms):
    gap = lambda: data.draw(spaces)
    text = f"{gap()},{gap()}".join(targets) + f"{gap()}<-{gap()}{key}"
    text += "".join(f"{gap()}:{gap()}{t}" for t in tforms)
    rule = parse_rule(gap() + text + gap())
    assert (rule.key, list(rule.targets), list(rule.tforms)) == (key, targets, tforms)
    assert rule.on_set


@given(st.data(), names, names, st.lists(names, max_size=3))
def test_every_get_rule_is_read_as_written(data, key, target, tforms):
    gap = lambda: data.draw(spaces)
    text = f"{key}{gap()}->{gap()}{target}" + "".join(f"{gap()}:{gap()}{t}" for t in tforms)
    rule = parse_rule(text)
    assert (rule.key, rule.targets, list(rule.tforms)) == (key, (target,), tforms)
    assert not rule.on_set


# an independent reading of the two forms, by splitting instead of matching
def valid(text):
    name = lambda s: re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", s.strip()) is not None
    if text.count("<-") + text.count("->") != 1:
        return False
    left, right = re.split("<-|->", text)
    lefts = left.split(",") if "<-" in text else [left]
    return all(map(name, lefts)) and all(map(name, right.split(":")))


@settings(max_examples=300)
@given(st.text(alphabet="hu_1,:<- >", max_size=12))
def test_anything_else_is_refused(text):
    if valid(text):
        parse_rule(text)
    else:
        with pytest.raises(ValueError, match="is not a rule"):
            parse_rule(text)


MALFORMED = ["h <- ", "<- u", "h u", "h <- u:", "h - > u", "h, <- u", "h <- u, e", "a, b -> c", ""]


@pytest.mark.wrong_types
@pytest.mark.parametrize("text", [*MALFORMED, 3])
def test_a_malformed_rule_is_refused_at_construction_and_the_forms_are_listed(text):
    with pytest.raises(ValueError, match=r"(?s)is not a rule.*target <- key.*key -> target:f:g"):
        pxc.Vode(ruleset={pxc.STATUS.INIT: (text,)})


def test_an_unknown_transformation_is_refused_at_construction_with_those_given():
    with pytest.raises(ValueError, match=r"(?s)'noise', which is not in tforms \(given: 'double'"):
        pxc.Vode(ruleset={"init": ("h <- u:double:noise",)}, tforms={"double": double})


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"ruleset": ["h <- u"]}, TypeError, "a ruleset must be a dict"),
        ({"tforms": [double]}, TypeError, "tforms must be a dict"),
        ({"tforms": {"f": 3}}, TypeError, r"transformation 'f' must be a function \(vode, key"),
        ({"ruleset": {3: ("h <- u",)}}, TypeError, "a status is a string or None, got 3"),
        ({"ruleset": {"[": ("h <- u",)}}, ValueError, r"status '\[' is not a valid pattern"),
    ],
)
def test_rules_and_transformations_of_the_wrong_type_are_refused(kwargs, error, match):
    with pytest.raises(error, match=match):
        pxc.Vode(**kwargs)


def in_status(vode, status):
    vode.status = status
    return vode


def test_by_default_initialisation_sets_the_state_to_the_prediction_and_nothing_else_does():
    vode = pxc.Vode()
    u = jnp.array([1.0, 2.0])
    assert vode(u) is None
    np.testing.assert_array_equal(vode.get("u"), u)
    np.testing.assert_array_equal(in_status(vode, "init")(u), u)
    in_status(vode, None)
    np.testing.assert_array_equal(vode(3 * u), u)
    np.testing.assert_array_equal(vode.get("u"), 3 * u)


def test_a_ruleset_without_init_keeps_the_default_one_and_one_with_init_replaces_it():
    kept = pxc.Vode(ruleset={"forward": ("h -> u",)})
    assert in_status(kept, "init")(jnp.ones(2)) is not None
    replaced = pxc.Vode(ruleset={"init": ()})
    assert in_status(replaced, "init")(jnp.ones(2)) is None


def test_a_single_rule_may_be_a_bare_string():
    vode = in_status(pxc.Vode(ruleset={"init": "h <- u"}), "init")
    assert vode(jnp.ones(2)) is not None
    assert vode.get("u") is None


def test_every_matching_set_rule_runs_in_order():
    vode = pxc.Vode(
        ruleset={"a|b": ("h <- u", "first <- u"), "b": ("h <- u:double", "second <- u")},
        tforms=TFORMS,
    )
    in_status(vode, "b").set("u", jnp.array(3.0))
    assert float(vode.get("h")) == 6.0
    assert float(vode.get("first")) == float(vode.get("second")) == 3.0
    # the rules say where the value goes, and none of them says u
    assert vode.get("u") is None


def test_transformations_are_applied_from_left_to_right():
    rules = {"init": ("a <- u:double:inc", "b <- u:inc:double")}
    vode = in_status(pxc.Vode(ruleset=rules, tforms=TFORMS), "init").set("u", 5.0)
    assert (vode.get("a"), vode.get("b")) == (11.0, 12.0)


def test_a_transformation_gets_the_vode_the_key_the_value_and_the_generator():
    seen = []

    def spy(vode, key, value, rkg):
        seen.append((vode, key, value, rkg))
        return value

    rkg = px.RandomKeyGenerator(0)
    vode = pxc.Vode(ruleset={".*": ("h <- u:spy", "e -> h:spy")}, tforms={"spy": spy})
    vode.set("u", 1.0, rkg).get("e", rkg=rkg)
    assert [(v is vode, key, value, r is rkg) for v, key, value, r in seen] == [
        (True, "u", 1.0, True),
        (True, "e", 1.0, True),
    ]


@pytest.mark.parametrize(
    ("pattern", "status", "matches"),
    [
        ("init", "init", True),
        ("init", "initial", False),
        ("init", "reinit", False),
        ("init", None, False),
        (".*", None, True),
        (".*", "anything", True),
        (None, None, True),
        (None, "init", False),
        ("a|b", "b", True),
        ("a|b", "ab", False),
        ("train_.*", "train_1", True),
    ],
)
def test_a_status_matches_the_whole_pattern_or_not_at_all(pattern, status, matches):
    vode = in_status(pxc.Vode(ruleset={pattern: ("mark <- x",), "init": ()}), status)
    if pattern == "init":
        vode = in_status(pxc.Vode(ruleset={pattern: ("mark <- x",)}), status)
    vode.set("x", 1.0)
    assert vode.get("mark") == (1.0 if matches else None)


def test_keys_match_exactly():
    vode = pxc.Vode(ruleset={".*": ("h <- u", "h -> cached")})
    vode.set("uu", 1.0).set("U", 2.0).set("cached", 5.0)
    assert vode.h.get() is None
    assert (vode.get("uu"), vode.get("U"), vode.get("h"), vode.get("hh")) == (1.0, 2.0, 5.0, None)


def test_a_get_rule_gives_another_key_in_its_status_only():
    vode = pxc.Vode(ruleset={"forward": ("h -> u",)}).set("h", 1.0).set("u", 2.0)
    assert vode.get("h") == 1.0
    assert in_status(vode, "forward").get("h") == 2.0
    assert vode(3.0) == 3.0


def test_several_get_rules_warn_and_the_first_wins():
    vode = pxc.Vode(ruleset={".*": ("e -> h", "e -> u")}).set("h", 1.0).set("u", 2.0)
    with pytest.warns(
        UserWarning, match=r"2 rules fire when 'e' is asked for in status None.*the first is used"
    ):
        assert vode.get("e") == 1.0


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, vode, key, value, rkg):
        self.calls += 1
        return 2 * value


def counted(**kwargs):
    tform = Counting()
    return pxc.Vode(ruleset={".*": ("e -> h:f",)}, tforms={"f": tform}, **kwargs), tform


def test_the_result_of_a_get_rule_is_remembered_until_the_cache_is_cleared():
    vode, tform = counted()
    vode.set("h", jnp.array(3.0))
    assert [float(vode.get("e")) for _ in range(3)] == [6.0, 6.0, 6.0]
    assert tform.calls == 1
    assert len(vode.cache) == 1
    vode.clear_params(pxc.VodeParam.Cache)
    assert float(vode.get("e")) == 6.0
    assert tform.calls == 2


def test_a_remembered_result_is_not_given_after_its_source_changed():
    vode, tform = counted()
    vode.set("h", jnp.array(3.0)).get("e")
    vode.set("h", jnp.array(4.0))
    assert float(vode.get("e")) == 8.0
    # an optimiser writes the param directly
    vode.h.set(jnp.array(5.0))
    assert float(vode.get("e")) == 10.0
    vode.h += 1
    assert float(vode.get("e")) == 12.0
    assert tform.calls == 4


def test_a_remembered_result_that_looked_at_another_value_is_made_anew_when_that_is_set():
    vode = pxc.Vode(
        ruleset={".*": ("e -> h:minus_u",)},
        tforms={"minus_u": lambda vode, key, value, rkg: value - vode.get("u")},
    )
    vode.set("h", jnp.array(3.0)).set("u", jnp.array(1.0))
    assert float(vode.get("e")) == 2.0
    vode.set("u", jnp.array(2.0))
    assert float(vode.get("e")) == 1.0


def test_a_random_get_rule_gives_the_same_numbers_within_a_step_and_new_ones_in_the_next():
    vode = pxc.Vode(
        ruleset={".*": ("e -> h:noise",)},
        tforms={"noise": lambda vode, key, value, rkg: jax.random.normal(rkg(), value.shape)},
    ).set("h", jnp.zeros(3))
    with pxu.step(vode, clear_params=pxc.VodeParam.Cache):
        first = vode.get("e")
        np.testing.assert_array_equal(vode.get("e"), first)
    with pxu.step(vode, clear_params=pxc.VodeParam.Cache):
        assert bool((vode.get("e") != first).all())


def test_a_remembered_result_does_not_hide_the_gradient_of_its_source():
    vode, _ = counted()
    vode.set("h", jnp.array(3.0)).get("e")
    energy = pxf.value_and_grad(pxu.M(pxc.VodeParam))(lambda *, vode: vode.get("e") ** 2)
    value, grads = energy(vode=vode)
    assert float(value) == 36.0
    assert float(grads["vode"].h) == 24.0  # d(2h)^2/dh = 8h


def test_get_rules_work_under_jit_vmap_and_scan():
    vode, tform = counted()
    vode.set("h", jnp.arange(3.0))

    def step(*, vode):
        with pxu.step(vode, clear_params=pxc.VodeParam.Cache):
            twice = vode.get("e") + vode.get("e")
        vode.h += 1.0
        return twice

    np.testing.assert_array_equal(pxf.jit()(step)(vode=vode), 4 * jnp.arange(3.0))
    assert tform.calls == 1
    mask = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
    np.testing.assert_array_equal(pxf.vmap(mask)(step)(vode=vode), 4 * jnp.arange(1.0, 4.0))
    _, ys = pxf.scan(lambda _, *, vode: ((), step(vode=vode)), length=2)(vode=vode)
    np.testing.assert_array_equal(ys, [4 * jnp.arange(2.0, 5.0), 4 * jnp.arange(3.0, 6.0)])
    np.testing.assert_array_equal(vode.h, jnp.arange(4.0, 7.0))


def test_a_get_rule_whose_target_is_empty_gives_the_default_without_transforming():
    vode, tform = counted()
    assert vode.get("e") is None
    assert vode.get("e", default=7) == 7
    assert tform.calls == 0


def test_equal_vodes_have_equal_structure_and_other_rules_another():
    structure = jax.tree_util.tree_structure
    make = lambda **kw: structure(pxc.Vode((3,), **kw))
    assert make(ruleset={"x": "h <- u"}) == make(ruleset={"x": "h <- u"})
    assert make(ruleset={"x": "h <- u"}) != make(ruleset={"y": "h <- u"})
    assert make(energy_fn=pxc.se_energy) != make(energy_fn=pxc.ce_energy)
    assert make() != structure(pxc.Vode((4,)))


def test_rules_are_parsed_once_and_not_at_every_call(monkeypatch):
    vode = pxc.Vode(ruleset={"init": "h, u <- u"})
    import pcx.predictive_coding._rules as module

    monkeypatch.setattr(module, "parse_rule", lambda text: pytest.fail("parsed again"))
    with warnings.catch_warnings():
        in_status(vode, "init")(jnp.ones(2))
