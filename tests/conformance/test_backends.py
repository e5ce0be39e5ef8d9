"""Updates are the same, whatever differentiates them."""

import copy
import re

import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from stable_baselines3.common.save_util import recursive_getattr
from torch import nn

from .algorithms import NAMES, Algorithm, find, record, vector
from .test_global_state import settings

SPACES = ["Box", "Discrete", "MultiDiscrete", "MultiBinary"]
ENGINES = ["array", "autograd"]
WITH_ENGINES = [name for name in NAMES if "engine" in find(name).parameters]
UPDATES, LONGEST_ROLLOUT = 8, 30
TOLERANCE = {"rtol": 0, "atol": 1e-5}
TIME = re.compile("time/(fps|time_elapsed|.*_seconds)")


@pytest.fixture(params=WITH_ENGINES)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """Every registered algorithm that leaves the choice of the engine to its user."""
    return find(request.param)


def train(algorithm: Algorithm, engine: str, action_space: str = "Box", **kwargs):
    """Train for :data:`UPDATES` updates; the model, what it has logged, and its parameters before."""
    model = algorithm(RandomEnv(ACTION_SPACES[action_space]), engine=engine, **kwargs)
    records, before = record(model), vector(model)
    rollout = None if algorithm.spec.off_policy else model.n_steps
    model.learn(UPDATES * (rollout or LONGEST_ROLLOUT), log_interval=1)
    return model, records, before


@pytest.mark.parametrize("action_space", SPACES)
def test_both_engines_give_the_same_training(algorithm: Algorithm, action_space):
    assert_same_training(algorithm, action_space)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size of 7:UserWarning")
@pytest.mark.parametrize("action_space", ["Box", "MultiDiscrete"])
@pytest.mark.parametrize(
    ("algorithm", "variant"),
    [
        pytest.param(find(name), variant, id=f"{name} with {title}")
        for name in WITH_ENGINES
        for title, variant in find(name).traits.variants.items()
    ],
)
def test_both_engines_give_the_same_training_with_other_arguments(algorithm: Algorithm, variant, action_space):
    assert_same_training(algorithm, action_space, **variant)


def assert_same_training(algorithm, action_space, **variant):
    """Steps are short in all of these: with long ones a policy soon becomes so certain that every update multiplies
    differences in the last digit, wherever they come from."""
    if action_space not in algorithm.traits.action_spaces:
        pytest.skip("test_action_spaces sees to it that this is refused")
    (one, of_one, before), (other, of_other, _) = (train(algorithm, e, action_space, **variant) for e in ENGINES)
    assert one._n_updates == other._n_updates >= UPDATES
    assert one.num_timesteps == other.num_timesteps
    th.testing.assert_close(vector(one), vector(other), **TOLERANCE)
    assert (vector(one) - before).abs().max() > 1e-3, "nothing was learned"
    if (
        algorithm.spec.name == "fast_trpo"
    ):  # the stock update, which it makes on autograd, shows no gradient of the actor
        for records in (of_one, of_other):
            records.dumps = [{key: dump[key] for key in dump.keys() - {"train/grad_norm"}} for dump in records.dumps]
    assert of_one.latest.keys() == of_other.latest.keys()
    if not algorithm.traits.asynchronous:  # there it depends on timing what goes into which report
        assert_same_logs(of_one.dumps, of_other.dumps)


