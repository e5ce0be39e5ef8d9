"""Saving, loading and exchanging environments and parameters: the fast twins do it as the stock classes do."""

import base64
import io
import json
import pathlib
import warnings
import zipfile
from copy import deepcopy

import numpy as np
import pytest
import torch as th
from comparison import A2C, PPO, assert_close, each_pair, exactly, moved, parameters, vec_env
from envs import IMAGE, RandomEnv
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize, VecTransposeImage, is_vecenv_wrapped
from torch.distributions import Distribution

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (16, 3)).astype(np.float32)


def actions(model):
    return model.predict(OBSERVATIONS, deterministic=True)[0]


@each_pair
def test_parameters_that_do_not_fit(pair):
    for model in pair.make_both():
        model.learn(32)
        good = deepcopy(model.get_parameters())
        for exact in (True, False):
            with pytest.raises(ValueError, match="Key unknown is an invalid object name"):
                model.set_parameters({**good, "unknown": {}}, exact_match=exact)
        with pytest.raises(ValueError, match="Names of parameters do not match"):
            model.set_parameters({"policy": good["policy"]}, exact_match=True)
        incomplete = {**good, "policy": dict(list(good["policy"].items())[:-1])}
        with pytest.raises(RuntimeError, match="Missing key"):
            model.set_parameters(incomplete, exact_match=True)
        assert_close(parameters(model), good["policy"], **exactly)


@each_pair
def test_some_parameters_are_set(pair):
    model = pair.make_ours().learn(32)
    before = parameters(model)
    last, *_ = reversed(before)
    chosen = {name: th.rand_like(tensor) for name, tensor in before.items() if name != last}
    model.set_parameters({"policy": chosen}, exact_match=False)
    assert_close(parameters(model), {**chosen, last: before[last]}, **exactly)
    assert not np.allclose(actions(model), actions(pair.make_ours()))
    model.learn(32)
    assert moved(model, chosen | {last: before[last]})


@each_pair
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_what_is_loaded_predicts_and_learns(pair, device, tmp_path):
    model = pair.make_ours(vec_env(2), learning_rate=1e-3).learn(64)
    model.save(tmp_path / "model.zip")
    for cls in (pair.ours, pair.theirs):
        loaded = cls.load(str(tmp_path / "model.zip"), env=vec_env(2), device=device)
        assert_close(parameters(loaded), parameters(model), **exactly)
        np.testing.assert_array_equal(actions(loaded), actions(model))
        loaded.learn(64)
        assert moved(loaded, parameters(model))


def test_compiled_policies_are_saved(tmp_path, monkeypatch):
    """As SB3 does, whose files then load into an ordinary policy; with them, a twin learns."""
    # Compiling switches the validation of distributions off, for the whole process.
    monkeypatch.setattr(Distribution, "_validate_args", Distribution._validate_args)
    model = PPO.make_ours().learn(16)
    plain = parameters(model)
    model.policy = th.compile(model.policy, backend="eager")
    model.save(tmp_path / "model")
    loaded = PPO.ours.load(tmp_path / "model", env=RandomEnv(), device="cpu")
    assert_close(parameters(loaded), plain, **exactly)
    model.learn(32)
    assert moved(loaded.learn(32), plain)


@each_pair
def test_attributes_are_excluded_and_included(pair, tmp_path):
    model = pair.make_ours(verbose=0, stats_window_size=7)
    model.verbose = 2
    model.save(tmp_path / "without", exclude=["verbose"])
    assert pair.ours.load(tmp_path / "without", device="cpu").verbose == 0
    model.save(tmp_path / "with", exclude=["verbose"], include=["verbose"])
    custom = {"learning_rate": 2e-5, "unheard_of": 1.0}
    loaded = pair.ours.load(tmp_path / "with", custom_objects=custom, device="cpu")
    assert (loaded.verbose, loaded.learning_rate, loaded._stats_window_size) == (2, 2e-5, 7)
    assert loaded.lr_schedule(1) == 2e-5
    assert not hasattr(loaded, "unheard_of")


