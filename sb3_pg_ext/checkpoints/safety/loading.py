"""Loading a model without running anything that its file brings along."""

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from torch.overrides import TorchFunctionMode
from torch.torch_version import TorchVersion as Version

from sb3_pg_ext.checkpoints.safety.contents import MADE_OF, OF_THE_ENVIRONMENT, Contents, Refusal, read_contents
from sb3_pg_ext.checkpoints.safety.inference import find_algorithm, infer_algorithm, never_saved
from sb3_pg_ext.checkpoints.safety.pickles import UnsafeFileError
from sb3_pg_ext.checkpoints.safety.tensors import check_tensors_file, read_tensors

KINDS = {"policy_class": BasePolicy, "rollout_buffer_class": BaseBuffer, "replay_buffer_class": BaseBuffer}


def safe_load(
    path: str | PathLike[str] | BinaryIO,
    algorithm: str | type[BaseAlgorithm] | None = None,
    env: GymEnv | None = None,
    trusted: Iterable[str] = (),
    custom_objects: Mapping[str, Any] | None = None,
    device: th.device | str = "auto",
    **kwargs: Any,
) -> Any:
    """Load a model of SB3, sb3-contrib, this package or an installed plug-in; nothing in its file is executed.

    The model is the one that ``load`` of its class gives: it predicts and learns the same, bit by bit. But for
    ``tensorboard_log``, which a file does not decide on: it is ``None`` unless it is given here.

    :param path: the file, with or without ``.zip``
    :param algorithm: its class, or its name: ``"PPO"``, ``"npg"``; ``None`` to tell it from what is stored
    :param env: the environment to go on in; ``None`` to predict only
    :param trusted: names of classes of your own that the file may refer to, ``["my_package.MyExtractor"]``. They are
        imported
    :param custom_objects: attributes by name that are taken instead of what the file says: what it says there is not
        looked at
    :param device: where to compute
    :param kwargs: attributes to change, as in SB3's ``load``
    :return: the model
    :raises FileNotFoundError: if there is no such file
    :raises UnsafeFileError: a ValueError, for a file that is damaged, larger than it may be, or wants what it may not
        have: the message names each part, what it would import, and how to supply it
    :raises ValueError: for an unknown algorithm, or a name in ``trusted`` that is no class
    """
    supplied = dict(custom_objects or {})
    supplied = {made: None for made, of in MADE_OF.items() if of in supplied} | supplied
    contents = read_contents(path, trusted, instead=supplied)
    data = {**contents.data, **supplied}
    if env is not None:  # it has the spaces that cannot be read
        data |= {
            refusal.key: getattr(env, refusal.key) for refusal in contents.refusals if refusal.key in OF_THE_ENVIRONMENT
        }
        contents.refusals = [refusal for refusal in contents.refusals if refusal.key not in OF_THE_ENVIRONMENT]
    if contents.refusals:
        raise RefusedPartsError(
            contents.refusals, how_to_load, "Files of your own are loaded by the algorithm's load()."
        )
    cls = infer_algorithm(data) if algorithm is None else find_algorithm(algorithm)
    data["tensorboard_log"] = supplied.get("tensorboard_log")
    check_attributes(cls, data)
    check_tensors(contents)
    file = io.BytesIO(
        contents.file if UNPICKLES_TENSORS_ALONE and not contents.is_document else _written_anew(contents)
    )
    try:
        with nullcontext() if _is_small(data) else AllocationLimit(len(contents.file) // 4):
            return cls.load(file, env, device, custom_objects=data, **kwargs)
    except ValueError:  # of this package's, of SB3's where the environment does not fit, and of arguments
        raise
    except Exception as problem:  # attributes that do not fit together fail in many ways, each of them a plain message
        raise UnsafeFileError(f"no {cls.__name__} can be made of it: {type(problem).__name__}: {problem}") from problem


MAX_LISTED = 20
"""So many refused parts are named."""


class RefusedPartsError(UnsafeFileError):
    """Parts of a file cannot be had.

    :param refusals: these
    :param advise: says of each what can be done
    :param more: further lines
    """

    def __init__(self, refusals: Sequence[Refusal], advise: Callable[[Refusal], str], *more: str) -> None:
        listed = [f"- {refusal}; {advise(refusal)}" for refusal in refusals[:MAX_LISTED]]
        if len(refusals) > MAX_LISTED:
            listed.append(f"- and {len(refusals) - MAX_LISTED} more")
        super().__init__("parts of the file are refused:", *listed, *more)
        self.refusals = refusals


def how_to_load(refusal: Refusal) -> str:
    """What to give to :func:`safe_load` for a part that is refused."""
    ways = [refusal.trust] if refusal.trusted else []
    ways += ["env=…, which has it"] if refusal.key in OF_THE_ENVIRONMENT else []
    return f"give {', or '.join([*ways, refusal.supply])}"


def check_attributes(cls: type[BaseAlgorithm], data: Mapping[str, Any]) -> None:
    """Refuse attributes that would take the place of what the class itself does, and classes of another kind."""
    for name in data:
        of_class = getattr(cls, name, None)
        replaces = callable(of_class) or isinstance(of_class, property) or name in never_saved(cls)
        if replaces or not name.isidentifier() or name.startswith("__"):
            raise UnsafeFileError(f"it sets {name!r}, which no file of SB3 does")
    numbers = [int(value) for name in ("n_steps", "n_envs") if isinstance(value := data.get(name), int | np.number)]
    if math.prod(numbers) * max(1.0, _inputs(data.get("observation_space"))) > MAX_ROLLOUT:
        raise UnsafeFileError(f"its rollouts of {numbers} steps and environments are too large")
    for name, kind in KINDS.items():
        value = data.get(name)
        if value is not None and not (isinstance(value, type) and issubclass(value, kind)):
            raise UnsafeFileError(f"its {name} is {value!r}")


UNPICKLES_TENSORS_ALONE = Version(th.__version__) >= Version("2.10")
"""Whether PyTorch's ``weights_only`` has no known ways around it. Before, tensors are read and written anew here."""

VARIABLES = ("pytorch_variables", "tensors")
"""Where tensors stand that belong to no module; the second until SB3 0.9."""
MAX_MODULES = 32
VARIABLE_NAMES = {"log_ent_coef", "ent_coef_tensor"}


def check_tensors(contents: Contents) -> None:
    """Refuse files of tensors that unpack to far more, and names that lead to anything but what holds tensors."""
    if len(contents.tensors) > MAX_MODULES:
        raise UnsafeFileError(f"it has parameters of {len(contents.tensors)} modules; allowed: at most {MAX_MODULES}")
    for name, content in contents.tensors.items():
        if not all(part.isidentifier() and not part.startswith("__") for part in name.split(".")):
            raise UnsafeFileError(f"it has parameters for {name!r}")
        for key in check_tensors_file(content, contents.budget):
            if name in VARIABLES and key not in VARIABLE_NAMES:
                allowed = ", ".join(sorted(VARIABLE_NAMES))
                raise UnsafeFileError(f"it sets the tensor {key!r}; allowed: {allowed}")


def _written_anew(contents: Contents) -> bytes:
    """The same file, with nothing in it but what has been read."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data", json.dumps(dict.fromkeys(contents.data)))
        for name, content in contents.tensors.items():
            member = io.BytesIO()
            th.save(read_tensors(content, contents.budget)[0], member)
            archive.writestr(f"{name}.pth", member.getvalue())
    return file.getvalue()


def _is_small(data: Mapping[str, Any]) -> bool:
    """Whether no network that the attributes describe could be large, however they are put together."""
    of_policy = data.get("policy_kwargs")
    others = dict(of_policy) if isinstance(of_policy, dict) else {"": of_policy}
    total = sum(_integers(others.pop("net_arch", None)))
    inputs = sum(_inputs(data.get(name)) for name in ("observation_space", "action_space"))
    repeated = math.prod(_integers(others))
    return total <= 1024 and inputs * (total**2 / 4 + 512) * repeated <= SMALL


SMALL = 64 * 1024**2
MAX_ROLLOUT = 256 * 1024**2
"""So many numbers the observations of a rollout may be."""


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for part in value:
            yield from _integers(part)
    elif not isinstance(value, bool | float | str | type | None):
        yield abs(value) + 1 if isinstance(value, int) else SMALL


def _inputs(space: Any) -> float:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return sum(map(_inputs, space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces))
    if isinstance(space, spaces.Discrete):
        return float(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return float(space.nvec.sum())
    return math.prod(space.shape or ()) if isinstance(space, spaces.Space) else math.inf


class AllocationLimit(TorchFunctionMode):
    """Within the scope, refuse networks that are far larger than the parameters that the file has for them.

    :param n_numbers: so many numbers the parameters are
    """

    FACTORIES = frozenset({th.empty, th.zeros, th.ones, th.full, th.rand, th.randn, th.eye})

    def __init__(self, n_numbers: int) -> None:
        super().__init__()
        self._left = 4 * n_numbers + 16 * 1024**2
        self._calls_left = 5_000

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is asked for."""
        kwargs = kwargs or {}
        if func in self.FACTORIES:
            size = args[:1] if func is th.full else kwargs.get("size", args)
            size = size[0] if len(size) == 1 and isinstance(size[0], tuple | list) else size
            self._left -= math.prod(int(n) for n in size if isinstance(n, int | np.integer))
            self._calls_left -= 1
            if self._left < 0 or self._calls_left < 0:
                raise UnsafeFileError("its networks would be far larger than the parameters that it holds")
        return func(*args, **kwargs)
