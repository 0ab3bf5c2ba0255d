"""`load_params` where model and file are not the same: a report, parts of models, files of PCX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.utils as pxu


def arrays(model, filter=pxnn.LayerParam):
    return {
        n: np.asarray(p.get()) for n, p in px.core.named_params(model) if pxu.M(filter).select(p)
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def pick(model, start):
    return {n: a for n, a in arrays(model).items() if n.startswith(start)}


@pytest.fixture
def backbone(tmp_path):
    """A trained model, its file, and a model with another head."""
    trained, fresh = pxm.MLP([4, 8, 8, 3]), pxm.MLP([4, 8, 8, 5])
    pxu.save_params(trained, tmp_path / "trained")
    return trained, tmp_path / "trained", fresh


HEAD = {"layers[2].nn.weight", "layers[2].nn.bias"}


def test_a_new_head_is_left_as_it_is_and_reported(backbone):
    trained, path, model = backbone
    before = pick(model, "layers[2]")
    report = pxu.load_params(model, path, strict=False)
    assert set(report.loaded) == arrays(trained).keys() - HEAD
    assert report.mismatched == {
        "layers[2].nn.bias": "float32[3] in the file and float32[5] in the model",
        "layers[2].nn.weight": "float32[3, 8] in the file and float32[5, 8] in the model",
    }
    assert (report.missing, report.left_over) == ((), ())
    assert_same(pick(model, "layers[2]"), before)
    assert_same(pick(model, "layers[0]"), pick(trained, "layers[0]"))
    assert_same(pick(model, "layers[1]"), pick(trained, "layers[1]"))


def test_by_default_the_same_file_is_refused_and_nothing_changes(backbone):
    _, path, model = backbone
    before = arrays(model)
    with pytest.raises(ValueError, match=r"(?s)nothing was loaded.*\[5, 8\].*strict=False"):
        pxu.load_params(model, path)
    assert_same(arrays(model), before)


def test_missing_and_left_over_params_are_reported(tmp_path):
    a = {"both": px.Param(jnp.ones(2)), "old": px.Param(jnp.ones(3))}
    b = {"both": px.Param(jnp.zeros(2)), "new": px.Param(jnp.zeros(3))}
    pxu.save_params(a, tmp_path / "x", px.Param)
    report = pxu.load_params(b, tmp_path / "x", px.Param, strict=False)
    assert report == (("['both']",), ("['new']",), ("['old']",), {})
    np.testing.assert_array_equal(b["both"], 1.0)
    np.testing.assert_array_equal(b["new"], 0.0)


def test_a_file_of_which_nothing_fits_is_an_error_even_then(tmp_path):
    pxu.save_params([px.Param(jnp.ones(2))], tmp_path / "x", px.Param)
    with pytest.raises(
        ValueError, match=r"nothing was loaded(?s:.*)`\['a'\]` is in the model but not"
    ):
        pxu.load_params({"a": px.Param(jnp.ones(2))}, tmp_path / "x", px.Param, strict=False)


def test_a_filter_says_what_to_load_and_the_rest_of_the_model_is_left_alone(backbone):
    trained, path, model = backbone
    head = set(map(id, px.tree_extract(model.layers[2], extract_fn=lambda p: p)))
    before = pick(model, "layers[2]")
    report = pxu.load_params(
        model, path, lambda p: isinstance(p, pxnn.LayerParam) and id(p) not in head
    )
    assert report.left_over == ()
    assert_same(pick(model, "layers[1]"), pick(trained, "layers[1]"))
    assert_same(pick(model, "layers[2]"), before)


def test_without_a_filter_what_the_file_has_besides_weights_is_not_dropped_in_silence(tmp_path):
    make = lambda: {"norm": pxnn.BatchNorm(3, "batch"), "linear": pxnn.Linear(3, 2)}
    pxu.save_params(make(), tmp_path / "x", pxnn.LayerParam | pxnn.StateParam)
    with pytest.raises(
        ValueError, match=r"`\['norm'\]\.state.*` is in the file but not in the model"
    ):
        pxu.load_params(make(), tmp_path / "x")
    assert pxu.load_params(make(), tmp_path / "x", pxnn.LayerParam).left_over == ()


class Autoencoder(px.Module):
    def __init__(self):
        self.encoder = pxnn.Sequential(pxnn.Linear(4, 3), pxnn.Linear(3, 2))
        self.decoder = pxnn.Sequential(pxnn.Linear(2, 3), pxnn.Linear(3, 4))


def test_a_part_of_a_model_is_loaded_from_the_file_of_the_whole(tmp_path):
    a, b = Autoencoder(), Autoencoder()
    before = arrays(b.decoder)
    pxu.save_params(a, tmp_path / "x")
    pxu.load_params(b.encoder, tmp_path / "x", prefix="encoder")
    assert_same(arrays(b.encoder), arrays(a.encoder))
    assert_same(arrays(b.decoder), before)
    one = pxnn.Linear(3, 4)
    pxu.load_params(one, tmp_path / "x", prefix="decoder.layers[1]")
    assert_same(arrays(one), arrays(a.decoder[1]))
    weight = pxnn.LayerParam(jnp.zeros((3, 4)))
    pxu.load_params(weight, tmp_path / "x", prefix="encoder.layers[0].nn.weight")
    np.testing.assert_array_equal(weight, a.encoder[0].nn.weight)


def test_a_part_of_a_list_of_layers_is_loaded(backbone):
    trained, path, model = backbone
    before = pick(model, "layers[2]")
    report = pxu.load_params(model.layers[:-1], path, prefix="layers")
    assert len(report.loaded) == 4
    assert_same(arrays(model.layers[:-1]), arrays(trained.layers[:-1]))
    assert_same(pick(model, "layers[2]"), before)


def test_a_layer_that_the_part_lacks_is_still_left_over(tmp_path):
    pxu.save_params({"net": pxnn.Sequential(pxnn.Linear(2, 2), pxnn.Linear(2, 2))}, tmp_path / "x")
    with pytest.raises(
        ValueError, match=r"`layers\[1\]\.nn\.bias` is in the file but not in the model"
    ):
        pxu.load_params(pxnn.Sequential(pxnn.Linear(2, 2)), tmp_path / "x", prefix="['net']")


def test_a_prefix_is_a_whole_path(tmp_path):
    model = {"a": px.Param(jnp.ones(1)), "ab": px.Param(jnp.ones(2))}
    pxu.save_params([model, [px.Param(jnp.ones(1))] * 11], tmp_path / "x", px.Param)
    assert pxu.load_params(model, tmp_path / "x", px.Param, prefix="[0]").left_over == ()
    with pytest.raises(ValueError, match=r"x\.npz has nothing below `\[0\]\['b'\]`; it has `\[0\]"):
        pxu.load_params(model, tmp_path / "x", px.Param, prefix="[0]['b']")


@pytest.mark.parametrize(("number", "shown"), [(4, "`[3]`."), (5, "`[3]`, ....")])
def test_a_message_shows_four_paths_at_most(tmp_path, number, shown):
    pxu.save_params([px.Param(jnp.ones(1)) for _ in range(number)], tmp_path / "x", px.Param)
    with pytest.raises(ValueError, match="has nothing below") as error:
        pxu.load_params({"a": px.Param(jnp.ones(1))}, tmp_path / "x", px.Param, prefix="a")
    assert str(error.value).endswith(f"it has `[0]`, `[1]`, `[2]`, {shown}")


def test_without_the_prefix_the_message_says_what_to_write(backbone):
    _, path, model = backbone
    for strict in (True, False):
        with pytest.raises(
            ValueError, match=r"below `layers`(?s:.*)load_params\(part, path, prefix=.layers.\)"
        ):
            pxu.load_params(model.layers[:-1], path, strict=strict)
    # several layers could be meant, so none is guessed
    with pytest.raises(ValueError, match=r"below `layers\[0\]`, `layers\[1\]`, `layers\[2\]`"):
        pxu.load_params(pxnn.Linear(8, 8), path)


def test_the_file_of_a_part_is_loaded_into_that_part_and_the_whole_model_says_so(tmp_path):
    a, b = Autoencoder(), Autoencoder()
    pxu.save_params(a.encoder, tmp_path / "x")
    pxu.load_params(b.encoder, tmp_path / "x")
    assert_same(arrays(b.encoder), arrays(a.encoder))
    with pytest.raises(
        ValueError, match=r"fits `encoder` of this model(?s:.*)load_params\(model\.encoder, path\)"
    ):
        pxu.load_params(b, tmp_path / "x")


def pcx_file(path, model, spell=lambda name: "." + name, filter=pxnn.LayerParam):
    new = {
        n: np.full(a.shape, i + 1.0, "f4") for i, (n, a) in enumerate(arrays(model, filter).items())
    }
    np.savez(path, **{spell(n): a for n, a in new.items()})
    return new


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: "." + name,
        lambda name: "." + name.replace("[", ".").replace("]", ""),
        lambda name: "." + name.replace("[", ".[").replace("'", '"'),
    ],
)
def test_files_of_pcx_load_however_their_paths_are_spelled(tmp_path, spell):
    class Net(px.Module):
        def __init__(self):
            self.layers = [pxnn.Linear(2, 3), pxnn.Linear(3, 1)]
            self.heads = {"a": pxnn.Linear(1, 2), "b": {"c": pxnn.Linear(1, 1)}}

    net = Net()
    want = pcx_file(tmp_path / "old.npz", net, spell)
    assert set(pxu.load_params(net, tmp_path / "old").loaded) == want.keys()
    assert_same(arrays(net), want)


def test_a_file_of_pcx_of_a_list_and_a_part_of_one_load(tmp_path):
    layers = [pxnn.Linear(2, 3), pxnn.Linear(3, 1)]
    want = pcx_file(tmp_path / "old.npz", layers, spell=lambda name: name)
    pxu.load_params(layers, tmp_path / "old")
    assert_same(arrays(layers), want)
    one = pxnn.Linear(3, 1)
    pxu.load_params(one, tmp_path / "old", prefix="[1]")
    np.testing.assert_array_equal(one.nn.bias, want["[1].nn.bias"])


def test_a_file_of_pcx_that_does_not_fit_is_refused_by_name(tmp_path):
    pcx_file(tmp_path / "old.npz", pxm.MLP([2, 3, 1]))
    with pytest.raises(ValueError, match=r"`layers\[0\]\.nn\.bias` is float32\[3\] in the file"):
        pxu.load_params(pxm.MLP([2, 4, 1]), tmp_path / "old")


def test_bfloat16_in_a_file_of_pcx_is_read_as_what_the_model_has(tmp_path):
    value = np.asarray(jnp.arange(4, dtype=jnp.bfloat16))
    np.savez(tmp_path / "old.npz", **{".w": value})

    class Net(px.Module):
        def __init__(self):
            self.w = pxnn.LayerParam(jnp.zeros(4, jnp.bfloat16))

    net = Net()
    pxu.load_params(net, tmp_path / "old")
    np.testing.assert_array_equal(np.asarray(net.w.get(), np.float32), [0, 1, 2, 3])


def test_shared_params_stay_shared_after_a_partial_load(tmp_path):
    def tied(n):
        a = pxnn.Linear(2, 2)
        return {"a": a, "b": pxnn.shared(a), "head": pxnn.Linear(2, n)}

    a, b = tied(3), tied(4)
    pxu.save_params(a, tmp_path / "x")
    pxu.load_params(b, tmp_path / "x", strict=False)
    assert b["a"].nn.weight is b["b"].nn.weight
    np.testing.assert_array_equal(b["b"].nn.weight, a["a"].nn.weight)


def test_one_array_of_a_param_that_holds_several_can_be_loaded(tmp_path):
    make = lambda n, k: [px.Param({"a": jnp.full(2, k), "b": jnp.full(n, k)})]
    a, b = make(3, 1.0), make(4, 0.0)
    pxu.save_params(a, tmp_path / "x", px.Param)
    assert pxu.load_params(b, tmp_path / "x", px.Param, strict=False).loaded == ("[0]['a']",)
    want = jax.tree_util.tree_map(np.asarray, {"a": np.ones(2), "b": np.zeros(4)})
    assert_same(b[0].get(), want)
