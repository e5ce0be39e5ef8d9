"""Callbacks, logs, arguments and the course of training of the fast twins, against those of the stock classes."""

import json
import re
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from comparison import (
    A2C,
    PPO,
    TRPO,
    AskedItself,
    Exchange,
    assert_close,
    assert_trains_alike,
    each_pair,
    exactly,
    keep_logs,
    moved,
    parameters,
    vec_env,
)
from envs import ACTION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HParam,
    HumanOutputFormat,
    JSONOutputFormat,
    TensorBoardOutputFormat,
    configure,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

pytestmark = pytest.mark.thorough


class Counter(BaseCallback):
    """Notes everything that happens to it; from step ``stop`` on it gives ``answer``."""

    def __init__(self, stop=float("inf"), answer=False):
        super().__init__()
        self.stop, self.answer = stop, answer
        self.events = []

    def _on_training_start(self):
        self.events.append("training starts")

    def _on_rollout_start(self):
        self.events.append("rollout starts")

    def _on_step(self):
        self.events.append((self.n_calls, self.num_timesteps, self.locals["n_steps"], self.model.num_timesteps))
        return self.answer if self.n_calls >= self.stop else True

    def _on_rollout_end(self):
        self.events.append("rollout ends")

    def _on_training_end(self):
        self.events.append("training ends")


@each_pair
@pytest.mark.parametrize("n_steps", [1, 16, 33])
@pytest.mark.parametrize("stop", [float("inf"), 1, 16, 20])
def test_what_happens_when(pair, n_steps, stop):
    counters = [Counter(stop), Counter(stop)]
    models = pair.make_both(vec_env)
    for model, counter in zip(models, counters, strict=True):
        model.learn(n_steps, counter)
        model.learn(n_steps, counter, reset_num_timesteps=False)
    assert counters[1].events == counters[0].events
    assert models[1].num_timesteps == models[0].num_timesteps


@each_pair
@pytest.mark.parametrize("answer", [False, np.bool_(False), th.tensor(False), 0, None], ids=repr)
def test_whatever_is_false_ends_training(pair, answer):
    counter = Counter(1, answer)
    pair.make_ours(stats_window_size=1).learn(64, counter)
    assert counter.n_calls == 1


@pytest.mark.parametrize("answer", [False, np.bool_(False)], ids=repr)
def test_rollouts_of_one_step(answer):
    counter = Counter(3, answer)
    A2C.make_ours(n_steps=1).learn(10, counter)
    assert counter.n_calls == 3


def eval_env(n_envs=1):
    env = DummyVecEnv([lambda: Monitor(RandomEnv())] * n_envs)
    env.seed(1)
    return env


@each_pair
def test_a_list_of_callbacks(pair, tmp_path):
    """Checkpoints by two ways, evaluation with its own two callbacks, logs, a limit of episodes: all at their time."""
    files, logged = [], []
    for model in pair.make_both(policy=AskedItself):
        folder = tmp_path / type(model).__module__
        set_random_seed(2)
        evaluation = EvalCallback(
            eval_env(2),
            callback_on_new_best=StopTrainingOnRewardThreshold(1e9),
            callback_after_eval=StopTrainingOnNoModelImprovement(50, verbose=1),
            best_model_save_path=folder,
            log_path=folder,
            eval_freq=12,
            verbose=0,
        )
        by_events = CheckpointCallback(1, folder, name_prefix="event")
        callbacks = CallbackList(
            [
                CheckpointCallback(20, folder),
                evaluation,
                EveryNTimesteps(24, by_events),
                LogEveryNTimesteps(8),
                StopTrainingOnMaxEpisodes(100),
            ]
        )
        model.learn(64, callbacks)
        assert model.observation_space.contains(callbacks.locals["new_obs"][0])
        assert by_events.locals["new_obs"] is callbacks.locals["new_obs"]
        assert (callbacks.callbacks[0].num_timesteps, callbacks.n_calls) == (64, 64)
        files.append(sorted(path.name for path in folder.iterdir()))
        logged.append((evaluation.evaluations_timesteps, np.mean(evaluation.evaluations_results)))
    assert files[0] == files[1] != []
    assert logged[1][0] == logged[0][0] == [12, 24, 36, 48, 60]
    assert logged[1][1] == pytest.approx(logged[0][1], rel=1e-4)


