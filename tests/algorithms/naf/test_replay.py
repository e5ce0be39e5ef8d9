"""Replay buffers: hindsight, several steps, sharing, and what non-finite values leave in them."""

import numpy as np
import pytest
import torch as th
from envs import RandomEnv, SpoiltEnv
from stable_baselines3 import DDPG
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pg_ext import NAF

TINY = {"buffer_size": 400, "learning_starts": 20, "batch_size": 16, "device": "cpu", "seed": 0}


def parameters(model):
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


def test_episodes_of_training():
    model = NAF("MlpPolicy", RandomEnv(), train_freq=(2, "episode"), gradient_steps=-1, **TINY).learn(100)
    assert model.num_timesteps >= 100
    assert 0.5 * model.num_timesteps < model._n_updates <= model.num_timesteps


def test_optimized_memory():
    kwargs = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    assert NAF("MlpPolicy", RandomEnv(), **kwargs, **TINY).learn(60)._n_updates == 40


def test_ddpg_and_naf_share_a_buffer():
    ddpg = DDPG("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": [8]}, **TINY).learn(60)
    naf = NAF("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": [8]}, **TINY)
    naf.replay_buffer = ddpg.replay_buffer
    naf.learn(60)
    assert ddpg.replay_buffer.pos == 120
    before = ddpg.policy.state_dict()["actor.mu.0.weight"].clone()
    ddpg.learn(20, reset_num_timesteps=False)
    assert not th.equal(before, ddpg.policy.state_dict()["actor.mu.0.weight"])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # from VecNormalize, of ∞ − ∞
@pytest.mark.parametrize("what", ["observation", "reward"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("normalized", ["not", "by fixed statistics", "by running statistics"])
def test_bad_numbers_do_not_reach_the_buffer(what, number, normalized):
    env = DummyVecEnv([lambda: SpoiltEnv(what, number, (5, 15)), RandomEnv])
    if normalized != "not":
        env = VecNormalize(env, training=normalized == "by running statistics")
    model = NAF("MlpPolicy", env, train_freq=1, policy_kwargs={"net_arch": [8]}, **TINY)
    with pytest.warns(RuntimeWarning, match=rf"NAF after \d+ steps: {what} .* in environment 0; rollout dropped"):
        model.learn(300)
    buffer = model.replay_buffer
    assert model.n_dropped_rollouts == 2
    assert buffer.pos == 300 // 2 - 2
    for array in (buffer.observations, buffer.next_observations, buffer.rewards, buffer.actions):
        assert np.isfinite(array).all()
    assert parameters(model).isfinite().all()


def test_returns_of_several_steps_do_not_reach_across_a_gap():
    """The rewards are 1, 10, 100 and 1000; the third step of the second episode gives none."""

    class Powers(SpoiltEnv):
        def step(self, action):
            obs, reward, *ends = super().step(action)
            return obs, reward if np.isnan(reward) else 10.0 ** (self.time - 1), *ends

    model = NAF("MlpPolicy", Powers("reward", float("nan"), [1]), n_steps=3, gamma=1.0, **TINY)
    model.learning_starts = 10**9
    with pytest.warns(RuntimeWarning, match="dropped"):
        model.learn(12)
    buffer = model.replay_buffer
    assert isinstance(buffer, NStepReplayBuffer)
    batch = buffer._get_samples(np.arange(buffer.pos))
    # An episode of five steps; one step before the gap, which counts as truncated; then the next episode.
    assert batch.rewards[:7, 0].tolist() == [111, 1110, 11100, 11000, 10000, 1, 111]
    assert batch.dones[5] == 0
    np.testing.assert_array_equal(batch.next_observations[5], buffer.next_observations[5, 0])


def test_stopping_leaves_no_false_transition():
    class Count(RandomEnv):
        def step(self, action):
            _, *rest = super().step(action)
            self.count += 1
            return np.full(3, self.count / 100, np.float32), *rest

        def reset(self, **kwargs):
            self.count = 0
            return np.zeros(3, np.float32), super().reset(**kwargs)[1]

    model = NAF("MlpPolicy", Count(length=50), **TINY)
    model.learn(100, lambda caller, _: caller["self"].num_timesteps < 7)
    model.learn(10, reset_num_timesteps=False)
    n = model.replay_buffer.pos
    steps = model.replay_buffer.next_observations[:n, 0, 0] - model.replay_buffer.observations[:n, 0, 0]
    np.testing.assert_allclose(steps, 0.01, rtol=1e-5)
    assert model.replay_buffer.timeouts[5] == 1


def test_bad_gradients_change_nothing():
    model = NAF("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": [8]}, **TINY).learn(40)
    model.replay_buffer.rewards[:] = np.nan
    before, updates = model.get_parameters(), model._n_updates
    before = {
        name: th.utils._pytree.tree_map(lambda x: x.clone() if th.is_tensor(x) else x, state)
        for name, state in before.items()
    }
    with pytest.warns(RuntimeWarning, match="norm of the gradient nan; update skipped"):
        model.train(2, 16)
    with pytest.raises(ValueError, match=r"norm of the gradient nan\. That makes 3 in a row"):
        model.train(1, 16)
    th.testing.assert_close(model.get_parameters(), before, rtol=0, atol=0)
    assert (model._n_updates, model.n_skipped_updates) == (updates, 3)


def test_bad_outputs_of_the_policy_drop_the_rollout():
    model = NAF("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": [8]}, **{**TINY, "learning_starts": 0})
    with th.no_grad():
        model.policy.critic.action_head.bias.fill_(float("nan"))
    with (
        pytest.warns(RuntimeWarning, match="policy output nan in environment 0"),
        pytest.raises(ValueError, match="3 in a row"),
    ):
        model.learn(10)
    assert model.replay_buffer.size() == 0
