"""Spoil files in random ways, and read them safely: what comes of it, how long it takes, how much memory.

python benchmarks/fuzzing.py --seed 0 --seconds 900

Models as SB3 writes them and without pickles, statistics of VecNormalize and replay buffers in both forms, and the
YAML of runs. Each spoilt file has to end in a clear error (``ValueError``) or in a model; a line of the output file
says how many did, and how many seconds of the processor the longest took. What must not happen is counted by kinds,
and the first file of each kind is kept beside the output.
"""

import argparse
import base64
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml
from rl_zoo3 import utils
from runs import versions
from sb3_contrib import TQC, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext import NPG, inspect_model, safe_load, safe_save
from sb3_pg_ext.checkpoints import convert, safe_load_normalization, safe_load_replay_buffer
from sb3_pg_ext.zoo import downloads

OUTPUT = Path(__file__).parent / "results" / "fuzzing.jsonl"
PICKLED = ":serialized:"
RUNS_SOMETHING = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"}
INTERESTING = (b"\x00", b"\xff" * 8, b"h\x00", b"2", b"\x94", b"R", b"\x81", b"b", b"]", b"}", b"(", b"0", b"1")
"""Parts of pickles that do much: what is remembered, calls, containers."""
ON_POLICY = {"n_steps": 16, "batch_size": 16, "n_epochs": 1}
OFF_POLICY = {"buffer_size": 20, "learning_starts": 4, "batch_size": 4}
NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"99999999999", b"null", b'"x"', b"[]", b"{}", b"[[[[]]]]")


def spoil(content: bytes, draw: random.Random, other: bytes = b"") -> bytes:
    """Change, cut, repeat or insert some bytes.

    :param content: what to spoil
    :param draw: decides how
    :param other: something to take parts of
    """
    spoilt = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randint(0, max(len(spoilt) - 1, 0))
        match draw.choice(["set", "cut", "insert", "repeat", "put", "splice"]):
            case "set" if spoilt:
                spoilt[place] = draw.randint(0, 255)
            case "cut":
                del spoilt[place : place + draw.randint(1, 20)]
            case "insert":
                spoilt[place:place] = draw.randbytes(draw.randint(0, 8))
            case "repeat":
                spoilt[place:place] = spoilt[place : place + 16] * draw.choice([1, 1, 2, 1000])
            case "put":
                spoilt[place:place] = draw.choice(INTERESTING)
            case "splice" if other:
                start = draw.randint(0, len(other) - 1)
                spoilt[place:place] = other[start : start + draw.randint(1, 200)]
    return bytes(spoilt)


def spoil_number(text: bytes, draw: random.Random) -> bytes:
    """Put something else in place of a value in JSON."""
    places = [i for i in range(len(text)) if text[i : i + 1] == b":"]
    if not places:
        return text
    place = draw.choice(places) + 1
    end = min((i for i in range(place, len(text)) if text[i : i + 1] in (b",", b"}", b"\n")), default=place)
    return text[:place] + draw.choice(NUMBERS) + text[end:]


def mutate(content: bytes, draw: random.Random, other: bytes = b"") -> bytes:
    """Spoil a file: as it is, or something that is packed in it, so that all around it is whole.

    :param content: a file
    :param draw: decides how
    :param other: something to take parts of
    """
    if content[:2] != b"PK" or draw.random() < 0.1:
        return spoil(content, draw, other)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice([name for name in members if members[name]] or [""])
    if not name:  # an archive of nothing, such as that of a model's arrays
        return spoil(content, draw, other)
    if name == "data" and draw.random() < 0.8:
        data = json.loads(members[name])
        pickled = [key for key, item in data.items() if isinstance(item, dict) and PICKLED in item]
        item = data[draw.choice(pickled)]
        item[PICKLED] = base64.b64encode(spoil(base64.b64decode(item[PICKLED]), draw, other)).decode()
        members[name] = json.dumps(data).encode()
    elif members[name][:1] in (b"{", b"[") and draw.random() < 0.7:
        members[name] = spoil_number(members[name], draw)
    else:
        members[name] = mutate(members[name], draw, other)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return file.getvalue()


