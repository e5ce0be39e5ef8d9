"""Files that run something when they are loaded: each leaves a mark, a file whose path is given.

``PICKLES`` are pickles, ``FILES`` whole files that are made of a good one. What they run is harmless.
"""

import base64
import collections
import functools
import io
import json
import os
import pickle
import struct
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch as th
from gymnasium import spaces


class Calls:
    """Pickles as a call.

    :param function: what is called
    :param args: with what
    """

    def __init__(self, function: Any, *args: Any):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def touch(mark: str) -> str:
    """A line of Python that leaves the mark."""
    return f"open({mark!r}, 'w').close()"


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def by_stack(module: str, name: str) -> bytes:
    """STACK_GLOBAL: the name is put together on the stack."""
    return text(module) + text(name) + b"\x93"


def code_in_schedule(mark: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(f"def make():\n    def func(_):\n        {touch(mark)}\n        return 1e-3\n    return func", namespace)
    func = namespace["make"]()
    func.__module__ = "__main__"
    return func


class RunsInSetstate:
    """A class that the file brings along."""

    def __init__(self, mark: str):
        self.mark = mark

    def __setstate__(self, state):
        open(state["mark"], "w").close()


def by_value(mark: str) -> bytes:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(RunsInSetstate(mark))
    finally:
        cloudpickle.unregister_pickle_by_value(module)


PICKLES: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda mark: pickle.dumps(Calls(os.system, f"touch {mark}")),
    "os.popen": lambda mark: pickle.dumps(Calls(os.popen, f"touch {mark}")),
    "subprocess.call": lambda mark: opcodes(
        b"csubprocess\ncall\n", b"]", b"(", text("touch"), text(mark), b"e", b"\x85", b"R"
    ),
    "builtins.exec": lambda mark: pickle.dumps(Calls(exec, touch(mark))),
    "builtins.eval": lambda mark: pickle.dumps(Calls(eval, touch(mark))),
    "builtins.open": lambda mark: pickle.dumps(Calls(open, mark, "w")),
    "builtins.compile and exec": lambda mark: pickle.dumps(Calls(exec, Calls(compile, touch(mark), "<s>", "exec"))),
    "__builtin__.eval, of Python 2": lambda mark: b"\x80\x02c__builtin__\neval\n" + text(touch(mark)) + b"\x85R.",
    "builtins.getattr": lambda mark: opcodes(
        b"cbuiltins\ngetattr\ncbuiltins\n__import__\n",
        text("os"),
        b"\x85R",
        text("system"),
        b"\x86R",
        text(f"touch {mark}"),
        b"\x85R",
    ),
    "functools.partial": lambda mark: pickle.dumps(Calls(functools.partial(os.system, f"touch {mark}"))),
    "functools.reduce": lambda mark: pickle.dumps(Calls(functools.reduce, exec, [touch(mark), {}])),
    "operator.call": lambda mark: opcodes(
        b"coperator\nmethodcaller\n",
        text("system"),
        text(f"touch {mark}"),
        b"\x86",
        b"R",
        b"cbuiltins\n__import__\n",
        text("os"),
        b"\x85",
        b"R",
        b"\x85",
        b"R",
    ),
    "operator.attrgetter": lambda mark: opcodes(
        b"coperator\nattrgetter\n",
        text("system"),
        b"\x85",
        b"R",
        b"cbuiltins\n__import__\n",
        text("os"),
        b"\x85",
        b"R",
        b"\x85",
        b"R",
        text(f"touch {mark}"),
        b"\x85",
        b"R",
    ),
    "a name with a dot": lambda mark: opcodes(by_stack("os", "path.os.system"), text(f"touch {mark}"), b"\x85", b"R"),
    "a name on the stack": lambda mark: opcodes(by_stack("os", "system"), text(f"touch {mark}"), b"\x85", b"R"),
    "a name from the memory": lambda mark: opcodes(
        text("os"),
        b"\x94",
        b"0",
        text("system"),
        b"\x94",
        b"0",
        b"h\x00h\x01\x93",
        text(f"touch {mark}"),
        b"\x85",
        b"R",
    ),
    "a call whose result is dropped": lambda mark: opcodes(
        by_stack("os", "system"), text(f"touch {mark}"), b"\x85", b"R", b"0", b"K\x01"
    ),
    "a call within a mark that is dropped": lambda mark: opcodes(
        b"(", by_stack("os", "system"), text(f"touch {mark}"), b"\x85", b"R", b"1", b"K\x01"
    ),
    "INST of protocol 0": lambda mark: b"(S'touch " + mark.encode() + b"'\nios\nsystem\n.",
    "OBJ": lambda mark: opcodes(b"(", b"csubprocess\nPopen\n", b"]", b"(", text("touch"), text(mark), b"e", b"o"),
    "NEWOBJ of a class that does something": lambda mark: opcodes(
        b"csubprocess\nPopen\n", b")", b"\x81", b"0", by_stack("os", "system"), text(f"touch {mark}"), b"\x85", b"R"
    ),
    "NEWOBJ_EX": lambda mark: opcodes(
        by_stack("os", "system"),
        text(f"touch {mark}"),
        b"\x85",
        b"R",
        b"0",
        by_stack("builtins", "dict"),
        b")",
        b"}",
        b"\x92",
    ),
    "BUILD of a class that it brings along": by_value,
    "cloudpickle: a function by value": lambda mark: cloudpickle.dumps(Calls(code_in_schedule(mark), 1.0)),
    "cloudpickle.loads within": lambda mark: pickle.dumps(
        Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {mark}")))
    ),
    "cloudpickle's subimport": lambda mark: opcodes(
        by_stack("builtins", "getattr"),
        by_stack("cloudpickle.cloudpickle", "subimport"),
        text("os"),
        b"\x85",
        b"R",
        text("system"),
        b"\x86",
        b"R",
        text(f"touch {mark}"),
        b"\x85",
        b"R",
    ),
    "cloudpickle's builtin types": lambda mark: cloudpickle.dumps(
        Calls(types.FunctionType(compile(touch(mark), "<s>", "exec"), {}))
    ),
    "torch.load within": lambda mark: opcodes(
        by_stack("torch.storage", "_load_from_bytes"),
        b"B" + (lambda inner: struct.pack("<I", len(inner)) + inner)(legacy_torch(mark)),
        b"\x85",
        b"R",
    ),
    "torch.hub": lambda mark: opcodes(
        by_stack("os", "system"),
        text(f"touch {mark}"),
        b"\x85",
        b"R",
        b"0",
        by_stack("torch.hub", "get_dir"),
        b")",
        b"R",
    ),
    "numpy's runstring": lambda mark: opcodes(
        by_stack("numpy.testing._private.utils", "runstring"), text(touch(mark)), b"}", b"\x86", b"R"
    ),
    "timeit": lambda mark: opcodes(by_stack("timeit", "timeit"), text("pass"), text(touch(mark)), b"\x86", b"R"),
    "runpy": lambda mark: opcodes(
        by_stack("pathlib", "Path"),
        text(f"{mark}.py"),
        b"\x85",
        b"R",
        b"\x94",
        b"0",
        by_stack("pathlib", "Path.write_text"),
        b"h\x00",
        text(touch(mark)),
        b"\x86",
        b"R",
        b"0",
        by_stack("runpy", "run_path"),
        text(f"{mark}.py"),
        b"\x85",
        b"R",
    ),
    "pathlib": lambda mark: opcodes(
        by_stack("pathlib", "Path.touch"), by_stack("pathlib", "Path"), text(mark), b"\x85", b"R", b"\x85", b"R"
    ),
    "a deque of calls": lambda mark: pickle.dumps(collections.deque([Calls(os.system, f"touch {mark}")])),
    "a key of a dictionary": lambda mark: pickle.dumps({Calls(os.system, f"touch {mark}"): 1}, protocol=4),
    "within a space": lambda mark: within_space(Calls(os.system, f"touch {mark}")),
    "within an array's type": lambda mark: pickle.dumps(Calls(np.dtype, Calls(os.system, f"touch {mark}"))),
    "map": lambda mark: pickle.dumps(Calls(list, Calls(map, exec, [touch(mark)]))),
    "a schedule that is one": lambda mark: cloudpickle.dumps(code_in_schedule(mark)),
}
"""By what they do; the last one runs when it is called."""


