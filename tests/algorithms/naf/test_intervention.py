"""What users do to a model from outside, between two updates or without learn()."""

import copy
import pickle

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from torch import nn

from sb3_pg_ext import NAF
from sb3_pg_ext.algorithms.naf import naf
from sb3_pg_ext.algorithms.naf.policies import MlpPolicy

each_engine = pytest.mark.parametrize("engine", ["array", "autograd"])


def make_model(policy="MlpPolicy", **kwargs):
    arguments = {"policy_kwargs": {"net_arch": [8]}, "buffer_size": 300, "learning_starts": 10, "batch_size": 16}
    arguments["exploration"] = "noise"  # none: what the policy says is what acts
    env = RandomEnv(spaces.Box(-1, 1, (2,)))
    return NAF(policy, env, seed=0, device="cpu", **{**arguments, **kwargs})


class At(BaseCallback):
    """Does something to the model at one step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def _on_step(self):
        if self.num_timesteps == self.step:
            self.action(self.model)
        return True


def weights(model):
    return model.policy.parameters_to_vector()


def learn_with(action, engine, **kwargs):
    return make_model(engine=engine, **kwargs).learn(60, callback=At(20, action))


@each_engine
def test_updates_without_an_environment(engine, tmp_path):
    """From a buffer of somebody else's, as in offline learning."""
    make_model().learn(100).save_replay_buffer(tmp_path / "buffer")
    model = make_model(engine=engine)
    model.load_replay_buffer(tmp_path / "buffer")
    model.set_logger(configure(None, []))
    before = weights(model)
    model.train(gradient_steps=5)
    assert model._n_updates == 5
    assert np.abs(weights(model) - before).max() > 1e-3
    model.save(tmp_path / "model")
    loaded = NAF.load(tmp_path / "model", device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.set_logger(configure(None, []))
    for each in (model, loaded):
        np.random.seed(0)
        each.train(gradient_steps=3, batch_size=8)
    assert loaded._n_updates == 8
    np.testing.assert_array_equal(weights(loaded), weights(model))


def test_updates_by_a_callback():
    model = make_model(gradient_steps=0).learn(60, callback=At(20, lambda model: model.train(gradient_steps=3)))
    assert model._n_updates == 3


@each_engine
def test_parameters_that_are_moved(engine):
    def forget(model):
        model.policy.load_from_vector(np.zeros_like(weights(model)))
        model.lr_schedule = lambda _: 0.0

    model = learn_with(forget, engine)
    actions = model.replay_buffer.actions[: model.replay_buffer.pos]
    assert np.abs(actions[15:20]).max() > 0.01
    np.testing.assert_array_equal(actions[20:], 0)


def set_option(name, value):
    def action(model):
        for group in model.policy.optimizer.param_groups:
            group[name] = value

    return action


def freeze(model):
    model.policy.critic.value.trunk.requires_grad_(False)


def hook(model):
    model.policy.critic.value.trunk[0].register_forward_hook(lambda module, args, output: output + 1)


def replace_optimizer(model):
    model.policy.optimizer = th.optim.SGD(model.policy.critic.parameters(), lr=1.0)
    model.policy.optimizer.param_groups[0]["momentum"] = 0.5


def replace_moments(model):
    for state in model.policy.optimizer.state.values():
        state["exp_avg_sq"] = th.full_like(state["exp_avg_sq"], 1e6)


def another_head(model):
    """A head that gives the same action everywhere, atanh(½) in every dimension."""
    head = nn.Linear(8, model.policy.critic.action_head.out_features)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, np.arctanh(0.5))
    return head


def replace_head(model):
    """The optimiser goes on with the former one's parameters."""
    model.policy.critic.action_head = another_head(model)


def replace_head_and_optimizer(model):
    replace_head(model)
    model.policy.optimizer = th.optim.Adam(model.policy.critic.parameters(), lr=1e-2)


def replace_parameter(model):
    head = another_head(model)
    model.policy.critic.action_head.weight = head.weight
    model.policy.critic.action_head.bias = head.bias


def replace_critic(model):
    critic = copy.deepcopy(model.policy.critic)
    critic.action_head = another_head(model)
    model.policy.critic = critic
    model.policy.optimizer = th.optim.Adam(critic.parameters(), lr=1e-2)


def replace_target(model):
    target = copy.deepcopy(model.policy.value_target)
    nn.init.constant_(target.head.bias, 100.0)
    model.policy.value_target = target


REPLACEMENTS = [replace_head, replace_head_and_optimizer, replace_parameter, replace_critic, replace_target]


@pytest.mark.parametrize(
    "action",
    [
        *REPLACEMENTS,
        set_option("weight_decay", 100.0),
        set_option("betas", (0.1, 0.2)),
        set_option("eps", 1.0),
        freeze,
        hook,
        replace_optimizer,
        replace_moments,
    ],
    ids=[
        *(action.__name__ for action in REPLACEMENTS),
        "weight decay",
        "betas",
        "eps",
        "freeze",
        "hook",
        "replace optimiser",
        "replace moments",
    ],
)
def test_both_engines_notice(action):
    """Either makes the same of it, and something else than would have been without it."""
    untouched = weights(learn_with(lambda model: None, "auto"))
    by_array, by_autograd = (weights(learn_with(action, engine)) for engine in ("auto", "autograd"))
    assert np.abs(by_array - untouched).max() > 1e-3
    np.testing.assert_allclose(by_array, by_autograd, rtol=1e-3, atol=1e-4)


