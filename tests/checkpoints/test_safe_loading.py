"""Files from strangers: loaded as ``load`` does, without running anything of theirs."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import stable_baselines3
import torch as th
from attacks import (
    FILES,
    PICKLES,
    by_stack,
    opcodes,
    with_attribute,
    with_data,
    with_named_tensor,
    with_tensors,
)
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pg_ext import NPG, fast, inspect_model, safe_load, safe_save
from sb3_pg_ext.checkpoints import UnsafeFileError, convert, safe_load_normalization, safe_load_replay_buffer
from sb3_pg_ext.checkpoints.safety import loading
from sb3_pg_ext.checkpoints.safety.decoding import Decoder
from sb3_pg_ext.checkpoints.safety.inference import algorithms
from sb3_pg_ext.checkpoints.safety.pickles import Budget, read_pickle
from sb3_pg_ext.zoo import commands


class MyExtractor(FlattenExtractor):
    """Somebody's own."""


def small(cls=PPO, policy="MlpPolicy", env=None, **kwargs):
    if cls is PPO:
        kwargs = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, **kwargs}
    return cls(policy, env or RandomEnv(), **{"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0, **kwargs})


@pytest.fixture(scope="module")
def good():
    file = io.BytesIO()
    small().save(file)
    return file.getvalue()


@pytest.fixture
def save(tmp_path):
    def write(content: bytes) -> Path:
        path = tmp_path / "model.zip"
        path.write_bytes(content)
        return path

    return write


def everything(path, tmp_path):
    """All that looks at a file: each has to refuse it."""
    for action in (safe_load, lambda file: convert(file, tmp_path / "converted.zip")):
        with pytest.raises(UnsafeFileError):
            action(path)
    report = inspect_model(path)
    assert report.verdict == "refused"
    assert report.reasons


@pytest.mark.parametrize("name", PICKLES)
def test_what_a_file_would_run_does_not_run(name, good, save, tmp_path):
    mark = tmp_path / "mark"
    pickled = PICKLES[name](str(mark))
    everything(save(with_attribute(good, "gamma", pickled)), tmp_path)
    everything(save(with_tensors(good, pickled)), tmp_path)
    (tmp_path / "statistics.pkl").write_bytes(pickled)
    with pytest.raises(UnsafeFileError):
        safe_load_normalization(tmp_path / "statistics.pkl", DummyVecEnv([RandomEnv]))
    assert not mark.exists()


@pytest.mark.parametrize("name", [name for name in PICKLES if name != "a schedule that is one"])
@pytest.mark.filterwarnings("ignore")
def test_by_load_it_would_run(name, good, save, tmp_path):
    """Each attack is one."""
    mark = tmp_path / "mark"
    path = save(with_attribute(good, "gamma", PICKLES[name](str(mark))))
    try:
        PPO.load(path)
    except Exception as problem:
        print(problem)
    deadline = 50
    while not mark.exists() and deadline:
        deadline -= 1
        subprocess.run(["sleep", "0.02"], check=True)
    assert mark.exists()


@pytest.mark.parametrize("name", FILES)
def test_files_that_do_harm_are_refused(name, good, save, tmp_path):
    path = save(FILES[name](good, tmp_path))
    with pytest.raises(UnsafeFileError):
        safe_load(path, "PPO")
    inspect_model(path)


@pytest.mark.parametrize("name", ["very many actions", "very many layers", "a huge network", "many huge networks"])
def test_networks_are_refused_before_they_are_made(name, good, save, tmp_path):
    with pytest.raises(UnsafeFileError, match="its networks would be far larger than the parameters"):
        safe_load(save(FILES[name](good, tmp_path)), "PPO")


def test_there_are_enough_of_them():
    assert len(PICKLES) + len(FILES) >= 40


@pytest.mark.parametrize("name", algorithms())
@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
def test_models_are_those_of_load(name, policy, tmp_path):
    cls = algorithms()[name]
    recurrent = "LstmPolicy" if "Recurrent" in name else "Policy"
    policy = policy.replace("Policy", recurrent)
    if policy not in cls.policy_aliases or (cls.__name__ == "HER"):
        pytest.skip("has no such policy")
    discrete = {"DQN", "QRDQN", "MaskablePPO", "GumbelDDPG"} & {cls.__name__}
    space = {"C": "image", "M": "Dict" if policy.startswith("Mul") else "Box"}[policy[0]]
    env = RandomEnv(ACTION_SPACES["Discrete" if discrete else "Box"], OBSERVATION_SPACES[space])
    kwargs = {"net_arch": [8]} if cls.__name__ != "ARS" else {}
    model = cls(policy, env, policy_kwargs=kwargs, device="cpu", seed=0)
    model.save(tmp_path / "model")
    model.observation_space.seed(1)
    expected = cls.load(tmp_path / "model")
    named = cls.__name__ if cls.__name__ in ("DDPG", "TD3") else None
    loaded = safe_load(tmp_path / "model", named)
    assert type(loaded) is cls
    th.testing.assert_close(loaded.get_parameters(), expected.get_parameters(), rtol=0, atol=0)
    assert vars(loaded).keys() == vars(expected).keys()
    observations = np.stack([env.observation_space.sample() for _ in range(3)]) if space != "Dict" else None
    if observations is not None and space == "Box":
        actions = [each.predict(observations, deterministic=True)[0] for each in (loaded, expected)]
        np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize(
    "make",
    [
        lambda: small(learning_rate=LinearSchedule(1e-3, 0.0, 1.0), clip_range=0.1),
        lambda: small(NPG, n_steps=16),
        lambda: small(fast.PPO, n_steps=16, batch_size=16, n_epochs=1),
        lambda: small(SAC, buffer_size=100, learning_starts=4, batch_size=4),
        lambda: small(
            TD3,
            buffer_size=100,
            learning_starts=4,
            batch_size=4,
            action_noise=NormalActionNoise(np.zeros(1), np.ones(1)),
        ),
        lambda: small(
            TD3,
            buffer_size=100,
            learning_starts=4,
            batch_size=4,
            action_noise=OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1)),
        ),
    ],
)
def test_they_go_on_as_those_of_load(make, tmp_path):
    model = make().learn(32)
    model.save(tmp_path / "model")
    safe_save(model, tmp_path / "safe")
    named = "TD3" if isinstance(model, TD3) else None
    trained = []
    for load in (
        lambda env: type(model).load(tmp_path / "model", env=env),
        lambda env: safe_load(tmp_path / "model", named, env=env),
        lambda env: safe_load(tmp_path / "safe", named, env=env),
    ):
        each = load(RandomEnv())
        each.set_random_seed(3)
        trained.append(each.learn(32, reset_num_timesteps=False).get_parameters())
    th.testing.assert_close(trained[1], trained[0], rtol=0, atol=0)
    th.testing.assert_close(trained[2], trained[0], rtol=0, atol=0)