def legacy_torch(mark: str) -> bytes:
    magic = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(part, 2) for part in (*magic, Calls(os.system, f"touch {mark}"), []))


def within_space(value: Any) -> bytes:
    from gymnasium import spaces

    space = spaces.Discrete(3)
    vars(space)["extra"] = value
    return pickle.dumps(space)


def members(good: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(parts: dict[str, bytes] | list[tuple[Any, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items() if isinstance(parts, dict) else parts:
            archive.writestr(name, content)
    return file.getvalue()


def with_attribute(good: bytes, key: str, pickled: bytes) -> bytes:
    """A model's file with an attribute that is a pickle."""
    parts = members(good)
    data = json.loads(parts["data"])
    data[key] = {":type:": "<class 'float'>", ":serialized:": base64.b64encode(pickled).decode()}
    return archive_of(parts | {"data": json.dumps(data).encode()})


def with_data(good: bytes, **changes: Any) -> bytes:
    parts = members(good)
    data = json.loads(parts["data"]) | changes
    return archive_of(parts | {"data": json.dumps(data).encode()})


def with_tensors(good: bytes, pickled: bytes, name: str = "policy.pth") -> bytes:
    """A model's file whose file of tensors holds another pickle."""
    parts = members(good)
    inner = members(parts[name])
    (place,) = (key for key in inner if key.endswith("data.pkl"))
    return archive_of(parts | {name: archive_of(inner | {place: pickled})})


def duplicate(good: bytes) -> bytes:
    parts = members(good)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return archive_of([*parts.items(), ("data", parts["data"])])


def link(good: bytes) -> bytes:
    info = zipfile.ZipInfo("policy.optimizer.pth")
    info.external_attr = 0o120777 << 16
    parts = {name: content for name, content in members(good).items() if name != "policy.optimizer.pth"}
    return archive_of([*parts.items(), (info, b"/etc/passwd")])


def bomb(good: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members(good).items():
            archive.writestr(name, content)
        archive.writestr("zeros.pth", b"\0" * 64 * 1024**2)
    return file.getvalue()


def variables(good: bytes, name: str) -> bytes:
    file = io.BytesIO()
    th.save({name: th.zeros(1)}, file)
    return archive_of(members(good) | {"pytorch_variables.pth": file.getvalue()})


def with_other_numbers(good: bytes) -> bytes:
    """A model's file in whose largest tensor a byte is another than its checksum says."""
    largest = max(members(good).values(), key=len)
    place = good.index(largest) + len(largest) // 2
    return good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]


FILES: dict[str, Callable[[bytes, Path], bytes]] = {
    "a checksum that is wrong": lambda good, _: with_other_numbers(good),
    "two members of a name": lambda good, _: duplicate(good),
    "a member above": lambda good, _: archive_of(members(good) | {"../../mark": b""}),
    "an absolute member": lambda good, _: archive_of(members(good) | {"/tmp/mark": b""}),
    "a member of Windows": lambda good, _: archive_of(members(good) | {"C:\\mark": b""}),
    "a link": lambda good, _: link(good),
    "a bomb": lambda good, _: bomb(good),
    "too many members": lambda good, _: archive_of(members(good) | {f"{i}.pth": b"" for i in range(10_001)}),
    "nested JSON": lambda good, _: archive_of(members(good) | {"data": b"[" * 100_000}),
    "a key twice": lambda good, _: archive_of(
        members(good) | {"data": b'{"gamma": 0.9, ' + members(good)["data"].lstrip()[1:]}
    ),
    "a method": lambda good, _: with_data(good, _setup_model="no"),
    "a dunder": lambda good, _: with_data(good, __class__="no"),
    "a huge network": lambda good, _: with_data(good, policy_kwargs={"net_arch": [10**6, 10**6]}),
    "many huge networks": lambda good, _: with_data(good, policy_kwargs={"net_arch": [4096] * 500}),
    "a tensor for an attribute of the policy": lambda good, _: variables(good, "policy.action_net.weight"),
    "a tensor for a class": lambda good, _: variables(good, "__class__.gamma"),
    "parameters of something else": lambda good, _: archive_of(
        {k: v for k, v in members(good).items() if k != "policy.pth"} | {"__class__.pth": members(good)["policy.pth"]}
    ),
    "a pickle nested deeply": lambda good, _: with_attribute(
        good, "gamma", b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b"."
    ),
    "a pickle that doubles": lambda good, _: with_attribute(
        good,
        "gamma",
        b"\x80\x04]\x94" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94" for i in range(60)) + b".",
    ),
    "a long byte string that is not there": lambda good, _: with_attribute(
        good, "gamma", b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"."
    ),
    "an extension code": lambda good, _: with_attribute(good, "gamma", b"\x80\x04\x82\x01."),
    "a persistent identity": lambda good, _: with_attribute(good, "gamma", b"\x80\x04K\x01\x85Q."),
    "an optimiser that is none": lambda good, _: with_attribute(
        good, "policy_kwargs", b"\x80\x04}" + text("optimizer_class") + by_stack("torch.optim", "os.system") + b"s."
    ),
    "a policy that is none": lambda good, _: with_attribute(
        good, "policy_class", opcodes(by_stack("torch.nn.modules.activation", "Tanh"))
    ),
    "an array of objects": lambda good, _: with_attribute(good, "gamma", pickle.dumps(np.array([{}, []], object))),
    "a tensor that reaches out of its memory": lambda good, _: with_tensors(
        good, pickle_of_tensor(size=(10**6,)), "policy.pth"
    ),
    "a dictionary that would be a pickle when it is saved again": lambda good, _: with_attribute(
        good, "note", pickle.dumps({":serialized:": "gASVAAAAAA=="})
    ),
    "a tuple that doubles as a key": lambda good, _: with_attribute(
        good, "note", b"\x80\x04}K\x01" + b"2\x86" * 60 + b"K\x01s."
    ),
    "a set of tuples": lambda good, _: with_attribute(good, "note", pickle.dumps({(1, 2)}, protocol=4)),
    "a huge rollout": lambda good, _: with_data(good, n_steps=4 * 10**8),
    "a tensor without strides": lambda good, _: with_tensors(good, pickle_of_tensor((10**6,), stride=b"K\x00\x85")),
    "widths that cancel out": lambda good, _: with_data(
        good, policy_kwargs={"net_arch": [30_000, 30_000], "optimizer_kwargs": {"eps": -60_000}}
    ),
    "a module that gym.make would import": lambda good, _: with_data(good, env="this:Env-v0"),
    "a logger": lambda good, _: with_data(good, _logger="no"),
    "JSON of very many lists": lambda good, _: archive_of(
        members(good) | {"data": b'{"note": [' + b"[]," * 1_200_000 + b"[]]}"}
    ),
    "JSON nested less deeply": lambda good, _: with_data(good, note=json.loads("[" * 300 + "]" * 300)),
    "a text that is meant thousands of times": lambda good, _: with_attribute(
        good, "note", opcodes(text("a" * 100_000), b"\x940](", b"h\x00" * 2000, b"e")
    ),
    "bytes that become thousands of arrays": lambda good, _: with_attribute(good, "note", pickle_of_arrays(2000)),
    "dictionaries that double": lambda good, _: with_attribute(good, "policy_kwargs", pickle_of_dictionaries(40)),
    "spaces that double": lambda good, _: with_attribute(good, "observation_space", pickle.dumps(spaces_within(20))),
    "a space of very many": lambda good, _: with_attribute(
        good, "observation_space", pickle.dumps(spaces.Dict({str(i): UNIT for i in range(1001)}))
    ),
    "very many actions": lambda good, _: with_attribute(
        good, "action_space", pickle.dumps(spaces.MultiDiscrete([10**6] * 10))
    ),
    "very many layers": lambda good, _: with_data(good, policy_kwargs={"net_arch": [8] * 5000}),
    "very many calls": lambda good, _: with_attribute(
        good, "note", opcodes(by_stack("collections", "deque"), b"\x940](", b"h\x00)R" * 50_000, b"e")
    ),
    "a long name": lambda good, _: with_attribute(good, "note", opcodes(by_stack("a" * 1000, "b"))),
    "a name that leads on from a class": lambda good, _: with_attribute(
        good, "policy_class", opcodes(by_stack("stable_baselines3.common", "policies.ActorCriticPolicy"))
    ),
    "another compression": lambda good, _: compressed(good, zipfile.ZIP_LZMA),
    "parameters of very many modules": lambda good, _: archive_of(
        members(good) | {f"a{i}.pth": members(good)["policy.optimizer.pth"] for i in range(40)}
    ),
    "a parameter that commands the terminal": lambda good, _: with_named_tensor(good, "\x1b[2J"),
    "a document of lists": lambda good, _: document(data=[1, 2]),
    "a document with an array that is not there": lambda good, _: document(data={"gamma": {"$array": "none"}}),
    "a document with a huge array": lambda good, _: document(arrays={"a.npy": header_of_array((10**12,))}),
    "a document with a type of records": lambda good, _: document(
        data={"gamma": {"$array": [["a", "f4"]], "shape": [0], "numbers": []}}
    ),
    "a document with a long header": lambda good, _: document(tensors=struct.pack("<Q", 10**8) + b"{}"),
    "a document that calls": lambda good, _: document(data={"gamma": {"$object": "os.system", "args": ["true"]}}),
    "no zip": lambda good, _: b"no zip",
    "half a file": lambda good, _: good[: len(good) // 2],
}
"""Files that do harm in other ways than by what they call."""


UNIT = spaces.Discrete(2)


def spaces_within(depth: int) -> spaces.Space:
    space: spaces.Space = UNIT
    for _ in range(depth):
        space = spaces.Dict({"a": space, "b": space})
    return space


def pickle_of_dictionaries(depth: int) -> bytes:
    """Ordered dictionaries, each of which holds the one before it twice."""
    made = collections.OrderedDict(a=1)
    for _ in range(depth):
        made = collections.OrderedDict(a=made, b=made)
    return pickle.dumps({"net_arch": [8], "note": made}, protocol=4)


def pickle_of_arrays(n: int) -> bytes:
    """So many arrays that are made of the same bytes."""
    one = np.zeros(100_000, np.uint8)
    make, dtype = (
        by_stack("numpy._core.multiarray", "_reconstruct"),
        pickle.dumps(one.dtype, 4)[2:-1].replace(b"\x94", b""),
    )
    content = one.tobytes()
    heading = [make, b"\x940", b"B" + struct.pack("<I", len(content)) + content, b"\x940"]
    array = b"h\x00)R(K\x01J" + struct.pack("<i", len(content)) + b"\x85" + dtype + b"\x89h\x01tb"
    return opcodes(*heading, b"](", array * n, b"e")


def compressed(good: bytes, method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members(good).items():
            archive.writestr(name, content)
    return file.getvalue()


def with_named_tensor(good: bytes, name: str) -> bytes:
    """A model's file with a parameter of another name."""
    parts = members(good)
    read = th.load(io.BytesIO(parts["policy.pth"]), weights_only=True)
    file = io.BytesIO()
    th.save(read | {name: th.zeros(1)}, file)
    return archive_of(parts | {"policy.pth": file.getvalue()})


def header_of_array(shape: tuple[int, ...]) -> bytes:
    """An ``.npy`` without its numbers."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def document(data: Any = (), arrays: Any = (), tensors: bytes = struct.pack("<Q", 2) + b"{}") -> bytes:
    """A file without pickles."""
    described = {"format": 1, "data": data or {}, "tensors": {}}
    return archive_of(
        {"model.json": json.dumps(described).encode(), "tensors.safetensors": tensors}
        | {"arrays.npz": archive_of(dict(arrays))}
    )


def pickle_of_tensor(size: tuple[int, ...], stride: bytes = b"K\x01\x85") -> bytes:
    file = io.BytesIO()
    th.save({"a": th.zeros(3)}, file)
    (pickled,) = (content for name, content in members(file.getvalue()).items() if name.endswith("data.pkl"))
    return pickled.replace(b"K\x03\x85", b"J" + struct.pack("<i", size[0]) + b"\x85").replace(b"K\x01\x85", stride)
