"""The base of off-policy algorithms, with several optimisers and target networks."""

import copy

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.td3.policies import TD3Policy
from torch import nn
from torch.nn import functional

from sb3_pg_ext import NAF, NPG, SACV, GumbelDDPG
from sb3_pg_ext.algorithms.base.off_policy import OffPolicyBase
from sb3_pg_ext.algorithms.base.targets import Target, follow


class ToyDDPG(OffPolicyBase):
    """An actor, a critic, an optimiser for each, and targets that follow at different speeds."""

    policy_aliases = {"MlpPolicy": TD3Policy}  # noqa: RUF012
    spoil = None

    def __init__(self, policy, env, learning_rate=1e-3, _init_setup_model=True, **kwargs):
        arguments = {"buffer_size": 200, "learning_starts": 10, "batch_size": 8, "device": "cpu", "seed": 0, **kwargs}
        super().__init__(
            policy, env, learning_rate, supported_action_spaces=(spaces.Box,), sde_support=False, **arguments
        )
        if _init_setup_model:
            self._setup_model()

    def _optimizers(self):
        policy = self.policy
        return {"policy.critic.optimizer": policy.critic.optimizer, "policy.actor.optimizer": policy.actor.optimizer}

    def _targets(self):
        policy = self.policy
        return [
            Target(policy.critic, policy.critic_target, 0.5),
            Target(policy.actor, policy.actor_target, 0.25, interval=2),
        ]

    def _improve(self, batch):
        policy = self.policy
        with th.no_grad():
            following = policy.actor_target(batch.next_observations)
            next_values = th.cat(policy.critic_target(batch.next_observations, following), 1).amin(1, keepdim=True)
            targets = batch.rewards + (1 - batch.dones) * self.gamma * next_values
        losses = {
            "critic": sum(functional.mse_loss(q, targets) for q in policy.critic(batch.observations, batch.actions)),
            "actor": -policy.critic.q1_forward(batch.observations, policy.actor(batch.observations)).mean(),
        }
        self.groups_in_training = [optimizer.param_groups[0] for optimizer in self._optimizers().values()]
        self.fused_in_training = [group.get("fused") for group in self.groups_in_training]
        for name, loss in losses.items():
            optimizer = self._optimizers()[f"policy.{name}.optimizer"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if self.spoil is not None:
            self.spoil()


def make_model(**kwargs):
    return ToyDDPG("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": [8]}, **kwargs)


def snapshot(model):
    return copy.deepcopy(model.get_parameters())


def test_all_learning_rates_follow_the_schedule():
    model = make_model(learning_rate=lambda remaining: 1e-2 * remaining).learn(100)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in model._optimizers().values()]
    assert rates[0] == rates[1] == pytest.approx(1e-2 * model._current_progress_remaining)
    assert 0 <= rates[0] < 1e-3


def test_a_schedule_that_falls_below_zero_is_refused():
    with pytest.raises(ValueError, match=r"learning_rate=-0\.\d+ at a remaining progress of .*; allowed: a number ≥ 0"):
        make_model(learning_rate=lambda remaining: remaining - 0.5).learn(100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_freq": 0}, "train_freq=0; allowed: an integer ≥ 1"),
        ({"train_freq": (0, "episode")}, "train_freq=0; allowed: an integer ≥ 1"),
        ({"action_noise": 0.1}, r"action_noise=0\.1; allowed: an ActionNoise of SB3, or None"),
    ],
)
def test_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


def test_actions_without_any_range_are_refused():
    space = spaces.Box(np.float32([-1, 1]), np.float32([1, 1]))
    with pytest.raises(ValueError, match=r"action_space=Box.*; allowed: a Box with low < high"):
        ToyDDPG("MlpPolicy", RandomEnv(space))


@pytest.mark.parametrize("algorithm", [NPG, SACV])
def test_noise_by_state_is_switched_by_a_flag(algorithm):
    for arguments in ({"use_sde": "yes"}, {"sde_sample_freq": 1.5}):
        with pytest.raises(
            ValueError, match=r"use_sde='yes'; allowed: True or False|sde_sample_freq=1\.5; allowed: an"
        ):
            algorithm("MlpPolicy", RandomEnv(), device="cpu", **arguments)


