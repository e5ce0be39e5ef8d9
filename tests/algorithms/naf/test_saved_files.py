"""Saved files name public places only, which last."""

import base64
import io
import json
import pickle
import zipfile

import pytest
from envs import IMAGE, OBSERVATION_SPACES, RandomEnv

from sb3_pg_ext import NAF
from sb3_pg_ext.algorithms import naf

POLICIES = {
    "MlpPolicy": (naf.MlpPolicy, OBSERVATION_SPACES["Box"]),
    "CnnPolicy": (naf.CnnPolicy, IMAGE),
    "MultiInputPolicy": (naf.MultiInputPolicy, OBSERVATION_SPACES["Dict"]),
}


def names_of_globals(data: bytes) -> set[str]:
    """What a pickle looks up in modules, with the modules' names."""
    names = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            names.add(f"{module}.{name}")
            return super().find_class(module, name)

    Unpickler(io.BytesIO(data)).load()
    return names


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("by_name", [True, False])
def test_classes_in_a_saved_model(name, by_name, tmp_path):
    cls, space = POLICIES[name]
    env = RandomEnv(observation_space=space)
    NAF(name if by_name else cls, env, buffer_size=10, device="cpu").learn(5).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = json.loads(archive.read("data"))
    pickled = [value[":serialized:"] for value in data.values() if isinstance(value, dict) and ":serialized:" in value]
    found = set().union(*(names_of_globals(base64.b64decode(text)) for text in pickled))
    ours = {each for each in found if each.startswith("sb3_pg_ext")}
    assert ours == {f"sb3_pg_ext.algorithms.naf.{cls.__name__}"}
    assert type(NAF.load(tmp_path / "model", device="cpu").policy) is cls
