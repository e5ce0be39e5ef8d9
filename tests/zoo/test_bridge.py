"""Registered algorithms inside RL Zoo: train, enjoy, search, and what upstream must not change unnoticed."""

import inspect
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from signal import SIGINT

import optuna
import pytest
import rl_zoo3.train
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from toys import CONFIG, Toy, ToyWithReplay

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.envs import GymnasiumVecEnv
from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.plugins import AlgorithmSpec, Provider, Registry, registry
from sb3_pg_ext.plugins.registry import Entry
from sb3_pg_ext.policies import SmallCNN
from sb3_pg_ext.zoo import __main__, bridge
from sb3_pg_ext.zoo.user_errors import UserError

MINATAR = "MinAtar/Breakout-v0"


class CountingBuffer(RolloutBuffer):
    """A rollout buffer of a user."""

    def __init__(self, *arguments, unit=1, **keywords):
        super().__init__(*arguments, **keywords)
        self.unit = unit


class OwnVecEnv(DummyVecEnv):
    """What a user or an algorithm brings along."""


def test_tables_hold_the_registered_algorithms_beside_the_stock_ones(plugins):
    stock = dict(ALGOS)
    bridge.install(plugins)
    bridge.install(plugins)
    assert dict(ALGOS) == {**stock, "toy": Toy, "replay": ToyWithReplay}
    assert HYPERPARAMS_CONVERTER["toy"]({"one_minus_gamma": 0.25})["gamma"] == 0.75


def test_samplers_given_by_name_are_imported_when_used(plugins):
    bridge.install(plugins)
    with pytest.raises(ModuleNotFoundError, match="no_module"):
        HYPERPARAMS_SAMPLER["replay"](None, 1, 1, {})


def test_a_name_of_rl_zoo_stays_what_it_was(config):
    spec = AlgorithmSpec("ppo", Toy, str(config), "m:sampler", "m:converter")
    with pytest.warns(UserWarning, match="'ppo' of toys is left out: RL Zoo has its own"):
        bridge.install(Registry((Entry(spec, Provider("toys", "toy-box", "1.2")),)))
    assert ALGOS["ppo"] is PPO


def test_a_name_provided_twice_is_an_error_only_for_who_uses_it(plugins):
    twice = Registry((*plugins.entries, Entry(plugins.entries[0].spec, Provider("other", "other-box", "3.0"))))
    bridge.install(twice)
    assert "toy" not in ALGOS
    assert "replay" in ALGOS
    with pytest.raises(ValueError, match=r"toy-box 1\.2 and by plug-in 'other' of other-box 3\.0"):
        bridge.require_algorithm(twice, "toy")


def test_an_unknown_algorithm_is_an_error_that_names_what_there_is(plugins):
    bridge.install(plugins)
    bridge.require_algorithm(plugins, "toy")
    bridge.require_algorithm(plugins, "ppo")
    with pytest.raises(ValueError, match="Unknown algorithm 'pppo'") as caught:
        bridge.require_algorithm(plugins, "pppo")
    for part in ("replay, toy", "broken-box 0.1", "antigravity", "a2c, ars", "did you mean 'ppo'?"):
        assert part in str(caught.value)


def test_replay_buffers_need_no_memory_to_act(plugins, tmp_path):
    bridge.install(plugins, play=True)
    assert ALGOS["toy"] is Toy
    path = tmp_path / "replay.zip"
    ToyWithReplay("MlpPolicy", "CartPole-v1", buffer_size=50).save(path)
    assert ALGOS["replay"].__name__ == "ToyWithReplay"
    assert ALGOS["replay"].load(path, device="cpu", seed=1).replay_buffer.buffer_size == 1
    assert ALGOS["replay"].load(path, buffer_size=7).replay_buffer.buffer_size == 7
    bridge.install(plugins)
    assert ALGOS["replay"].load(path).replay_buffer.buffer_size == 50


def make_manager(plugins, folder, algo="toy", env_id="CartPole-v1", **keywords):
    bridge.install(plugins)
    return rl_zoo3.train.ExperimentManager(Namespace(), algo, env_id, str(folder), eval_freq=-1, verbose=0, **keywords)


