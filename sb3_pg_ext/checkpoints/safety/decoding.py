"""From what a file would build to objects: a decoder for every kind of object that files of SB3 hold, and no other.

A decoder makes an object from numbers, strings and other decoded objects that it has looked at. Nothing in a file is
called, no module that a file names is imported.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common import noise, utils
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_pg_ext.checkpoints.safety.names import Classes
from sb3_pg_ext.checkpoints.safety.pickles import Budget, Call, Name, Refusing, Storage, UnsafeFileError, read_pickle

PICKLED = ":serialized:"
"""The key under which SB3's JSON holds a pickle."""

MAX_DEPTH = 50
ITEMS_OF_AN_OBJECT = 100
"""For so many numbers an object counts: it takes longer to make."""

Decode = Callable[[Any], Any]
"""From a part of a tree to its object."""


class UnknownNameError(UnsafeFileError):
    """A file names what it may not.

    :param name: what
    :param reason: why it may not, if not simply because it is unknown
    """

    def __init__(self, name: Name, reason: str | None = None) -> None:
        super().__init__(reason or REASONS.get(str(name), f"it needs {name}, which is not among what files may name"))
        self.name = name


REASONS = {
    "cloudpickle.cloudpickle._make_skeleton_class": "it holds a class of a script or a notebook, with its code; "
    "a class of a module could be trusted"
}
"""Of names that say more about a file than that they may not be there."""


class Decoder:
    """Makes objects of trees.

    :param classes: the classes that the file may refer to
    :param budget: what the file may still ask for
    :param memory: what lies beside a pickle of PyTorch's, by key
    """

    def __init__(
        self, classes: Classes, budget: Budget, memory: Mapping[Any, bytes | memoryview] = MappingProxyType({})
    ) -> None:
        self._classes = classes
        self._memory = memory
        self._budget = budget
        self._read: dict[Storage, th.Tensor] = {}
        self._made: dict[int, tuple[Call, Any, int, int]] = {}

    def knows(self, name: Name) -> bool:
        """Whether a file may name this."""
        return name in self._classes or name in DECODERS_BY_NAME or name in NAMES_WITHIN_OTHERS

    def decode(self, tree: Any) -> Any:
        """The object that a tree stands for.

        :param tree: as :func:`~sb3_pg_ext.checkpoints.safety.pickles.read_pickle` gives it
        :raises UnknownNameError: if there is a name in it that may not be there
        :raises UnsafeFileError: if it is none that a file of SB3 may hold, or too large
        """
        with Refusing("it cannot be made"):
            return self._decode(tree, 0)

    def _decode(self, tree: Any, depth: int) -> Any:
        budget = self._budget
        budget.spend(1)
        if depth > MAX_DEPTH:
            raise UnsafeFileError("it is nested too deeply")

        def decode(part: Any) -> Any:
            return self._decode(part, depth + 1)

        match tree:
            case Name():
                if tree not in self._classes:
                    raise UnknownNameError(tree)
                return self._classes[tree]
            case Call(function=Name() as function):
                if id(tree) in self._made:  # what stands in several places is one object, but whoever reads it does
                    _, made, *cost = self._made[id(tree)]  # so in each of them
                    budget.spend(*cost)
                    return made
                if function in DECODERS_BY_NAME:
                    items, n_bytes = budget.items, budget.n_bytes
                    made = _checked(function, lambda: DECODERS_BY_NAME[function](tree, decode))
                    budget.spend(ITEMS_OF_AN_OBJECT, made.nbytes if isinstance(made, np.ndarray | th.Tensor) else 0)
                    self._made[id(tree)] = tree, made, items - budget.items, n_bytes - budget.n_bytes
                    return made
                if is_dataclass(cls := self._classes.get(function)):
                    return _checked(function, lambda: _dataclass(cls, tree, decode))
                raise UnknownNameError(function)
            case Call(function=Call(function=Name() as function)):
                raise UnknownNameError(function)
            case Storage() if tree.key in self._memory:
                if tree not in self._read:  # several tensors may share it
                    self._read[tree] = _numbers_of(tree, self._memory[tree.key])
                return self._read[tree]
            case list() | tuple() | set() | frozenset():
                return type(tree)(map(decode, tree))
            case dict():
                if PICKLED in tree:  # saved again, it would be taken for a pickle
                    raise UnsafeFileError("a dictionary that looks like a pickle of SB3's")
                return {decode(key): decode(value) for key, value in tree.items()}
            case str() | bytes() | bytearray():
                budget.spend(0, len(tree))
                return tree
            case None | bool() | int() | float():
                return tree
            case np.ndarray() | th.Tensor():  # from beside a document
                budget.spend(0, tree.nbytes)
                return tree
            case np.generic() | np.dtype():
                return tree
        raise UnsafeFileError(f"it holds an object of type {type(tree).__name__}")


