"""A population against runs of the trainer, one for each member."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pcx as px
import pcx.algorithms as pxa
import pcx.core
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.training as pxt
import pcx.utils as pxu
from tests.training.helpers import LeastSquares, regression

SAMPLES = regression(20)
# XLA multiplies a batch of matrices in another order than one pair
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def data(rkg=4, size=4, samples=20):
    return pxt.batches(*regression(samples), size, shuffle=True, rkg=rkg)


class Plain(LeastSquares):
    """Without the log, which makes every object a program of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        del self.log

    def start_epoch(self, epoch):
        pass


def least_squares(seed, lr=0.1, noise=0.0, momentum=0.9, cls=Plain):
    optim = pxu.Optim(optax.sgd, learning_rate=lr, momentum=momentum)
    algorithm = cls(noise=noise)
    algorithm.weight_optim = optim.init(pxu.M(pxnn.LayerParam)(algorithm.model))
    algorithm.model.weight.set(0.1 * jax.random.normal(px.RKG(), algorithm.model.weight.shape))
    return algorithm


def network(name, **options):
    def make(seed, rate=0.1, momentum=0.0, lr=1e-2, **numbers):
        model = pxm.MLP([3, 6, 2])
        state = pxu.Optim(optax.sgd, learning_rate=rate, momentum=momentum)
        if name == "MCPC":
            state = pxu.Optim(pxa.langevin, gamma=rate)
        # with its usual eps of 1e-8 it makes steps of full length out of roundings
        adamw = functools.partial(optax.adamw, eps=1e-4)
        weight = pxu.Optim(adamw, learning_rate=lr, weight_decay=1e-2)
        return getattr(pxa, name)(model, 3, state, weight, **options, **numbers)

    return make


def jitter(key, x):
    return x + jax.random.normal(key, x.shape)


def alone(make, member, batches, epochs, augment=None):
    px.RKG.seed(member.seed)
    algorithm = make(member.seed, **member.settings)
    trainer = pxt.Trainer(algorithm, progress=False, diagnose=False, augment=augment)
    trainer.fit(batches, epochs, val=[regression(seed=1)])
    return trainer.algorithm, trainer.history


def arrays(algorithm):
    params = dict(pcx.core.named_params(algorithm))
    return jax.tree_util.tree_leaves({path: param.get() for path, param in params.items()})


def assert_same(member, algorithm, history, **tolerance):
    for table in ("epoch", "batch"):
        ours, theirs = getattr(member.history, table), getattr(history, table)
        assert ours.keys() == theirs.keys() - {"lr"}
        for name in ours.keys() - {"seconds"}:
            np.testing.assert_allclose(ours[name], theirs[name], **tolerance, err_msg=name)
    for a, b in zip(arrays(member.algorithm), arrays(algorithm), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def assert_as_alone(make, grid, train, k=1, epochs=2, seeds=(0, 1), **options):
    population = pxt.Population(
        make, grid, seeds=seeds, steps_per_call=k, progress=False, **options
    )
    key = np.asarray(px.RKG.key.get())
    population.fit(train, epochs, val=[regression(seed=1)])
    assert (np.asarray(px.RKG.key.get()) == key).all()
    for member in population.members:
        batches = train(member.seed) if callable(train) else data(size=train.batch_size)
        expected = alone(make, member, batches, epochs, options.get("augment"))
        assert_same(member, *expected, **CLOSE)
    return population


NAMES = [
    ("PC", [{"momentum": 0.0, "lr": 1e-2}, {"momentum": 0.5, "lr": 3e-2}], {}),
    ("NudgedPC", {"beta": [0.3, 0.6], "beta_increase": [0.2]}, {"mode": "centred"}),
    ("MCPC", {"rate": [0.01, 0.02]}, {}),
    ("IPC", {"rate": [0.1, 0.2]}, {}),
    ("EPC", {"rate": [0.1, 0.2]}, {}),
    ("ZIL", {"lr": [1e-2, 3e-2]}, {}),
    ("PCALM", {"rho": [0.5, 1.0]}, {}),
    ("Backprop", {"lr": [1e-2, 3e-2]}, {}),
]
FAST = ("PC",)


@pytest.mark.parametrize(
    ("name", "grid", "options"),
    [pytest.param(*n, id=n[0], marks=() if n[0] in FAST else pytest.mark.slow) for n in NAMES],
)
def test_each_member_of_every_algorithm_trains_as_alone(name, grid, options):
    assert_as_alone(network(name, **options), grid, data(), seeds=(0,) if name == "PC" else (0, 1))


ORDERS = {
    "one order": lambda: data(size=3),
    "orders": lambda: lambda seed: pxt.batches(*SAMPLES, 3, shuffle=True, rkg=seed),
    "lists": lambda: lambda seed: list(data(seed, size=3)),
}


@pytest.mark.parametrize(
    ("order", "k"),
    [
        ("one order", 1),
        ("orders", 4),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("one order", 4), ("orders", 1)]
        ),
        *(pytest.param("lists", k, marks=pytest.mark.slow) for k in (1, 4)),
    ],
)
def test_keys_numbers_and_orders_of_members_are_those_of_runs_of_their_own(order, k):
    # 7 batches: calls of 4 and 2 full ones, and the rest
    grid = [{"lr": 0.05, "noise": 0.2}, {"lr": 0.1, "noise": 0.0}]
    population = assert_as_alone(least_squares, grid, ORDERS[order](), k)
    assert len(population.members[0].history.batch["energy"]) == 14