def test_the_shipped_configuration_builds_the_model(plugins, tmp_path):
    manager = make_manager(plugins, tmp_path)
    model, saved = manager.setup_experiment()
    assert isinstance(model, Toy)
    assert model.n_envs == 2
    assert [model.temperature(left) for left in (1.0, 0.5)] == [0.5, 0.25]
    assert model.policy_kwargs["net_arch"] == [4]
    assert saved["temperature"] == "lin_0.5"
    model.env.close()


@pytest.mark.parametrize(
    ("algo", "vec_env_type", "expected"),
    [
        ("toy", "dummy", FastDummyVecEnv),
        ("replay", "dummy", FastDummyVecEnv),
        ("toy", "subproc", SubprocVecEnv),
        ("a2c", "dummy", DummyVecEnv),
        ("a2c", "subproc", SubprocVecEnv),
    ],
)
def test_environments_of_registered_algorithms_are_lean(plugins, tmp_path, algo, vec_env_type, expected):
    manager = make_manager(plugins, tmp_path, algo, vec_env_type=vec_env_type)
    assert manager.vec_env_class is expected
    if vec_env_type == "dummy":
        for purpose in ({}, {"eval_env": True}):
            assert type(manager.create_envs(1, **purpose, no_log=True)) is expected


@pytest.mark.parametrize("algo", ["toy", "a2c"])
@pytest.mark.parametrize(("vec_env_type", "expected"), [("gymnasium", "GymnasiumVecEnv"), ("envpool", "EnvPoolVecEnv")])
def test_other_backends_step_environments_of_all_algorithms(plugins, tmp_path, algo, vec_env_type, expected):
    if vec_env_type == "envpool":
        pytest.importorskip("envpool", reason="the extra envpool is not installed")
    manager = make_manager(plugins, tmp_path, algo, vec_env_type=vec_env_type, seed=3, n_timesteps=64)
    model, _ = manager.setup_experiment()
    for env in (model.env, manager.create_envs(2, eval_env=True)):
        assert type(env.unwrapped).__name__ == expected
        env.close()