def _checked(name: Name, make: Callable[[], Any]) -> Any:
    with Refusing(f"a {name} that cannot be made"):
        return make()


def _state(call: Call, decode: Decode) -> dict[str, Any]:
    """The attributes of an object that is made without arguments."""
    state = (
        call.state[0] if isinstance(call.state, tuple) and len(call.state) == 2 and not call.state[1] else call.state
    )
    if call.args or call.kwargs or call.items or call.pairs or not isinstance(state, dict):
        raise UnsafeFileError(f"a {call.function} of another form than Python writes")
    return {_is(str, key): decode(value) for key, value in state.items()}


def _is(kinds: Any, value: Any) -> Any:
    if not isinstance(value, kinds):
        raise UnsafeFileError(f"{type(value).__name__} where something else is expected")
    return value


# NumPy


def _dtype(call: Call, decode: Decode) -> np.dtype:
    code, order = call.args[0], "=" if call.state is None else call.state[1]
    if call.state is not None and any(part is not None for part in call.state[2:5]):
        raise UnsafeFileError("a structured type of numbers")
    dtype = np.dtype(_is(str, code)).newbyteorder(_is(str, order))
    if dtype.kind not in "biufc":
        raise UnsafeFileError(f"an array of {dtype}")
    return dtype


def _array(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    array = np.frombuffer(_is((bytes, bytearray), buffer), _is(np.dtype, dtype))
    return array.reshape(tuple(_is(int, n) for n in shape), order=_is(str, order))


def _frombuffer(call: Call, decode: Decode) -> np.ndarray:
    buffer, dtype, shape, order, *axes = call.args
    if order == "K" and axes:  # NumPy >= 2.3, of arrays whose axes lie in another order
        return _array(buffer, decode(dtype), shape, "C").transpose(*axes)
    return _array(buffer, decode(dtype), shape, order)


def _reconstruct(call: Call, decode: Decode) -> np.ndarray:
    _, shape, dtype, is_fortran, buffer = call.state
    if isinstance(buffer, list):
        return _array_of_dictionaries(decode(buffer), shape, dtype)
    return _array(bytearray(_is(bytes, buffer)), decode(dtype), shape, "F" if is_fortran else "C")


def _array_of_dictionaries(items: list[Any], shape: Any, dtype: Any) -> np.ndarray:
    """What ``HerReplayBuffer`` keeps infos in."""
    if not (isinstance(dtype, Call) and dtype.args[:1] == ("O8",)):
        raise UnsafeFileError("an array of objects")
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = _is(dict, item)
    return array.reshape(tuple(_is(int, n) for n in shape))


def _scalar(call: Call, decode: Decode) -> np.generic:
    dtype, buffer = call.args
    return np.frombuffer(_is(bytes, buffer), _is(np.dtype, decode(dtype)), 1)[0]


BIT_GENERATORS = {"PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"}


def _generator(call: Call, decode: Decode) -> np.random.Generator:
    (bits,) = call.args[:1]
    return np.random.Generator(_bit_generator(bits, decode))


def _bit_generator(bits: Any, decode: Decode) -> np.random.BitGenerator:
    """Its state alone: from which seed it came matters only to generators spawned from it."""
    state = _is(Call, bits).state
    state = state[0] if isinstance(state, tuple) else state
    name = _is(dict, state)["bit_generator"]
    if name not in BIT_GENERATORS:
        raise UnsafeFileError(f"a random generator {name!r}")
    generator = getattr(np.random, name)(0)
    generator.state = decode(state)
    return generator


def _random_state(call: Call, decode: Decode) -> np.random.RandomState:
    generator = np.random.RandomState(0)
    generator.set_state(decode(call.state))
    return generator


# Spaces


def _with_generator(space: spaces.Space, state: Mapping[str, Any]) -> spaces.Space:
    generator = state.get("_np_random")
    if isinstance(generator, np.random.Generator):
        space._np_random = generator
    return space


def _box(call: Call, decode: Decode) -> spaces.Space:
    state = _state(call, decode)
    low, high = _is(np.ndarray, state["low"]), _is(np.ndarray, state["high"])
    if low.shape != high.shape:
        raise UnsafeFileError("bounds of different shapes")
    return _with_generator(spaces.Box(low, high, low.shape, _is(np.dtype, state["dtype"])), state)


def _discrete(call: Call, decode: Decode) -> spaces.Space:
    state = _state(call, decode)
    n, start = (_is((int, np.integer), number) for number in (state["n"], state.get("start", 0)))
    return _with_generator(spaces.Discrete(n, start=start), state)


def _multi_discrete(call: Call, decode: Decode) -> spaces.Space:
    state = _state(call, decode)
    nvec = _is(np.ndarray, state["nvec"])
    start = state.get("start")
    return _with_generator(spaces.MultiDiscrete(nvec, nvec.dtype, start=start), state)


def _multi_binary(call: Call, decode: Decode) -> spaces.Space:
    state = _state(call, decode)
    return _with_generator(spaces.MultiBinary(_is((int, np.integer, tuple), state["n"])), state)


MAX_PARTS = 1000
"""So many spaces one may consist of."""


def _part(space: Any) -> spaces.Space:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        raise UnsafeFileError("a space within a space within a space, which SB3 does not know")
    return _is(spaces.Space, space)


def _parts(found: Any) -> Any:
    if len(found) > MAX_PARTS:
        raise UnsafeFileError(f"a space of {len(found)} spaces; allowed: at most {MAX_PARTS}")
    return found


def _dict_space(call: Call, decode: Decode) -> spaces.Space:
    state = _state(call, decode)
    parts = {_is(str, key): _part(space) for key, space in _parts(state["spaces"]).items()}
    return _with_generator(spaces.Dict(OrderedDict(parts)), state)


def _tuple_space(call: Call, decode: Decode) -> spaces.Space:
    state = _state(call, decode)
    return _with_generator(spaces.Tuple([_part(space) for space in _parts(state["spaces"])]), state)


# Containers


def _deque(call: Call, decode: Decode) -> deque:
    start, maxlen = (*call.args, (), None)[:2] if len(call.args) < 2 else call.args
    return deque(map(decode, (*_is((tuple, list), start), *call.items)), maxlen)


def _ordered_dict(call: Call, decode: Decode) -> OrderedDict:
    pairs = [*(call.args[0] if call.args else ()), *call.pairs]
    made = OrderedDict((decode(key), decode(value)) for key, value in pairs)
    if isinstance(call.state, dict) and set(call.state) == {"_metadata"}:  # the versions of PyTorch's modules
        made._metadata = decode(call.state["_metadata"])  # type: ignore[attr-defined]
    return made


# What SB3 makes


def _float_schedule(call: Call, decode: Decode) -> utils.FloatSchedule:
    return utils.FloatSchedule(_schedule(_state(call, decode)["value_schedule"]))


def _rl_zoos_schedule(call: Call, decode: Decode) -> Any:
    """What ``lin_…`` in YAML becomes. RL Zoo is imported only where a file names it."""
    from rl_zoo3.utils import SimpleLinearSchedule

    return SimpleLinearSchedule(_is((int, float, np.number), _state(call, decode)["initial_value"]))


def _numbers(cls: type, *names: str) -> Callable[[Call, Decode], Any]:
    """The decoder of a class that keeps the numbers that its constructor is given under their names."""

    def make(call: Call, decode: Decode) -> Any:
        state = _state(call, decode)
        return cls(*(_is((int, float, np.number), state[name]) for name in names))

    return make


SCHEDULES = {
    "rl_zoo3.utils.SimpleLinearSchedule",
    *(f"stable_baselines3.common.utils.{name}" for name in ("FloatSchedule", "LinearSchedule", "ConstantSchedule")),
}


def _schedule(value: Any) -> Any:
    if f"{type(value).__module__}.{type(value).__qualname__}" not in SCHEDULES:
        raise UnsafeFileError(f"{type(value).__name__} where a schedule is expected")
    return value


def _closure(call: Call, decode: Decode) -> Any:
    """A schedule of SB3 < 2.4 or RL Zoo, which is a function with its code. It is made anew from its numbers."""
    code = call.args[0]
    described = None
    if isinstance(code, Call) and isinstance(call.state, tuple):
        described = next((part for part in code.args if isinstance(part, str) and part in CLOSURES), None)
    if described is None:
        raise UnknownNameError(call.function, "it is a function, and holds the code that it would run")
    names, values = _closed_over(code, call)
    return CLOSURES[described](dict(zip(names, values, strict=True)), decode)


def _closed_over(code: Call, call: Call) -> tuple[tuple[str, ...], list[Any]]:
    names = [part for part in code.args if isinstance(part, tuple)][-2]
    cells = _is(dict, call.state[1])["__closure__"]
    return names, [_is(Call, cell).args[0] for cell in _is(tuple, cells)]


def _number(values: Mapping[str, Any], name: str, decode: Decode) -> float:
    return float(_is((int, float, np.number), decode(values[name])))


CLOSURES: dict[Any, Callable[[Mapping[str, Any], Decode], Any]] = {
    "constant_fn.<locals>.func": lambda values, decode: utils.ConstantSchedule(_number(values, "val", decode)),
    "get_linear_fn.<locals>.func": lambda values, decode: utils.LinearSchedule(
        *(_number(values, name, decode) for name in ("start", "end", "end_fraction"))
    ),
    "get_schedule_fn.<locals>.<lambda>": lambda values, decode: utils.FloatSchedule(
        _schedule(decode(values["value_schedule"]))
    ),
    "linear_schedule.<locals>.func": lambda values, decode: utils.LinearSchedule(
        _number(values, next(name for name in ("initial_value_", "initial_value") if name in values), decode), 0.0, 1.0
    ),
}
"""By the names that their code objects have. What the code does is not looked at, nor run."""


def _noise(cls: Any, *names: str) -> Callable[[Call, Decode], Any]:
    """The decoder of a class whose attributes are numbers, arrays and other noises."""

    def make(call: Call, decode: Decode) -> Any:
        state = _state(call, decode)
        if set(state) != set(names):
            raise UnsafeFileError(f"a {cls.__name__} with the attributes {sorted(state)}")
        kinds = (int, float, np.ndarray, np.generic, type, type(None), noise.ActionNoise)
        for name, value in state.items():
            for part in _is(list, value) if name == "_noises" else [value]:
                _is(kinds, part)
        made = cls.__new__(cls)
        vars(made).update(state)
        return made

    return make


def _train_freq(call: Call, decode: Decode) -> TrainFreq:
    frequency, unit = map(decode, call.args)
    return TrainFreq(_is(int, frequency), _is(TrainFrequencyUnit, unit))


def _enum(cls: Any) -> Callable[[Call, Decode], Any]:
    return lambda call, decode: cls(_is((str, int), call.args[0]))


def _running_mean_std(call: Call, decode: Decode) -> RunningMeanStd:
    state = _state(call, decode)
    made = RunningMeanStd()
    for name in ("mean", "var"):
        setattr(made, name, np.asarray(_is((np.ndarray, np.floating), state[name])))
    made.count = _is((int, float, np.number), state["count"])
    return made


def _dataclass(cls: Any, call: Call, decode: Decode) -> Any:
    """A registered estimator or baseline that is a dataclass of numbers, flags and names."""
    state = _state(call, decode)
    if set(state) != {field.name for field in fields(cls)}:
        raise UnsafeFileError(f"a {cls.__name__} with the fields {sorted(state)}")
    return cls(**{name: _is((bool, int, float, str, type(None)), value) for name, value in state.items()})


# PyTorch

TORCH_TYPES = {
    "FloatStorage": th.float32,
    "DoubleStorage": th.float64,
    "HalfStorage": th.float16,
    "BFloat16Storage": th.bfloat16,
    "LongStorage": th.int64,
    "IntStorage": th.int32,
    "ShortStorage": th.int16,
    "CharStorage": th.int8,
    "ByteStorage": th.uint8,
    "BoolStorage": th.bool,
}


def _numbers_of(storage: Storage, memory: bytes | memoryview) -> th.Tensor:
    """The numbers of a tensor's memory, flat.

    :param storage: what the pickle says of it
    :param memory: what lies beside the pickle
    :raises UnsafeFileError: if the two disagree
    """
    name = storage.type.name if isinstance(storage.type, Name) and storage.type.module == "torch" else None
    if storage.kind != "storage" or name not in TORCH_TYPES:
        raise UnsafeFileError(f"a tensor with the memory {storage.type}")
    dtype = TORCH_TYPES[name]
    if len(memory) != _is(int, storage.size) * dtype.itemsize:
        raise UnsafeFileError("a tensor whose memory has another size than it says")
    return th.frombuffer(bytearray(memory), dtype=dtype) if memory else th.empty(0, dtype=dtype)


MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001


def _storage_from_bytes(call: Call, decode: Decode) -> th.Tensor:
    """A tensor's memory in PyTorch's older format: pickles, one after the other, and then the numbers."""
    (content,) = call.args
    stream = BytesIO(_is(bytes, content))
    budget = Budget.of_file(len(content))
    heading = [read_pickle(stream, budget).tree for _ in range(2)]
    if heading != [MAGIC_NUMBER, PROTOCOL_VERSION]:
        raise UnsafeFileError("a tensor in an unknown format")
    _, storage, keys = (read_pickle(stream, budget).tree for _ in range(3))
    if keys != [_is(Storage, storage).key]:
        raise UnsafeFileError("a tensor with several memories")
    stream.read(8)
    return _numbers_of(storage, stream.read())


def _tensor(call: Call, decode: Decode) -> th.Tensor:
    storage, offset, size, stride, requires_grad, *_ = call.args
    numbers = _is(th.Tensor, decode(storage))
    size, stride = ([_is(int, n) for n in _is(tuple, part)] for part in (size, stride))
    last = _is(int, offset) + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(numbers):
        raise UnsafeFileError("a tensor that is larger than its memory")
    if min([offset, *size, *stride]) < 0 or (0 not in size and last >= len(numbers)):
        raise UnsafeFileError("a tensor that reaches out of its memory")
    # Tensors that are the same in the file are so here, too.
    tensor = numbers.as_strided(size, stride, offset)
    return tensor.clone().requires_grad_() if _is(bool, requires_grad) else tensor


def _parameter(call: Call, decode: Decode) -> th.nn.Parameter:
    tensor, requires_grad, *_ = call.args
    return th.nn.Parameter(_is(th.Tensor, decode(tensor)), _is(bool, requires_grad))


def _device(call: Call, decode: Decode) -> th.device:
    """Where a buffer was; where it goes is up to the model."""
    return th.device("cpu")


DECODERS: dict[str, Callable[[Call, Decode], Any]] = {
    "torch.device": _device,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("_core", "core")},
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("_core", "core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("_core", "core")},
    "numpy.random._pickle.__generator_ctor": _generator,
    "numpy.random._pickle.__randomstate_ctor": _random_state,
    **{
        f"{package}.spaces.{module}.{cls}": decoder
        for package in ("gymnasium", "gym")
        for module, cls, decoder in (
            ("box", "Box", _box),
            ("discrete", "Discrete", _discrete),
            ("multi_discrete", "MultiDiscrete", _multi_discrete),
            ("multi_binary", "MultiBinary", _multi_binary),
            ("dict", "Dict", _dict_space),
            ("tuple", "Tuple", _tuple_space),
        )
    },
    "collections.deque": _deque,
    "collections.OrderedDict": _ordered_dict,
    "rl_zoo3.utils.SimpleLinearSchedule": _rl_zoos_schedule,
    "stable_baselines3.common.utils.FloatSchedule": _float_schedule,
    "stable_baselines3.common.utils.ConstantSchedule": _numbers(utils.ConstantSchedule, "val"),
    "stable_baselines3.common.utils.LinearSchedule": _numbers(utils.LinearSchedule, "start", "end", "end_fraction"),
    "stable_baselines3.common.noise.NormalActionNoise": _noise(noise.NormalActionNoise, "_mu", "_sigma", "_dtype"),
    "stable_baselines3.common.noise.OrnsteinUhlenbeckActionNoise": _noise(
        noise.OrnsteinUhlenbeckActionNoise,
        *("_theta", "_mu", "_sigma", "_dt", "_dtype", "initial_noise", "noise_prev"),
    ),
    "stable_baselines3.common.noise.VectorizedActionNoise": _noise(
        noise.VectorizedActionNoise, "n_envs", "_base_noise", "_noises"
    ),
    "stable_baselines3.common.type_aliases.TrainFreq": _train_freq,
    "stable_baselines3.common.type_aliases.TrainFrequencyUnit": _enum(TrainFrequencyUnit),
    "stable_baselines3.her.goal_selection_strategy.GoalSelectionStrategy": _enum(GoalSelectionStrategy),
    "stable_baselines3.common.running_mean_std.RunningMeanStd": _running_mean_std,
    "cloudpickle.cloudpickle._make_function": _closure,
    "torch.storage._load_from_bytes": _storage_from_bytes,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
"""By the names of what files call to make an object, how it is made here."""

WITHIN_OTHERS = {
    "numpy.ndarray",
    "numpy.random._pickle.__bit_generator_ctor",
    *(f"numpy.random._{name.lower()}.{name}" for name in BIT_GENERATORS),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "numpy.random.bit_generator.SeedSequence",
    *(f"cloudpickle.cloudpickle.{name}" for name in ("_builtin_type", "_make_empty_cell", "_make_cell", "_cell_set")),
    "cloudpickle.cloudpickle._function_setstate",
    *(f"builtins.{name}" for name in ("bool", "float", "int", "str")),  # in annotations
    *(f"torch.{name}" for name in TORCH_TYPES),
}
"""Names that stand within the objects that have a decoder, which knows what to do without them."""


def _name(text: str) -> Name:
    module, _, name = text.rpartition(".")
    return Name(module, name)


DECODERS_BY_NAME = {_name(text): decoder for text, decoder in DECODERS.items()}
NAMES_WITHIN_OTHERS = frozenset(map(_name, WITHIN_OTHERS))
