"""``learn`` and its arguments."""

import re

import pytest
import torch as th
from envs import RandomEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv

from .algorithms import STEPS, Algorithm, record, vector


@pytest.mark.parametrize("n_envs", [1, 2])
def test_goes_on_or_starts_anew(algorithm: Algorithm, n_envs):
    model = algorithm(DummyVecEnv([RandomEnv] * n_envs)).learn(STEPS)
    steps = model.num_timesteps
    model.learn(STEPS, reset_num_timesteps=False)
    assert model.num_timesteps >= steps + STEPS
    model.learn(STEPS)
    assert STEPS <= model.num_timesteps < steps + STEPS


def test_subclasses_may_pass_their_arguments_on(algorithm: Algorithm):
    class Mine(algorithm.cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    model = Mine("MlpPolicy", RandomEnv(), device="cpu", **algorithm.traits.arguments)
    assert model.num_timesteps == 0


def test_returns_itself(algorithm: Algorithm):
    model = algorithm()
    assert model.learn(1) is model


@pytest.mark.parametrize("after", [0, STEPS])
@pytest.mark.parametrize("adam", [False, True])
def test_a_frozen_parameter_stays(algorithm: Algorithm, after, adam):
    """Also one that has been trained, whose momentum would carry it on."""
    if not algorithm.traits.supports_freezing:
        pytest.skip("as in the stock class")
    chosen = {"use_rms_prop": not adam} if "use_rms_prop" in algorithm.parameters else {}
    model = algorithm(**chosen)
    if after:
        model.learn(after)
    name, frozen = next(iter(model.policy.named_parameters()))
    frozen.requires_grad_(False)
    value, before = frozen.detach().clone(), vector(model)
    model.learn(STEPS)
    assert (vector(model) - before).abs().max() > 0
    th.testing.assert_close(model.policy.get_parameter(name), value, rtol=0, atol=0, check_stride=False, msg=name)


def test_learning_rate_schedule(algorithm: Algorithm):
    model = algorithm(learning_rate=lambda progress_remaining: 1e-3 * progress_remaining)
    records = record(model)
    model.learn(4 * STEPS, log_interval=1)
    rates = [logged["train/learning_rate"] for logged in records.dumps if "train/learning_rate" in logged]
    assert len(rates) > 1
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] <= 1e-3


def test_no_log(algorithm: Algorithm):
    model = algorithm()
    records = record(model)
    model.learn(STEPS, log_interval=None)
    assert records.dumps == []


def test_log_files(algorithm: Algorithm, tmp_path):
    model = algorithm()
    model.set_logger(configure(str(tmp_path), ["csv", "json", "log"]))
    model.learn(2 * STEPS, log_interval=1)
    model.logger.close()
    for name in ("progress.csv", "progress.json", "log.txt"):
        assert "learning_rate" in (tmp_path / name).read_text()


def test_tensorboard(algorithm: Algorithm, tmp_path):
    model = algorithm(tensorboard_log=str(tmp_path))
    model.learn(STEPS, tb_log_name="run", log_interval=1)
    model.logger.close()
    model.learn(STEPS, tb_log_name="run", log_interval=1)
    model.logger.close()
    events = sorted(path.relative_to(tmp_path).parts[0] for path in tmp_path.glob("*/events.out.tfevents.*"))
    assert events == ["run_1", "run_2"]


def test_default_names_of_tensorboard_runs(algorithm: Algorithm, tmp_path):
    model = algorithm(tensorboard_log=str(tmp_path)).learn(1)
    model.logger.close()
    (directory,) = tmp_path.iterdir()
    assert directory.name == f"{algorithm.cls.__name__}_1"


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_progress_bar(algorithm: Algorithm, capsys):
    pytest.importorskip("tqdm")
    pytest.importorskip("rich")
    algorithm().learn(STEPS, progress_bar=True)
    assert re.search(rf"\b\d+/{STEPS}\b", capsys.readouterr().out)


def test_output(algorithm: Algorithm, capsys):
    algorithm(verbose=0).learn(STEPS, log_interval=1)
    assert capsys.readouterr().out == ""
    algorithm(verbose=1).learn(2 * STEPS, log_interval=1)
    output = capsys.readouterr().out
    for text in (f"Using {algorithm.device} device", "ep_rew_mean", "total_timesteps", "learning_rate"):
        assert text in output
