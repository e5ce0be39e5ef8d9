"""What the user can mend is told in one line; a bug shows its traceback."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import optuna
import pytest
from rl_zoo3.exp_manager import ExperimentManager
from toys import CONFIG, Toy

from sb3_pg_ext import NPG
from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import __main__

PPO = ["--algo", "ppo", "--env", "CartPole-v1"]
NPG_ = ["--algo", "npg", "--env", "CartPole-v1"]
TOY = ["--algo", "toy", "--env", "CartPole-v1"]


def params(*given):
    return ["-params", *given]


ERRORS = {
    "environment": (["--algo", "ppo", "--env", "CartPoel-v1"], r"CartPoel-v1 not found .* maybe meant CartPole-v1\?"),
    "misspelt argument": (
        [*PPO, *params("n_step:3")],
        r"-params: ppo has no argument 'n_step'; did you mean 'n_steps'",
    ),
    "misspelt argument of a registered one": ([*TOY, *params("temp:3")], "-params: toy has no argument 'temp'"),
    "argument that the twin has not": (
        ["--algo", "fast_maskable_ppo", "--env", "CartPole-v1", *params("use_sde:True")],
        "-params: fast_maskable_ppo has no argument 'use_sde'",
    ),
    "entry of another algorithm": (
        ["--algo", "fast_maskable_ppo", "--env", "Pendulum-v1"],
        "hyperparams/ppo.yml: fast_maskable_ppo has no argument 'use_sde'",
    ),
    "misspelt key of RL Zoo": (
        [*NPG_, *params("n_env:3")],
        "-params: npg has no argument 'n_env'; did you mean 'n_envs'",
    ),
    "misspelt policy_kwargs": (
        [*NPG_, *params("policy_kwargs:dict(net_arc=[8])")],
        r"policy_kwargs has 'net_arc': .*__init__\(\) got an unexpected keyword argument 'net_arc'",
    ),
    "misspelt argument of the environment": ([*PPO, "--env-kwargs", "sutton:1"], "env_kwargs has 'sutton': .*'sutton'"),
    "value out of range": (
        [*NPG_, *params("gamma:2")],
        r"npg cannot be trained on CartPole-v1: gamma=2; allowed: \[0, 1\]",
    ),
    "unknown estimator": (
        [*NPG_, *params("advantage_estimator:'gea'")],
        r"npg cannot be trained on CartPole-v1: Unknown estimator 'gea'; did you mean 'gae'\?",
    ),
    "unknown policy": ([*PPO, *params("policy:'MlpPolicyy'")], "ppo cannot be trained .* Policy MlpPolicyy unknown"),
    "text without quotes": (
        [*NPG_, *params("advantage_estimator:upgo")],
        r"-params advantage_estimator:upgo cannot be evaluated: name 'upgo' is not defined; "
        r"a text needs quotes within quotes: advantage_estimator:\"'upgo'\"",
    ),
    "no value": ([*NPG_, *params("gamma")], "-params gamma; allowed: gamma:value"),
    "no Python": ([*NPG_, *params("gamma:0.9.9")], "-params gamma:0.9.9 cannot be evaluated: invalid syntax"),
    "no Python in a text": (
        [*NPG_, *params("policy_kwargs:'dict(net_arch=[8)'")],
        "evaluated as Python is none: .*match",
    ),
    "no schedule": (
        [*PPO, *params("learning_rate:'fast'")],
        "learning_rate='fast'; allowed: a number or 'lin_<number>'",
    ),
    "no schedule of a registered one": (
        [*TOY, *params("temperature:'fast'")],
        "temperature='fast'; allowed: a number or",
    ),
    "no such class": ([*PPO, *params("env_wrapper:'gymnasium.wrappers.NoWrapper'")], "has no attribute 'NoWrapper'"),
    "no such package": ([*PPO, "--gym-packages", "no_such_package"], "No module named 'no_such_package'"),
    "missing agent": ([*PPO, "-i", "missing.zip"], "trained_agent must be a valid path to a .zip file"),
    "missing configuration": (
        [*PPO, "-conf", "zoo_configs/ppo_estimator.yml"],
        "--conf-file zoo_configs/ppo_estimator.yml: there is no such file; "
        "did you mean 'zoo_configs/ppo_estimators.yml'",
    ),
    "missing program": ([*PPO, "-conf", "missing.py"], "--conf-file missing.py: there is no such file"),
    "actions": (
        ["--algo", "naf", "--env", "CartPole-v1"],
        r"Action noise can only be used with Box action space, not Discrete\(2\)",
    ),
}
each = pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)


@pytest.fixture
def error_of(zoo, monkeypatch, plugins, capsys):
    """``error_of(script, *arguments)`` gives what the script says in one line, and nothing but that."""
    everything = type(plugins)((*plugins.entries, *registry().entries))
    monkeypatch.setattr(__main__, "registry", lambda: everything)

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_:
            zoo(*arguments)
        assert exit_.value.code == 2
        return capsys.readouterr().err

    return run


@each
def test_one_line_and_nothing_left_behind(error_of, arguments, message):
    shown = error_of("train", *arguments, "-f", "logs", "-n", "64")
    assert re.fullmatch(f"sb3-pg train: error: .*{message}.*\n", shown, re.DOTALL), shown
    assert not [path for path in Path("logs").rglob("*") if "_1" in path.name]


SEARCH = ["-optimize", "--n-trials", "1", "-n", "64", "--n-evaluations", "1", "--no-optim-plots"]


@pytest.mark.parametrize(
    ("given", "message"),
    [("engine:'fast'", "engine='fast'; allowed: "), ("cg_step:2", "npg has no argument 'cg_step'")],
)
def test_a_search_explains_likewise(error_of, given, message):
    assert message in error_of("train", *NPG_, "-f", "logs", *SEARCH, *params(given))


@pytest.mark.parametrize(
    ("end", "storage"),
    [(KeyboardInterrupt, []), (optuna.TrialPruned, ["--storage", "study.log", "--study-name", "study"])],
    ids=["Ctrl-C, in memory", "pruned, in a file"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_search_without_a_complete_trial(error_of, monkeypatch, end, storage):
    """Ctrl-C in the first trial, or a pruner that lets none through."""

    def objective(manager, trial):
        raise end

    monkeypatch.setattr(ExperimentManager, "objective", objective)
    shown = error_of("train", *NPG_, "-f", "logs", *SEARCH, *storage)
    assert shown.endswith("sb3-pg train: error: The search has ended before any trial was complete.\n"), shown


def test_actions_that_an_algorithm_does_not_support(error_of):
    Path("own.yml").write_text("default: {policy: MlpPolicy, n_timesteps: 100}")
    shown = error_of("train", "--algo", "naf", "--env", "CartPole-v1", "-f", "logs", "-conf", "own.yml")
    assert shown.startswith("sb3-pg train: error: naf cannot be trained on CartPole-v1: The algorithm only supports")
    assert "Discrete(2) was provided" in shown
    assert not list(Path("logs").rglob("*_1"))


FILES = {
    "misspelt key": (
        CONFIG.replace("n_steps", "n_stepz"),
        r"own.yml: toy has no argument 'n_stepz'; did you mean 'n_steps'",
    ),
    "no steps": (
        CONFIG.replace("n_timesteps: 100", "gamma: 0.9"),
        "entry for CartPole-v1 in own.yml lacks n_timesteps",
    ),
    "no policy": ("CartPole-v1: {n_timesteps: 100}", "entry for CartPole-v1 in own.yml lacks policy"),
    "no entry": ("CartPole-v0: {policy: MlpPolicy}", "no entry 'CartPole-v1', .*'default'; did you mean 'CartPole-v0'"),
    "no mapping": ("[CartPole-v1]", "own.yml holds list; allowed: a mapping from environments to entries"),
    "an entry that is none": ("CartPole-v1: MlpPolicy", "the entry 'CartPole-v1' is 'MlpPolicy'; allowed: a mapping"),
    "empty": ("", "own.yml holds NoneType"),
    "no YAML": ("CartPole-v1: {policy: [", "own.yml is no YAML: while parsing"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_file_that_is_wrong(error_of, content, message):
    Path("own.yml").write_text(content)
    shown = error_of("train", *TOY, "-f", "logs", "-conf", "own.yml")
    assert re.fullmatch(f"sb3-pg train: error: .*{message}.*\n", shown), shown


def test_no_model_to_play(error_of):
    Path("logs/toy/CartPole-v1_1").mkdir(parents=True)
    shown = error_of("enjoy", "--algo", "toy", "--env", "CartPoel-v1", "-f", "logs")
    assert shown.endswith("did you mean 'CartPole-v1'?\n")
    assert shown.startswith("sb3-pg enjoy: error: No model found for toy on CartPoel-v1, path: ")
    shown = error_of("record_video", "--algo", "toy", "--env", "Pendulum-v1", "-f", "logs")
    assert shown.endswith("; trained were: CartPole-v1\n")


def test_a_model_of_an_environment_that_is_not_registered(error_of):
    Path("logs/toy/Gone-v1_1").mkdir(parents=True)
    Toy("MlpPolicy", "CartPole-v1").save("logs/toy/Gone-v1_1/Gone-v1")
    shown = error_of("enjoy", "--algo", "toy", "--env", "Gone-v1", "-f", "logs", "--no-render")
    assert shown == "sb3-pg enjoy: error: There is no environment Gone-v1: is its package installed?\n"


def test_a_model_whose_plugin_is_missing(error_of):
    run = Path("logs/npg/CartPole-v1_1")
    run.mkdir(parents=True)
    model = NPG("MlpPolicy", "CartPole-v1")
    model.advantage_estimator = "n_stepp"
    model.save(run / "CartPole-v1")
    shown = error_of("enjoy", *NPG_, "-f", "logs", "--no-render")
    assert "If a saved model names this estimator, the plug-in that provided it is not installed" in shown


BUGS = [
    TypeError("step() got an unexpected keyword argument 'n_steps'"),
    ValueError("operands could not be broadcast"),
    AssertionError("a bug"),
    gym.error.UnregisteredEnv("another environment, which this one needs"),
    FileNotFoundError(2, "No such file", "maps/world.txt"),
    NameError("name 'x' is not defined"),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
@pytest.mark.parametrize("where", ["__init__", "reset", "train", "_setup_model"])
def test_a_bug_shows_its_traceback(zoo, monkeypatch, bug, where):
    """Of an environment, and of an algorithm."""

    def fail(*arguments, seed=None, options=None, **keywords):
        raise bug

    if where in ("train", "_setup_model"):
        monkeypatch.setattr(Toy, where, fail)
    else:
        monkeypatch.setattr(f"gymnasium.envs.classic_control.cartpole.CartPoleEnv.{where}", fail)
    with pytest.raises(type(bug), match=re.escape(str(bug)[:20])):
        zoo("train", *TOY, "-f", "logs", "-n", "64")


def test_a_bug_of_this_package_shows_its_traceback_as_well(zoo, monkeypatch):
    monkeypatch.setattr(__main__, "registry", registry)
    monkeypatch.setattr("sb3_pg_ext.algorithms.base.actor_critic.check_range", lambda *_: np.zeros(2) + np.zeros(3))
    with pytest.raises(ValueError, match="operands could not be broadcast"):
        zoo("train", *NPG_, "-f", "logs", "-n", "64")