@each_pair
@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_limit_of_episodes(pair, n_envs):
    """Two episodes in every environment, of 5 and of 4 steps."""
    for model in pair.make_both(lambda: vec_env(n_envs)):
        callback = StopTrainingOnMaxEpisodes(2)
        model.learn(1000, callback)
        assert (callback.n_episodes, model.num_timesteps) == (2 * n_envs, 9 * n_envs)


@each_pair
def test_a_threshold_of_reward(pair):
    for model in pair.make_both():
        callback = EvalCallback(
            eval_env(), callback_on_new_best=StopTrainingOnRewardThreshold(-1e9), eval_freq=10, verbose=0
        )
        model.learn(64, callback)
        assert model.num_timesteps == 10


@each_pair
def test_no_improvement(pair):
    for model in pair.make_both(lambda: Successes([True], 3)):
        env = DummyVecEnv([lambda: Monitor(Successes([True], 3))])
        stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1)
        callback = EvalCallback(env, callback_after_eval=stop, eval_freq=5, n_eval_episodes=2, verbose=0)
        model.learn(64, callback)
        assert model.num_timesteps == 15


@each_pair
def test_evaluation_takes_over_running_statistics(pair):
    env, other = VecNormalize(vec_env()), VecNormalize(eval_env(), training=False, norm_reward=False)
    pair.make_ours(env).learn(64, EvalCallback(other, eval_freq=32, verbose=0))
    assert other.obs_rms.count > 1
    np.testing.assert_allclose(other.obs_rms.mean, env.obs_rms.mean)


@each_pair
def test_evaluation_needs_the_same_wrappers(pair):
    callback = EvalCallback(eval_env(), eval_freq=8, verbose=0)
    with pytest.warns(UserWarning, match="not of the same type"), pytest.raises(AssertionError):
        pair.make_ours(VecNormalize(vec_env(1))).learn(16, callback)


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
@pytest.mark.parametrize("as_callback", [False, True])
def test_a_progress_bar(as_callback, capsys):
    pytest.importorskip("tqdm")
    pytest.importorskip("rich")
    if as_callback:
        A2C.make_ours().learn(48, ProgressBarCallback())
    else:
        A2C.make_ours().learn(48, lambda *_: True, progress_bar=True)
    assert re.search(r"\b48/48\b", capsys.readouterr().out)


@each_pair
def test_functions_as_callbacks(pair):
    """They get the local and the global variables of the rollout."""
    seen = []

    def look(local_variables, global_variables):
        seen.append((local_variables["self"].num_timesteps, "__name__" in global_variables))
        return len(seen) < 5

    model = pair.make_ours()
    model.learn(64, ConvertCallback(look))
    assert model.num_timesteps == 5
    assert [steps for steps, _ in seen] == [1, 2, 3, 4, 5]


