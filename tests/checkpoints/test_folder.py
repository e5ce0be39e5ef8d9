"""Damaged and half-written checkpoints are passed over, and it is said."""

import pytest
from envs import RandomEnv
from stable_baselines3 import A2C

from sb3_pg_ext.callbacks import TrainingCheckpointCallback
from sb3_pg_ext.checkpoints import resume


@pytest.fixture
def folder(tmp_path):
    A2C("MlpPolicy", RandomEnv(), device="cpu").learn(50, TrainingCheckpointCallback(10, tmp_path))
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_latest_two_are_kept(folder):
    assert names(folder) == ["000003_30_steps", "000004_40_steps"]
    assert resume(folder).num_timesteps == 40
    assert resume(folder / "000003_30_steps").num_timesteps == 30


@pytest.mark.parametrize("file", ["model.zip", "state.pkl", "environments.pkl", "record.json", "files.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_a_damaged_checkpoint_is_passed_over(folder, file, damage):
    path = folder / "000004_40_steps" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        half = content[: len(content) // 2]
        path.write_bytes(half if damage == "cut" else half + b"!" + content[len(half) + 1 :])
    with pytest.warns(RuntimeWarning, match="000004_40_steps is damaged"):
        assert resume(folder).num_timesteps == 30


def test_one_that_was_never_finished_is_not_seen_and_goes_with_the_next(folder):
    (folder / "000004_40_steps").rename(folder / ".unfinished_000004_40_steps")
    model = resume(folder)
    assert model.num_timesteps == 30
    model.learn(20, TrainingCheckpointCallback(10, folder), reset_num_timesteps=False)
    assert names(folder) == ["000003_30_steps", "000004_40_steps"]


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        resume(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        resume(tmp_path / "nothing")


def test_no_whole_checkpoint(folder):
    for name in names(folder):
        (folder / name / "state.pkl").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="damaged"), pytest.raises(FileNotFoundError, match="2 are damaged"):
        resume(folder)