def test_a_backend_that_is_not_installed_is_told(plugins, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(bridge.UserError, match=r'pip install "sb3_pg_ext\[envpool\]"'):
        make_manager(plugins, tmp_path, vec_env_type="envpool").setup_experiment()


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
def test_the_command_line_takes_other_backends(tmp_path, monkeypatch, backend):
    if backend == "envpool":
        pytest.importorskip("envpool", reason="the extra envpool is not installed")
    arguments = [
        "train",
        "--algo",
        "a2c",
        "--env",
        "CartPole-v1",
        "-n",
        "80",
        "--eval-freq",
        "40",
        "--n-eval-envs",
        "2",
    ]
    arguments += ["--eval-episodes", "2", "--vec-env", backend, "-f", str(tmp_path), "--verbose", "0"]
    monkeypatch.setattr(sys, "argv", ["sb3-pg", *arguments])
    __main__.main()
    run = tmp_path / "a2c" / "CartPole-v1_1"
    assert (run / "CartPole-v1.zip").exists()
    assert list(run.glob("*.monitor.csv"))
    assert (run / "evaluations.npz").exists()


@pytest.mark.parametrize("vec_env_type", ["dummy", "subproc"])
def test_an_algorithm_may_bring_its_own_class_of_environments(plugins, tmp_path, monkeypatch, vec_env_type):
    monkeypatch.setattr(Toy, "vec_env_class", OwnVecEnv, raising=False)
    assert make_manager(plugins, tmp_path, vec_env_type=vec_env_type).vec_env_class is OwnVecEnv


def test_an_override_of_rl_zoos_counts(plugins, tmp_path, monkeypatch):
    monkeypatch.setattr(ExperimentManager, "default_vec_env_cls", OwnVecEnv)
    assert make_manager(plugins, tmp_path).vec_env_class is OwnVecEnv


def test_a_configuration_may_be_a_path_object(config, tmp_path):
    spec = AlgorithmSpec("toy", Toy, config, "m:sampler", "m:converter")
    manager = make_manager(Registry((Entry(spec, Provider("toys", "toy-box", "1.2")),)), tmp_path)
    assert manager.config == str(config)
    assert manager.read_hyperparameters()[0]["temperature"] == "lin_0.5"


def test_of_several_configurations_the_first_that_has_the_entry_counts(config, tmp_path, monkeypatch):
    own = tmp_path / "own.yml"
    spec = AlgorithmSpec("toy", Toy, (own, str(config)), "m:sampler", "m:converter")
    plugins = Registry((Entry(spec, Provider("toys", "toy-box", "1.2")),))
    for name, expected in (("CartPole-v1", own), ("Pendulum-v1", config), ("default", config)):
        own.write_text(CONFIG.replace("CartPole-v1", name).replace("default:", "others:"))
        assert make_manager(plugins, tmp_path).config == str(expected)
    config.write_text("Pendulum-v1: {}")
    with pytest.raises(UserError, match=f"{config} has no entry 'CartPole-v1'"):
        make_manager(plugins, tmp_path).read_hyperparameters()


def test_fast_ppo_keeps_rl_zoos_own_entries(tmp_path):
    pytest.importorskip("minatar")
    files = [make_manager(registry(), tmp_path, "fast_ppo", env_id=name).config for name in ("CartPole-v1", MINATAR)]
    assert [Path(file).name for file in files] == ["ppo.yml", "fast_ppo.yml"]


# Of what is registered as v0 there is a v1, too, with fewer actions.
@pytest.mark.filterwarnings("ignore:.*The environment .* is out of date:DeprecationWarning")
@pytest.mark.parametrize("algo", ["ppo_kl", "a3c", "reinforce", "fast_ppo"])
def test_every_minatar_game_has_an_entry(algo, tmp_path):
    pytest.importorskip("minatar")
    for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"):
        manager = make_manager(registry(), tmp_path, algo, env_id=f"MinAtar/{game}-v0")
        hyperparams, *_ = manager._preprocess_hyperparams(manager.read_hyperparameters()[0])
        assert hyperparams["policy_kwargs"]["features_extractor_class"] is SmallCNN
        assert manager.n_timesteps == 5_000_000
        env = manager.create_envs(1, no_log=True)
        assert env.action_space.n == 6
        env.close()


def test_a_given_configuration_comes_first(plugins, tmp_path):
    given = tmp_path / "given.yml"
    given.write_text(CONFIG.replace("lin_0.5", "0.25"))
    model, _ = make_manager(plugins, tmp_path, config=str(given)).setup_experiment()
    assert model.temperature == 0.25
    model.env.close()


def test_stock_algorithms_are_built_as_rl_zoo_builds_them(plugins, tmp_path):
    """Same configuration file, same hyper-parameters, and their own rules for ``policy_kwargs`` and schedules."""
    ours = make_manager(plugins, tmp_path / "ours", "a2c", hyperparams={"policy_kwargs": "dict(net_arch=[4])"})
    theirs = ExperimentManager(
        Namespace(), "a2c", "CartPole-v1", str(tmp_path), hyperparams={"policy_kwargs": "dict(net_arch=[4])"}
    )
    assert ours.config == theirs.config
    hyperparams, *_ = ours._preprocess_hyperparams(ours.read_hyperparameters()[0])
    expected, *_ = theirs._preprocess_hyperparams(theirs.read_hyperparameters()[0])
    assert hyperparams == expected


PPO_CONFIG = f"""
CartPole-v1:
  policy: MlpPolicy
  n_timesteps: 100
  n_steps: 16
  batch_size: 16
  rollout_buffer_class: {__name__}.CountingBuffer
  rollout_buffer_kwargs: {{unit: 3}}
"""


@pytest.mark.parametrize("kwargs", ["{unit: 3}", '"dict(unit=3)"'])
def test_stock_algorithms_take_a_rollout_buffer_by_name(plugins, tmp_path, kwargs):
    given = tmp_path / "ppo.yml"
    given.write_text(PPO_CONFIG.replace("{unit: 3}", kwargs))
    model, saved = make_manager(plugins, tmp_path, "ppo", config=str(given)).setup_experiment()
    assert isinstance(model.rollout_buffer, CountingBuffer)
    assert model.rollout_buffer.unit == 3
    assert saved["rollout_buffer_class"] == f"{__name__}.CountingBuffer"
    model.env.close()


def train_then_enjoy(zoo, algo, env_id):
    zoo("train", "--algo", algo, "--env", env_id, "-n", "64", "-f", "logs", "--eval-freq", "-1", "--seed", "1")
    assert Path(f"logs/{algo}/{env_id}_1/{env_id}.zip").is_file()
    zoo("enjoy", "--algo", algo, "--env", env_id, "-n", "300", "-f", "logs", "--no-render")


def test_train_then_enjoy(zoo, capsys):
    train_then_enjoy(zoo, "toy", "CartPole-v1")
    assert "Mean reward" in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.parametrize("algo", registry().names(AlgorithmSpec))
def test_every_algorithm_plays_what_it_has_learned(zoo, monkeypatch, algo, capsys):
    monkeypatch.setattr(__main__, "registry", registry)
    train_then_enjoy(zoo, algo, "Pendulum-v1" if algo in ("dac", "naf", "sac_v") else "CartPole-v1")
    assert "Mean reward" in capsys.readouterr().out


def test_a_rollout_buffer_by_name_survives_train_and_enjoy(zoo, tmp_path, capsys):
    (tmp_path / "ppo.yml").write_text(PPO_CONFIG)
    arguments = ["--algo", "ppo", "--env", "CartPole-v1", "-f", "logs"]
    zoo("train", *arguments, "-conf", "ppo.yml", "-n", "32", "--eval-freq", "-1")
    zoo("enjoy", *arguments, "-n", "300", "--no-render")
    assert "Mean reward" in capsys.readouterr().out


def record_constructions(monkeypatch, cls):
    """The keywords of every instance that is made, as they were given."""
    built = []
    original = cls.__init__

    def record(self, *arguments, **keywords):
        built.append({**keywords, "policy_kwargs": dict(keywords["policy_kwargs"])})
        original(self, *arguments, **keywords)

    monkeypatch.setattr(cls, "__init__", record)
    return built


def search(zoo, algo, *arguments):
    options = ["--algo", algo, "--env", "CartPole-v1", "-n", "64", "-f", "logs", "--storage", "study.log"]
    zoo("train", *options, "--study-name", "study", *arguments)


SEARCH = ("-optimize", "--n-trials", "2", "--n-evaluations", "1", "--no-optim-plots", "--eval-episodes", "1")


def test_a_search_extends_the_users_policy_kwargs_and_so_does_its_trial(zoo, tmp_path, monkeypatch):
    """Trial 0 included, which RL Zoo itself takes for none."""
    built = record_constructions(monkeypatch, Toy)
    search(zoo, "toy", *SEARCH)
    sampled = [keywords["gamma"] for keywords in built]
    assert len(set(sampled)) == 2
    assert [keywords["policy_kwargs"] for keywords in built] == [{"ortho_init": False, "net_arch": [16]}] * 2

    search(zoo, "toy", "--trial-id", "0")
    assert built[-1]["gamma"] == sampled[0]
    assert built[-1]["policy_kwargs"] == {"ortho_init": False, "net_arch": [16]}

    search(zoo, "toy", "--trial-id", "1", "-params", "policy_kwargs:dict(net_arch=[2])", "n_steps:4")
    assert built[-1]["gamma"] == sampled[1]
    assert built[-1]["n_steps"] == 4
    assert built[-1]["policy_kwargs"] == {"net_arch": [2]}


def test_a_rollout_buffer_by_name_survives_a_search_and_its_trial(zoo, tmp_path, monkeypatch):
    (tmp_path / "ppo.yml").write_text(PPO_CONFIG)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("study.log")),
        study_name="study",
    )
    for _ in range(2):
        study.enqueue_trial({"n_steps_pow": 5, "batch_size_pow": 5, "n_epochs": 1})
    built = record_constructions(monkeypatch, PPO)
    search(zoo, "ppo", *SEARCH, "-conf", "ppo.yml")
    search(zoo, "ppo", "--trial-id", "1", "-conf", "ppo.yml")
    assert len(built) == 3
    for keywords in built:
        assert keywords["rollout_buffer_class"].__name__ == "CountingBuffer"
        assert keywords["rollout_buffer_kwargs"] == {"unit": 3}
    assert built[-1]["gamma"] == built[1]["gamma"] != built[0]["gamma"]


