"""GymnasiumVecEnv against SB3's DummyVecEnv, and what it refuses."""

from functools import cache, partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import IMAGE, OBSERVATION_SPACES, VECTOR, EveryEndEnv, RandomEnv
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics, TransformReward
from scripted import Script, ScriptedEnv
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_pg_ext import NAF, NPG, REINFORCE, fast
from sb3_pg_ext.envs import GymnasiumVecEnv
from sb3_pg_ext.envs.batched import separate

MODES = list(AutoresetMode)
SPACES = {**OBSERVATION_SPACES, "Tuple": spaces.Tuple([VECTOR, spaces.Discrete(3), IMAGE])}
LENGTHS = (2, 3, 5)


class Simulator(VectorEnv):
    """A vector environment without single environments, as far as anybody can see.

    :param mode: its autoreset mode
    :param respects_mask: whether its ``reset`` resets only what it is told to
    """

    def __init__(self, mode, respects_mask=True, **kwargs):
        self._inner = SyncVectorEnv(
            [partial(EveryEndEnv, length=length, **kwargs) for length in LENGTHS], autoreset_mode=mode
        )
        self.respects_mask = respects_mask
        self.num_envs = len(LENGTHS)
        self.metadata = self._inner.metadata
        self.observation_space, self.action_space = self._inner.observation_space, self._inner.action_space
        self.single_observation_space = self._inner.single_observation_space
        self.single_action_space = self._inner.single_action_space

    def reset(self, *, seed=None, options=None):
        return self._inner.reset(seed=seed, options=options if self.respects_mask else None)

    def step(self, actions):
        return self._inner.step(actions)


def make_sync(fns, mode=AutoresetMode.DISABLED, **kwargs):
    return GymnasiumVecEnv(SyncVectorEnv(fns, autoreset_mode=mode, **kwargs))


def assert_same(one, other):
    """The same values, whether they are NumPy's scalars or Python's; not the time at which an episode ended."""
    if isinstance(one, dict):
        assert set(one) == set(other)
        for key in one.keys() - {"t"}:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert np.array_equal(one, other), f"{one!r} is not {other!r}"


def play(env, n_steps):
    """Everything that an environment returns; it is not looked at before the end."""
    env.seed(1)
    env.action_space.seed(1)
    returned = [env.reset(), list(env.reset_infos)]
    for _ in range(n_steps):
        returned += env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))
        returned.append(list(env.reset_infos))
    return returned


MONITORED = [lambda length=length: Monitor(EveryEndEnv(length=length)) for length in LENGTHS]


