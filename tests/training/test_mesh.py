"""Several devices and processes give what one device gives, for every algorithm, and resume exactly.

The oracle is the same run without a mesh, in float64. Devices are forced on the host, so the runs are in
processes of their own: `mesh_program.py` with 8 devices, `processes_program.py` twice with 2 each.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import pcx as px
import pcx.algorithms as pxa
import pcx.models as pxm
import pcx.training as pxt
from pcx.utils import _mesh
from tests.training.helpers import LeastSquares

HERE = Path(__file__).parent
# sums over the batch are added up in another order: float64 keeps 15 digits of them
TOLERANCE = 1e-12
# of compiled code that runs a few times
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def start(program, devices, *arguments):
    flags = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.Popen(
        [sys.executable, HERE / program, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(*parts):
    """What parts of `mesh_program.py` printed, by name."""
    process = start("mesh_program.py", 8, *parts)
    output = process.communicate(timeout=1500)[0]
    assert process.returncode == 0, output[-3000:]
    return dict(json.loads(line) for line in output.splitlines() if line.startswith("["))


@pytest.fixture(scope="module")
def found():
    return said("several_devices", "fsdp", "compilations")


@pytest.fixture(scope="module")
def fitted():
    return said("trainer", "population")


ALONE = [
    *(f"PC on {n}" for n in (1, 2, 4, 8)),
    *(f"{name} on 8" for name in ("IPC", "EPC", "NudgedPC", "Backprop", "PC, persistent states")),
    *(f"{name}, convolutions on 8" for name in ("PC", "Backprop")),
]


@pytest.mark.parametrize("name", ALONE)
def test_energies_and_weights_on_a_mesh_are_those_of_one_device(found, name):
    assert found[name] < TOLERANCE


def test_weights_are_whole_on_every_device_of_the_mesh(found):
    assert found["devices that hold the weights"] == [4]


def test_a_batch_that_does_not_divide_loses_and_repeats_no_sample(found):
    assert found["13 samples on 8"] < TOLERANCE


def test_a_first_batch_that_does_not_divide_is_pointed_out(found):
    (message,) = found["13 samples warn"]
    assert "13 samples do not divide by the 8 devices" in message
    assert "Choose a multiple of 8" in message


@pytest.mark.parametrize("name", ["fsdp 8", "data 2, fsdp 4"])
def test_divided_weights_train_as_whole_ones(found, name):
    assert found[name] < TOLERANCE


def test_weights_and_moments_are_divided_along_their_largest_axis(found):
    assert found["parts of 32 x 64"] == [32, 64 / 8]
    assert found["parts of 32"] == [32]  # too small to be worth it


def test_a_step_on_a_mesh_compiles_once(found):
    assert found["compilations of a later step"] == 0
    assert found["compilations of a second step that draws"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trainer, 2 in a call, on 8", "trainer, fsdp on 4"])
def test_the_trainer_reaches_the_same_history_and_weights_on_a_mesh(fitted, name):
    # shuffled batches of 16, 16 and 8, noise from the epoch's key, validation
    assert fitted[name] < TOLERANCE


@pytest.mark.slow
def test_a_run_resumes_bit_by_bit_on_as_many_devices(fitted):
    assert fitted["resumed on as many"] is True


@pytest.mark.slow
def test_a_checkpoint_of_four_devices_goes_on_on_two(fitted):
    assert fitted["resumed on 2"] < TOLERANCE


@pytest.mark.slow
def test_predictions_of_several_batches_are_put_together(fitted):
    *shape, difference = fitted["prediction"]
    assert shape == [40, 3]
    assert difference < TOLERANCE


@pytest.mark.slow
def test_six_members_are_trained_on_four_devices_and_go_on_on_two(fitted):
    assert fitted["population of 6 on 4, then on 2"] < TOLERANCE


# --- several processes ----------------------------------------------------------------------------


def two_processes(folder, *arguments):
    """Exit codes and outputs of two processes that train together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [start("processes_program.py", 2, rank, port, folder, *arguments) for rank in (0, 1)]
    try:
        outputs = [process.communicate(timeout=1500)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], outputs


@pytest.mark.slow
def test_two_processes_with_a_part_of_the_data_each_train_as_one(tmp_path):
    codes, outputs = two_processes(tmp_path, "data")
    assert codes == [0, 0], outputs
    assert "data equal after 4 epochs" in outputs[0]
    # one writes and shows what both do
    assert "epoch 4/4" in outputs[0]
    assert "epoch 4/4" not in outputs[1]
    assert "predictions" in outputs[1]


@pytest.mark.slow
def test_weights_divided_between_processes_train_as_whole_ones(tmp_path):
    codes, outputs = two_processes(tmp_path, "fsdp")
    assert codes == [0, 0], outputs
    assert "fsdp equal after 4 epochs" in outputs[0]


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_a_restart_goes_on(tmp_path):
    codes, outputs = two_processes(tmp_path, "fsdp", "die")
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, None), outputs[0]
    assert "equal after" not in outputs[0]
    codes, outputs = two_processes(tmp_path, "fsdp")
    assert codes == [0, 0], outputs
    assert "epoch 1/4" not in outputs[0]
    assert "fsdp equal after 4 epochs" in outputs[0]


@pytest.mark.slow
def test_processes_with_unequal_parts_are_refused(tmp_path):
    codes, outputs = two_processes(tmp_path, "data", "unequal")
    assert 0 not in codes
    for output in outputs:
        assert "the processes differ in samples: process 0 has 21, process 1 has 20" in output


@pytest.mark.slow
def test_processes_with_other_weights_are_refused(tmp_path):
    codes, outputs = two_processes(tmp_path, "data", "seeds")
    assert 0 not in codes, outputs


# --- what is refused ------------------------------------------------------------------------------


def one(*axes):
    return Mesh(np.array(jax.devices()[:1]).reshape([1] * len(axes)), axes)


@pytest.mark.wrong_types
def test_a_mesh_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"PC: mesh= is a `jax\.sharding\.Mesh`.*got 8"):
        pxa.PC(pxm.MLP([2, 4, 1]), mesh=8)


def test_an_axis_with_another_name_is_refused():
    with pytest.raises(
        ValueError, match=r"\"data\".*\"fsdp\".*got \('model',\).*\(\(1,\), \(\"data"
    ):
        pxa.PC(pxm.MLP([2, 4, 1]), mesh=one("model"))


def test_the_trainer_refuses_a_mesh_for_an_algorithm_that_has_none():
    with pytest.raises(TypeError, match=r"Trainer: mesh= is for algorithms .*LeastSquares"):
        pxt.Trainer(LeastSquares(), mesh=one("data"))


def test_arrays_that_a_user_holds_survive_training_on_a_mesh():
    model = pxm.MLP([2, 4, 1])
    held = model.layers[0].nn.weight.get()
    before = np.array(held)
    pc = pxa.PC(model, 2, weight_optim=optax.sgd(0.1), mesh=one("data"))
    pc.train_step(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))
    np.testing.assert_array_equal(held, before)
    assert np.any(np.asarray(model.layers[0].nn.weight.get()) != before)


def test_the_key_is_put_on_the_mesh_once(monkeypatch):
    monkeypatch.setattr(px.RKG.key, "_value", jax.random.PRNGKey(3))
    _mesh.place_key(one("data"))
    placed = px.RKG.key.get()
    assert placed.committed
    np.testing.assert_array_equal(placed, jax.random.PRNGKey(3))
    _mesh.place_key(one("data"))
    assert px.RKG.key.get() is placed