def test_older_pytorch_gets_tensors_that_were_read_here(good, save, monkeypatch):
    monkeypatch.setattr(loading, "UNPICKLES_TENSORS_ALONE", False)
    path = save(good)
    th.testing.assert_close(safe_load(path).get_parameters(), PPO.load(path).get_parameters(), rtol=0, atol=0)


def test_classes_of_ones_own_have_to_be_trusted(tmp_path):
    model = small(policy_kwargs={"net_arch": [8], "features_extractor_class": MyExtractor})
    model.save(tmp_path / "model")
    name = f"{MyExtractor.__module__}.MyExtractor"
    with pytest.raises(
        UnsafeFileError, match=rf"policy_kwargs \(dict\): it needs {name}.*trusted=\['{name}'\]"
    ) as caught:
        safe_load(tmp_path / "model")
    assert "custom_objects" in str(caught.value)
    report = inspect_model(tmp_path / "model")
    assert (report.verdict, report.trusted) == ("safe with these names trusted", [name])
    assert isinstance(safe_load(tmp_path / "model", trusted=[name]).policy.features_extractor, MyExtractor)
    assert inspect_model(tmp_path / "model", [name]).verdict == "safe"


@pytest.mark.parametrize("name", ["no.such.Module", "os.system", "Tanh", ""])
def test_only_classes_can_be_trusted(name, good, save):
    with pytest.raises(ValueError, match=f"trusted has {name!r}"):
        safe_load(save(good), trusted=[name])


def test_functions_have_to_be_supplied(tmp_path):
    model = small(learning_rate=lambda remaining: 1e-3 * remaining)
    model.save(tmp_path / "model")
    with pytest.raises(UnsafeFileError) as caught:
        safe_load(tmp_path / "model")
    assert (
        "learning_rate (function): it is a function, and holds the code that it would run; it wants "
        "cloudpickle.cloudpickle._make_function; give custom_objects={'learning_rate': …}"
    ) in str(caught.value)
    assert inspect_model(tmp_path / "model").verdict == "refused"
    schedule = LinearSchedule(1e-3, 0.0, 1.0)
    loaded = safe_load(tmp_path / "model", custom_objects={"learning_rate": schedule})
    assert loaded.learning_rate is schedule
    assert loaded.lr_schedule(0.5) == 5e-4
    with pytest.raises(
        UnsafeFileError, match=r"safe_load with custom_objects={'learning_rate': …}, and save .* safe_save"
    ):
        convert(f"{tmp_path}/model.zip", tmp_path / "safe.zip")
    safe_save(loaded, tmp_path / "safe.zip")
    with pytest.raises(UnsafeFileError, match=r"set model\.learning_rate to something else"):
        safe_save(model, tmp_path / "safe.zip")