@pytest.mark.parametrize(("order", "k"), [("one order", 4), ("orders", 1)])
def test_each_member_sees_the_augmented_batches_of_a_run_of_its_own(order, k):
    grid = [{"lr": 0.05, "noise": 0.2}, {"lr": 0.1, "noise": 0.0}]
    population = assert_as_alone(least_squares, grid, ORDERS[order](), k, augment=jitter)
    member = population.members[0]
    _, plain = alone(least_squares, member, data(size=3), 2)
    assert not np.allclose(member.history.batch["energy"], plain.batch["energy"])


def test_the_key_of_augmentation_is_drawn_before_what_happens_at_the_start_of_an_epoch():
    make = functools.partial(least_squares, cls=Annealed)
    assert_as_alone(make, [{"noise": 0.2}], data(size=3), augment=jitter)


class Annealed(Plain):
    """Its `start_epoch` draws from the default generator, writes a param and a Python number."""

    def start_epoch(self, epoch):
        self.noise = self.noise / (1 + epoch)
        self.model.weight *= jax.random.uniform(px.RKG())


def test_what_happens_before_an_epoch_happens_to_each_member():
    make = functools.partial(least_squares, cls=Annealed)
    population = pxt.Population(
        make, [{"noise": 0.1}, {"noise": 0.3}], seeds=(0, 1), progress=False
    )
    population.fit(data(), 3, val=[regression(seed=1)])
    for member in population.members:
        assert_same(member, *alone(make, member, data(), 3), **CLOSE)
    # one of two diverges, and its program goes on
    population = pxt.Population(make, {"lr": [0.05, 1e6]}, progress=False)
    population.fit(data(), 3, val=[regression(seed=1)])
    good, bad = population.members
    assert_same(good, *alone(make, good, data(), 3), **CLOSE)
    assert bad.diverged.epoch == 1
    assert len(bad.history) == 0


def test_a_member_that_diverged_draws_no_more_keys():
    keys = []
    for epochs in (1, 3):
        grid = {"lr": [0.05, 1e6]}
        population = pxt.Population(least_squares, grid, progress=False, augment=jitter)
        population.fit(data(), epochs)
        good, bad = population.members
        assert bad.diverged.epoch == 1
        keys.append((np.asarray(good.key), np.asarray(bad.key)))
    (good, bad), (later, still) = keys
    np.testing.assert_array_equal(bad, still)
    assert np.any(good != later)


def test_any_number_of_settings_is_one_program():
    """A program for a full batch, and no other."""

    def traces(values):
        count = []

        class Counted(Plain):
            def train_step(self, x, y):
                count.append(1)
                return super().train_step(x, y)

        population = pxt.Population(
            lambda seed, noise: Counted(noise=noise), {"noise": values}, progress=False
        )
        population.fit(pxt.batches(*regression(8), 4), 3)
        return len(count)

    assert traces([0.1]) == traces([0.1, 0.2, 0.3]) == 1