def test_an_interrupted_training_leaves_a_model_that_loads(tmp_path):
    """With the real signal, in a process of its own."""
    options = ["--algo", "reinforce", "--env", "CartPole-v1", "-n", "100000000", "-f", "logs", "--eval-freq", "-1"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "sb3_pg_ext.zoo", "train", *options, "--progress", "--log-interval", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "total_timesteps" in line:
            break
    process.send_signal(SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Saving to" in rest
    model = REINFORCE.load(tmp_path / "logs/reinforce/CartPole-v1_1/CartPole-v1.zip")
    assert 0 < model.num_timesteps < 100_000_000


def test_what_the_bridge_relies_on_in_rl_zoo():
    """A change upstream shows here first."""

    def names(function):
        return list(inspect.signature(function).parameters)

    assert names(ExperimentManager)[:4] == ["args", "algo", "env_id", "log_folder"]
    assert {"config", "trial_id"} < set(names(ExperimentManager))
    assert names(ExperimentManager.read_hyperparameters) == ["self"]
    assert names(ExperimentManager._preprocess_hyperparams) == ["self", "hyperparams"]
    assert names(ExperimentManager.hyperparameters_optimization) == ["self"]
    assert names(ExperimentManager.load_trial)[:4] == ["self", "storage", "study_name", "trial_id"]
    assert "config=args.conf_file" in inspect.getsource(rl_zoo3.train.train)
    assert "HYPERPARAMS_SAMPLER[self.algo](trial, self.n_actions, n_envs, additional_args)" in inspect.getsource(
        ExperimentManager.objective
    )
    for script in ("enjoy", "record_video", "push_to_hub"):
        source = Path(rl_zoo3.__file__).with_name(f"{script}.py").read_text()
        assert "if algo in off_policy_algos" in source
        assert "buffer_size=1" in source
        assert "model = ALGOS[algo].load(model_path," in source


def test_a_wrapper_that_a_pool_cannot_have_is_told_by_its_name(plugins, tmp_path):
    pytest.importorskip("envpool", reason="the extra envpool is not installed")
    wrapper = {"env_wrapper": "gymnasium.wrappers.ClipAction"}
    manager = make_manager(plugins, tmp_path, vec_env_type="envpool", hyperparams=wrapper)
    with pytest.raises(bridge.UserError, match=r"env_wrapper='gymnasium.wrappers.ClipAction' with EnvPool"):
        manager.setup_experiment()


def test_an_algorithm_that_brings_its_own_vec_env_may_take_a_simulator(plugins, tmp_path, monkeypatch):
    monkeypatch.setattr(Toy, "vec_env_class", FastDummyVecEnv, raising=False)
    monkeypatch.setattr(Toy, "vec_env_types", ("gymnasium",), raising=False)
    manager = make_manager(plugins, tmp_path, "toy", vec_env_type="gymnasium", n_timesteps=64)
    model, _ = manager.setup_experiment()
    assert type(model.env.unwrapped) is GymnasiumVecEnv
    model.env.close()
    with pytest.raises(UserError, match=r"--vec-env envpool with toy, .*; allowed: dummy, gymnasium"):
        make_manager(plugins, tmp_path, "toy", vec_env_type="envpool")


@pytest.mark.parametrize(
    ("algo", "env_id", "params"),
    [
        ("a3c", "CartPole-v1", ["n_envs:2"]),
        ("fast_ppo", "PongNoFrameskip-v4", ["n_envs:2", "n_steps:16", "batch_size:16", "n_epochs:1"]),
    ],
)
def test_envpool_trains_what_needs_more_than_a_pool(tmp_path, monkeypatch, algo, env_id, params):
    pytest.importorskip("envpool", reason="the extra envpool is not installed")
    pytest.importorskip("ale_py", reason="ale-py is not installed")
    arguments = ["train", "--algo", algo, "--env", env_id, "-n", "64", "--eval-freq", "-1", "--vec-env", "envpool"]
    arguments += ["-f", str(tmp_path), "--verbose", "0", "-params", *params]
    monkeypatch.setattr(sys, "argv", ["sb3-pg", *arguments])
    __main__.main()
    run = tmp_path / algo / f"{env_id}_1"
    assert (run / f"{env_id}.zip").exists()
    n_files = 2 if algo == "a3c" else 1
    assert len(list(run.glob("*.monitor.csv"))) == n_files


@pytest.mark.parametrize("vec_env_type", ["gymnasium", "envpool"])
def test_an_algorithm_that_brings_its_own_vec_env_takes_no_simulator(plugins, tmp_path, monkeypatch, vec_env_type):
    monkeypatch.setattr(Toy, "vec_env_class", FastDummyVecEnv, raising=False)
    with pytest.raises(UserError, match=f"--vec-env {vec_env_type} with toy, .*; allowed: dummy"):
        make_manager(plugins, tmp_path, "toy", vec_env_type=vec_env_type)