def test_classes_of_scripts_are_said_to_be_code(good, save):
    path = save(with_attribute(good, "note", PICKLES["BUILD of a class that it brings along"]("mark")))
    with pytest.raises(UnsafeFileError, match=r"a class of a script or a notebook.*custom_objects={'note': …}"):
        safe_load(path)


def test_open_files_are_read_from_their_beginning():
    file = io.BytesIO()
    small().save(file)
    assert isinstance(safe_load(file), PPO)
    assert inspect_model(file).verdict == "safe"


def test_what_is_no_model_is_said_to_be_none(tmp_path):
    VecNormalize(DummyVecEnv([RandomEnv])).save(str(tmp_path / "statistics.pkl"))
    with pytest.raises(UnsafeFileError, match="statistics are read by safe_load_normalization"):
        safe_load(tmp_path / "statistics.pkl")


class MySpace(spaces.Box):
    """Somebody's own."""


def test_spaces_that_are_refused_are_those_of_the_environment(tmp_path):
    env = RandomEnv()
    space = env.observation_space
    env.observation_space = MySpace(space.low, space.high)
    model = small(env=env)
    model.save(tmp_path / "model")
    with pytest.raises(UnsafeFileError, match=r"observation_space .*env=…, which has it"):
        safe_load(tmp_path / "model")
    assert safe_load(tmp_path / "model", env=env).observation_space is env.observation_space


def test_what_a_file_says_does_not_command_the_terminal(good, save, monkeypatch, capsys):
    odd = {
        "note": "a\x1b[2J\nverdict  safe\u202e",
        "gamma": float("nan"),
        "\u200b": 1,
        "policy_kwargs": {"net_arch": [8]},
    }
    path = save(with_data(good, **odd))
    for arguments in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["sb3-pg inspect", str(path), *arguments])
        with suppress(SystemExit):
            commands.inspect()
        printed = capsys.readouterr().out
        assert all(line.isprintable() for line in printed.splitlines())
        assert printed.count("verdict") == 1 + ("note" in printed)
    assert json.loads(printed, parse_constant=pytest.fail)["hyperparameters"]["note"] == odd["note"]
    pickled = opcodes(by_stack("a\x1b[2J", "b\nverdict: safe"), b")R")
    for other in (with_attribute(good, "x\n- y: z", pickled), with_named_tensor(good, "a\x1b[2J")):
        with pytest.raises(UnsafeFileError) as caught:
            safe_load(save(other))
        assert all(line.isprintable() for line in str(caught.value).splitlines())
        assert len(str(caught.value).splitlines()) in (1, 3)


def test_arrays_of_the_same_place_are_kept_apart(good, save, tmp_path):
    """``a.b`` is a key here, and one of a dictionary in another there."""
    one, other = np.arange(100.0), np.arange(100.0) + 1
    path = save(with_attribute(good, "note", pickle.dumps({"a": {"b": one}, "a.b": other})))
    convert(path, tmp_path / "safe.zip")
    note = safe_load(tmp_path / "safe.zip").note
    np.testing.assert_array_equal(note["a"]["b"], one)
    np.testing.assert_array_equal(note["a.b"], other)


def test_large_buffers_with_little_in_them(tmp_path):
    """They compress as only bombs do."""
    model = small(SAC, buffer_size=100_000)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    convert(tmp_path / "buffer.pkl", tmp_path / "buffer.npz")
    safe_load_replay_buffer(tmp_path / "buffer.npz", model)
    assert model.replay_buffer.observations.shape[0] == 100_000


def test_a_file_may_ask_for_so_much():
    long = b"\x80\x04" + b"N0" * 100 + b"N."
    with pytest.raises(UnsafeFileError, match="too many instructions"):
        read_pickle(long, Budget(instructions=100, items=1000, n_bytes=1000))
    with pytest.raises(UnsafeFileError, match="far more than it is large"):
        Decoder({}, Budget(1000, 10, 1000)).decode([0] * 20)
    with pytest.raises(UnsafeFileError, match="far more than it is large"):
        Decoder({}, Budget(1000, 1000, 10)).decode("a" * 20)


