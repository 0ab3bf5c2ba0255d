"""Files that mean harm, or that only look like ours: refused by name, and nothing is changed."""

import io
import json
import pickle
import zipfile
from contextlib import nullcontext
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import pcx.models as pxm
import pcx.nn as pxnn
import pcx.training as pxt
import pcx.utils as pxu
from pcx.core import named_params
from pcx.utils import _files
from tests.training.helpers import LeastSquares, regression


class Harm:
    def __reduce__(self):
        return (pytest.fail, ("the file was executed",))


def npy(array, allow_pickle=False):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def pickled():
    return {"layers[0].nn.weight.npy": npy(np.array([Harm()], dtype=object), allow_pickle=True)}


def bomb():
    """A MiB of zeros in a KiB, which says that it is 8 GiB."""
    return {"0.npy": bytes(2**20)}


def endless():
    """An array that says it has 10^18 numbers."""
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": (10**18,)}
    np.lib.format.write_array_header_1_0(header, fields)
    return {"layers[0].nn.weight.npy": header.getvalue()}


def outside():
    """Names that lead out of any folder."""
    return {"../../outside.npy": npy(np.ones(3)), "/outside.npy": npy(np.ones(3))}


def other_contents():
    return {"__pcx__.npy": npy(np.array("no table")), "__pcx_checkpoint__.npy": npy(np.arange(3))}


def no_entries():
    table = json.dumps({"format": 1})
    return {"__pcx__.npy": npy(np.array(table)), "__pcx_checkpoint__.npy": npy(np.arange(3))}


KINDS = [pickled, bomb, endless, outside, other_contents, no_entries]


def write(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if entries == bomb():
            # so that no test unpacks, or makes, what a real one holds
            archive.infolist()[0].file_size = 2**33


def values(owner):
    return {name: jax.tree.map(np.asarray, p.get()) for name, p in named_params(owner)}


@pytest.mark.parametrize(("size", "refused"), [(2**31 // 100 + 1, False), (2**31 // 100, True)])
def test_a_file_may_unpack_to_a_hundred_times_its_size(size, refused):
    archive = SimpleNamespace(infolist=lambda: [SimpleNamespace(file_size=2**30)] * 2)
    with pytest.raises(ValueError, match="never writes") if refused else nullcontext():
        _files._check_size(archive, size)


def test_arrays_of_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="bject arrays"):
        _files.write_arrays(tmp_path / "x.npz", {"a": np.array([object()])})
    assert not (tmp_path / "x.npz").exists()


def test_the_bomb_is_refused_before_it_is_unpacked(tmp_path):
    write(tmp_path / "run.npz", bomb())
    with pytest.raises(ValueError, match=r"unpack to 8,589,934,592, which pcx never writes"):
        pxu.load_params(pxm.MLP([2, 3, 1]), tmp_path / "run.npz")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def hostile(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "run.npz"
    write(path, request.param())
    return path


def test_load_params_refuses_it(hostile):
    model = pxm.MLP([2, 3, 1])
    before = values(model)
    with pytest.raises(ValueError, match=r"run\.npz"):
        pxu.load_params(model, hostile, pxnn.LayerParam)
    jax.tree.map(np.testing.assert_array_equal, values(model), before)
    assert [p.name for p in hostile.parent.iterdir()] == ["run.npz"]


def test_a_checkpoint_is_refused(hostile):
    trainer = pxt.Trainer(LeastSquares(), progress=False)
    before = values(trainer.algorithm)
    with pytest.raises(ValueError, match=r"run\.npz"):
        trainer.fit(pxt.batches(*regression(8), 4), 1, resume=hostile)
    jax.tree.map(np.testing.assert_array_equal, values(trainer.algorithm), before)


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "run.npz").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ValueError, match=r"run\.npz"):
        pxu.load_params(pxm.MLP([2, 3, 1]), tmp_path / "run.npz")


def test_a_file_that_lacks_an_array_of_its_own_table_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    pxu.save_params(pxm.MLP([2, 3, 1]), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    del entries["layers[1].nn.bias.npy"]
    write(path, entries)
    with pytest.raises(ValueError, match=r"run\.npz .* lacks the array layers\[1\]\.nn\.bias"):
        pxu.load_params(pxm.MLP([2, 3, 1]), path)


def test_a_checkpoint_that_lacks_an_array_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    trainer = pxt.Trainer(LeastSquares(), progress=False)
    trainer.fit(pxt.batches(*regression(8), 4), 1)
    pxt.save_checkpoint(trainer, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    lost = next(name for name in entries if name.startswith("param/"))
    del entries[lost]
    write(path, entries)
    with pytest.raises(
        ValueError, match=r"run\.npz is not a checkpoint: it lacks the array param/"
    ):
        pxt.load_checkpoint(trainer, path)


@pytest.mark.parametrize("name", ["run.json", "run.npz"])
def test_a_damaged_history_is_refused(tmp_path, name):
    path = tmp_path / name
    pxt.History().save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"{name} is no history"):
        pxt.History.load(path)