def test_a_diverged_member_stays_as_before_its_batch_and_the_others_go_on():
    grid = {"lr": [0.1, 1e6]}
    population = pxt.Population(
        least_squares, grid, steps_per_call=4, progress=False, metrics={"accuracy": pxt.accuracy}
    )
    population.fit(data(), 2, val=[regression(seed=1)])
    good, bad = population.members
    assert_same(good, *alone(least_squares, good, data(), 2), **CLOSE)
    px.RKG.seed(0)
    trainer = pxt.Trainer(least_squares(0, lr=1e6), progress=False)
    with pytest.raises(pxt.Diverged) as raised:
        trainer.fit(data(), 2)
    assert (bad.diverged.epoch, bad.diverged.batch) == (raised.value.epoch, raised.value.batch)
    assert_same(bad, trainer.algorithm, trainer.history, **CLOSE)
    assert "diverged in epoch 1, batch" in str(bad.diverged)
    assert repr(population) == "Population(2 members, 1 program, 1 diverged)"
    assert population.best("val_energy").settings == {"lr": 0.1}
    assert population.summary("accuracy")[1].diverged == 1


def test_training_ends_when_all_have_diverged():
    population = pxt.Population(least_squares, {"lr": [1e6, 1e7]}, progress=False)
    population.fit(data(), 100)
    assert all(member.diverged.epoch == 1 for member in population.members)
    with pytest.raises(ValueError, match="all members diverged"):
        population.fit(data(), 1, val=data()) or population.best("val_energy")


# --- groups ---------------------------------------------------------------------------------------


def test_settings_of_the_structure_are_programs_of_their_own_with_the_same_data():
    grid = {"momentum": [0.5, 0.9], "lr": [0.1, 0.2]}
    population = assert_as_alone(least_squares, grid, data(), seeds=(0,), structure=["momentum"])
    assert repr(population) == "Population(4 members, 2 programs)"


def rigid(seed, width=4, lr=1e-2, T=2, act=jax.nn.tanh):
    return pxa.PC(pxm.MLP([3, width, 2], act=act), T, weight_optim=optax.adam(lr))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"width": [4, 5]}, r"weight: f32\[4,3\], and f32\[5,3\][\s\S]*structure=\('width',\)"),
        ({"T": [2, 3]}, r"algorithm\.T: 2, and 3\n.*structure=\('T',\)"),
        ({"act": [jax.nn.relu, jax.nn.tanh]}, r"relu[\s\S]*structure=\('act',\)"),
        ({"lr": [0.1, 0.2]}, r"weight_optim\._given[\s\S]*pxu\.Optim\(optax\.adamw, learning_rate"),
    ],
    ids=["width", "T", "act", "lr"],
)
def test_a_setting_that_changes_the_structure_is_named(grid, message):
    with pytest.raises(ValueError, match=message) as raised:
        pxt.Population(rigid, grid)
    assert f"{next(iter(grid))}=" in str(raised.value)


def test_members_may_hold_equal_functions_made_anew():
    make = lambda seed: pxa.PC(pxm.MLP([3, 4, 2], act=lambda a: jnp.tanh(a)), 2)
    pxt.Population(make, seeds=range(2))


def test_what_cannot_be_a_population_is_refused():
    shared = Plain()
    with pytest.raises(ValueError, match=r"seed 0 and seed 1 share `algorithm\.model\.weight`"):
        pxt.Population(lambda seed: shared, seeds=range(2))
    with pytest.raises(ValueError, match=r"'depth' is none of the settings: lr"):
        pxt.Population(least_squares, {"lr": [0.1]}, structure=("depth",))
    with pytest.raises(ValueError, match=r"the same settings; the first has 'lr', another 'noise'"):
        pxt.Population(least_squares, [{"lr": 0.1}, {"noise": 0.1}])
    with pytest.raises(ValueError, match="there is no member"):
        pxt.Population(least_squares, {"lr": []})
    with pytest.raises(TypeError, match=r"Population takes an algorithm[\s\S]*lacks .*train_step"):
        pxt.Population(lambda seed: pxm.MLP([2, 2]))
    with pytest.raises(ValueError, match='with init="persistent" the first batch'):
        pxt.Population(lambda seed: pxa.PC(pxm.MLP([3, 4, 2]), init="persistent"))
    with pytest.raises(ValueError, match="the seed decides the structure"):
        pxt.Population(lambda seed: rigid(seed, width=4 + seed), seeds=range(2))


def test_python_that_decides_by_a_number_is_told_to_name_its_setting():
    class Deciding(Plain):
        def train_step(self, x, y):
            return super().train_step(x if self.noise > 0.1 else 2 * x, y)

    make = lambda seed, noise: Deciding(noise=noise)
    population = pxt.Population(make, {"noise": [0.0, 0.2]}, progress=False)
    with pytest.raises(jax.errors.TracerBoolConversionError) as raised:
        population.fit(data(), 1)
    assert "Name its setting in `structure=`" in raised.value.__notes__[-1]


