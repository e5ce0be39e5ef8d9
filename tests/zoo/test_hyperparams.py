"""Hyper-parameters made ready for a constructor."""

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_pg_ext.policies import SmallCNN
from sb3_pg_ext.zoo.hyperparams import (
    evaluate,
    overlay,
    parse_schedules,
    resolve_policy_classes,
    resolve_rollout_buffer,
    schedule_arguments,
)


class Scheduled(PPO):
    def __init__(
        self, *arguments, kl_coef: Schedule = lambda _: 1.0, damping: "float | Schedule" = 0.1, steps: int = 3, **kw
    ):
        super().__init__(*arguments, **kw)


def test_strings_are_evaluated_with_the_names_of_rl_zoo():
    assert evaluate("dict(activation_fn=nn.ReLU)") == {"activation_fn": nn.ReLU}
    assert evaluate({"a": 1}) == {"a": 1}


def test_an_overlay_extends_policy_kwargs_and_replaces_the_rest():
    given = {"gamma": 0.9, "policy_kwargs": "dict(ortho_init=False, net_arch=[4])", "n_steps": 5}
    assert overlay(given, {"gamma": 0.8, "policy_kwargs": {"net_arch": [16]}}) == {
        "gamma": 0.8,
        "policy_kwargs": {"ortho_init": False, "net_arch": [16]},
        "n_steps": 5,
    }


def test_an_overlay_extends_what_a_replay_buffer_is_given():
    given = {"replay_buffer_kwargs": "dict(copy_info_dict=True, n_sampled_goal=4)"}
    assert overlay(given, {"replay_buffer_kwargs": {"n_sampled_goal": 2}}) == {
        "replay_buffer_kwargs": {"copy_info_dict": True, "n_sampled_goal": 2}
    }


def test_an_overlay_invents_no_policy_kwargs():
    assert overlay({"gamma": 0.9}, {"n_steps": 5}) == {"gamma": 0.9, "n_steps": 5}
    assert overlay({}, {"policy_kwargs": {"net_arch": []}}) == {"policy_kwargs": {"net_arch": []}}
    assert overlay({"policy_kwargs": None}, {}) == {"policy_kwargs": {}}


def test_schedules_are_found_by_annotation_through_all_constructors():
    assert schedule_arguments(Scheduled) == {"kl_coef", "damping", "learning_rate", "clip_range", "clip_range_vf"}


def test_linear_schedules_are_parsed_wherever_a_schedule_is_taken():
    hyperparams = {"damping": "lin_0.5", "kl_coef": "lin_1e-2", "steps": "lin_3", "learning_rate": 0.1}
    parse_schedules(hyperparams, Scheduled)
    assert [hyperparams["damping"](left) for left in (1.0, 0.5, 0.0)] == [0.5, 0.25, 0.0]
    assert hyperparams["kl_coef"](1.0) == 0.01
    assert hyperparams["steps"] == "lin_3"
    assert hyperparams["learning_rate"] == 0.1


@pytest.mark.parametrize("text", ["lin_", "lin_fast", "exp_0.1", "0.1"])
def test_other_schedules_are_refused(text):
    with pytest.raises(ValueError, match=f"damping='{text}'; allowed: a number or 'lin_<number>'"):
        parse_schedules({"damping": text}, Scheduled)


def test_rollout_buffers_are_resolved():
    hyperparams = {
        "rollout_buffer_class": "stable_baselines3.common.buffers.RolloutBuffer",
        "rollout_buffer_kwargs": "dict(gae_lambda=0.5)",
    }
    resolve_rollout_buffer(hyperparams)
    assert hyperparams == {"rollout_buffer_class": RolloutBuffer, "rollout_buffer_kwargs": {"gae_lambda": 0.5}}
    resolve_rollout_buffer(hyperparams)
    assert hyperparams == {"rollout_buffer_class": RolloutBuffer, "rollout_buffer_kwargs": {"gae_lambda": 0.5}}


@pytest.mark.parametrize("path", ["no_package.Buffer", "stable_baselines3.NoBuffer", "math.pi", "not a path"])
def test_a_wrong_path_is_named(path):
    with pytest.raises(ValueError, match=f"rollout_buffer_class='{path}'"):
        resolve_rollout_buffer({"rollout_buffer_class": path})


def test_classes_of_a_policy_are_given_by_their_paths():
    hyperparams = {"policy_kwargs": {"features_extractor_class": "sb3_pg_ext.policies.SmallCNN", "net_arch": []}}
    given = hyperparams["policy_kwargs"]
    resolve_policy_classes(hyperparams)
    assert hyperparams == {"policy_kwargs": {"features_extractor_class": SmallCNN, "net_arch": []}}
    assert given["features_extractor_class"] == "sb3_pg_ext.policies.SmallCNN"
    with pytest.raises(ValueError, match=r"policy_kwargs: optimizer_class='torch\.optim\.Adamant' cannot be imported"):
        resolve_policy_classes({"policy_kwargs": {"optimizer_class": "torch.optim.Adamant"}})
