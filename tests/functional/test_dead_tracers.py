"""Writing a traced value where the caller would not see it is refused where it happens."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.predictive_coding as pxc
import pcx.utils as pxu


class Net(px.Module):
    def __init__(self):
        self.vodes = [pxc.Vode(), pxc.Vode()]
        self.w = px.Param(jnp.ones(2))


TRANSFORMS = {
    "jit": lambda f: pxf.jit()(f),
    "vmap": lambda f: pxf.vmap({}, in_axes=(0,))(f),
    "value_and_grad": lambda f: pxf.value_and_grad(argnums=0)(lambda x: (f(x), jnp.sum(x))[1]),
    "scan": lambda f: lambda x: pxf.scan(lambda _, x: (x, f(x)), length=2)(x),
    "while_loop": lambda f: pxf.while_loop(lambda x: (f(x), x)[1], lambda x: False),
    "cond": lambda f: lambda x: pxf.cond(f, f)(True, x),
    "switch": lambda f: lambda x: pxf.switch([f])(jnp.array(0), x),
}


def refused(name, path, write):
    title = "value_and_grad" if name == "value_and_grad" else name
    match = (
        rf"`{re.escape(path)}` would be left with a dead tracer: it was made outside `pxf.{title}\("
    )
    with pytest.raises(RuntimeError, match=match):
        TRANSFORMS[name](lambda x: (write(x), None)[1])(jnp.ones(2))


# `switch` with one branch is no branch to JAX: its value is not traced
NAMES = [name for name in TRANSFORMS if name != "switch"]


@pytest.mark.parametrize("name", NAMES)
def test_a_param_of_a_model_reached_by_closure_is_named_by_its_path(name):
    model = Net()
    refused(name, "model.vodes[1].h", lambda x: model.vodes[1].h.set(x))
    assert model.vodes[1].h.get() is None
    refused(name, "model.w", lambda x: model.w.__iadd__(x))
    assert model.w.get().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", NAMES)
def test_a_lone_param_reached_by_closure_is_named(name):
    weight = px.Param(jnp.ones(2))
    refused(name, "weight", lambda x: weight.set(x))
    assert weight.get().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", NAMES)
def test_an_attribute_of_a_module_reached_by_closure_is_named(name):
    model = Net()

    def write(x):
        model.last = x

    refused(name, "model.last", write)
    assert not hasattr(model, "last")

    def write_inside(x):
        model.vodes[0].last = {"x": [x]}

    refused(name, "model.vodes[0].last", write_inside)

    def write_param(x):
        model.fresh = px.Param(x)

    refused(name, "model.fresh", write_param)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_of_a_dictionary_reached_by_closure_is_named(name):
    model = Net()

    def write(x):
        model.vodes[0].cache["u"] = x

    refused(name, "model.vodes[0].cache", write)
    assert "u" not in model.vodes[0].cache


def test_the_message_says_what_to_write_instead():
    model = Net()
    with pytest.raises(RuntimeError) as caught:
        pxf.jit()(lambda x: (model.w.set(x), None)[1])(jnp.ones(2))
    text = str(caught.value)
    assert "pass the object that holds it by keyword: `f(x, model=model)`" in text
    assert "return the value from the function and store it outside" in text
    assert "store a concrete array (NumPy)" in text


def test_a_method_names_the_class_of_its_object():
    class Trainer(px.Module):
        def __init__(self):
            self.net = Net()

        def run(self):
            return pxf.jit()(lambda x: (self.net.w.set(x), None)[1])(jnp.ones(2))

    with pytest.raises(RuntimeError, match=r"`Trainer.net.w` would be left with a dead tracer"):
        Trainer().run()


def test_an_object_that_nothing_names_is_named_by_its_type():
    params = [px.Param(1.0)]
    with pytest.raises(RuntimeError, match="`this Param` would be left with a dead tracer"):
        pxf.jit()(lambda x: (params[0].set(x), None)[1])(jnp.ones(2))


MODEL = Net()


def test_a_global_model_is_named():
    with pytest.raises(RuntimeError, match=r"`MODEL.vodes\[0\].h` would be left"):
        pxf.jit()(lambda x: (MODEL.vodes[0].h.set(x), None)[1])(jnp.ones(2))


def test_an_object_of_an_outer_transform_is_refused_too():
    model = Net()

    @pxf.jit()
    def outer(x, *, model):
        pxf.vmap({}, in_axes=(0,))(lambda x: (model.w.set(x), None)[1])(x)

    with pytest.raises(RuntimeError, match=r"`model.w` .* made outside `pxf.vmap\(<lambda>\)`"):
        outer(jnp.ones(2), model=model)
    assert model.w.get().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("inner", ["vmap", "value_and_grad", "scan", "cond", "jit"])
def test_an_inner_transform_does_not_smuggle_a_tracer_into_an_untracked_object(inner):
    model = Net()
    write = lambda x, *, model: (model.w.set(model.w * jnp.sum(x)), None)[1]
    inners = {
        "jit": lambda x: pxf.jit()(write)(x, model=model),
        "vmap": lambda x: pxf.vmap({"model": lambda p: p is model.w}, in_axes=(None,))(
            lambda x, *, model: (model.w.set(model.w * jnp.sum(x)), None)[1]
        )(x, model=model),
        "value_and_grad": lambda x: pxf.value_and_grad(lambda p: p is model.w)(
            lambda x, *, model: (write(x, model=model), jnp.sum(model.w.get()))[1]
        )(x, model=model),
        "scan": lambda x: pxf.scan(lambda _, x, *, model: (x, write(x, model=model)), length=1)(
            x, model=model
        ),
        "cond": lambda x: pxf.cond(write, write)(True, x, model=model),
    }
    match = r"`model.w` would be left with a dead tracer: it was made outside `pxf.jit\(<lambda>\)`"
    with pytest.raises(RuntimeError, match=match):
        pxf.jit()(lambda x: (inners[inner](x), None)[1])(jnp.ones(3))
    assert model.w.get().tolist() == [1.0, 1.0]


def test_concrete_values_may_be_written_by_closure():
    model, log = Net(), []

    @pxf.jit()
    def f(x, *, m):
        model.w.set(np.zeros(2))
        model.count = 3
        log.append(1)
        return x

    f(jnp.ones(2), m=Net())
    assert model.w.get().tolist() == [0.0, 0.0]
    assert model.count == 3


def test_objects_made_inside_may_be_written():
    @pxf.jit()
    def f(x):
        net, p = Net(), px.Param()
        p.set(x)
        net.last = x
        net.vodes[0].h.set(p * 2)

        @pxf.jit()
        def inner(x, *, net, p):
            net.last2 = x
            net.vodes[0].h.set(net.vodes[0].h + p)

        inner(x, net=net, p=p)
        return net.vodes[0].h * 1

    assert f(jnp.ones(2)).tolist() == [3.0, 3.0]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_after_a_failure_everything_is_as_before(name):
    model = Net()
    scope = px.core.scope_state.scope
    key = px.RKG.key.get()

    def fails(x):
        px.RKG()
        model.note = "concrete"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        TRANSFORMS[name](fails)(jnp.ones(2))
    assert px.core.scope_state.scope is scope
    assert px.RKG.key.get() is key
    model.w.set(jnp.ones(2))
    px.RKG()


def boom(*args, m):
    m.w.set(m.w * 2)
    m.h.set(m.w * 1)
    px.RKG()
    raise ZeroDivisionError("boom")


@pytest.mark.parametrize(
    "run",
    [
        lambda m: pxf.jit()(boom)(m=m),
        lambda m: pxf.jit(donate_params=True)(boom)(m=m),
        lambda m: pxf.vmap({}, in_axes=(0,))(boom)(jnp.ones(3), m=m),
        lambda m: pxf.value_and_grad(pxu.M(px.Param))(boom)(m=m),
        lambda m: pxf.scan(boom, length=2)(m=m),
        lambda m: pxf.while_loop(boom, lambda *, m: True)(m=m),
        lambda m: pxf.cond(boom, boom)(True, m=m),
        lambda m: pxf.jit()(pxf.vmap({}, axis_size=2)(boom))(m=m),
    ],
)
def test_a_failing_function_writes_nothing(run):
    class M(px.Module):
        def __init__(self):
            self.w, self.h = px.Param(jnp.array(3.0)), px.Param()

    m = M()
    key = px.RKG.key.get()
    with pytest.raises(ZeroDivisionError, match="boom"):
        run(m)
    assert float(m.w) == 3.0
    assert m.h.get() is None
    assert px.RKG.key.get() is key


# --- objects put in the place of params


@pytest.mark.parametrize("name", ["jit", "vmap", "value_and_grad", "scan", "cond"])
@pytest.mark.parametrize("kind", ["array", "param"])
def test_a_param_that_is_replaced_instead_of_written_is_refused(name, kind):
    model = Net()
    old = model.w

    def body(x, *, model):
        new = model.w - 0.1 * x
        model.w = new if kind == "array" else px.Param(new)

    run = {
        "jit": lambda: pxf.jit()(body)(1.0, model=model),
        "vmap": lambda: pxf.vmap({}, axis_size=2)(body)(1.0, model=model),
        "value_and_grad": lambda: pxf.value_and_grad(lambda p: p is model.w)(
            lambda x, *, model: (body(x, model=model), x)[1]
        )(1.0, model=model),
        "scan": lambda: pxf.scan(lambda _, *, model: ((), body(1.0, model=model)), length=1)(
            model=model
        ),
        "cond": lambda: pxf.cond(body, body)(True, 1.0, model=model),
    }
    match = (
        r"`model.w` was replaced by another object inside the transform; only what is written "
        r"\*into\* a param reaches the caller. Write `model.w.set\(...\)`, or an in-place"
    )
    with pytest.raises(RuntimeError, match=match):
        run[name]()
    assert model.w is old


@pytest.mark.parametrize(
    ("change", "part"),
    [
        # another structure: nothing lies where the param was
        (lambda m, x: setattr(m, "rkg", x), "model.rkg"),
        (lambda m, x: setattr(m, "layer", [px.Param(x)]), "model.layer"),
        # the other place still holds the param
        (lambda m, x: setattr(m, "tied", x), "model.tied"),
        (lambda m, x: m.several.__setitem__(1, px.Param(x)), r"model.several\[1\]"),
    ],
)
def test_a_part_that_is_replaced_by_one_of_another_structure_is_refused(change, part):
    class Parts(px.Module):
        def __init__(self):
            self.rkg, self.layer = px.RandomKeyGenerator(0), Net()
            self.tied = self.first = px.Param(jnp.ones(()))
            self.several = [px.Param(jnp.ones(())), px.Param(jnp.ones(()))]

    model = Parts()
    before = jax.tree_util.tree_leaves(model, is_leaf=lambda x: isinstance(x, px.Param))
    with pytest.raises(
        RuntimeError, match=rf"pxf.jit\(.*\): `{part}` was replaced by another object"
    ):
        pxf.jit()(lambda x, *, model: change(model, x))(jnp.ones(()), model=model)
    after = jax.tree_util.tree_leaves(model, is_leaf=lambda x: isinstance(x, px.Param))
    assert list(map(id, after)) == list(map(id, before))


def test_other_changes_of_attributes_are_allowed_and_stay_inside():
    model = Net()

    @pxf.jit()
    def f(x, *, model):
        model.new = x
        model.vodes = model.vodes[:1]
        model.extra = px.Param(x)
        model.name = "inside"
        w = model.w
        model.w = None
        model.w = w
        del model.extra
        return len(model.vodes)

    assert f(jnp.ones(1), model=model) == 1
    assert sorted(vars(model)) == ["_mode", "vodes", "w"]
    assert len(model.vodes) == 2


def test_a_param_that_is_put_into_a_list_beside_something_new_stays_inside():
    model = Net()
    before = model.w

    def f(x, *, model):
        model.w, model.new = [model.w], px.Param(x)
        return (model.w[0] * x).sum()

    assert float(pxf.jit()(f)(2.0, model=model)) == 4.0
    assert model.w is before


def test_raw_transforms_of_jax_leave_params_alone():
    w = px.Param(jnp.ones(2))
    out = jax.jit(lambda p: (p.set(p * 2), p * 1)[1])(w)
    assert out.tolist() == [2.0, 2.0]
    assert w.get().tolist() == [1.0, 1.0]