def test_schedules_of_rl_zoo(tmp_path):
    schedule = pytest.importorskip("rl_zoo3.utils").SimpleLinearSchedule(1e-3)
    small(learning_rate=schedule, clip_range=schedule).save(tmp_path / "model")
    assert inspect_model(tmp_path / "model").verdict == "safe"
    loaded, expected = safe_load(tmp_path / "model"), PPO.load(tmp_path / "model")
    for name in ("learning_rate", "lr_schedule", "clip_range"):
        assert getattr(loaded, name)(0.3) == getattr(expected, name)(0.3)


@pytest.mark.filterwarnings("ignore:.*is deprecated:UserWarning")
def test_schedules_of_older_versions_are_made_anew(good, save):
    from stable_baselines3.common.utils import constant_fn, get_linear_fn

    path = save(with_attribute(good, "clip_range", cloudpickle.dumps(constant_fn(0.25))))
    assert safe_load(path).clip_range(0.5) == 0.25
    path = save(with_attribute(good, "learning_rate", cloudpickle.dumps(get_linear_fn(1.0, 0.5, 1.0))))
    assert safe_load(path).learning_rate(0.5) == pytest.approx(0.75)


def test_the_algorithm_is_told_from_what_is_stored(tmp_path):
    small(TD3, buffer_size=10).save(tmp_path / "model")
    with pytest.raises(UnsafeFileError, match=r"candidates: stable_baselines3.DDPG, stable_baselines3.TD3; give algo"):
        safe_load(tmp_path / "model")
    assert type(safe_load(tmp_path / "model", TD3)) is TD3
    with pytest.raises(ValueError, match=r"algorithm='PPOO'; allowed"):
        safe_load(tmp_path / "model", "PPOO")


def test_a_file_does_not_say_where_logs_go(tmp_path):
    small(tensorboard_log=str(tmp_path / "elsewhere")).save(tmp_path / "model")
    assert safe_load(tmp_path / "model").tensorboard_log is None
    assert safe_load(tmp_path / "model", custom_objects={"tensorboard_log": "here"}).tensorboard_log == "here"


def test_converted_models_load_in_sb3_again(tmp_path):
    model = small(DQN, env=RandomEnv(ACTION_SPACES["Discrete"]), buffer_size=10, learning_starts=4).learn(20)
    model.save(tmp_path / "model")
    convert(tmp_path / "model.zip", tmp_path / "safe.zip")
    with zipfile.ZipFile(tmp_path / "safe.zip") as archive:
        assert set(archive.namelist()) == {"model.json", "tensors.safetensors", "arrays.npz"}
        assert json.loads(archive.read("model.json"))["data"]["gamma"] == 0.99
        assert b":serialized:" not in archive.read("model.json")
    assert inspect_model(tmp_path / "safe.zip").verdict == "safe"
    convert(tmp_path / "safe.zip", tmp_path / "again.zip")
    loaded = DQN.load(tmp_path / "again")
    th.testing.assert_close(loaded.get_parameters(), model.get_parameters(), rtol=0, atol=0)
    assert loaded.observation_space == model.observation_space
    assert loaded.exploration_schedule(0.5) == model.exploration_schedule(0.5)


def test_statistics_and_replay_buffers(tmp_path):
    venv = VecNormalize(DummyVecEnv([RandomEnv]), clip_obs=5.0)
    model = small(SAC, env=venv, buffer_size=50, learning_starts=4, batch_size=4).learn(30)
    venv.save(tmp_path / "statistics.pkl")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    for name in ("statistics", "buffer"):
        convert(tmp_path / f"{name}.pkl", tmp_path / f"{name}.npz")
        convert(tmp_path / f"{name}.npz", tmp_path / f"{name}_again.pkl")
    expected = VecNormalize.load(tmp_path / "statistics.pkl", DummyVecEnv([RandomEnv]))
    for file in ("statistics.pkl", "statistics.npz", "statistics_again.pkl"):
        loaded = safe_load_normalization(tmp_path / file, DummyVecEnv([RandomEnv]))
        np.testing.assert_array_equal(loaded.obs_rms.mean, expected.obs_rms.mean)
        assert (loaded.ret_rms.var, loaded.clip_obs, loaded.gamma) == (expected.ret_rms.var, 5.0, expected.gamma)
        assert loaded.observation_space == expected.observation_space
    for file in ("buffer.pkl", "buffer.npz", "buffer_again.pkl"):
        other = small(SAC, env=venv, buffer_size=50)
        safe_load_replay_buffer(tmp_path / file, other)
        assert other.replay_buffer.size() == model.replay_buffer.size()
        np.testing.assert_array_equal(other.replay_buffer.observations, model.replay_buffer.observations)


