"""`pxf.value_and_grad` against `jax.value_and_grad` and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.utils as pxu


class State(px.Param):
    pass


class Model(px.Module):
    def __init__(self):
        self.w = px.Param(jnp.array([[1.0, -2.0], [0.5, 3.0]]))
        self.b = px.Param(jnp.array([0.1, 0.2]))
        self.h = State(jnp.array([1.0, -1.0]))
        self.act = jnp.tanh
        self.count = px.Param(jnp.array(0))
        self.n = 2


WEIGHTS = pxu.M(lambda p: type(p) is px.Param and p.get().dtype == jnp.float32).to((False, True))
X = jnp.array([0.3, -0.7])


def energy(x, *, model):
    u = model.act(model.w @ x + model.b)
    return jnp.sum((model.h - u) ** 2)


def by_hand(w, b, h, x):
    return jnp.sum((h - jnp.tanh(w @ x + b)) ** 2)


def finite_difference(f, x, eps=1e-3):
    x = np.asarray(x, np.float64)
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = eps
        grad[index] = (f(x + step) - f(x - step)) / (2 * eps)
    return grad


@pytest.mark.parametrize("jit", [False, True])
def test_value_and_gradients_are_those_of_jax(jit):
    model = Model()
    f = pxf.value_and_grad(WEIGHTS)(energy)
    f = pxf.jit()(f) if jit else f
    value, grads = f(X, model=model)
    args = model.w.get(), model.b.get(), model.h.get(), X
    want, (dw, db) = jax.value_and_grad(by_hand, (0, 1))(*args)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(grads["model"].w.get(), dw, rtol=1e-5)
    np.testing.assert_allclose(grads["model"].b.get(), db, rtol=1e-5)


def test_gradients_are_finite_differences():
    model = Model()
    _, grads = pxf.value_and_grad(pxu.M(State))(energy)(X, model=model)
    w, b, x = (np.asarray(v, np.float64) for v in (model.w.get(), model.b.get(), X))
    f = lambda h: np.sum((h - np.tanh(w @ x + b)) ** 2)
    np.testing.assert_allclose(grads["model"].h.get(), finite_difference(f, model.h.get()), 1e-3)


MASKS = {
    "mask": WEIGHTS,
    "mask without values": pxu.M(lambda p: WEIGHTS.select(p)),
    "dict": {"model": WEIGHTS},
    "dict of callables": {"model": lambda p: WEIGHTS.select(p)},
    "tuple of names": {("model",): WEIGHTS},
    "mask tree": {"model": WEIGHTS(Model())},
    "mask tree of params": {"model": pxu.M(lambda p: WEIGHTS.select(p))(Model())},
}


@pytest.mark.parametrize("name", MASKS)
def test_the_gradient_is_shaped_as_the_model_with_none_elsewhere(name):
    model = Model()
    _, grads = pxf.value_and_grad(MASKS[name])(energy)(X, model=model)
    g = grads["model"]
    assert isinstance(g, Model)
    assert type(g.w) is px.Param
    assert g.w.shape == (2, 2)
    assert (g.h, g.count, g.act, g.n) == (None, None, None, None)
    assert list(grads) == ["model"]


def test_a_mask_tree_can_be_edited():
    model = Model()
    mask = WEIGHTS(model)
    mask.b = False
    _, grads = pxf.value_and_grad({"model": mask})(energy)(X, model=model)
    assert grads["model"].b is None
    assert grads["model"].w is not None


def test_a_true_selects_everything_below():
    p = {"a": px.Param(2.0), "b": [px.Param(3.0)]}
    _, grads = pxf.value_and_grad({"p": True})(lambda *, p: p["a"] * p["b"][0])(p=p)
    assert float(grads["p"]["a"]) == 3.0
    assert float(grads["p"]["b"][0]) == 2.0


def test_the_gradient_keeps_class_and_marks():
    h = State(jnp.ones(2))
    h.role = "top"
    _, grads = pxf.value_and_grad(pxu.M(State))(lambda *, h: jnp.sum(h**2))(h=h)
    assert type(grads["h"]) is State
    assert grads["h"].role == "top"


def test_a_shared_param_gets_the_summed_gradient_once():
    model = Model()
    model.again, model.deep = model.w, {"w": [model.w]}
    f = pxf.value_and_grad(WEIGHTS)(
        lambda *, model: jnp.sum(model.w**2) + 3 * jnp.sum(model.again * model.deep["w"][0])
    )
    _, grads = f(model=model)
    g = grads["model"]
    assert g.again is g.w
    assert g.deep["w"][0] is g.w
    np.testing.assert_allclose(g.w.get(), 8 * np.asarray(model.w.get()), rtol=1e-6)


def test_a_param_with_a_pytree_gets_a_pytree_of_gradients():
    p = px.Param({"a": jnp.array([1.0, 2.0]), "b": (jnp.array(3.0), "name", None)})
    f = lambda *, p: jnp.sum(p.get()["a"] ** 2) * p.get()["b"][0]
    value, grads = pxf.value_and_grad(pxu.M(px.Param))(f)(p=p)
    assert float(value) == 15.0
    assert grads["p"].get()["a"].tolist() == [6.0, 12.0]
    assert float(grads["p"].get()["b"][0]) == 5.0
    assert grads["p"].get()["b"][1:] == (None, None)


def test_python_numbers_have_gradients():
    p = px.Param(3.0)
    value, grads = pxf.value_and_grad(pxu.M(px.Param))(lambda *, p: p**2)(p=p)
    assert (float(value), float(grads["p"])) == (9.0, 6.0)
    assert p.get() == 3.0


@pytest.mark.parametrize("jit", [False, True])
def test_positional_arguments_can_be_differentiated_too(jit):
    model = Model()
    args = model.w.get(), model.b.get(), model.h.get(), X
    want = jax.grad(by_hand, 3)(*args)

    def run(argnums):
        f = pxf.value_and_grad(WEIGHTS, argnums=argnums)(
            lambda x, y, *, model: energy(x, model=model) + jnp.sum(y**3)
        )
        return (pxf.jit()(f) if jit else f)(X, jnp.array([2.0]), model=model)[1]

    dx, grads = run(0)
    np.testing.assert_allclose(dx, want, rtol=1e-5)
    assert grads["model"].w is not None
    (dy,), _ = run((1,))
    assert dy.tolist() == [12.0]
    (dy, dx), _ = run((1, 0))
    np.testing.assert_allclose(dx, want, rtol=1e-5)
    assert dy.tolist() == [12.0]
    dy, _ = run(-1)
    assert dy.tolist() == [12.0]


def test_positional_arguments_alone():
    value, (dx, grads) = pxf.value_and_grad(argnums=0)(lambda x: x**2)(3.0)
    assert (float(value), float(dx), grads) == (9.0, 6.0, {})


def test_a_positional_pytree_has_a_pytree_of_gradients():
    _, (d, _) = pxf.value_and_grad(argnums=0)(lambda t: t["a"] * t["b"])({"a": 2.0, "b": 5.0})
    assert jax.tree.map(float, d) == {"a": 5.0, "b": 2.0}


def test_extras_come_as_a_tuple():
    f = lambda *, p: (p**2, p * 10, {"note": "text", "n": p + 1})
    (value, extras), grads = pxf.value_and_grad(pxu.M(px.Param), has_aux=True)(f)(
        p=px.Param(jnp.array(2.0))
    )
    assert float(value) == 4.0
    assert isinstance(extras, tuple)
    assert float(extras[0]) == 20.0
    assert (extras[1]["note"], float(extras[1]["n"])) == ("text", 3.0)
    assert float(grads["p"]) == 4.0


@pytest.mark.parametrize("result", [(1.0,), [1.0]])
def test_no_extras_are_an_empty_tuple(result):
    f = pxf.value_and_grad(pxu.M(px.Param), has_aux=True)(lambda *, p: result)
    (value, extras), _ = f(p=px.Param(1.0))
    assert (float(value), extras) == (1.0, ())


def test_a_param_as_the_result_is_its_array():
    value, grads = pxf.value_and_grad(pxu.M(px.Param))(lambda *, p: p)(p=px.Param(jnp.array(2.0)))
    assert isinstance(value, jax.Array)
    assert float(grads["p"]) == 1.0


@pytest.mark.parametrize("jit", [False, True])
def test_what_the_function_writes_is_written_back_without_a_trace(jit):
    model = Model()

    def fn(x, *, model):
        value = energy(x, model=model)
        model.h.set(model.h - model.b)
        model.w *= 2
        model.count += 1
        return value

    f = pxf.value_and_grad(WEIGHTS)(fn)
    f = pxf.jit()(f) if jit else f
    before = jax.value_and_grad(by_hand)(model.w.get(), model.b.get(), model.h.get(), X)
    value, grads = f(X, model=model)
    np.testing.assert_allclose(value, before[0], rtol=1e-6)
    np.testing.assert_allclose(grads["model"].w.get(), before[1], rtol=1e-5)
    np.testing.assert_allclose(model.h.get(), [0.9, -1.2], rtol=1e-6)
    assert model.w.get().tolist() == [[2.0, -4.0], [1.0, 6.0]]
    assert int(model.count) == 1
    model.w.get() + 0  # a concrete array


def test_random_numbers_are_those_of_the_eager_function():
    p = px.Param(jnp.array(2.0))
    fn = lambda *, p: p * jax.random.normal(px.RKG())
    px.RKG.seed(5)
    want = float(fn(p=p))
    px.RKG.seed(5)
    value, grads = pxf.value_and_grad(pxu.M(px.Param))(fn)(p=p)
    np.testing.assert_allclose([value, grads["p"] * 2], [want, want], rtol=1e-6)


def test_gradients_of_gradients():
    f = pxf.value_and_grad(pxu.M(px.Param))(lambda *, p: p**3)

    def slope(*, p):
        return f(p=p)[1]["p"].get()

    value, grads = pxf.value_and_grad(pxu.M(px.Param))(slope)(p=px.Param(jnp.array(2.0)))
    assert (float(value), float(grads["p"])) == (12.0, 12.0)


def test_options_of_jax_are_passed_on():
    f = pxf.value_and_grad(pxu.M(px.Param), holomorphic=True)(lambda *, p: p**2)
    _, grads = f(p=px.Param(jnp.array(1 + 2j)))
    assert complex(grads["p"]) == 2 + 4j
    f = pxf.value_and_grad(pxu.M(px.Param), allow_int=True)(lambda *, a, b: a * b)
    _, grads = f(a=px.Param(jnp.array(2.0)), b=px.Param(jnp.array(3)))
    assert float(grads["a"]) == 3.0
    assert grads["b"].dtype == jax.dtypes.float0


# --- errors


def test_a_mask_that_selects_nothing_is_an_error():
    match = (
        r"pxf.value_and_grad\(energy\): nothing to differentiate with kwargs_mask=M\(StaticParam\): it "
        r"selects no param of the keyword arguments, and argnums is empty. Select params with a mask"
    )
    with pytest.raises(ValueError, match=match):
        pxf.value_and_grad(pxu.M(px.StaticParam))(energy)(X, model=Model())
    with pytest.raises(ValueError, match="nothing to differentiate"):
        pxf.value_and_grad()(energy)(X, model=Model())


def test_a_mask_that_selects_only_empty_params_names_them():
    model = Model()
    model.h.set(None)
    with pytest.raises(ValueError, match=r"the params it selects have no value yet: model.h"):
        pxf.value_and_grad(pxu.M(State))(energy)(X, model=model)


@pytest.mark.parametrize(("number", "end"), [(6, "model.states[5]. "), (7, "model.states[5]. ")])
def test_six_empty_params_are_named_at_most(number, end):
    model = px.Module()
    model.states = [State() for _ in range(number)]
    with pytest.raises(ValueError, match="have no value yet") as error:
        pxf.value_and_grad(pxu.M(State))(lambda model: 0.0)(model=model)
    assert end in str(error.value)


def test_an_integer_param_is_an_error_that_names_it():
    match = "`model.count` is i32\\[\\]; only floating point params have gradients. Leave it out"
    with pytest.raises(TypeError, match=match):
        pxf.value_and_grad(pxu.M(px.Param))(energy)(X, model=Model())


@pytest.mark.parametrize(
    ("result", "got"),
    [(jnp.ones(2), r"f32\[2\]"), ((jnp.ones(()), 1), r"tuple\(f32\[\], 1\)"), (None, "None")],
)
def test_a_result_that_is_no_scalar_is_an_error(result, got):
    match = f"the function must return a scalar, got {got}. Sum over the batch.*set has_aux=True"
    with pytest.raises(TypeError, match=match):
        pxf.value_and_grad(pxu.M(px.Param))(lambda *, p: result)(p=px.Param(1.0))


@pytest.mark.parametrize("result", [1.0, (), None])
def test_extras_that_are_missing_are_an_error(result):
    match = r"with has_aux=True the function returns `\(scalar, \*extras\)`; got "
    with pytest.raises(TypeError, match=match):
        pxf.value_and_grad(pxu.M(px.Param), has_aux=True)(lambda *, p: result)(p=px.Param(1.0))


@pytest.mark.parametrize("argnums", [2, -3, (0, 5)])
def test_a_positional_argument_that_is_not_there_is_an_error(argnums):
    match = r"asks for the gradient of positional argument -?\d, and the call has 2 of them"
    with pytest.raises(ValueError, match=match):
        pxf.value_and_grad(argnums=argnums)(lambda x, y: x)(1.0, 2.0)