@cache
def play_ten_thousand_steps():
    returned = play(DummyVecEnv(MONITORED), 10_000 // len(LENGTHS) + 1)
    kinds = {info["kind"] for part in returned if isinstance(part, list) for info in part if "kind" in info}
    assert kinds == {0, 1, 2}
    return returned


@pytest.mark.thorough
@pytest.mark.parametrize(("mode", "copy"), list(zip(MODES, (True, False, False), strict=True)))
def test_ten_thousand_steps_are_those_of_a_dummy(mode, copy):
    theirs = play_ten_thousand_steps()
    assert_same(play(make_sync(MONITORED, mode, copy=copy), 10_000 // len(LENGTHS) + 1), theirs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SPACES)
def test_observations_of_every_space_are_those_of_a_dummy(name, mode):
    makes = [lambda length=length: EveryEndEnv(observation_space=SPACES[name], length=length) for length in LENGTHS]
    ours, theirs = play(make_sync(makes, mode), 12), play(DummyVecEnv(makes), 12)
    drop_statistics(ours)
    assert_same(ours, theirs)
    first_ours, first_theirs = ours[0], theirs[0]
    if isinstance(first_theirs, np.ndarray):
        assert first_ours.dtype == first_theirs.dtype


def drop_statistics(returned):
    for part in returned:
        for info in part if isinstance(part, list) else []:
            info.pop("episode", None)


def test_rewards_and_ends_have_the_types_of_a_dummy():
    makes = [partial(EveryEndEnv, length=2)]
    for ours, theirs in zip(play(make_sync(makes), 3)[2:5], play(DummyVecEnv(makes), 3)[2:5], strict=True):
        assert type(ours) is type(theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("space", ["Box", "Dict"])
def test_a_simulator_of_its_own_gives_what_a_dummy_gives(space, mode):
    partial_reset = None if mode == AutoresetMode.SAME_STEP else True
    simulator = Simulator(mode, observation_space=SPACES[space])
    makes = [lambda length=length: EveryEndEnv(observation_space=SPACES[space], length=length) for length in LENGTHS]
    ours, theirs = play(GymnasiumVecEnv(simulator, partial_reset), 30), play(DummyVecEnv(makes), 30)
    drop_statistics(ours)
    assert_same(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_asynchronous_environments_give_what_a_dummy_gives(mode):
    makes = [partial(EveryEndEnv, length=length) for length in (2, 3)]
    env = GymnasiumVecEnv(AsyncVectorEnv(makes, autoreset_mode=mode, copy=False, context="fork"))
    try:
        ours, theirs = play(env, 30), play(DummyVecEnv(makes), 30)
        drop_statistics(ours)
        assert_same(ours, theirs)
        assert env.get_attr("length") == [2, 3]
        assert [callable(step) for step in env.get_attr("has_wrapper_attr", [0])] == [True]
        assert env.has_attr("length")
        assert not env.has_attr("width")
        env.set_attr("length", [1, 1], [1])
        assert env.get_attr("length") == [2, [1, 1]]
        env.set_attr("length", 4)
        assert env.get_attr("length", 1) == [4]
        assert env.env_method("has_wrapper_attr", "length") == [True, True]
        with pytest.raises(AttributeError, match="grow"):
            env.env_method("grow")
        with pytest.raises(ValueError, match="allowed with AsyncVectorEnv"):
            env.env_method("has_wrapper_attr", "length", indices=[0])
        assert env.env_is_wrapped(TimeLimit) == [False, False]
    finally:
        env.close()


def test_asynchronous_environments_know_their_wrappers():
    env = GymnasiumVecEnv(AsyncVectorEnv([lambda: TimeLimit(RandomEnv(), 3)], context="fork"))
    try:
        assert env.env_is_wrapped(TimeLimit) == [True]
    finally:
        env.close()


@pytest.mark.parametrize("mode", MODES)
def test_statistics_are_those_of_a_monitor(mode):
    makes = [partial(EveryEndEnv, length=length) for length in LENGTHS]
    ours = play(make_sync(makes, mode), 100)
    theirs = play(DummyVecEnv([lambda make=make: Monitor(make()) for make in makes]), 100)
    assert sum("episode" in info for part in theirs if isinstance(part, list) for info in part) > 50
    assert_same(ours, theirs)


def test_statistics_have_the_seconds_since_the_beginning():
    env = make_sync([partial(EveryEndEnv, length=1)])
    env.reset()
    seconds = [env.step(np.zeros((1, 1), np.float32))[3][0]["episode"]["t"] for _ in range(3)]
    assert 0 <= seconds[0] <= seconds[1] <= seconds[2] < 60


def test_statistics_begin_anew_with_a_reset():
    env = make_sync([partial(EveryEndEnv, length=3)])
    env.reset()
    env.step(np.zeros((1, 1), np.float32))
    env.reset()
    lengths = [env.step(np.zeros((1, 1), np.float32))[3][0].get("episode", {}).get("l") for _ in range(3)]
    assert lengths == [None, None, 3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrap", [VecNormalize, lambda env: VecFrameStack(env, 3), VecTransposeImage])
def test_results_in_wrappers_are_those_in_wrappers_of_a_dummy(wrap, mode):
    space = IMAGE if wrap is VecTransposeImage else VECTOR
    makes = [lambda length=length: Monitor(EveryEndEnv(observation_space=space, length=length)) for length in LENGTHS]
    assert_same(play(wrap(make_sync(makes, mode)), 30), play(wrap(DummyVecEnv(makes)), 30))


@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
def test_vec_monitor_has_the_episodes_of_a_dummy():
    makes = [partial(EveryEndEnv, length=length) for length in LENGTHS]
    assert_same(play(VecMonitor(make_sync(makes)), 30), play(VecMonitor(DummyVecEnv(makes)), 30))


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_gymnasiums_statistics_which_partial_resets_confuse_are_refused(mode):
    simulator = SyncVectorEnv([RandomEnv, RandomEnv], autoreset_mode=mode)
    with pytest.raises(ValueError, match="is in RecordEpisodeStatistics"):
        GymnasiumVecEnv(TransformReward(RecordEpisodeStatistics(simulator), lambda reward: reward))


def test_gymnasiums_statistics_give_way_to_those_of_a_monitor():
    makes = [partial(EveryEndEnv, length=length) for length in LENGTHS]
    simulator = RecordEpisodeStatistics(SyncVectorEnv(makes, autoreset_mode=AutoresetMode.SAME_STEP))
    for our, their in zip(play(GymnasiumVecEnv(simulator), 30), play(DummyVecEnv(MONITORED), 30), strict=True):
        for info, monitors in zip(our, their, strict=True) if isinstance(our, list) else []:
            if "TimeLimit.truncated" in info:
                assert_same(info.get("episode", 0), monitors.get("episode", 0))


class ReusingEnv(EveryEndEnv):
    """Returns the same array and the same list in the infos at every step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.array, self.list = np.zeros(3, np.float32), [0]

    def _reuse(self, obs, info):
        self.array[:] = obs
        self.list[0] = self.time
        return self.array, {**info, "list": self.list}

    def reset(self, **kwargs):
        return self._reuse(*super().reset(**kwargs))

    def step(self, action):
        obs, *middle, info = super().step(action)
        obs, info = self._reuse(obs, info)
        return obs, *middle, info


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_an_environment_that_reuses_its_array_spoils_nothing(mode):
    ours = play(make_sync([partial(ReusingEnv, length=length) for length in LENGTHS], mode, copy=False), 30)
    theirs = play(DummyVecEnv([partial(EveryEndEnv, length=length) for length in LENGTHS]), 30)
    drop_statistics(ours)
    lists = [info.pop("list") for part in ours if isinstance(part, list) for info in part if "list" in info]
    times = [info["time"] for part in theirs if isinstance(part, list) for info in part if "time" in info]
    assert [[time] for time in times] == [numbers for numbers in lists if numbers != [0]]
    assert_same(ours, theirs)


# Learning


SCRIPTS = (Script((1.0, 0.5, -0.25), truncated=True), Script((0.5, 2.0)), Script((0.125,), truncated=True))


class Keep(BaseCallback):
    """Keeps the advantages of the rollout."""

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.advantages = self.model.rollout_buffer.advantages.copy()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cls", [PPO, fast.PPO])
def test_advantages_at_a_cut_are_those_of_a_slow_float64_reference(cls, mode):
    n_steps, gamma, lam = 14, 0.9, 0.8
    singles = [ScriptedEnv(spaces.Discrete(2), *SCRIPTS, first=-7 + 5 * i) for i in range(2)]
    env = make_sync([lambda single=single: single for single in singles], mode)
    model = cls("MlpPolicy", env, n_steps=n_steps, batch_size=n_steps, n_epochs=1, gamma=gamma, gae_lambda=lam, seed=0)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    keep = Keep()
    model.learn(2 * n_steps, keep)
    model.policy.load_state_dict(before)
    for i, single in enumerate(singles):
        reference = []
        for played in single.played:
            n = len(played.rewards)
            if n == 0:
                continue
            obs = np.array(played.observations[: n + 1], np.float32)
            values = (
                model.policy.predict_values(model.policy.obs_to_tensor(obs)[0]).detach().numpy()[:, 0].astype(float)
            )
            if played.complete and not played.script.truncated:
                values[-1] = 0
            advantage, of_episode = 0.0, []
            for t in reversed(range(n)):
                delta = played.rewards[t] + gamma * values[t + 1] - values[t]
                advantage = delta + gamma * lam * advantage
                of_episode.insert(0, advantage)
            reference += of_episode
        assert len(reference) == n_steps
        np.testing.assert_allclose(keep.advantages[:, i], reference, rtol=1e-4, atol=1e-5)


class CountingEnv(EveryEndEnv):
    """Counts its steps."""

    n_steps = 0

    def step(self, action):
        self.n_steps += 1
        return super().step(action)


@pytest.mark.parametrize("mode", MODES)
def test_timesteps_are_steps_of_the_environments(mode):
    env = make_sync([partial(CountingEnv, length=length) for length in LENGTHS], mode)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=24, n_epochs=1, seed=0).learn(48)
    assert env.get_attr("n_steps") == [16] * 3
    assert model.num_timesteps == 48


@pytest.mark.parametrize("cls", [A2C, PPO, fast.A2C, fast.PPO, REINFORCE, NPG, SAC, NAF])
def test_training_gives_the_parameters_that_it_gives_with_a_dummy(cls):
    off_policy = {"learning_starts": 20, "batch_size": 8, "buffer_size": 100, "train_freq": 4}
    batches = {"n_steps": 8, "batch_size": 24}
    arguments = {SAC: off_policy, NAF: off_policy, PPO: batches, fast.PPO: batches}.get(cls, {"n_steps": 8})
    parameters = []
    for env in (make_sync(MONITORED), DummyVecEnv(MONITORED)):
        model = cls("MlpPolicy", env, seed=0, policy_kwargs={"net_arch": [8]}, **arguments).learn(72)
        parameters.append(th.cat([part.flatten() for part in model.policy.parameters()]))
    assert th.equal(*parameters)


def test_evaluation_sees_the_returns_of_whole_episodes_through_a_normalizer():
    results = []
    for env in (make_sync([partial(EveryEndEnv, length=length) for length in LENGTHS]), DummyVecEnv(MONITORED)):
        env.seed(2)
        model = PPO("MlpPolicy", VecNormalize(env, training=False), seed=0)
        results.append(evaluate_policy(model, model.get_env(), 7, return_episode_rewards=True))
    assert results[0] == results[1]
    assert set(results[0][1]) == set(LENGTHS)


# What else SB3 asks of a VecEnv


def test_attributes_and_methods_of_single_environments():
    env = make_sync([lambda length=length: TimeLimit(RandomEnv(length=length), 3) for length in LENGTHS])
    assert env.get_attr("length") == list(LENGTHS)
    assert env.get_attr("length", [2, 0]) == [5, 2]
    assert callable(env.get_attr("step")[0])
    assert env.has_attr("length")
    assert not env.has_attr("width")
    env.set_attr("length", [7], indices=1)
    assert [single.unwrapped.length for single in env.env.envs] == [2, [7], 5]
    assert env.env_method("has_wrapper_attr", "length", indices=[0, 1]) == [True, True]
    assert env.env_is_wrapped(TimeLimit) == [True] * 3
    assert env.env_is_wrapped(gym.wrappers.ClipAction, [0]) == [False]
    assert env.env_is_wrapped(Monitor) == [True] * 3


def test_a_simulator_without_single_environments_says_so():
    env = GymnasiumVecEnv(Simulator(AutoresetMode.SAME_STEP))
    assert env.get_attr("render_mode") == [None] * 3
    assert env.env_is_wrapped(TimeLimit) == [False] * 3
    assert env.env_is_wrapped(Monitor, [0]) == [True]
    assert not env.has_attr("length")
    for ask in (
        lambda: env.get_attr("length"),
        lambda: env.set_attr("length", 3),
        lambda: env.env_method("grow"),
    ):
        with pytest.raises(AttributeError, match="it has no single environments"):
            ask()


def test_the_same_seed_gives_the_same_episodes_again():
    env = make_sync([partial(EveryEndEnv, length=length) for length in LENGTHS])
    one, other = play(env, 20), play(env, 20)
    assert_same(one, other)
    np.testing.assert_raises(AssertionError, np.testing.assert_array_equal, one[0], env.reset())


class OptionsEnv(RandomEnv):
    """Tells with which options it was reset."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"options": str(options)}


def test_options_go_to_the_next_reset_alone():
    env = make_sync([OptionsEnv, OptionsEnv])
    env.set_options({"level": 3})
    env.reset()
    assert [info["options"] for info in env.reset_infos] == ["{'level': 3}"] * 2
    env.reset()
    assert [info["options"] for info in env.reset_infos] == ["None"] * 2
    env.set_options([{"level": 1}, {"level": 2}])
    with pytest.raises(ValueError, match="the same for all environments"):
        env.reset()


def test_rendering_and_closing():
    make = partial(gym.make, "CartPole-v1", render_mode="rgb_array")
    env = make_sync([make, make])
    env.reset()
    assert [image.shape for image in env.get_images()] == [(400, 600, 3)] * 2
    assert env.render().shape == (800, 600, 3)
    env.close()
    assert env.env.closed
    env.close()


def test_images_need_a_render_mode():
    env = make_sync([RandomEnv])
    with pytest.warns(UserWarning, match="images need rgb_array"):
        assert env.get_images() == [None]


# What is refused


def test_gymnasiums_cart_pole_is_refused():
    simulator = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    with pytest.raises(ValueError, match="every episode would be followed by a step that is none"):
        GymnasiumVecEnv(simulator)
    with pytest.raises(ValueError, match="every episode would be followed by a step that is none"):
        GymnasiumVecEnv(RecordEpisodeStatistics(simulator))


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_a_simulator_that_ignores_the_mask_is_found_out(mode):
    env = GymnasiumVecEnv(Simulator(mode, respects_mask=False), partial_reset=True)
    with pytest.raises(ValueError, match="has reset all environments"):
        play(env, 3)


def test_a_simulator_without_a_mode_is_refused():
    simulator = Simulator(AutoresetMode.SAME_STEP)
    simulator.metadata = {}
    with pytest.raises(ValueError, match="autoreset_mode=None in its metadata; allowed: those of gymnasium"):
        GymnasiumVecEnv(simulator)


def test_a_simulator_that_does_not_tell_the_final_observation_is_refused():
    class Silent(Simulator):
        def step(self, actions):
            *results, infos = super().step(actions)
            infos.pop("final_obs", None)
            return *results, infos

    with pytest.raises(ValueError, match="no final_obs in its infos"):
        play(GymnasiumVecEnv(Silent(AutoresetMode.SAME_STEP)), 3)


def test_asynchronous_environments_without_shared_memory_that_reset_twice_are_refused():
    simulator = AsyncVectorEnv([RandomEnv], shared_memory=False, context="fork")
    try:
        with pytest.raises(ValueError, match="allowed: shared_memory=True"):
            GymnasiumVecEnv(simulator)
    finally:
        simulator.close()


def test_other_things_are_refused():
    with pytest.raises(ValueError, match=r"is a RandomEnv; allowed: a gymnasium\.vector\.VectorEnv"):
        GymnasiumVecEnv(RandomEnv())


# Infos


def test_infos_are_separated():
    infos = {
        "a": np.array([1, 0]),
        "_a": np.array([True, False]),
        "b": {"c": np.array([0.5, 2.0]), "_c": np.array([True, True])},
        "_b": np.array([False, True]),
        "all": np.array([3, 4]),
        "whole": "the same",
        "list": ["x", "y"],
    }
    assert separate(infos, 2) == [
        {"a": 1, "all": 3, "whole": "the same", "list": "x"},
        {"b": {"c": 2.0}, "all": 4, "whole": "the same", "list": "y"},
    ]


def test_infos_that_begin_with_an_underscore_are_no_masks():
    infos = SyncVectorEnv([RandomEnv])._add_info({}, {"_own": 3, "other": "x"}, 0)
    assert separate(infos, 1) == [{"_own": 3, "other": "x"}]
