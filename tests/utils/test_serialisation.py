"""`save_params` and `load_params`: round trips, misfits named, whole files or none."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu


class Net(pxc.EnergyModule):
    def __init__(self, hidden=3, seed=0):
        rkg = px.RandomKeyGenerator(seed)
        self.layers = [pxnn.Linear(2, hidden, rkg=rkg), pxnn.Linear(hidden, 2, rkg=rkg)]
        self.act = jax.nn.relu
        self.vodes = [pxc.Vode((hidden,)), pxc.Vode((2,))]


def values(model, filter=pxnn.LayerParam):
    return [
        np.asarray(x) for v in px.tree_extract(model, filter) for x in jax.tree_util.tree_leaves(v)
    ]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["model", "model.npz", "run.1"])
@pytest.mark.parametrize("as_str", [True, False])
def test_what_is_saved_is_loaded_with_and_without_suffix(tmp_path, name, as_str):
    path = str(tmp_path / name) if as_str else tmp_path / name
    a, b = Net(seed=1), Net(seed=2)
    pxu.save_params(a, path)
    assert os.listdir(tmp_path) == [name if name.endswith(".npz") else f"{name}.npz"]
    params = [p for _, p in px.core.named_params(b)]
    pxu.load_params(b, path)
    assert_same(values(a), values(b))
    # the objects that optimisers and masks know are the same as before
    assert all(p is q for p, (_, q) in zip(params, px.core.named_params(b), strict=True))


def test_only_what_the_filter_selects_is_saved_and_loaded(tmp_path):
    a, b = Net(seed=1), Net(seed=2)
    a.vodes[0].set("h", jnp.ones(3))
    pxu.save_params(a, tmp_path / "w")
    pxu.load_params(b, tmp_path / "w")
    assert b.vodes[0].h.get() is None
    a.vodes[1].set("h", jnp.ones(2))
    pxu.save_params(a, tmp_path / "h", filter=pxc.VodeParam)
    b.vodes[0].set("h", jnp.zeros(3))
    b.vodes[1].set("h", jnp.zeros(2))
    pxu.load_params(b, tmp_path / "h", filter=pxc.VodeParam)
    assert_same(values(b, pxc.VodeParam), values(a, pxc.VodeParam))


def test_masks_are_filters_too(tmp_path):
    a, b = Net(seed=1), Net(seed=2)
    for net in (a, b):
        net.layers[0].nn.weight.frozen = True
    before = values(b)
    pxu.save_params(a, tmp_path / "m", pxu.M_has(pxnn.LayerParam, frozen=True))
    pxu.load_params(b, tmp_path / "m", pxu.M_has(pxnn.LayerParam, frozen=True))
    np.testing.assert_array_equal(values(b)[0], values(a)[0])
    assert_same(values(b)[1:], before[1:])


def test_shared_params_are_saved_once_and_stay_shared(tmp_path):
    def tied(seed):
        a = pxnn.Linear(2, 2, rkg=px.RandomKeyGenerator(seed))
        return pxnn.Sequential(a, pxnn.shared(a), pxnn.shared(a, filter=lambda p: p.ndim == 2))

    a, b = tied(1), tied(2)
    pxu.save_params(a, tmp_path / "tied")
    with np.load(tmp_path / "tied.npz") as file:
        assert len(file.files) == 1 + 3  # the manifest, one weight, two biases
    pxu.load_params(b, tmp_path / "tied")
    assert b[0].nn.weight is b[1].nn.weight is b[2].nn.weight
    assert_same(values(a), values(b))
    b[0].nn.weight.set(jnp.zeros((2, 2)))
    np.testing.assert_array_equal(b[2].nn.weight, 0.0)


def test_a_tied_model_does_not_fit_an_untied_one(tmp_path):
    a = pxnn.Linear(2, 2)
    pxu.save_params(pxnn.Sequential(a, pxnn.shared(a)), tmp_path / "tied")
    untied = pxnn.Sequential(pxnn.Linear(2, 2), pxnn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"`layers\[1\]\.nn\.weight` is in the model but not in"):
        pxu.load_params(untied, tmp_path / "tied")


def test_the_statistics_of_batch_norm_are_saved_with_the_filter_that_names_them(tmp_path):
    def trained(steps):
        layer = pxnn.BatchNorm(3, "batch").train()
        f = pxf.vmap({}, in_axes=(0,), axis_name="batch")(lambda x, *, layer: layer(x))
        for k in range(steps):
            f(jax.random.normal(jax.random.PRNGKey(k), (8, 3)) + 5, layer=layer)
        return layer

    both = pxnn.LayerParam | pxnn.StateParam
    a, b = trained(3), trained(0)
    pxu.save_params(a, tmp_path / "bn", filter=both)
    pxu.load_params(b, tmp_path / "bn", filter=both)
    assert_same(values(a, both), values(b, both))
    f = pxf.vmap({}, in_axes=(0,), axis_name="batch")(lambda x, *, layer: layer(x))
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(f(x, layer=a.eval()), f(x, layer=b.eval()))


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float8_e4m3fn", "int8", "uint8", "bool", "complex64"]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_every_dtype_and_shape_comes_back(tmp_path, dtype, shape):
    value = (
        jnp.ones(shape, jnp.float32).astype(dtype)
        if dtype != "complex64"
        else jnp.full(shape, 1 + 2j)
    )
    a, b = [px.Param(value)], [px.Param(jnp.zeros_like(value))]
    pxu.save_params(a, tmp_path / "x", px.Param)
    pxu.load_params(b, tmp_path / "x", px.Param)
    assert b[0].get().dtype == value.dtype
    assert b[0].get().shape == shape
    np.testing.assert_array_equal(
        np.asarray(b[0].get()).astype(complex), np.asarray(value).astype(complex)
    )


def test_numbers_numpy_arrays_and_nested_values_keep_their_kind(tmp_path):
    make = lambda k: [
        px.Param(3 * k),
        px.Param(0.5 * k),
        px.Param(np.full(2, float(k))),
        px.Param({"a": jnp.full(2, float(k)), "b": (jnp.zeros(1) + k, "text")}),
        px.Param(None),
    ]
    a, b = make(1), make(2)
    pxu.save_params(a, tmp_path / "x", px.Param)
    pxu.load_params(b, tmp_path / "x", px.Param)
    assert b[0].get() == 3
    assert isinstance(b[0].get(), int)
    assert isinstance(b[1].get(), float)
    assert isinstance(b[2].get(), np.ndarray)
    assert b[2].get().dtype == np.float64
    assert b[3].get()["b"][1] == "text"
    np.testing.assert_array_equal(b[3].get()["a"], 1.0)
    assert b[4].get() is None


def test_a_wrong_shape_names_the_path_and_both_shapes_and_changes_nothing(tmp_path):
    pxu.save_params(Net(hidden=3), tmp_path / "m")
    net = Net(hidden=4)
    before = values(net)
    match = (
        r"(?s)m\.npz does not fit this Net; nothing was loaded"
        r".*`layers\[0\]\.nn\.weight` is float32\[3, 2\] in the file and float32\[4, 2\] in"
    )
    with pytest.raises(ValueError, match=match):
        pxu.load_params(net, tmp_path / "m")
    assert_same(values(net), before)


def test_a_wrong_dtype_is_named(tmp_path):
    pxu.save_params([px.Param(jnp.ones(2, jnp.bfloat16))], tmp_path / "x", px.Param)
    with pytest.raises(
        ValueError, match=r"bfloat16\[2\] in the file and float32\[2\] in the model"
    ):
        pxu.load_params([px.Param(jnp.ones(2))], tmp_path / "x", px.Param)


def test_missing_and_extra_entries_are_named_and_nothing_is_changed(tmp_path):
    pxu.save_params(
        [px.Param(jnp.ones(2)), {"old": px.Param(jnp.ones(2))}], tmp_path / "x", px.Param
    )
    model = [px.Param(jnp.zeros(2)), {"new": px.Param(jnp.zeros(2))}]
    with pytest.raises(ValueError, match="nothing was loaded") as error:
        pxu.load_params(model, tmp_path / "x", px.Param)
    assert "`[1]['new']` is in the model but not in the file" in str(error.value)
    assert "`[1]['old']` is in the file but not in the model" in str(error.value)
    np.testing.assert_array_equal(model[0], 0.0)


def test_a_long_list_of_misfits_is_shortened(tmp_path):
    pxu.save_params([px.Param(jnp.ones(2)) for _ in range(20)], tmp_path / "x", px.Param)
    with pytest.raises(ValueError, match="and 8 more"):
        pxu.load_params([px.Param(jnp.ones(3)) for _ in range(20)], tmp_path / "x", px.Param)


def test_a_filter_that_selects_nothing_is_refused_and_no_file_is_written(tmp_path):
    with pytest.raises(
        ValueError, match=r"save_params: the filter M\(StateParam\) selects no param"
    ):
        pxu.save_params(Net(), tmp_path / "x", pxnn.StateParam)
    assert os.listdir(tmp_path) == []
    pxu.save_params(Net(), tmp_path / "x")
    with pytest.raises(
        ValueError, match=r"load_params: the filter M\(StateParam\) selects no param"
    ):
        pxu.load_params(Net(), tmp_path / "x", pxnn.StateParam)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        pxu.load_params(Net(), tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        pxu.save_params(Net(), tmp_path / "no_such_folder" / "x")


def test_a_file_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(
        ValueError, match=r"other\.npz was not written by pxu\.save_params: it has no list"
    ):
        pxu.load_params(Net(), tmp_path / "other")
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.ones(2))
    (tmp_path / "text.npz").write_text("hello, hello, hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    pxu.save_params(Net(), tmp_path / "cut")
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("array", "text", "empty", "cut"):
        with pytest.raises(ValueError, match=rf"{name}\.npz was not written by pxu\.save_params"):
            pxu.load_params(Net(), tmp_path / name)


def test_a_file_of_another_version_is_refused(tmp_path):
    manifest = json.dumps({"format": 99, "entries": {}})
    np.savez(tmp_path / "x.npz", __pcx__=np.asarray(manifest))
    with pytest.raises(ValueError, match=r"another version \(format 99\)"):
        pxu.load_params(Net(), tmp_path / "x")


@pytest.mark.parametrize("name", ["file", "args", "kwds", "allow_pickle", "self", "arr_0", "value"])
def test_a_param_may_have_any_name(tmp_path, name):
    class Odd(px.Module):
        def __init__(self, value):
            setattr(self, name, px.Param(jnp.full(2, value)))

    a, b = Odd(1.0), Odd(2.0)
    pxu.save_params(a, tmp_path / "x", px.Param)
    assert pxu.load_params(b, tmp_path / "x", px.Param).loaded == (name,)
    np.testing.assert_array_equal(getattr(b, name), 1.0)
    with np.load(tmp_path / "x.npz") as file:
        np.testing.assert_array_equal(file[name], 1.0)


def test_the_one_name_that_the_file_needs_for_itself_is_refused(tmp_path):
    class Odd(px.Module):
        def __init__(self):
            self.__dict__["__pcx__"] = px.Param(jnp.ones(2))

    with pytest.raises(ValueError, match=r"a param at the path `__pcx__` cannot be saved"):
        pxu.save_params(Odd(), tmp_path / "x", px.Param)
    assert os.listdir(tmp_path) == []


def test_dict_keys_of_every_kind_come_back(tmp_path):
    keys = ["a.b", "it's", 'say "x"', "a/b", "..", "", "é", 0, -1]
    make = lambda k: {key: px.Param(jnp.full(1, k + i)) for i, key in enumerate(map(str, keys))}
    a, b = make(1.0), make(50.0)
    pxu.save_params(a, tmp_path / "x", px.Param)
    pxu.load_params(b, tmp_path / "x", px.Param)
    assert_same(values(a, px.Param), values(b, px.Param))


def test_random_keys_can_be_saved(tmp_path):
    a, b = (
        [px.Param(jax.random.key(k)), px.Param(jax.random.split(jax.random.key(k), 3))]
        for k in (1, 2)
    )
    pxu.save_params(a, tmp_path / "x", px.Param)
    pxu.load_params(b, tmp_path / "x", px.Param)
    assert all(bool(jnp.all(p.get() == q.get())) for p, q in zip(a, b, strict=True))


def test_integer_and_boolean_buffers_of_layers_belong_to_the_weights(tmp_path):
    class Permute(px.Module):
        def __init__(self, seed):
            key = jax.random.key(seed)
            self.index = pxnn.BufferParam(jax.random.permutation(key, 6))
            self.keep = pxnn.BufferParam(jax.random.bernoulli(key, shape=(6,)))
            self.gain = pxnn.LayerParam(jax.random.normal(key, (6,)))

    a, b = Permute(1), Permute(2)
    pxu.save_params(a, tmp_path / "x")
    assert len(pxu.load_params(b, tmp_path / "x").loaded) == 3
    for name in ("index", "keep", "gain"):
        want, got = getattr(a, name).get(), getattr(b, name).get()
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def test_files_contain_no_pickle(tmp_path):
    pxu.save_params(Net(), tmp_path / "x")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


@pytest.mark.parametrize("where", ["write", "replace"])
def test_a_failure_while_saving_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch, where):
    a, b = Net(seed=1), Net(seed=2)
    pxu.save_params(a, tmp_path / "x")

    def fail(file, *args, **kwargs):
        if where == "write":
            file.write(b"half of the da")
        raise OSError("disk full")

    patched = (np.lib.format, "write_array") if where == "write" else (os, "replace")
    monkeypatch.setattr(*patched, fail)
    with pytest.raises(OSError, match="disk full"):
        pxu.save_params(b, tmp_path / "x")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["x.npz"]
    c = Net(seed=3)
    pxu.load_params(c, tmp_path / "x")
    assert_same(values(c), values(a))


def test_the_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=real: calls.append(n) or f(*a))
    pxu.save_params(Net(), tmp_path / "x")
    assert calls == ["fsync", "replace"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    pxu.save_params(Net(), tmp_path / "x")
    (tmp_path / "plain").touch()
    assert os.stat(tmp_path / "x.npz").st_mode == os.stat(tmp_path / "plain").st_mode


def test_attribute_order_does_not_matter(tmp_path):
    class Parts(px.Module):
        def __init__(self, names):
            for name in names:
                setattr(self, name, px.Param(jnp.full(2, float(ord(name)))))

    pxu.save_params(Parts("abc"), tmp_path / "x", px.Param)
    other = Parts("cab")
    for name in "abc":
        getattr(other, name).set(jnp.zeros(2))
    pxu.load_params(other, tmp_path / "x", px.Param)
    for name in "abc":
        np.testing.assert_array_equal(getattr(other, name), float(ord(name)))


def test_loading_does_not_compile_a_jitted_function_again(tmp_path):
    a, b, traces = Net(seed=1), Net(seed=2), 0

    @pxf.jit()
    def weight_sum(*, net):
        nonlocal traces
        traces += 1
        return net.layers[0].nn.weight.sum()

    weight_sum(net=b)
    pxu.save_params(a, tmp_path / "x")
    pxu.load_params(b, tmp_path / "x")
    np.testing.assert_allclose(weight_sum(net=b), values(a)[0].sum(), rtol=1e-6)
    assert traces == 1