@each_pair
def test_information_about_the_system(pair, tmp_path, capsys):
    pair.make_ours().save(tmp_path / "model")
    pair.ours.load(tmp_path / "model", print_system_info=True, device="cpu")
    printed = capsys.readouterr().out
    assert "== CURRENT SYSTEM INFO ==" in printed
    assert "== SAVED MODEL SYSTEM INFO ==" in printed


@each_pair
def test_environments_are_exchanged(pair, tmp_path):
    """Counters and observations at every stage are those of the stock class."""
    histories = []
    for cls in (pair.theirs, pair.ours):
        notes, path = [], tmp_path / cls.__module__

        def note(model, notes=notes):
            notes.append((model.num_timesteps, model._last_obs is None, model.n_envs, model._episode_num))

        model = pair.make(cls, vec_env(1)).learn(16)
        note(model)
        model.set_env(vec_env(1), force_reset=True)
        note(model)
        note(model.learn(16, reset_num_timesteps=True))
        model.set_env(RandomEnv())
        note(model.learn(16))
        with pytest.raises(AssertionError, match="number of environments to be set"):
            model.set_env(vec_env(2))
        model.set_env(model.get_env(), force_reset=False)
        note(model)
        note(model.learn(16, reset_num_timesteps=False))
        env = model.get_env()
        model.save(path)
        model = cls.load(path, env=env, force_reset=False, device="cpu")
        note(model)
        note(model.learn(16, reset_num_timesteps=False))
        model = cls.load(path, env=RandomEnv(), force_reset=True, device="cpu")
        note(model)
        note(model.learn(16, reset_num_timesteps=False))
        model = cls.load(path, env=vec_env(2), device="cpu")
        note(model.learn(32))
        model = cls.load(path, device="cpu")
        assert model.get_env() is None
        model.set_env(RandomEnv())
        note(model.learn(16))
        histories.append(notes)
    assert histories[0] == histories[1]


@each_pair
def test_an_environment_that_does_not_fit(pair, tmp_path):
    pair.make_ours().save(tmp_path / "model")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        pair.ours.load(tmp_path / "model", env=RandomEnv(observation_space=IMAGE), device="cpu")


@each_pair
@pytest.mark.parametrize(("policy", "use_sde"), [("MlpPolicy", False), ("MlpPolicy", True), ("CnnPolicy", False)])
def test_policies_alone(pair, policy, use_sde, tmp_path):
    images = policy == "CnnPolicy"
    env = vec_env(observation_space=IMAGE) if images else vec_env()
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}} if images else {}
    saved = pair.make_ours(env, policy, use_sde=use_sde, policy_kwargs=kwargs).learn(32).policy
    saved.save(tmp_path / "policy.pkl")
    loaded = type(saved).load(tmp_path / "policy.pkl", device="cpu")
    assert_close(dict(loaded.state_dict()), dict(saved.state_dict()), **exactly)
    obs = env.reset()
    np.testing.assert_array_equal(*(each.predict(obs, deterministic=True)[0] for each in (saved, loaded)))


@pytest.mark.filterwarnings("ignore:Path .* does not exist:UserWarning")
def test_places_to_save_to(tmp_path):
    """Names, paths, folders that do not exist, and open files, which stay open."""
    model, memory = A2C.make_ours().learn(16), io.BytesIO()
    for place in (
        str(tmp_path / "name"),
        tmp_path / "path.zip",
        pathlib.Path(tmp_path, "new", "folder", "path"),
        memory,
    ):
        model.save(place)
        loaded = A2C.ours.load(place, device="cpu")
        assert_close(parameters(loaded), parameters(model), **exactly)
    assert not memory.closed


@each_pair
def test_a_file_that_is_none(pair, tmp_path):
    (tmp_path / "model.zip").write_text("nothing")
    with pytest.raises(ValueError, match="wasn't a zip-file"):
        pair.ours.load(tmp_path / "model.zip")