def assert_same_logs(ours, theirs):
    """The same keys every time, and but for times the same values, to rounding."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {key for key in one if TIME.fullmatch(key)}:
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-5), key


def test_unknown_engines_are_refused(algorithm: Algorithm):
    with pytest.raises(ValueError, match=r"engine='arrays' \(did you mean 'array'\?\); allowed: 'auto'"):
        algorithm(engine="arrays")


def test_arrays_are_refused_where_they_cannot_do_it(algorithm: Algorithm):
    gelu = {"activation_fn": nn.GELU}
    with pytest.raises(ValueError, match=r"engine='array' cannot .*: its activation function is GELU; allowed: 'auto'"):
        algorithm(engine="array", policy_kwargs=gelu)
    algorithm(engine="autograd", policy_kwargs=gelu)


@pytest.mark.parametrize(
    ("engine", "activation", "announced"),
    [
        ("auto", nn.Tanh, None),
        ("array", nn.Tanh, "Differentiating by arrays"),
        ("autograd", nn.Tanh, "Differentiating by autograd, as asked for"),
        ("auto", nn.GELU, "Differentiating by autograd, because its activation function is GELU"),
    ],
)
def test_the_choice_is_announced_once(algorithm: Algorithm, engine, activation, announced, capsys):
    model = algorithm(engine=engine, policy_kwargs={"activation_fn": activation}, verbose=1)
    for _ in range(2):
        model.learn(2 * LONGEST_ROLLOUT, log_interval=None)
    lines = capsys.readouterr().out.splitlines()
    announced = announced or f"Differentiating by {model.describe_engine()}"
    assert [line for line in lines if line.startswith("Differentiating")] == [announced]


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_nothing_is_announced_by_default(algorithm: Algorithm, engine, capsys):
    algorithm(engine=engine).learn(2 * LONGEST_ROLLOUT)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engine_is_saved_with_the_model(algorithm: Algorithm, engine, tmp_path):
    algorithm(engine=engine).save(tmp_path / "model")
    assert algorithm.cls.load(tmp_path / "model", device="cpu").engine == engine


def test_engines_can_be_switched_between_two_trainings(algorithm: Algorithm):
    def train(*engines):
        model = algorithm()
        for engine in engines:
            model.engine = engine
            model.learn(4 * LONGEST_ROLLOUT, reset_num_timesteps=False)
        return vector(model)

    expected = train("array", "array", "array")
    for engines in [("array", "autograd", "array"), ("autograd", "array", "autograd")]:
        th.testing.assert_close(train(*engines), expected, **TOLERANCE)


def test_engines_can_be_switched_by_saving_and_loading(algorithm: Algorithm, tmp_path):
    model = algorithm(engine="array").learn(4 * LONGEST_ROLLOUT)
    model.save(tmp_path / "model")
    trained = []
    for engine in ENGINES:
        loaded = algorithm.cls.load(tmp_path / "model", env=RandomEnv(), device="cpu", engine=engine)
        loaded.set_random_seed(7)
        trained.append(vector(loaded.learn(4 * LONGEST_ROLLOUT, reset_num_timesteps=False)))
    th.testing.assert_close(*trained, **TOLERANCE)
    assert not th.allclose(trained[0], vector(model), atol=1e-3)


class Jackpot(RandomEnv):
    """Finite rewards whose squares are not."""

    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, 1e30 * reward, *rest


@pytest.mark.filterwarnings("ignore:.*in a row:RuntimeWarning")  # NumPy's own would be errors
@pytest.mark.parametrize("engine", ENGINES)
def test_overflow_in_an_update_is_noticed_and_changes_nothing(algorithm: Algorithm, engine):
    if engine == "autograd" and not algorithm.has_own_constructor:
        return  # the stock update scales a finite gradient with an infinite norm down to zero
    model = algorithm(Jackpot(), engine=engine)
    before, outside = copy.deepcopy(model.get_parameters()), settings()
    with pytest.raises(ValueError, match="3 in a row"):
        model.learn(UPDATES * LONGEST_ROLLOUT)
    assert model.n_skipped_updates == 3
    assert settings() == outside
    if algorithm.has_own_constructor:  # TRPO's policy may have made a good step before its critic could not
        th.testing.assert_close(model.get_parameters()["policy"], before["policy"], rtol=0, atol=0)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    for optimizer in optimizers(model):
        for moments in optimizer.state.values():
            assert not any(th.as_tensor(moment).any() for moment in moments.values())


def optimizers(model):
    """Off-policy algorithms may have several, which they save one by one."""
    names = [name for name in model._get_torch_save_params()[0] if name.endswith("optimizer")]
    return [recursive_getattr(model, name) for name in names]


@pytest.mark.parametrize("engine", ENGINES)
def test_training_changes_no_settings(algorithm: Algorithm, engine):
    before = settings()
    algorithm(engine=engine).learn(2 * LONGEST_ROLLOUT)
    assert settings() == before


def test_what_differentiates_can_be_asked_for(algorithm: Algorithm):
    assert algorithm(engine="auto").describe_engine().startswith(("compiled arrays", "arrays"))
    assert algorithm(engine="array").describe_engine() == "arrays"
    assert algorithm(engine="autograd").describe_engine() == "autograd, as asked for"
    assert "because" in algorithm(policy_kwargs={"activation_fn": nn.GELU}).describe_engine()