@pytest.mark.parametrize("copy_info_dict", [False, True])
def test_replay_buffers_of_hindsight(copy_info_dict, tmp_path):
    env = BitFlippingEnv(n_bits=3, continuous=True)
    more = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"copy_info_dict": copy_info_dict}}
    model = small(SAC, "MultiInputPolicy", env, **more, buffer_size=30, learning_starts=8, batch_size=4).learn(12)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    convert(tmp_path / "buffer.pkl", tmp_path / "buffer.npz")
    for file in ("buffer.pkl", "buffer.npz"):
        loaded = safe_load(tmp_path / "model", env=env)
        safe_load_replay_buffer(tmp_path / file, loaded)
        assert str(loaded.replay_buffer.infos) == str(model.replay_buffer.infos)
        np.testing.assert_array_equal(loaded.replay_buffer.ep_length, model.replay_buffer.ep_length)
        loaded.learn(8, reset_num_timesteps=False)


def test_statistics_are_no_replay_buffer(tmp_path):
    venv = VecNormalize(DummyVecEnv([RandomEnv]))
    venv.save(tmp_path / "statistics.pkl")
    with pytest.raises(UnsafeFileError, match="no replay buffer"):
        safe_load_replay_buffer(tmp_path / "statistics.pkl", small(SAC, env=venv, buffer_size=10))
    venv.obs_rms = None
    venv.save(tmp_path / "statistics.pkl")
    with pytest.raises(UnsafeFileError, match="statistics whose obs_rms is None"):
        safe_load_normalization(tmp_path / "statistics.pkl", DummyVecEnv([RandomEnv]))
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UnsafeFileError, match="no object of a class"):
        safe_load_normalization(tmp_path / "list.pkl", DummyVecEnv([RandomEnv]))


def test_missing_files(tmp_path):
    for action in (safe_load, inspect_model, lambda path: convert(path, tmp_path / "other.zip")):
        with pytest.raises(FileNotFoundError):
            action(tmp_path / "none")


def test_the_report_tells_what_there_is(tmp_path):
    small(NPG, n_steps=16).save(tmp_path / "model")
    report = inspect_model(tmp_path / "model")
    assert report.verdict == "safe"
    assert report.algorithms == ["npg"]
    assert report.hyperparameters["n_steps"] == 16
    assert report.n_parameters == sum(p.numel() for p in NPG.load(tmp_path / "model").policy.parameters())
    assert report.sb3_version == stable_baselines3.__version__
    assert "sb3_pg_ext.policies.MlpPolicy" in report.imports["policy_class"]
    assert report.hyperparameters["saved_as"] == "npg"
    json.dumps(report.as_dict())


@pytest.mark.slow
def test_the_command_line(tmp_path, good):
    (tmp_path / "good.zip").write_bytes(good)
    (tmp_path / "bad.zip").write_bytes(with_attribute(good, "gamma", PICKLES["os.system"](str(tmp_path / "mark"))))

    def run(*arguments):
        command = [sys.executable, "-m", "sb3_pg_ext.zoo", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("inspect", tmp_path / "good.zip").stdout.startswith("verdict")
    refused = run("inspect", "--json", tmp_path / "bad.zip")
    assert (refused.returncode, json.loads(refused.stdout)["verdict"]) == (1, "refused")
    assert run("convert", tmp_path / "good.zip", tmp_path / "safe.zip").returncode == 0
    assert "posix.system" in run("convert", tmp_path / "bad.zip", tmp_path / "safe.zip").stderr
    assert run("inspect", tmp_path / "none.zip").returncode == 2
    assert run("inspect", "--trusted", "collections.Counter", tmp_path / "good.zip").returncode == 0
    assert not (tmp_path / "mark").exists()


@pytest.mark.filterwarnings("ignore:You are probably loading:UserWarning")
@pytest.mark.parametrize(("name", "cls"), [("1.8.0_PPO", "PPO"), ("2.0.0_SAC", "SAC"), ("2.3.2_DQN", "DQN")])
def test_files_of_older_versions(name, cls):
    """The first of these needs a package for ``load`` that no longer installs."""
    path = Path(__file__).parent / "files" / name
    assert inspect_model(path).verdict == "safe"
    loaded = safe_load(path)
    assert type(loaded) is getattr(stable_baselines3, cls)
    action, _ = loaded.predict(loaded.observation_space.sample())
    assert loaded.action_space.contains(action)