def test_an_object_that_cannot_be_read(tmp_path):
    """A warning points to ``custom_objects``, which help."""
    PPO.make_ours(learning_rate=lambda _: 1.0).save(tmp_path / "whole.zip")
    with zipfile.ZipFile(tmp_path / "whole.zip") as source, zipfile.ZipFile(tmp_path / "model.zip", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "data":
                data = json.loads(content)
                pickled = base64.b64decode(data["learning_rate"][":serialized:"]).replace(b"CodeType", b"CodeTyps")
                data["learning_rate"][":serialized:"] = base64.b64encode(pickled).decode()
                content = json.dumps(data).encode()
            target.writestr(name, content)
    with pytest.warns(UserWarning, match="custom_objects"):
        PPO.ours.load(tmp_path / "model.zip", device="cpu")
    with warnings.catch_warnings(record=True) as caught:
        loaded = PPO.ours.load(tmp_path / "model.zip", device="cpu", custom_objects={"learning_rate": lambda _: 0.5})
    assert not caught
    assert loaded.lr_schedule(0.3) == 0.5


@each_pair
def test_schedules(pair, tmp_path):
    """Functions, and SB3's own classes; whatever a function gives, an optimiser gets a float."""
    model = pair.make_ours(learning_rate=lambda remaining: remaining * np.float64(0.25)).learn(32)
    model.save(tmp_path / "model")
    loaded = pair.ours.load(tmp_path / "model", env=RandomEnv(), device="cpu")
    assert type(loaded.lr_schedule(1.0)) is float
    assert loaded.lr_schedule(0.5) == 0.125
    loaded.learn(32)
    linear = pair.make_ours(learning_rate=LinearSchedule(0.1, 0.05, 1.0)).learn(32)
    assert linear.logger.name_to_value["train/learning_rate"] == pytest.approx(linear.lr_schedule(0.0))


def test_clip_ranges(tmp_path):
    for clip_range, expected in ((0.3, 0.3), (lambda _: 0.25, 0.25), (LinearSchedule(0.2, 0.1, 1.0), 0.2)):
        model = PPO.make_ours(clip_range=clip_range, clip_range_vf=clip_range).learn(16)
        model.save(tmp_path / "model")
        for cls in (PPO.ours, PPO.theirs):
            loaded = cls.load(tmp_path / "model", env=RandomEnv(), device="cpu")
            assert isinstance(loaded.clip_range, FloatSchedule)
            assert loaded.clip_range(1.0) == loaded.clip_range_vf(1.0) == pytest.approx(expected)
            loaded.learn(16)
    assert isinstance(PPO.make_ours().clip_range.value_schedule, ConstantSchedule)


@each_pair
def test_networks_by_default(pair, tmp_path):
    pair.make_ours(policy_kwargs={"net_arch": None}).save(tmp_path / "model")
    loaded = pair.ours.load(tmp_path / "model", device="cpu")
    assert loaded.policy.net_arch == {"pi": [64, 64], "vf": [64, 64]}


@pytest.mark.parametrize("pair", [PPO, A2C], ids=["PPO", "A2C"])
def test_files_of_image_policies(pair, tmp_path):
    """They go on with their environment, also where an old version saved fewer features extractors."""
    kwargs = {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}}}
    model = pair.make_ours(RandomEnv(observation_space=IMAGE), "CnnPolicy", **kwargs).learn(16)
    model.save(tmp_path / "new")
    del model.policy.pi_features_extractor
    model.save(tmp_path / "old")
    loaded = pair.ours.load(tmp_path / "new", env=RandomEnv(observation_space=IMAGE), device="cpu").learn(16)
    assert is_vecenv_wrapped(loaded.env, VecTransposeImage)
    with pytest.warns(UserWarning, match="saved with SB3 < 1.7.0"):
        loaded = pair.ours.load(tmp_path / "old", env=RandomEnv(observation_space=IMAGE), device="cpu")
    loaded.learn(16)


@each_pair
def test_statistics_of_environments_lie_beside_the_model(pair, tmp_path):
    model = pair.make_ours(VecNormalize(vec_env())).learn(64)
    model.save(tmp_path / "model")
    model.get_vec_normalize_env().save(tmp_path / "statistics")
    env = VecNormalize.load(tmp_path / "statistics", vec_env())
    loaded = pair.ours.load(tmp_path / "model", env=env, device="cpu")
    assert loaded.get_vec_normalize_env() is env
    np.testing.assert_array_equal(env.obs_rms.mean, model.env.obs_rms.mean)
    loaded.learn(32, reset_num_timesteps=False)
    assert env.obs_rms.count > model.env.obs_rms.count