def make_files(folder: Path) -> dict[str, bytes]:
    """Whole files of every kind, by name; the part before the colon says the kind."""
    venv = VecNormalize(make_vec_env("Pendulum-v1"))
    makes: dict[str, tuple[Any, ...]] = {
        "PPO": (PPO, "CartPole-v1", ON_POLICY, 16),
        "PPO scheduled": (PPO, "CartPole-v1", {"learning_rate": LinearSchedule(1e-3, 0.0, 1.0)}, 0),
        "npg": (NPG, "CartPole-v1", {"n_steps": 16}, 16),
        "SAC": (SAC, venv, OFF_POLICY, 8),
        "TD3": (TD3, venv, {**OFF_POLICY, "action_noise": NormalActionNoise(np.zeros(1), np.ones(1))}, 0),
        "DQN": (DQN, "CartPole-v1", OFF_POLICY, 8),
        "TQC": (TQC, venv, OFF_POLICY, 0),
        "RecurrentPPO": (RecurrentPPO, "CartPole-v1", ON_POLICY, 0),
    }
    models = {}
    for name, (cls, env, more, n_steps) in makes.items():
        policy = "MlpLstmPolicy" if cls is RecurrentPPO else "MlpPolicy"
        model = cls(policy, env, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0, **more)
        models[name] = model.learn(n_steps) if n_steps else model
    files = {}
    for name, model in models.items():
        model.save(folder / "model.zip")
        files[f"model: {name}"] = (folder / "model.zip").read_bytes()
        safe_save(model, folder / "safe.zip")
        files[f"model: {name}, without pickles"] = (folder / "safe.zip").read_bytes()
    venv.save(str(folder / "statistics.pkl"))
    models["SAC"].save_replay_buffer(folder / "buffer.pkl")
    for name in ("statistics", "buffer"):
        convert(folder / f"{name}.pkl", folder / f"{name}.npz")
        for suffix in ("pkl", "npz"):
            files[f"{name}: {suffix}"] = (folder / f"{name}.{suffix}").read_bytes()
    files["yaml: config"] = (
        b"!!python/object/apply:collections.OrderedDict\n- - - normalize\n    - \"{'norm_obs': True, 'gamma': 0.9}\"\n"
        b"  - - frame_stack\n    - 4\n  - - env_wrapper\n    - - gymnasium.wrappers.ResizeObservation:\n"
        b"          shape: !!python/tuple [84, 84]\n  - - policy_kwargs\n    - dict(net_arch=[64])\n"
        b"  - - a\n    - &a [1, 2]\n  - - b\n    - *a\n"
    )
    files["yaml: args"] = b"algo: ppo\nenv_kwargs: {gravity: 9.8}\nenv: CartPole-v1\nseed: 1\nhyperparams: null\n"
    return files


def readers(folder: Path, files: dict[str, bytes]) -> dict[str, list[Callable[[bytes], Any]]]:
    """What reads each kind of file; each gives something, or raises a ``ValueError``."""
    env, model = make_vec_env("Pendulum-v1"), safe_load(io.BytesIO(files["model: SAC"]))
    run = folder / "run"
    run.mkdir()

    def converts(content: bytes, suffix: str) -> None:
        (folder / f"source{suffix}").write_bytes(content)
        convert(folder / f"source{suffix}", folder / "target.zip")

    def plays(content: bytes) -> None:
        for name in ("config.yml", "args.yml"):
            (run / name).write_bytes(content)
        with downloads.distrusted():
            settings, _ = utils.get_saved_hyperparams(str(run), test_mode=True)
            utils.get_wrapper_class(settings)
            with (run / "args.yml").open() as file:
                yaml.load(file, yaml.UnsafeLoader)

    named = {name: "TD3" if "TD3" in name else None for name in files}
    of_models = {name: lambda content, name=name: safe_load(io.BytesIO(content), named[name]) for name in files}
    kinds: dict[str, list[Callable[[bytes], Any]]] = {
        "statistics": [lambda content: safe_load_normalization(io.BytesIO(content), env)],
        "buffer": [lambda content: safe_load_replay_buffer(io.BytesIO(content), model)],
        "yaml": [plays],
    }
    found = {name: [*kinds.get(name.partition(":")[0], [of_models[name]])] for name in files}
    for name in files:
        if not name.startswith("yaml"):
            found[name].append(partial(converts, suffix=".npz" if name.endswith(": npz") else ".zip"))
            found[name].append(lambda content: inspect_model(io.BytesIO(content)))
    return found


class Watch:
    """Notes what would be run, and which files would be written elsewhere, while it is armed.

    :param folder: where files may be written
    """

    def __init__(self, folder: Path) -> None:
        self.armed, self.folder = False, str(folder)
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in RUNS_SOMETHING or (writes and not str(arguments[0]).startswith(self.folder)):
            self.seen.append(f"{event} {arguments!r}"[:200])


def outcome_of(read: Callable[[bytes], object], content: bytes) -> str:
    """What comes of reading a file, in a few words. Ctrl-C is no outcome."""
    try:
        read(content)
    except KeyboardInterrupt:
        raise
    except (ValueError, yaml.YAMLError):
        return "clear error"
    except BaseException as problem:
        return f"{type(problem).__name__}: {problem}"[:100]
    return "read"


def main() -> None:
    """Spoil and read for a while."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    th.set_num_threads(1)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder)
        reading = readers(folder, files)
        for kind, content in files.items():  # lest a whole one be refused, and nothing be tested
            for read in reading[kind]:
                read(content)
        watch = Watch(folder)
        counts: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        longest = (0.0, "")
        begin, begin_of_work = time.monotonic(), time.process_time()
        while time.monotonic() < begin + options.seconds:
            kind = draw.choice(list(files))
            spoilt = mutate(files[kind], draw, draw.choice(list(files.values())))
            kinds[kind] += 1
            for read in reading[kind]:
                watch.armed, start = True, time.process_time()
                outcome = outcome_of(read, spoilt)
                watch.armed = False
                if counts[outcome] == 0 and outcome not in ("read", "clear error"):
                    options.output.with_suffix(f".{options.seed}-{len(counts)}.bin").write_bytes(spoilt)
                counts[outcome] += 1
                longest = max(longest, (time.process_time() - start, kind))
    result = {
        "seed": options.seed,
        "seconds": round(time.monotonic() - begin, 1),
        "processor_seconds": round(time.process_time() - begin_of_work, 1),
        "files": sum(kinds.values()),
        "outcomes": dict(counts),
        "longest_seconds": round(longest[0], 2),
        "longest_kind": longest[1],
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "ran": watch.seen,
        "kinds": dict(kinds),
        "versions": versions(),
    }
    with options.output.open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps({**result, "kinds": len(kinds)}, indent=1))


if __name__ == "__main__":
    main()