def test_a_step_that_changes_the_form_of_a_param_is_refused():
    class Growing(Plain):
        def train_step(self, x, y):
            self.steps.set(jnp.zeros(2, jnp.int32) + self.steps.get())
            return super().train_step(x, y)

    population = pxt.Population(lambda seed: Growing(), progress=False)
    with pytest.raises(TypeError, match="a training step of Growing changes the form"):
        population.fit(data(), 1)


def test_seeds_with_other_batches_are_refused():
    population = pxt.Population(least_squares, seeds=(3, 4), progress=False)
    with pytest.raises(ValueError, match=r"of seed 4 are not those of seed 3 .*\(batch 5"):
        population.fit(lambda seed: data(samples=20 if seed == 3 else 18), 1)


def test_no_batches_and_class_numbers_are_told_as_by_the_trainer():
    population = pxt.Population(least_squares, progress=False)
    with pytest.raises(ValueError, match="epoch 1 got no batch"):
        population.fit([], 1)
    x, y = regression()
    numbers = pxt.batches(x, y.argmax(1), 4)
    with pytest.raises(ValueError, match="output") as raised:
        pxt.Population(network("Backprop"), progress=False).fit(numbers, 1)
    assert "classes=n" in str(raised.value.__notes__)
    population = pxt.Population(least_squares, classes=2, progress=False)
    population.fit(numbers, 1)
    assert "accuracy" in population.members[0].history


# --- results --------------------------------------------------------------------------------------


def test_results_are_means_over_seeds_and_the_best_is_chosen_by_validation():
    grid = {"lr": [1e-3, 0.1]}
    population = pxt.Population(least_squares, grid, seeds=range(3), progress=False)
    population.fit(data(), 2, val=[regression(seed=1)])
    values = np.array([m.history["val_energy"] for m in population.members]).reshape(2, 3, 2)
    last, least = population.summary("val_energy"), population.summary("val_energy", "best")
    for i in range(2):
        assert last[i].settings == {"lr": grid["lr"][i]}
        assert [m.seed for m in last[i].members] == [0, 1, 2]
        np.testing.assert_allclose(last[i].mean, values[i, :, -1].mean())
        np.testing.assert_allclose(last[i].sd, values[i, :, -1].std(ddof=1))
        np.testing.assert_allclose(least[i].values, values[i].min(axis=1))
    assert population.best("val_energy").mean == min(r.mean for r in last)
    assert population.best("val_energy", mode="max").mean == max(r.mean for r in last)
    with pytest.raises(ValueError, match="such as \"val_accuracy\"; got 'accuracy'"):
        population.best("accuracy")


def test_evaluation_is_that_of_each_member():
    population = pxt.Population(
        least_squares, {"momentum": [0.5, 0.9]}, structure="momentum", seeds=(0, 1), progress=False
    )
    population.fit(data(), 1)
    results = population.evaluate(data(size=10))
    for member, result in zip(population.members, results, strict=True):
        expected = pxt.Trainer(member.algorithm, progress=False).evaluate(data(size=10))
        assert result == pytest.approx(expected, rel=1e-5)


def test_recorded_energies_are_in_each_history():
    def make(seed, lr):
        algorithm = least_squares(seed, lr)
        algorithm.record = True
        return algorithm

    population = pxt.Population(make, {"lr": [0.1, 0.2]}, progress=False, steps_per_call=3)
    population.fit(data(), 1, val=[regression(seed=1)])
    for member in population.members:
        algorithm, history = alone(make, member, data(), 1)
        assert_same(member, algorithm, history, **CLOSE)
        assert member.history.vode_names == history.vode_names
        np.testing.assert_allclose(member.history.inference, history.inference, **CLOSE)


def test_a_line_for_each_epoch_tells_the_mean_and_who_diverged(capsys):
    grid = {"momentum": [0.5, 0.9], "lr": [0.1, 1e6]}
    population = pxt.Population(least_squares, grid, structure=("momentum",))
    population.fit(data(), 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("accuracy")[0] for line in lines] == [
        f"group {g}/2  epoch 1/1  " for g in (1, 2)
    ]
    assert all("1 of 2 diverged" in line for line in lines)


# --- breaking off and going on --------------------------------------------------------------------


class Killed(Exception):
    pass


def killed(batches, after):
    """The same batches, until so many were given."""

    class Mortal(type(batches)):
        left = after

        def begin(self):
            parts, rng = super().begin()
            if Mortal.left < len(parts):
                raise Killed
            Mortal.left -= len(parts)
            return parts, rng

    batches.__class__ = Mortal
    return batches


