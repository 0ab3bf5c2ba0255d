"""Every operator of a param against the same operator on the bare array."""

import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px

A = np.array([3.0, 4.0, 5.0], np.float32)
B = np.array([2.0, 1.0, 3.0], np.float32)
K = np.array([6, 3, 12], np.int32)
J = np.array([1, 2, 3], np.int32)

FLOAT = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow"]
COMPARE = ["eq", "ne", "lt", "le", "gt", "ge"]
INTEGER = ["and_", "or_", "xor", "lshift", "rshift"]
CASES = [(name, A, B) for name in FLOAT + COMPARE + ["matmul"]] + [(n, K, J) for n in INTEGER]


def check(got, expected):
    assert isinstance(got, jax.Array)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "a", "b"), CASES)
def test_a_binary_operator_gives_the_array_of_its_operands(name, a, b):
    fn = getattr(operator, name)
    expected = fn(a, b)
    check(fn(px.Param(jnp.asarray(a)), jnp.asarray(b)), expected)
    check(fn(px.Param(jnp.asarray(a)), px.Param(jnp.asarray(b))), expected)
    check(fn(jnp.asarray(a), px.Param(jnp.asarray(b))), expected)
    check(fn(a, px.Param(jnp.asarray(b))), expected)
    check(fn(px.Param(jnp.asarray(a)), b), expected)


@pytest.mark.parametrize("name", FLOAT + COMPARE)
def test_a_python_number_on_either_side_is_an_operand(name):
    fn = getattr(operator, name)
    check(fn(px.Param(jnp.asarray(A)), 2.0), fn(A, np.float32(2)))
    check(fn(2.0, px.Param(jnp.asarray(A))), fn(np.float32(2), A))


def test_divmod_gives_both_arrays():
    for got in (divmod(px.Param(jnp.asarray(A)), B), divmod(px.Param(jnp.asarray(A)), px.Param(B))):
        np.testing.assert_allclose(got, divmod(A, B))
    np.testing.assert_allclose(divmod(7.0, px.Param(jnp.asarray(B))), divmod(np.float32(7), B))


@pytest.mark.parametrize(("name", "a", "b"), [c for c in CASES if c[0] not in COMPARE])
def test_an_in_place_operator_updates_the_cell_and_keeps_the_object(name, a, b):
    in_place = getattr(operator, "i" + name.strip("_"))
    fn = getattr(operator, name)
    for other in (jnp.asarray(b), px.Param(jnp.asarray(b)), b):
        param = before = px.Param(jnp.asarray(a))
        param.frozen = True
        param = in_place(param, other)
        assert param is before
        assert param.frozen is True
        check(param.get(), fn(a, b))


def test_a_matrix_product_in_place_keeps_the_object():
    m, n = np.arange(4.0).reshape(2, 2), np.arange(6.0).reshape(2, 3)
    param = before = px.Param(jnp.asarray(m))
    param @= n
    assert param is before
    check(param.get(), m @ n)


def test_unary_operators_give_arrays():
    param = px.Param(jnp.asarray(-A))
    check(-param, A)
    check(+param, -A)
    check(abs(param), A)
    check(~px.Param(jnp.asarray(K)), ~K)
    check(round(px.Param(jnp.array([1.26, 2.74])), 1), np.array([1.3, 2.7]))


def test_a_scalar_converts_to_python_numbers():
    assert float(px.Param(jnp.array(2.5))) == 2.5
    assert int(px.Param(jnp.array(7))) == 7
    assert complex(px.Param(jnp.array(1 + 2j))) == 1 + 2j
    assert operator.index(px.Param(jnp.array(3))) == 3
    assert [10, 20, 30][px.Param(jnp.array(1))] == 20


def test_a_format_specification_goes_to_the_array():
    assert f"{px.Param(jnp.array(2.5)):.2f}" == "2.50"
    assert f"{px.Param(jnp.zeros(3))}" == "Param(f32[3])"


def test_length_iteration_and_membership_are_those_of_the_array():
    param = px.Param(jnp.asarray(A))
    assert len(param) == 3
    assert [float(x) for x in param] == A.tolist()
    assert 4.0 in param
    assert px.Param(jnp.array(4.0)) in param
    assert 9.0 not in param


def test_indexing_takes_everything_that_an_array_takes():
    m = np.arange(12.0).reshape(3, 4)
    param = px.Param(jnp.asarray(m))
    check(param[1], m[1])
    check(param[1:, ::2], m[1:, ::2])
    check(param[..., None], m[..., None])
    check(param[param > 4], m[m > 4])
    check(param[px.Param(jnp.array(2))], m[2])
    check(param[px.Param(jnp.array([0, 2])), px.Param(jnp.array([1, 3]))], m[[0, 2], [1, 3]])


def test_assignment_to_an_index_updates_the_cell():
    m = np.arange(12.0).reshape(3, 4)
    param, array = px.Param(jnp.asarray(m)), jnp.asarray(m)
    held = param.get()
    param[1, 2] = 50.0
    param[0] += px.Param(jnp.ones(4))
    m[1, 2] = 50.0
    m[0] += 1
    check(param.get(), m)
    np.testing.assert_array_equal(held, array)  # arrays do not change, cells do


def test_attributes_and_methods_are_those_of_the_array():
    param = px.Param(jnp.ones((2, 3)))
    assert (param.shape, param.ndim, param.dtype, param.size) == ((2, 3), 2, jnp.float32, 6)
    assert param.T.shape == (3, 2)
    assert float(param.sum()) == 6.0
    assert param.astype(jnp.int32).dtype == jnp.int32
    check(param.at[0].set(5.0), np.array([[5.0] * 3, [1.0] * 3]))