@each_engine
@pytest.mark.parametrize("action", [replace_head, replace_parameter, replace_critic])
def test_a_replaced_head_acts(action, engine):
    def intervene(model):
        action(model)
        model.lr_schedule = lambda _: 0.0

    if engine == "array" and action is not replace_critic:
        engine = "auto"  # arrays are refused where the optimiser has other parameters than the critic
    model = learn_with(intervene, engine)
    actions = model.replay_buffer.actions[: model.replay_buffer.pos]
    assert np.abs(actions[15:20] - 0.5).max() > 0.01
    np.testing.assert_allclose(actions[20:], 0.5, rtol=1e-6)


@pytest.mark.parametrize("where", ["critic", "value_target"])
def test_a_hook_that_was_there_before(where):
    """It is called in every update."""
    calls = []
    model = make_model()
    model.policy.get_submodule(where).register_forward_hook(lambda *args: calls.append(args))
    assert model.learn(30)._n_updates == 20
    assert len(calls) == 20


def test_an_engine_is_kept_while_nothing_happens(monkeypatch):
    """A new one takes as long as an update."""
    made = []
    for name in ("make_backend", "MLPActionSampler"):
        make = getattr(naf, name)
        monkeypatch.setattr(naf, name, lambda *args, make=make, name=name: made.append(name) or make(*args))
    make_model().learn(100)
    assert sorted(made) == ["MLPActionSampler", "make_backend"]


def test_hooks_of_a_callback_that_begins_with_the_training():
    class Watcher(BaseCallback):
        n_calls = 0

        def _on_training_start(self):
            self.model.policy.critic.value.trunk.register_forward_hook(self.count)

        def count(self, *args):
            self.n_calls += 1

        def _on_step(self):
            return True

    watcher = Watcher()
    make_model().learn(30, callback=watcher)
    assert watcher.n_calls > 30  # to act and to update


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("frozen", ["value", "action_head"])
def test_a_frozen_part_stays(engine, frozen):
    model = make_model(engine=engine)
    module = getattr(model.policy.critic, frozen).requires_grad_(False)
    before, all_before = copy.deepcopy(module.state_dict()), weights(model)
    model.learn(40)
    for name, tensor in module.state_dict().items():
        th.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert np.abs(weights(model) - all_before).max() > 1e-3


@each_engine
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_after_learning(engine, duplicate):
    model = make_model(engine=engine).learn(50)
    other = duplicate(model)
    np.testing.assert_array_equal(weights(other), weights(model))
    before = weights(model)
    other.learn(50, reset_num_timesteps=False)
    np.testing.assert_array_equal(weights(model), before)
    assert np.abs(weights(other) - before).max() > 1e-3


def test_arguments_of_the_policy_are_left_to_their_owner():
    arguments = {"net_arch": [8]}
    make_model(policy_kwargs=arguments, double=True)
    assert arguments == {"net_arch": [8]}


class Firm:
    def predict(self, *args, **kwargs):
        actions, state = super().predict(*args, **kwargs)
        return np.full_like(actions, 0.25), state


class FirmPolicy(Firm, MlpPolicy):
    """Chooses the same action everywhere."""


class FirmNAF(Firm, NAF):
    """The same, above the policy."""


@pytest.mark.parametrize(("cls", "policy"), [(NAF, FirmPolicy), (FirmNAF, "MlpPolicy")])
def test_predict_of_ones_own_is_asked(cls, policy):
    env = RandomEnv(spaces.Box(-1, 1, (2,)))
    model = cls(policy, env, buffer_size=300, learning_starts=10, device="cpu").learn(30)
    np.testing.assert_allclose(model.replay_buffer.actions[10:30], 0.25, rtol=1e-6)


@pytest.mark.parametrize("changed", [{"gamma": 0.5}, {"n_steps": 5}, {"n_steps": 1}, {"gamma": 0.5, "n_steps": 2}])
def test_steps_and_discount_of_a_loaded_model(changed, tmp_path):
    make_model(n_steps=3, gamma=0.9).save(tmp_path / "model")
    model = NAF.load(tmp_path / "model", env=RandomEnv(spaces.Box(-1, 1, (2,))), **changed)
    expected = {"n_steps": 3, "gamma": 0.9, **changed}
    if expected["n_steps"] == 1:
        assert model.replay_buffer_kwargs == {}
    else:
        assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (expected["n_steps"], expected["gamma"])
    model.learn(30)


def test_observations_with_a_gradient():
    """From a buffer that augments them differentiably."""
    model = make_model().learn(30)
    sample = model.replay_buffer.sample

    def augmented(*args, **kwargs):
        batch = sample(*args, **kwargs)
        noise = nn.Parameter(th.zeros_like(batch.observations))
        return batch._replace(observations=batch.observations + noise, next_observations=batch.observations + noise)

    model.replay_buffer.sample = augmented
    model.learn(30, reset_num_timesteps=False)
    assert model._n_updates == 50
