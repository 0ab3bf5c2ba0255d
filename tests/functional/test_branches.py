"""`pxf.cond` and `pxf.switch` against Python's `if`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf


class Model(px.Module):
    def __init__(self):
        self.w = px.Param(jnp.array(3.0))
        self.n = px.Param(2)
        self.other = px.Param(jnp.ones(2))


def double(x, *, m):
    m.w *= 2
    return x + m.w


def negate(x, *, m):
    m.w.set(-m.w)
    m.n += 1
    return x - m.w


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("pred", [True, False, np.bool_(True), jnp.array(False), 1, 0])
def test_cond_runs_the_branch_that_if_would_run(pred, jit):
    model, want = Model(), Model()
    f = pxf.cond(double, negate)
    got = (pxf.jit()(f) if jit else f)(pred, 10.0, m=model)
    expected = double(10.0, m=want) if pred else negate(10.0, m=want)
    assert float(got) == float(expected)
    assert (float(model.w), int(model.n)) == (float(want.w), int(want.n))


def test_a_param_may_be_the_predicate_or_index():
    assert float(pxf.cond(double, negate)(px.Param(jnp.array(True)), 1.0, m=Model())) == 7.0
    assert float(pxf.switch([double, negate])(px.Param(jnp.array(1)), 1.0, m=Model())) == 4.0


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("index", [-5, 0, 1, 2, 7])
def test_switch_runs_the_branch_of_the_clamped_index(index, jit):
    branches = [double, negate, lambda x, *, m: m.w * x]
    model, want = Model(), Model()
    f = pxf.switch(branches)
    got = (pxf.jit()(f) if jit else f)(index, 10.0, m=model)
    expected = branches[min(max(index, 0), 2)](10.0, m=want)
    assert float(got) == float(expected)
    assert float(model.w) == float(want.w)


def test_a_single_branch_and_no_arguments():
    p = px.Param(jnp.array(1.0))
    assert pxf.switch([lambda *, p: (p.set(p + 1), None)[1]])(0, p=p) is None
    assert float(p) == 2.0


def test_params_that_no_branch_writes_keep_their_arrays():
    model = Model()
    other = model.other.get()
    pxf.cond(double, negate)(True, 1.0, m=model)
    assert model.other.get() is other


def test_functions_and_texts_may_be_positional():
    f = pxf.cond(lambda fn, x, name: fn(x), lambda fn, x, name: x * len(name))
    assert float(f(True, jnp.sin, 0.5, "abc")) == pytest.approx(np.sin(0.5))
    assert float(f(False, jnp.sin, 0.5, "abc")) == 1.5


def test_random_keys_are_drawn_by_the_branch_that_runs():
    draw, rest = (lambda: px.RKG()), (lambda: jnp.zeros(2, jnp.uint32))
    px.RKG.seed(4)
    got = [pxf.cond(draw, rest)(i % 2 == 0).tolist() for i in range(4)]
    px.RKG.seed(4)
    assert got[0] == px.RKG().tolist()
    assert got[2] == px.RKG().tolist()
    assert got[1] == got[3] == [0, 0]


def test_gradients_pass_through_the_branch_that_runs():
    def fn(x, *, m):
        return pxf.cond(double, negate)(x > 0, x, m=m)

    for x, want in ((1.0, 2.0), (-1.0, 1.0)):
        _, grads = pxf.value_and_grad(
            {
                "m": lambda p: (
                    p.get() is not None
                    and jnp.ndim(p.get()) == 0
                    and jnp.result_type(p.get()) == jnp.float32
                )
            }
        )(fn)(x, m=Model())
        assert float(grads["m"].w) == want


def test_a_branch_that_changes_the_form_of_a_param_is_an_error_that_names_both():
    model = Model()
    match = r"pxf.cond\(double\): `m.other` is f32\[2\] before the branch `.*<lambda>` and None after it"
    with pytest.raises(TypeError, match=match):
        pxf.cond(double, lambda x, *, m: (m.other.set(None), x)[1])(True, 1.0, m=model)
    assert float(model.w) == 3.0


def test_a_param_first_set_in_a_branch_is_an_error_that_says_what_to_do():
    p = px.Param()
    with pytest.raises(TypeError, match=r"`p` is None before the branch .* Give it a value before"):
        pxf.switch([lambda *, p: (p.set(1.0), None)[1]] * 2)(0, p=p)


def test_branches_with_results_of_different_structure_are_an_error():
    with pytest.raises(TypeError, match=r"(true_fun|branch|output).*(structure|type)"):
        pxf.cond(lambda: 1.0, lambda: (1.0, 2.0))(True)


@pytest.mark.parametrize("branches", [[], [3], [double, None]])
@pytest.mark.wrong_types
def test_branches_must_be_functions(branches):
    with pytest.raises(TypeError, match=r"pxf.switch takes functions, at least one; got \("):
        pxf.switch(branches)
    with pytest.raises(TypeError, match=r"pxf.cond takes functions"):
        pxf.cond(double, 3)


def test_it_prints_every_branch():
    assert repr(pxf.cond(double, pxf.jit()(negate))) == "Cond(double, Jit(negate))"
    assert repr(pxf.switch([double, jax.nn.tanh])).startswith("Switch(double, ")