@pytest.mark.parametrize(
    ("own_orders", "epochs_done"),
    [
        (False, 4),
        pytest.param(True, 1, marks=pytest.mark.slow),
        pytest.param(False, 1, marks=pytest.mark.slow),
    ],
)
def test_a_killed_population_goes_on_and_ends_with_the_same_numbers(
    tmp_path, own_orders, epochs_done
):
    def population():
        grid = {"momentum": [0.5, 0.9], "noise": [0.1, 0.3]}
        return pxt.Population(
            least_squares,
            grid,
            structure=("momentum",),
            seeds=(0, 1),
            steps_per_call=4,
            augment=jitter,
            progress=False,
        )

    def order(after=10**6):
        if own_orders:
            return lambda seed: killed(data(rkg=seed, size=3), after if seed == 0 else 10**6)
        return killed(data(size=3), after)

    whole, first, second = population(), population(), population()
    val = [regression(seed=1)]
    whole.fit(order(), 3, val=val)
    # 7 batches in an epoch; with orders of their own the loaders of the second group are new
    after = min(epochs_done, 2) * 7 + 3 if own_orders else epochs_done * 7 + 3
    with pytest.raises(Killed):
        first.fit(order(after), 3, val=val, checkpoint=tmp_path / "run")
    px.RKG.seed(99)
    second.fit(order(), 3, val=val, checkpoint=tmp_path / "run.npz", resume=True)
    for a, b in zip(whole.members, second.members, strict=True):
        assert_same(a, b.algorithm, b.history, rtol=0)
        assert (np.asarray(a.key) == np.asarray(b.key)).all()


def test_a_member_that_diverged_is_still_known_after_resuming(tmp_path):
    path = tmp_path / "run.npz"
    make = lambda: pxt.Population(least_squares, {"lr": [0.1, 1e6]}, progress=False)
    first, second = make(), make()
    first.fit(data(), 1, checkpoint=path)
    second.fit(data(), 2, checkpoint=path, resume=True)
    ours, theirs = (p.members[1].diverged for p in (first, second))
    assert (ours.epoch, ours.batch, str(ours)) == (theirs.epoch, theirs.batch, str(theirs))
    assert len(second.members[0].history) == 2


def test_the_checkpoint_of_another_population_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    make = lambda values, **more: pxt.Population(
        least_squares, {"lr": values}, progress=False, **more
    )
    make([0.1, 0.2]).fit(data(), 1, checkpoint=path)
    fit = lambda population, batches: population.fit(batches, 2, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match=r"member 1 is `lr=0.2, seed 0`, here `lr=0.3, seed 0`"):
        fit(make([0.1, 0.3]), data())
    with pytest.raises(ValueError, match="it has 2 members, this one 4"):
        fit(make([0.1, 0.2], seeds=(0, 1)), data())
    with pytest.raises(ValueError, match=r"batch_size 4 \(here 5\)"):
        fit(make([0.1, 0.2]), data(size=5))
    with pytest.raises(ValueError, match="checkpoint="):
        make([0.1]).fit(data(), 1, resume=True)
    pxt.save_checkpoint(pxt.Trainer(least_squares(0), progress=False), path)
    with pytest.raises(ValueError, match="it has 0 members"):
        fit(make([0.1, 0.2]), data())


@pytest.mark.parametrize("k", [1, 3])
def test_after_an_interrupt_algorithms_and_histories_agree(k):
    def interrupted():
        for number, batch in enumerate(data(size=3), start=1):
            if number == 6:
                raise KeyboardInterrupt
            yield batch

    population = pxt.Population(least_squares, {"lr": [0.1, 0.2]}, progress=False, steps_per_call=k)
    with pytest.raises(KeyboardInterrupt):
        population.fit(interrupted(), 1)
    steps = len(population.members[0].history.batch["energy"])
    assert steps == {1: 5, 3: 3}[k]
    assert [int(m.algorithm.steps) for m in population.members] == [steps, steps]


def test_a_second_fit_trains_on():
    population = pxt.Population(least_squares, {"lr": [0.1, 0.2]}, progress=False)
    population.fit(data(), 1)
    population.fit(data(), 1)
    for member in population.members:
        px.RKG.seed(0)
        trainer = pxt.Trainer(least_squares(0, **member.settings), progress=False)
        trainer.fit(data(), 1)
        trainer.fit(data(), 1)
        assert_same(member, trainer.algorithm, trainer.history, **CLOSE)
