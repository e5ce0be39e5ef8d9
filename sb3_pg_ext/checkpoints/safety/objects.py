"""Normalisation statistics and replay buffers, read without running anything of theirs."""

import io
import json
import pickle
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_pg_ext.checkpoints.safety.archives import check_archive, read_archive, read_file
from sb3_pg_ext.checkpoints.safety.contents import read_json
from sb3_pg_ext.checkpoints.safety.decoding import Decoder, UnknownNameError
from sb3_pg_ext.checkpoints.safety.documents import Reader, Writer, read_arrays
from sb3_pg_ext.checkpoints.safety.names import known_classes, trusted_classes
from sb3_pg_ext.checkpoints.safety.pickles import Budget, Call, Name, Refusing, UnsafeFileError, read_pickle

DOCUMENT = "document"
"""The array of an ``.npz`` that holds the JSON."""

NORMALIZATION = Name(VecNormalize.__module__, VecNormalize.__qualname__)
KINDS: dict[str, Any] = {
    **dict.fromkeys(("clip_obs", "clip_reward", "gamma", "epsilon"), int | float | np.number),
    **dict.fromkeys(("norm_obs", "norm_reward", "training"), bool | np.bool_),
    "obs_rms": RunningMeanStd | dict,
    "ret_rms": RunningMeanStd,
}
"""What some of the attributes have to be, on which normalising relies."""
NORMALIZATION_STATE = {
    *("observation_space", "action_space", "reset_infos", "_seeds", "_options", "num_envs", "render_mode", "metadata"),
    *("norm_obs", "norm_obs_keys", "obs_spaces", "obs_rms", "ret_rms", "clip_obs", "clip_reward", "gamma", "epsilon"),
    *("training", "norm_reward", "old_reward", "old_obs", "reward_range"),
}


def safe_load_normalization(path: str | PathLike[str] | BinaryIO, venv: VecEnv) -> VecNormalize:
    """``VecNormalize.load``, without running anything of the file.

    :param path: what ``VecNormalize.save`` has written, or its converted ``.npz``
    :param venv: the environments to put it around
    :raises UnsafeFileError: for a file of anything else
    """
    made = object_of(*read_object(path))
    if not isinstance(made, VecNormalize):
        raise UnsafeFileError(f"no statistics of VecNormalize, but a {type(made).__name__}")
    with Refusing("statistics that do not fit"):
        made.set_venv(venv)
    return made


def safe_load_replay_buffer(
    path: str | PathLike[str] | BinaryIO,
    model: OffPolicyAlgorithm,
    truncate_last_traj: bool = True,
    trusted: Collection[str] = (),
) -> None:
    """``model.load_replay_buffer``, without running anything of the file.

    :param path: what ``save_replay_buffer`` has written, or its converted ``.npz``
    :param model: whose buffer it becomes
    :param truncate_last_traj: as in SB3
    :param trusted: names of classes of your own that it may refer to; they are imported
    :raises UnsafeFileError: for a file of anything else
    """
    made = object_of(*read_object(path, trusted), trusted)
    if not isinstance(made, ReplayBuffer):
        raise UnsafeFileError(f"no replay buffer, but a {type(made).__name__}")
    with Refusing("a replay buffer that does not fit"):
        model.load_replay_buffer(io.BytesIO(pickle.dumps(made)), truncate_last_traj)


def object_of(name: Name, state: dict[str, Any], trusted: Collection[str] = ()) -> VecNormalize | ReplayBuffer:
    """Statistics or a replay buffer from what :func:`read_object` has found.

    :raises UnsafeFileError: if it is anything else, or has attributes that these do not have
    """
    if name == NORMALIZATION:
        if not set(state) <= NORMALIZATION_STATE:
            raise UnsafeFileError(f"statistics with {sorted(set(state) - NORMALIZATION_STATE)}")
        for attribute, kinds in KINDS.items():
            value = state.get(attribute)
            if not isinstance(value, kinds) and not (attribute == "obs_rms" and not state.get("norm_obs")):
                raise UnsafeFileError(f"statistics whose {attribute} is {value!r}")
        statistics = VecNormalize.__new__(VecNormalize)
        with Refusing("statistics that do not fit together"):
            statistics.__setstate__(state)
        return statistics
    cls = {**known_classes(), **trusted_classes(trusted)}.get(name)
    if cls is None or not issubclass(cls, ReplayBuffer):
        raise UnsafeFileError(f"neither statistics of VecNormalize nor a replay buffer, but a {name}")
    for attribute in state:
        if attribute.startswith("__") or callable(getattr(cls, attribute, None)):
            raise UnsafeFileError(f"it sets {attribute!r}, which no file of SB3 does")
    buffer = cls.__new__(cls)
    vars(buffer).update(state)
    if issubclass(cls, HerReplayBuffer):  # which leaves it out of its pickle
        vars(buffer)["env"] = None
    return buffer


def read_object(path: str | PathLike[str] | BinaryIO, trusted: Collection[str] = ()) -> tuple[Name, dict[str, Any]]:
    """The class and the attributes of what stands alone in a file.

    :param path: a pickle, or the ``.npz`` that :func:`write_object` makes
    :param trusted: names of classes beyond those that are known
    :raises UnsafeFileError: if there is anything else in it, or it wants what it may not have
    """
    content = read_file(path, ".pkl")
    members = read_archive(content) if content[:2] == b"PK" else {}
    budget = Budget.of_file(len(content), sum(map(len, members.values())))
    tree, names = _from_npz(members, budget) if members else read_pickle(content, budget)[:2]
    decoder = Decoder({**known_classes(), **trusted_classes(trusted)}, budget)
    if not (isinstance(tree, Call) and isinstance(tree.function, Name) and isinstance(tree.state, dict)):
        raise UnsafeFileError("no object of a class")
    for name in names:
        if name != tree.function and not decoder.knows(name):
            raise UnknownNameError(name)
    return tree.function, {str(key): decoder.decode(value) for key, value in tree.state.items()}


def write_object(name: Name, state: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Write the attributes of an object as arrays and JSON: an ``.npz`` that holds no pickle.

    :param name: the object's class
    :param state: its attributes, as :func:`read_object` gives them
    :param path: where to
    """
    writer = Writer()
    document = json.dumps(writer.write(Call(name, (), new=True, state=dict(state)), "state"))
    arrays = {DOCUMENT: np.array(document), **writer.arrays}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    try:
        check_archive(file.getvalue())
    except UnsafeFileError:  # a large buffer with little in it compresses as only bombs do
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
    Path(path).write_bytes(file.getvalue())


def _from_npz(members: Mapping[str, memoryview], budget: Budget) -> tuple[Any, frozenset[Name]]:
    arrays = read_arrays(members)
    if DOCUMENT not in arrays:
        raise UnsafeFileError(f"there is no {DOCUMENT!r} among {sorted(arrays)[:5]}")
    document = arrays.pop(DOCUMENT)
    return Reader(arrays, {}).read(read_json(str(document).encode(), budget)), frozenset()