@pytest.mark.parametrize("algorithm", [NPG, GumbelDDPG])
@pytest.mark.parametrize(
    ("space", "allowed"),
    [
        (spaces.Discrete(3, start=5), "start=0"),
        (spaces.MultiDiscrete([3, 2], start=[0, 1]), "start=0"),
        (spaces.MultiDiscrete([[3, 2], [2, 2]]), "one dimension"),
    ],
)
def test_choices_that_policies_would_misunderstand_are_refused(algorithm, space, allowed):
    with pytest.raises(ValueError, match=f"allowed: {allowed}"):
        algorithm("MlpPolicy", RandomEnv(space), device="cpu")


@pytest.mark.parametrize(("algorithm", "continuous"), [(NAF, True), (SACV, True), (GumbelDDPG, False)])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_hindsight(algorithm, continuous, n_envs, tmp_path):
    env = DummyVecEnv([lambda: BitFlippingEnv(n_bits=3, continuous=continuous)] * n_envs)
    policy_kwargs = {"net_arch": [8]}
    model = algorithm(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 2},
        policy_kwargs=policy_kwargs,
        **{"buffer_size": 400, "learning_starts": 20, "batch_size": 16, "device": "cpu", "seed": 0},
    )
    assert policy_kwargs == {"net_arch": [8]}
    before = snapshot(model)
    model.learn(100)
    with pytest.raises(AssertionError, match="not equal"):
        th.testing.assert_close(snapshot(model)["policy"], before["policy"], rtol=0, atol=0)
    model.save(tmp_path / "model")
    algorithm.load(tmp_path / "model", env=env, device="cpu").learn(100)


def test_all_optimizers_make_fused_steps_while_training_alone():
    model = make_model().learn(12)
    assert model.fused_in_training == [True, True]
    assert [group["fused"] for group in model.groups_in_training] == [None, None]


def test_all_optimizers_are_saved(tmp_path):
    model = make_model().learn(40)
    assert snapshot(model).keys() == {"policy", "policy.critic.optimizer", "policy.actor.optimizer"}
    model.save(tmp_path / "model")
    loaded = ToyDDPG.load(tmp_path / "model", device="cpu")
    th.testing.assert_close(loaded.get_parameters(), model.get_parameters(), rtol=0, atol=0)
    assert all(state["step"] == 30 for o in loaded._optimizers().values() for state in o.state.values())
    assert loaded._undo is None
    assert copy.deepcopy(model)._undo is None


def test_each_target_follows_at_its_own_speed():
    model = make_model().learn(10)
    for n in range(1, 5):
        before = copy.deepcopy(model.policy)
        model.train(1)
        for name, tau, interval in (("critic", 0.5, 1), ("actor", 0.25, 2)):
            online, target = (getattr(model.policy, attribute) for attribute in (name, f"{name}_target"))
            tau = tau if n % interval == 0 else 0
            trios = zip(
                getattr(before, f"{name}_target").parameters(), online.parameters(), target.parameters(), strict=True
            )
            for then, source, now in trios:
                expected = (1 - tau) * then + tau * source
                np.testing.assert_allclose(now.detach(), expected.detach(), rtol=1e-5, atol=1e-7)
    assert model._n_updates == 4


@pytest.mark.parametrize("n_steps_before", [10, 30])
@pytest.mark.parametrize("spoilt", ["actor", "critic"])
def test_an_update_that_spoils_one_network_is_undone_in_all(spoilt, n_steps_before):
    model = make_model().learn(n_steps_before)
    before, n_updates = snapshot(model), model._n_updates

    def spoil():
        with th.no_grad():
            next(getattr(model.policy, spoilt).parameters())[0, 0] = float("inf")

    model.spoil = spoil
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="norm of the parameters inf; update skipped, parameters unchanged"):
            model.train(1)
    with pytest.raises(ValueError, match=r"norm of the parameters inf\. That makes 3 in a row"):
        model.train(1)
    th.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    assert (model._n_updates, model.n_skipped_updates) == (n_updates, 3)


def make_network():
    shared = nn.Linear(3, 3)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), shared, nn.ReLU(), shared)


def test_a_target_follows_with_everything_it_has():
    """A parameter in two places follows once; statistics and counts are copied."""
    source, target = make_network(), make_network()
    source(th.randn(7, 2))
    then = copy.deepcopy(target)
    follow(Target(source, target, 0.1))
    for before, now, online in zip(then.parameters(), target.parameters(), source.parameters(), strict=True):
        np.testing.assert_allclose(now.detach(), (0.9 * before + 0.1 * online).detach(), rtol=1e-5, atol=1e-7)
    assert target[1].num_batches_tracked == 1
    for name in ("running_mean", "running_var"):
        assert th.equal(getattr(target[1], name), getattr(source[1], name))
