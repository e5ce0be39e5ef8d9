"""Every private interface of another project is on docs/private_interfaces.md, and is as we take it to be."""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from copy import copy
from functools import cache
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3 import DDPG, PPO
from stable_baselines3.common import monitor
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch.distributions import Distribution, Normal
from torch.optim import optimizer as torch_optimizer

import sb3_pg_ext

PACKAGE = Path(sb3_pg_ext.__file__).parent
PAGE = PACKAGE.parent / "docs" / "private_interfaces.md"
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public: the underscore keeps them apart from the fields."""


# ---- the list -------------------------------------------------------------------------------------------------------


def listed() -> set[str]:
    """The names at the beginning of every item of the page, but for its last list, of public names."""
    private, _, _ = PAGE.read_text(encoding="utf-8").partition("\n## Public names")
    items = re.findall(r"^- ((?:`\w+`,?\s+|`\w+`:)+)", private, re.MULTILINE)
    return {name for item in items for name in re.findall(r"`(\w+)`", item)}


def attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def root(node: ast.AST) -> str | None:
    """The variable that an attribute or an item, of whatever depth, is one of."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def defined(tree: ast.AST) -> set[str]:
    """The names of functions, classes, variables and attributes that some code makes."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {node.attr for node in attributes(tree) if isinstance(node.ctx, ast.Store)}


def imported(tree: ast.Module) -> set[str]:
    """The variables of a module that come from other projects, the standard library apart."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, alias.asname or alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found = [(node.module, alias.asname or alias.name) for alias in node.names]
        else:
            continue
        names |= {name for module, name in found if not is_ours_or_standard(module)}
    return names


def is_ours_or_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names | {"sb3_pg_ext"}


def members(cls: type) -> set[str]:
    """The private names that a class has from other projects, and those that their methods give to ``self``."""
    bases = (base for base in cls.__mro__ if not is_ours_or_standard(base.__module__))
    return {name for base in bases for name in private_names(base)}


@cache
def private_names(cls: type) -> set[str]:
    """Those of a class alone, without its bases."""
    names = set(vars(cls))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # it is written in C
        pass
    else:
        names |= {a.attr for a in attributes(tree) if isinstance(a.ctx, ast.Store) and root(a) == "self"}
    return set(filter(is_private, names))


def is_private(name: str) -> bool:
    return re.fullmatch(r"_[a-z]\w*", name) is not None and name not in OF_NAMED_TUPLES


def file_of(cls: type) -> Path | None:
    """Where a class is defined, which may be elsewhere than where it publicly lives; None if that cannot be told."""
    for value in vars(cls).values():
        if inspect.isfunction(value) and value.__qualname__.startswith(f"{cls.__name__}."):
            return Path(value.__code__.co_filename)
    declared = [path for path in PACKAGE.rglob("*.py") if f"class {cls.__name__}(" in path.read_text(encoding="utf-8")]
    return declared[0] if len(declared) == 1 else None