class Successes(gym.Env):
    """Episodes of some steps, each of which succeeds or not, in turn."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)

    def __init__(self, successes, length):
        self.successes, self.length, self.n_episodes = successes, length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return 0, {}

    def step(self, action):
        self.time += 1
        truncated = self.time == self.length
        info = {}
        if truncated:
            info["is_success"] = self.successes[self.n_episodes % len(self.successes)]
            self.n_episodes += 1
        return self.time % 2, 0.0, False, truncated, info


@each_pair
def test_the_rate_of_success(pair, tmp_path):
    """Over a window of the last episodes: here, those of the last rollout."""
    successes = [True] * 3 + [False] * 7 + [True] * 5 + [False] * 5 + [True] * 8 + [False] * 2
    for cls in (pair.theirs, pair.ours):
        env = Monitor(Successes(successes, 4), str(tmp_path / f"{cls.__module__}.csv"), info_keywords=("is_success",))
        model = pair.make(cls, env, n_steps=40, stats_window_size=10, **({} if pair is A2C else {"batch_size": 40}))
        logs = keep_logs(model)
        model.learn(120, log_interval=1)
        assert [written["rollout/success_rate"] for written in logs.written] == [0.3, 0.5, 0.8]
        model.env.close()


@each_pair
@pytest.mark.parametrize("size", [1, 42])
def test_the_size_of_the_window(pair, size):
    model = pair.make_ours(stats_window_size=size).learn(64)
    assert model.ep_info_buffer.maxlen == model.ep_success_buffer.maxlen == size
    assert len(model.ep_info_buffer) == min(size, 14)


@each_pair
def test_steps_per_second_are_those_of_this_call(pair):
    model = pair.make_ours()
    model.num_timesteps = 10**9
    logs = keep_logs(model)
    model.learn(32, reset_num_timesteps=False, log_interval=1)
    assert all(0 < written["time/fps"] < 10**6 for written in logs.written)
    assert len(logs.written) == 2


@each_pair
def test_a_clock_that_stands_still(pair):
    with mock.patch("time.time", return_value=42.0), mock.patch("time.time_ns", return_value=42 * 10**9):
        pair.make_ours().learn(32)


@each_pair
def test_where_logs_go(pair, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard")

    def formats(model):
        return [type(output) for output in model.logger.output_formats]

    for cls in (pair.theirs, pair.ours):
        folder = tmp_path / cls.__module__
        assert formats(pair.make(cls).learn(1)) == []
        assert formats(pair.make(cls, verbose=1).learn(1)) == [HumanOutputFormat]
        monkeypatch.setenv("SB3_LOGDIR", str(folder / "variable"))
        assert pair.make(cls).learn(1).logger.dir == str(folder / "variable")
        monkeypatch.delenv("SB3_LOGDIR")
        model = pair.make(cls, verbose=1, tensorboard_log=str(folder)).learn(1)
        assert formats(model) == [HumanOutputFormat, TensorBoardOutputFormat]
        assert str(folder) in model.logger.dir
        own = configure(str(folder / "own"), ["csv", "json", "log"])
        model.set_logger(own)
        model.learn(32, log_interval=1)
        assert model.logger is own
        assert formats(model) == [CSVOutputFormat, JSONOutputFormat, HumanOutputFormat]
        own.close()
        lines = [json.loads(line) for line in (folder / "own" / "progress.json").read_text().splitlines()]
        assert [line["time/total_timesteps"] for line in lines] == [16, 32]
    capsys.readouterr()


class HyperParameters(BaseCallback):
    def _on_training_start(self):
        table = HParam({"algorithm": type(self.model).__name__, "gamma": self.model.gamma}, {"rollout/ep_len_mean": 0})
        self.logger.record("hparams", table, exclude=("stdout", "log", "json", "csv"))

    def _on_step(self):
        return True


@each_pair
def test_folders_of_tensorboard(pair, tmp_path):
    pytest.importorskip("tensorboard")
    for cls in (pair.theirs, pair.ours):
        folder = tmp_path / cls.__module__
        model = pair.make(cls, tensorboard_log=str(folder)).learn(16, HyperParameters())
        model.learn(16, reset_num_timesteps=False)
        for _ in range(2):
            model.learn(16, tb_log_name="named")
        model.logger.close()
        assert sorted(path.name for path in folder.iterdir()) == sorted([f"{cls.__name__}_1", "named_1", "named_2"])


@each_pair
@pytest.mark.parametrize("log_interval", [1, 2, 3, None])
def test_when_logs_are_written(pair, log_interval, tmp_path):
    written = []
    for model in pair.make_both():
        logger = configure(str(tmp_path / type(model).__module__), [])
        model.set_logger(logger)
        with mock.patch.object(logger, "dump") as dump:
            model.learn(6 * 16, log_interval=log_interval)
        written.append([call.kwargs["step"] for call in dump.call_args_list])
    assert written[0] == written[1]
    assert len(written[0]) == (6 // log_interval if log_interval else 0)


ARGUMENTS = {
    "PPO": [
        {"clip_range_vf": 0.05},
        {"clip_range": 1e-3},
        {"target_kl": 1e-5, "n_epochs": 4},
        {"normalize_advantage": False, "ent_coef": 0.1, "vf_coef": 2.0, "max_grad_norm": 0.01},
        {"learning_rate": lambda remaining: 1e-2 * remaining, "clip_range": lambda remaining: 0.3 * remaining},
    ],
    "A2C": [
        {"normalize_advantage": True},
        {"ent_coef": 0.1, "vf_coef": 2.0, "max_grad_norm": 0.01},
        {"use_rms_prop": False},
        {"rms_prop_eps": 0.1, "learning_rate": lambda remaining: 1e-2 * remaining},
        {"n_steps": 1},
    ],
    "TRPO": [
        {"normalize_advantage": False},
        {"sub_sampling_factor": 2},
        {"target_kl": 0.1, "cg_damping": 0.01, "line_search_max_iter": 3},
    ],
}
CASES = [(pair, kwargs) for pair, name in ((PPO, "PPO"), (A2C, "A2C"), (TRPO, "TRPO")) for kwargs in ARGUMENTS[name]]


@pytest.mark.parametrize(
    ("pair", "kwargs"), CASES, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
@pytest.mark.parametrize("space", ["Box", "MultiDiscrete"])
def test_arguments(pair, kwargs, space):
    assert_trains_alike(pair, lambda: vec_env(action_space=ACTION_SPACES[space]), total_timesteps=64, **kwargs)


@pytest.mark.parametrize(
    ("pair", "kwargs"), CASES, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
@pytest.mark.parametrize("space", ["Box", "Discrete"])
def test_arguments_with_plain_networks(pair, kwargs, space):
    """The same rollout gives the same update, which NumPy does here."""
    models, exchange = pair.make_both(lambda: RandomEnv(ACTION_SPACES[space]), **kwargs), Exchange()
    start = parameters(models[0])
    for model in models:
        model.learn(32, exchange)
    assert moved(models[0], start)
    assert_close(parameters(models[1]), parameters(models[0]), rtol=1e-5, atol=1e-5)


def test_arguments_that_are_refused():
    for cls in (PPO.theirs, PPO.ours):
        with pytest.raises(AssertionError, match="clip_range_vf"):
            PPO.make(cls, clip_range_vf=-0.2)
        with pytest.raises(AssertionError, match="n_steps \\* n_envs"):
            PPO.make(cls, n_steps=1)
        with pytest.raises(AssertionError, match="batch_size"):
            PPO.make(cls, batch_size=1)


@pytest.mark.parametrize("policy", ["MlpPolicy", AskedItself])
def test_tiny_minibatches(policy):
    """One step has no standard deviation: its advantage is not normalised."""
    model = PPO.make_ours(policy=policy, n_steps=1, batch_size=1, normalize_advantage=False).learn(4)
    assert np.isfinite(model.logger.name_to_value["train/loss"])
    with pytest.warns(UserWarning, match="there will be a truncated mini-batch of size 1"):
        models = PPO.make_both(policy=policy, n_steps=16, batch_size=15)
    exchange = Exchange()
    for model in models:
        model.learn(32, exchange)
        assert model.logger.name_to_value["train/loss"] != 0
    assert all(tensor.isfinite().all() for tensor in parameters(models[1]).values())
    assert_close(parameters(models[1]), parameters(models[0]), rtol=1e-5, atol=1e-5)


def test_a_hint_to_the_cpu():
    for cls in (PPO.theirs, PPO.ours):
        model = PPO.make(cls)
        model.device = th.device("cuda")
        with pytest.warns(UserWarning, match=f"You are trying to run {cls.__name__} on the GPU"):
            model._maybe_recommend_cpu()


@each_pair
def test_arguments_of_buffers(pair):
    pair.make_ours(rollout_buffer_class=RolloutBuffer, rollout_buffer_kwargs={}).learn(16)
    for cls in (pair.theirs, pair.ours):
        with pytest.raises(TypeError, match="unexpected keyword argument 'unheard_of'"):
            pair.make(cls, rollout_buffer_class=RolloutBuffer, rollout_buffer_kwargs={"unheard_of": 1})
        with pytest.raises(TypeError, match="multiple values for keyword argument 'gamma'"):
            pair.make(cls, rollout_buffer_class=RolloutBuffer, rollout_buffer_kwargs={"gamma": 1})
        with pytest.raises(AssertionError, match="must be used with Dict obs space only"):
            pair.make(cls, rollout_buffer_class=DictRolloutBuffer)


class HalfAdvantages(RolloutBuffer):
    def __init__(self, *args, factor=0.5, **kwargs):
        self.factor = factor
        super().__init__(*args, **kwargs)

    def compute_returns_and_advantage(self, last_values, dones):
        super().compute_returns_and_advantage(last_values, dones)
        self.advantages *= self.factor


class SignedRewards(RolloutBuffer):
    def add(self, obs, action, reward, episode_start, value, log_prob):
        super().add(obs, action, np.sign(reward), episode_start, value, log_prob)


@each_pair
@pytest.mark.parametrize(
    ("buffer", "kwargs"), [(HalfAdvantages, {}), (HalfAdvantages, {"factor": 2.0}), (SignedRewards, {})], ids=str
)
def test_buffers_of_a_user(pair, buffer, kwargs):
    assert_trains_alike(pair, vec_env, total_timesteps=64, rollout_buffer_class=buffer, rollout_buffer_kwargs=kwargs)


@each_pair
@pytest.mark.parametrize("policy", ["MlpPolicy", AskedItself])
def test_buffers_that_are_filled_by_hand(pair, policy):
    """``train()`` learns from what is in the buffer, whoever put it there, and as often as it is called."""
    models = pair.make_both(policy=policy)
    start = parameters(models[0])
    for model in models:
        set_random_seed(0)
        model.set_logger(configure(None, []))
        buffer, random = model.rollout_buffer, np.random.default_rng(0)
        buffer.reset()
        for t in range(model.n_steps):
            obs = random.uniform(-1, 1, (1, 3)).astype(np.float32)
            with th.no_grad():
                action, value, log_prob = model.policy(th.as_tensor(obs))
            buffer.add(obs, action.numpy(), random.normal(size=1), np.array([t % 5 == 0]), value, log_prob)
        buffer.compute_returns_and_advantage(value, np.array([False]))
        model.train()
        model.train()
    assert moved(models[0], start)
    assert_close(parameters(models[1]), parameters(models[0]), rtol=1e-5, atol=1e-5)


@each_pair
@pytest.mark.parametrize("policy", ["MlpPolicy", AskedItself])
def test_buffers_that_are_not_full(pair, policy):
    for model in pair.make_both(policy=policy):
        model.set_logger(configure(None, []))
        before = parameters(model)
        with pytest.raises(AssertionError):
            model.train()
        assert_close(parameters(model), before, **exactly)


@each_pair
@pytest.mark.parametrize("n_envs", [1, 3])
def test_buffers_after_training(pair, n_envs):
    """SB3 leaves them environment by environment; who draws from them then gets the same minibatches."""
    models, exchange = pair.make_both(lambda: vec_env(n_envs)), Exchange()
    drawn = []
    for model in models:
        model.learn(n_envs * model.n_steps, exchange)
        buffer = model.rollout_buffer
        assert buffer.generator_ready
        assert buffer.advantages.shape == (n_envs * model.n_steps, 1)
        set_random_seed(0)
        drawn.append(list(buffer.get(7)))
    for expected, actual in zip(*drawn, strict=True):
        for one, other in zip(actual, expected, strict=True):
            th.testing.assert_close(one, other, rtol=0, atol=0)


@each_pair
def test_learning_twice(pair):
    """Steps are counted from 0, or on; schedules follow what is left of both."""
    histories = []
    for model in pair.make_both(learning_rate=lambda remaining: 1e-3 * remaining):
        history = []
        for reset in (True, False, True):
            model.learn(40, reset_num_timesteps=reset)
            rate = model.logger.name_to_value["train/learning_rate"]
            history.append((model.num_timesteps, model._total_timesteps, model._current_progress_remaining, rate))
        histories.append(history)
    assert histories[1] == histories[0]


@each_pair
def test_the_same_seed_gives_the_same_episodes(pair):
    """Of training, and of predictions afterwards that are drawn at random."""
    rewards = []
    for _ in range(2):
        model = pair.make_ours(vec_env()).learn(64)
        obs, total = model.env.reset(), []
        for _ in range(20):
            obs, reward, _, _ = model.env.step(model.predict(obs)[0].clip(-1, 1))
            total.append(reward)
        rewards.append(total)
    np.testing.assert_array_equal(*rewards)


@each_pair
def test_environments_are_wrapped(pair):
    """In a VecEnv and in a Monitor, once."""
    for env in (RandomEnv(), Monitor(RandomEnv()), "CartPole-v1"):
        model = pair.make_ours(env)
        assert model.env.env_is_wrapped(Monitor) == [True]
        assert not isinstance(model.env.envs[0].env, Monitor)
        model.learn(16)


@each_pair
def test_constants_of_the_class(pair):
    assert pair.ours.policy_aliases == pair.theirs.policy_aliases
    assert pair.ours.__name__ == pair.theirs.__name__
    model = pair.make_ours()
    assert model._get_torch_save_params() == pair.make(pair.theirs)._get_torch_save_params()
    assert set(pair.make(pair.theirs)._excluded_save_params()) <= set(model._excluded_save_params())