FUNCTIONS = {
    "sum": (lambda p: jnp.sum(p), lambda a: np.sum(a)),
    "mean over an axis": (lambda p: jnp.mean(p, axis=0), lambda a: np.mean(a, axis=0)),
    "dot": (lambda p: jnp.dot(p, p), lambda a: a @ a),
    "matmul": (lambda p: jnp.matmul(p, p), lambda a: a @ a),
    "einsum": (lambda p: jnp.einsum("ij,ij->", p, p), lambda a: np.sum(a * a)),
    "where": (lambda p: jnp.where(p > 1, p, -p), lambda a: np.where(a > 1, a, -a)),
    "concatenate": (lambda p: jnp.concatenate([p, p]), lambda a: np.concatenate([a, a])),
    "stack": (lambda p: jnp.stack([p, p]), lambda a: np.stack([a, a])),
    "norm": (lambda p: jnp.linalg.norm(p), lambda a: np.linalg.norm(a)),
    "exp": (lambda p: jnp.exp(p), lambda a: np.exp(a)),
    "add": (lambda p: jnp.add(p, 1), lambda a: a + 1),
    "reshape": (lambda p: jnp.reshape(p, -1), lambda a: a.reshape(-1)),
    "transpose": (lambda p: jnp.transpose(p), lambda a: a.T),
    "zeros_like": (lambda p: jnp.zeros_like(p), lambda a: np.zeros_like(a)),
    "asarray": (lambda p: jnp.asarray(p), lambda a: a),
    "array": (lambda p: jnp.array(p), lambda a: a),
    "shape": (lambda p: jnp.asarray(jnp.shape(p)), lambda a: np.array(a.shape)),
    "max": (lambda p: jnp.max(p), lambda a: a.max()),
    "sort": (lambda p: jnp.sort(p), lambda a: np.sort(a)),
    "relu": (lambda p: jax.nn.relu(p), lambda a: np.maximum(a, 0)),
    "tanh": (lambda p: jax.nn.tanh(p), lambda a: np.tanh(a)),
    "softmax": (
        lambda p: jax.nn.softmax(p),
        lambda a: np.exp(a) / np.exp(a).sum(-1, keepdims=True),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("transform", ["eager", "jax.jit"])
def test_jax_functions_take_a_param_as_an_array(name, transform):
    ours, numpys = FUNCTIONS[name]
    array = np.array([[-0.5, 2.0], [1.5, -1.0]], np.float32)
    fn = jax.jit(ours) if transform == "jax.jit" else ours
    check(fn(px.Param(jnp.asarray(array))), numpys(array))


def test_numpy_functions_take_a_param_as_an_array():
    param = px.Param(jnp.asarray(A))
    np.testing.assert_array_equal(np.asarray(param), A)
    assert np.asarray(param, np.float64).dtype == np.float64
    copied = np.array(param, copy=True)
    copied[0] = 99
    assert float(param[0]) == 3.0
    np.testing.assert_allclose(np.exp(param), np.exp(A))


def test_a_numpy_array_leaves_the_operator_to_a_traced_param():
    out = jax.jit(lambda p: A + p - A * p)(px.Param(jnp.asarray(B)))
    check(out, A + B - A * B)


def test_transforms_of_jax_take_params_as_pytrees():
    param = px.Param(jnp.asarray(A))
    check(jax.vmap(lambda p: p * 2)(param), A * 2)
    gradient = jax.grad(lambda p: jnp.sum(p**2))(param)
    assert type(gradient) is px.Param
    check(gradient.get(), 2 * A)
    check(jax.lax.scan(lambda c, p: (c + p.get(), None), 0.0, param)[0], A.sum())


def test_a_static_value_is_an_operand():
    check(px.Param(jnp.asarray(A)) * px.static(2), A * 2)
    check(px.static(2) * px.Param(jnp.asarray(A)), A * 2)


def test_the_truth_value_is_refused_with_what_to_write_instead():
    match = "the truth value of a Param is not defined: write `param.get\\(\\) is None`"
    with pytest.raises(TypeError, match=match):
        bool(px.Param(jnp.array(True)))
    with pytest.raises(TypeError, match=match):
        px.Param(1.0) and True


def test_a_param_is_unhashable_as_its_equality_is_elementwise():
    with pytest.raises(TypeError, match="unhashable type: 'Param'"):
        hash(px.Param(1.0))


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (lambda p: p + 1, "value for the operator 'add'"),
        (lambda p: 1 / p, "value for the operator 'truediv'"),
        (lambda p: p < 1, "value for the operator 'lt'"),
        (lambda p: -p, "value for the operator 'neg'"),
        (lambda p: p[0], "value for the operator '[...]'"),
        (len, "value for the operator 'len'"),
        (list, "value for the operator 'iter'"),
        (float, "value for the operator 'float'"),
        (jnp.asarray, "value for the operator 'array'"),
    ],
)
def test_an_operator_on_an_empty_param_says_that_it_is_empty(use, what):
    match = f"this Param is empty (its value is None), so it has no {what}. A vode's state gets"
    with pytest.raises(TypeError, match=re.escape(match)):
        use(px.Param())


def test_an_in_place_operator_on_an_empty_param_says_that_it_is_empty():
    param = px.Param()
    with pytest.raises(TypeError, match="no value for the operator 'mul'"):
        param *= 2


def test_an_attribute_of_an_empty_param_says_that_it_is_empty():
    with pytest.raises(AttributeError, match=r"Param is empty .* has no attribute 'shape'"):
        _ = px.Param().shape
    assert not hasattr(px.Param(), "shape")


def test_an_empty_param_can_be_compared_with_none():
    assert (px.Param() == None) is True  # noqa: E711
    assert (px.Param() != None) is False  # noqa: E711