def touched(cls: type) -> set[str]:
    """The names that a class of ours defines, and those of its own or its bases' that it uses."""
    path = file_of(cls)
    if path is None:
        return set()
    (body,) = (
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    names = set()
    for statement in body.body:
        names |= {statement.name} if isinstance(statement, ast.FunctionDef) else defined(statement)
    for attribute in attributes(body):
        of = ast.unparse(attribute.value)
        names |= {attribute.attr} if of in ("self", "cls", "super()") else set()
    return names


def used() -> dict[str, set[str]]:
    """Private interfaces of other projects that the package uses, and the modules that do."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    modules = [importlib.import_module(info.name) for info in pkgutil.walk_packages([str(PACKAGE)], "sb3_pg_ext.")]
    classes = {cls for module in modules for cls in vars(module).values() if isinstance(cls, type)}
    ours = {cls for cls in classes if cls.__module__.startswith("sb3_pg_ext.")}
    of_others = set().union(*(members(cls) for cls in classes - ours))
    of_ours = set().union(*map(defined, trees.values()))
    found: dict[str, set[str]] = {}

    def note(name: str, path: Path) -> None:
        found.setdefault(name, set()).add(str(path.relative_to(PACKAGE)))

    for path, tree in trees.items():
        foreign = imported(tree)
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr=name) if is_private(name) and name not in of_ours:
                    if root(node) not in sys.stdlib_module_names:
                        note(name, path)
                case ast.Constant(value=str(name)) if name in of_others - of_ours:  # for getattr() and the like
                    note(name, path)
                case ast.ImportFrom(module=str(module)) if not is_ours_or_standard(module):
                    for name in [*module.split("."), *(alias.name for alias in node.names)]:
                        if is_private(name):
                            note(name, path)
            # What is put into modules and classes of others, and into their tables.
            if (
                isinstance(node, ast.Attribute | ast.Subscript)
                and isinstance(node.ctx, ast.Store)
                and root(node) in foreign
            ):
                note(node.attr if isinstance(node, ast.Attribute) else ast.unparse(node.value), path)
    for cls in ours:
        if inherited := members(cls):
            for name in touched(cls) & inherited:
                note(name, file_of(cls))
    return found


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("rl_zoo3")
    return used()


def test_every_private_interface_is_listed(found):
    assert {name: places for name, places in found.items() if name not in listed()} == {}


def test_nothing_listed_has_gone(found):
    assert listed() - found.keys() == set()


def test_the_scan_finds_what_it_should(found):
    assert found["ResultsWriter"] == {"workers/monitor_files.py"}  # replaced in a module
    assert found["HYPERPARAMS_SAMPLER"] == {"zoo/bridge.py"}  # entered into a table
    assert found["_validate_args"] == {"functional/tensors/distributions.py"}  # read of another's class
    assert "rollouts/collector.py" in found["_last_obs"]  # an attribute of a base
    assert "policies/exploration.py" in found["_build"]  # an overridden method
    assert "policies/plain_mlp.py" in found["_get_action_dist_from_latent"]  # a name in a string


def test_every_test_named_exists():
    text = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"`(test_\w+)`", text):
        assert callable(globals()[name]), name


# ---- Stable-Baselines3: algorithms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "method", "arguments"),
    [
        (OnPolicyAlgorithm, "_setup_model", ""),
        (OnPolicyAlgorithm, "_setup_lr_schedule", ""),
        (OnPolicyAlgorithm, "_maybe_recommend_cpu", "mlp_class_name"),
        (OffPolicyAlgorithm, "_setup_model", ""),
        (
            OffPolicyAlgorithm,
            "_setup_learn",
            "total_timesteps callback reset_num_timesteps tb_log_name progress_bar",
        ),
        (OffPolicyAlgorithm, "_sample_action", "learning_starts action_noise n_envs"),
        (OffPolicyAlgorithm, "_store_transition", "replay_buffer buffer_action new_obs reward dones infos"),
        (BaseAlgorithm, "_update_info_buffer", "infos dones"),
        (BaseAlgorithm, "_update_learning_rate", "optimizers"),
        (BaseAlgorithm, "_update_current_progress_remaining", "num_timesteps total_timesteps"),
        (BaseAlgorithm, "_excluded_save_params", ""),
        (BaseAlgorithm, "_get_torch_save_params", ""),
    ],
)
def test_the_algorithms_methods_have_the_arguments_that_overrides_take(cls, method, arguments):
    assert list(inspect.signature(getattr(cls, method)).parameters) == ["self", *arguments.split()]


def test_environments_are_wrapped_by_a_static_method():
    assert isinstance(inspect.getattr_static(BaseAlgorithm, "_wrap_env"), staticmethod)
    assert list(inspect.signature(BaseAlgorithm._wrap_env).parameters) == ["env", "verbose", "monitor_wrapper"]


def make_ppo(env=None, **arguments):
    return PPO("MlpPolicy", RandomEnv() if env is None else env, n_steps=16, batch_size=16, device="cpu", **arguments)


def make_ddpg(env=None, cls=DDPG):
    sizes = {"buffer_size": 100, "learning_starts": 4, "batch_size": 4}
    return cls("MlpPolicy", RandomEnv(action_space=gym.spaces.Box(-1, 1, (1,))) if env is None else env, **sizes)


def test_load_sets_up_after_filling_in(tmp_path):
    seen = []

    class Watching(PPO):
        def _setup_model(self):
            seen.append((self.gamma, self.num_timesteps))
            super()._setup_model()

    make_ppo(gamma=0.5).learn(16).save(tmp_path / "file")
    Watching.load(tmp_path / "file")
    assert seen == [(0.5, 16)]


def test_learn_notes_where_the_environments_stand():
    model = make_ppo(VecNormalize(DummyVecEnv([RandomEnv] * 2)))
    assert (model._last_obs, model._last_episode_starts) == (None, None)
    model._setup_learn(16)
    assert model._last_obs.shape == (2, *model.observation_space.shape)
    assert model._last_episode_starts.tolist() == [True, True]
    assert model._vec_normalize_env is model.get_vec_normalize_env() is model.env
    assert model._total_timesteps == 16
    ddpg = make_ddpg()
    ddpg._setup_learn(16)
    assert ddpg._last_obs.shape == (1, *ddpg.observation_space.shape)
    assert ddpg._last_original_obs is None


def test_episodes_reach_the_log_through_the_info_buffer():
    model = make_ppo()
    model._setup_learn(16)
    model._update_info_buffer([{"episode": {"r": 2.0, "l": 3}, "is_success": True}], np.array([True]))
    assert list(model.ep_info_buffer) == [{"r": 2.0, "l": 3}]
    assert list(model.ep_success_buffer) == [True]


def test_progress_and_learning_rate():
    model = make_ppo(learning_rate=lambda progress: 0.5 * progress)
    assert (model._current_progress_remaining, model._n_updates) == (1.0, 0)
    model._setup_learn(16)
    model._update_current_progress_remaining(12, 16)
    assert model._current_progress_remaining == 0.25
    model._update_learning_rate(model.policy.optimizer)
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.125
    assert model.logger.name_to_value["train/learning_rate"] == 0.125
    model.learn(16)
    assert model._n_updates == model.n_epochs


def test_files_leave_out_what_is_excluded(tmp_path):
    class Excluding(PPO):
        def _excluded_save_params(self):
            return [*super()._excluded_save_params(), "scratch"]

    model = Excluding("MlpPolicy", RandomEnv(), device="cpu")
    model.scratch, model.kept = 1, 2
    model.save(tmp_path / "file")
    loaded = Excluding.load(tmp_path / "file")
    assert not hasattr(loaded, "scratch")
    assert loaded.kept == 2
    assert model._get_torch_save_params() == (["policy", "policy.optimizer"], [])
    assert set(model.get_parameters()) == {"policy", "policy.optimizer"}


def test_off_policy_collection_has_its_two_seams():
    calls = []

    class Watching(DDPG):
        def _sample_action(self, learning_starts, action_noise=None, n_envs=1):
            actions, scaled = super()._sample_action(learning_starts, action_noise, n_envs)
            calls.append(("sample", learning_starts, n_envs))
            return actions, scaled

        def _store_transition(self, replay_buffer, *args):
            class Instead:
                def add(self, obs, next_obs, action, reward, done, infos):
                    calls.append(("add", len(obs), len(infos)))
                    replay_buffer.add(obs, next_obs, action, reward, done, infos)

            super()._store_transition(Instead(), *args)

    model = make_ddpg(cls=Watching)
    model.learn(2)
    assert calls == [("sample", 4, 1), ("add", 1, 1)] * 2
    assert model.replay_buffer.size() == 2


# ---- Stable-Baselines3: policies, buffers, environments -------------------------------------------------------------


def test_policies_are_built_and_saved_through_their_hooks(tmp_path):
    seen = []

    class Watching(ActorCriticPolicy):
        def _build(self, lr_schedule):
            seen.append((self.action_space, hasattr(self, "action_net"), hasattr(self, "action_dist")))
            super()._build(lr_schedule)

        def _get_constructor_parameters(self):
            return {**super()._get_constructor_parameters(), "net_arch": [3]}

    spaces = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)
    policy = Watching(*spaces, lambda _: 0.1, net_arch=[3])
    assert seen == [(spaces[1], False, True)]
    policy.save(tmp_path / "policy")
    assert Watching.load(tmp_path / "policy").net_arch == [3]
    assert BasePolicy._dummy_schedule(0.5) == 0.0
    assert isinstance(policy._dummy_schedule(0.5), float)
    assert list(inspect.signature(BaseModel._get_constructor_parameters).parameters) == ["self"]


def test_actions_come_from_the_methods_whose_overriding_matters():
    obs, seen = th.zeros(1, 2), []

    class Watching(ActorCriticPolicy):
        def _predict(self, observation, deterministic=False):
            seen.append("_predict")
            return super()._predict(observation, deterministic)

        def _get_action_dist_from_latent(self, latent_pi):
            seen.append("_get_action_dist_from_latent")
            return super()._get_action_dist_from_latent(latent_pi)

    policy = Watching(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2), lambda _: 0.1)
    policy.predict(obs.numpy()[0])
    assert seen == ["_predict", "_get_action_dist_from_latent"]
    for method in (policy.forward, policy.get_distribution, lambda obs: policy.evaluate_actions(obs, th.zeros(1))):
        seen.clear()
        method(obs)
        assert seen == ["_get_action_dist_from_latent"]


def test_dummy_vec_env_keeps_its_observations():
    env = DummyVecEnv([RandomEnv] * 2)
    first, second = np.full((2, *env.observation_space.shape), 0.5, np.float32)
    env._save_obs(0, first)
    env._save_obs(1, second)
    np.testing.assert_array_equal(env._obs_from_buf(), [first, second])
    assert len(env.buf_infos) == len(env.reset_infos) == 2
    assert env.buf_rews.shape == env.buf_dones.shape == (2,)


def test_masked_buffers_have_a_sampling_of_their_own():
    assert list(inspect.signature(RolloutBuffer._get_samples).parameters) == ["self", "batch_inds", "env"]
    assert DictRolloutBuffer._get_samples is not RolloutBuffer._get_samples
    assert "_get_samples" in vars(MaskableDictRolloutBuffer)
    assert "get" in vars(MaskableDictRolloutBuffer)


def test_monitor_makes_its_writer_by_a_name_of_its_module(monkeypatch, tmp_path):
    made = []

    class Watching(monitor.ResultsWriter):
        def __init__(self, filename="", header=None, extra_keys=(), override_existing=True):
            made.append((filename, set(header)))
            super().__init__(filename, header, extra_keys, override_existing)

    monkeypatch.setattr(monitor, "ResultsWriter", Watching)
    Monitor(RandomEnv(), str(tmp_path / "0")).close()
    assert made == [(str(tmp_path / "0"), {"t_start", "env_id"})]


# ---- PyTorch --------------------------------------------------------------------------------------------------------


def test_hooks_are_found_where_torch_keeps_them():
    def kept(module):
        return [
            len(hooks)
            for hooks in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            )
        ]

    module = th.nn.Linear(1, 1)
    assert kept(module) == [0, 0, 0, 0]
    module.register_forward_hook(print)
    assert kept(module) == [1, 0, 0, 0]
    module.register_forward_pre_hook(print)
    assert kept(module) == [1, 1, 0, 0]
    module.register_full_backward_hook(print)
    assert kept(module) == [1, 1, 1, 0]
    module.register_full_backward_pre_hook(print)
    assert kept(module) == [1, 1, 1, 1]
    parameter = module.weight
    assert not parameter._backward_hooks
    assert not parameter._post_accumulate_grad_hooks
    parameter.register_hook(print)
    assert len(parameter._backward_hooks) == 1
    parameter.register_post_accumulate_grad_hook(print)
    assert len(parameter._post_accumulate_grad_hooks) == 1


def test_optimizers_keep_their_hooks():
    optimizer = th.optim.Adam([th.nn.Parameter(th.zeros(1))])
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    optimizer.register_step_pre_hook(print)
    optimizer.register_step_post_hook(print)
    assert len(optimizer._optimizer_step_pre_hooks) == len(optimizer._optimizer_step_post_hooks) == 1
    handles = [
        torch_optimizer.register_optimizer_step_pre_hook(print),
        torch_optimizer.register_optimizer_step_post_hook(print),
    ]
    try:
        assert len(torch_optimizer._global_optimizer_pre_hooks) == 1
        assert len(torch_optimizer._global_optimizer_post_hooks) == 1
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kernel", [th._fused_adam_, th._fused_adamw_])
def test_the_fused_kernels_take_the_state_in_this_order(kernel):
    """One step from nothing is one of ``lr`` against the gradient, whatever its size."""
    parameter, gradient, mean, square, count = th.tensor([1.0]), th.tensor([4.0]), *th.zeros(2, 1), th.tensor(1.0)
    settings = {"lr": 0.1, "eps": 0.0, "maximize": False, "weight_decay": 0.0}
    kernel([parameter], [gradient], [mean], [square], [], [count], amsgrad=False, beta1=0.9, beta2=0.999, **settings)
    th.testing.assert_close(parameter, th.tensor([0.9]))
    th.testing.assert_close(mean, th.tensor([0.4]))
    th.testing.assert_close(square, th.tensor([0.016]))


def test_many_tensors_in_one_call():
    tensors = [th.tensor([3.0, 4.0]), th.tensor([[1.0]])]
    assert [float(norm) for norm in th._foreach_norm(tensors)] == [5.0, 1.0]
    assert [part.tolist() for part in th._foreach_sub(tensors, tensors)] == [[0.0, 0.0], [[0.0]]]
    th._foreach_mul_(tensors, th.tensor(2.0))
    assert [part.tolist() for part in tensors] == [[6.0, 8.0], [[2.0]]]
    th._foreach_lerp_(tensors, [th.zeros(2), th.zeros(1, 1)], 0.5)
    assert [part.tolist() for part in tensors] == [[3.0, 4.0], [[1.0]]]
    th._foreach_copy_(tensors, [th.ones(2), th.ones(1, 1)])
    assert [part.tolist() for part in tensors] == [[1.0, 1.0], [[1.0]]]
    th._foreach_add_(tensors, 3)
    assert [part.tolist() for part in th._foreach_sqrt(tensors)] == [[2.0, 2.0], [[2.0]]]
    th._foreach_addcmul_(tensors, tensors, tensors, value=0.5)
    assert [part.tolist() for part in tensors] == [[12.0, 12.0], [[12.0]]]
    th._foreach_addcdiv_(tensors, tensors, [th.full((2,), 4.0), th.full((1, 1), 4.0)], value=-2)
    assert [part.tolist() for part in tensors] == [[6.0, 6.0], [[6.0]]]


def test_the_setter_of_validation_writes_what_we_read():
    before = Distribution._validate_args
    try:
        for value in (False, True):
            Distribution.set_default_validate_args(value)
            assert Distribution._validate_args is value
        with pytest.raises(ValueError, match="scale"):
            Normal(0.0, -1.0)
        Distribution.set_default_validate_args(False)
        Normal(0.0, -1.0)
    finally:
        Distribution.set_default_validate_args(before)


# ---- EnvPool ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*precision lowered:UserWarning")
@pytest.mark.parametrize("task_id", ["CartPole-v1", "HalfCheetah-v5"])
def test_a_pool_is_sent_actions_and_gives_arrays(task_id):
    envpool = pytest.importorskip("envpool")
    pool, other = (envpool.make(task_id, env_type="gymnasium", num_envs=2, seed=0) for _ in range(2))
    pool.reset()
    other.reset()
    assert list(pool.spec.action_array_spec) == ["env_id", "players.env_id", "action"]
    actions, ids = np.ones((2, *pool.action_space.shape), pool.action_space.dtype), np.arange(2, dtype=np.int32)
    pool._send([ids, ids, actions])
    arrays = pool._recv()
    obs, rewards, terminated, truncated, infos = other.step(actions)
    obs_at, rewards_at, _, truncated_at, infos_at = pool._to(range(len(pool._state_keys)), False, True)
    np.testing.assert_array_equal(arrays[obs_at], obs)
    np.testing.assert_array_equal(arrays[rewards_at], rewards)
    np.testing.assert_array_equal(arrays[truncated_at], truncated)
    np.testing.assert_array_equal(arrays[pool._state_keys.index("done")], terminated | truncated)
    assert infos_at.keys() == infos.keys()


# ---- RL Zoo ---------------------------------------------------------------------------------------------------------


def test_rl_zoo_looks_things_up_where_we_put_them():
    pytest.importorskip("rl_zoo3")
    import rl_zoo3.train
    from rl_zoo3 import exp_manager, hyperparams_opt, utils

    assert "ExperimentManager" in rl_zoo3.train.train.__code__.co_names
    assert "ALGOS" in rl_zoo3.train.train.__code__.co_names
    assert rl_zoo3.train.ALGOS is exp_manager.ALGOS is utils.ALGOS
    assert exp_manager.HYPERPARAMS_SAMPLER is hyperparams_opt.HYPERPARAMS_SAMPLER
    assert exp_manager.HYPERPARAMS_CONVERTER is hyperparams_opt.HYPERPARAMS_CONVERTER
    manager = exp_manager.ExperimentManager
    assert list(inspect.signature(manager._preprocess_hyperparams).parameters) == ["self", "hyperparams"]
    assert "_hyperparams" in manager.__init__.__code__.co_names
    assert {"_hyperparams", "HYPERPARAMS_SAMPLER"} <= set(manager.objective.__code__.co_names)
    assert "HYPERPARAMS_CONVERTER" in manager.load_trial.__code__.co_names


# ---- Public names with more behind them -----------------------------------------------------------------------------


def test_a_copy_of_vec_normalize_takes_another_environment():
    first, second = DummyVecEnv([RandomEnv]), DummyVecEnv([RandomEnv])
    original = VecNormalize(first)
    twin = copy(original)
    twin.set_venv(second)
    assert (original.venv, twin.venv) == (first, second)
    twin.reset()
    assert twin.obs_rms.count > 0


def test_a_rollout_buffer_is_flattened_in_place():
    buffer = RolloutBuffer(3, gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2), device="cpu", n_envs=2)
    buffer.observations = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    buffer.pos, buffer.full = 3, True
    expected = buffer.observations.swapaxes(0, 1).reshape(6, 4)
    assert not buffer.generator_ready
    next(buffer.get(2))
    assert buffer.generator_ready
    np.testing.assert_array_equal(buffer.observations, expected)
    assert {len(getattr(buffer, name)) for name in ("actions", "values", "log_probs", "advantages", "returns")} == {6}
    assert buffer.rewards.shape == (3, 2)
