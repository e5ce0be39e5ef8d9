"""Registered algorithms inside RL Zoo: everything that touches RL Zoo's internals."""

import argparse
import os
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from pprint import pprint
from shutil import rmtree
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import rl_zoo3.exp_manager
import rl_zoo3.train
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_pg_ext.callbacks import TrainingCheckpointCallback
from sb3_pg_ext.checkpoints import UnsafeFileError, resume
from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.envs.making import make_vec_env, sync_vec_env
from sb3_pg_ext.plugins import AlgorithmSpec, Registry
from sb3_pg_ext.plugins.configs import find_config, known_hyperparameters
from sb3_pg_ext.policies.masking import takes_masks
from sb3_pg_ext.zoo.action_masks import (
    ZooEvalCallback,
    ZooTrialEvalCallback,
    create_test_env,
    playing_with_masks,
)
from sb3_pg_ext.zoo.downloads import loading_safely
from sb3_pg_ext.zoo.hyperparams import (
    EXTENDED,
    overlay,
    parse_schedules,
    resolve_policy_classes,
    resolve_rollout_buffer,
)
from sb3_pg_ext.zoo.resuming import CHECKPOINTS, PARTS, find_unfinished_run, read_record
from sb3_pg_ext.zoo.runs import discard_empty_run, get_model_path, is_downloaded
from sb3_pg_ext.zoo.seeds import median_of_seeds
from sb3_pg_ext.zoo.user_errors import UserError, is_in_text, is_refused_argument, suggest

STOCK = frozenset(ALGOS)
PLAYERS = ("rl_zoo3", "rl_zoo3.utils", "rl_zoo3.enjoy", "rl_zoo3.push_to_hub")
"""Where RL Zoo's choice of a run, and of an environment to play in, lies: those imported later take it from these."""
VEC_ENV_TYPES = ("gymnasium", "envpool")
"""Backends of ``make_vec_env`` that ``--vec-env`` takes beside RL Zoo's own."""
SHIPPED = "zoo_configs"
"""The folder of the shipped configurations."""


def install(plugins: Registry, *, play: bool = False) -> None:
    """Enter the registered algorithms into RL Zoo's tables, for this process only. A second call does no harm.

    An algorithm that claims a name of RL Zoo's own is left out, with a warning; one that several plug-ins provide is
    left out until somebody asks for it (see :func:`require_algorithm`).

    MinAtar's environments are registered, too, where it is installed.

    :param plugins: what is registered
    :param play: whether models are loaded only to act, so that their replay buffers need no memory, and they take the
        action masks of the environments that they act in
    """
    register_minatar()
    for spec in _find_algorithms(plugins):
        ALGOS[spec.name] = _made_to_play(spec) if play else spec.cls
        HYPERPARAMS_SAMPLER[spec.name] = _lazily(spec.sampler)
        HYPERPARAMS_CONVERTER[spec.name] = _lazily(spec.converter)
        PluginExperimentManager.specs[spec.name] = spec
    rl_zoo3.train.ExperimentManager = PluginExperimentManager  # type: ignore[misc]
    rl_zoo3.train.argparse = SimpleNamespace(**{**vars(argparse), "ArgumentParser": _Parser})  # type: ignore[assignment]
    for module in PLAYERS:
        if module in sys.modules:
            sys.modules[module].get_model_path = get_model_path  # type: ignore[attr-defined]
            sys.modules[module].create_test_env = create_test_env  # type: ignore[attr-defined]
    rl_zoo3.exp_manager.EvalCallback = ZooEvalCallback  # type: ignore[misc]
    rl_zoo3.exp_manager.TrialEvalCallback = ZooTrialEvalCallback  # type: ignore[misc]


def require_algorithm(plugins: Registry, name: str) -> None:
    """Make sure that RL Zoo knows an algorithm.

    :raises ValueError: if it does not; the message names the registered algorithms and the plug-ins that failed
    """
    if name in ALGOS:
        return
    try:
        plugins.find(AlgorithmSpec, name)
    except ValueError as error:
        close = get_close_matches(name, STOCK)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"{error}\nRL Zoo's own algorithms: {', '.join(sorted(STOCK))}{hint}") from error


class _Parser(argparse.ArgumentParser):
    """RL Zoo's command line for training, with more choices of ``--vec-env``, ``--n-seeds`` and ``--resume``."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.add_argument(
            "--n-seeds",
            type=int,
            default=1,
            help="with -optimize: train every trial with so many seeds, and take the median of their scores",
        )
        self.add_argument(
            "--checkpoint-freq",
            type=int,
            help="Save all of the training every n steps, for --resume (default: with --resume 20 times, else never)",
        )
        self.add_argument(
            "--resume",
            action="store_true",
            help="Go on with the latest unfinished run of this algorithm, environment and seed (any, unless --seed is "
            "given), or begin one; save checkpoints on the way",
        )

    def parse_args(self, *arguments: Any, **keywords: Any) -> Any:
        """Parse the command line; ``resume`` becomes the folder of the run, or an empty text for a new one."""
        args = super().parse_args(*arguments, **keywords)
        if args.checkpoint_freq is not None and args.checkpoint_freq < 1:
            self.error(f"--checkpoint-freq {args.checkpoint_freq}; allowed: an integer ≥ 1")
        if not args.resume:
            return args
        for name in ("optimize_hyperparameters", "trained_agent"):
            if getattr(args, name):
                self.error(f"--resume with --{name.replace('_', '-')}; allowed: one of them")
        run = find_unfinished_run(args.log_folder, args.algo, args.env, args.seed if args.seed >= 0 else None)
        args.resume = str(run or "")
        if run is not None and args.seed < 0:
            args.seed = read_record(run)["seed"]
        return args

    def add_argument(self, *names: Any, **keywords: Any) -> argparse.Action:
        if "--vec-env" in names:
            keywords["choices"] = [*keywords["choices"], *VEC_ENV_TYPES]
        return super().add_argument(*names, **keywords)


class PluginExperimentManager(ExperimentManager):
    """RL Zoo's experiment manager, which also knows registered algorithms and rollout buffers given by name.

    For registered algorithms it finds the shipped configuration, parses every schedule, and keeps the user's
    ``policy_kwargs`` beside those that a hyper-parameter search has sampled. Their environments go into a
    :class:`~sb3_pg_ext.envs.fast_dummy.FastDummyVecEnv` instead of a ``DummyVecEnv``, or, where the algorithm's class
    has an attribute ``vec_env_class``, into that, whatever ``--vec-env`` says. For RL Zoo's own algorithms it resolves
    ``rollout_buffer_class``, and changes nothing else in what they do.

    ``--vec-env gymnasium`` and ``--vec-env envpool`` step the environments of either, those for evaluation too, by the
    backends of these names (see :func:`~sb3_pg_ext.envs.make_vec_env`); an algorithm whose class brings its own VecEnv
    refuses those that its attribute ``vec_env_types`` does not name.

    For all of them it finds configurations that packages ship, explains what the user can mend in one line, and leaves
    no folder behind where a training does not begin.

    :raises UserError: in all that it does, where an argument or an entry of the configuration is wrong
    """

    specs: ClassVar[dict[str, AlgorithmSpec]] = {}

    def __init__(self, args: argparse.Namespace, algo: str, *positional: Any, **keywords: Any) -> None:
        if keywords.get("config"):
            keywords["config"] = _find_conf_file(keywords["config"])
        backend = keywords.get("vec_env_type")
        if backend in VEC_ENV_TYPES:
            keywords["vec_env_type"] = "dummy"
        super().__init__(args, algo, *positional, **keywords)
        self._n_seeds = _check_n_seeds(args, self.optimize_hyperparameters)
        self._has_made_folder = self._is_finished = False
        self._use_checkpoints(getattr(args, "resume", False), getattr(args, "checkpoint_freq", None))
        if backend == "gymnasium":
            self.vec_env_class = sync_vec_env  # type: ignore[assignment]  # it is only called
        elif backend == "envpool":
            self.vec_env_class = self._make_pool  # type: ignore[assignment]
        self.spec = self.specs.get(algo)
        if self.spec is None:
            return
        if not keywords.get("config"):
            self.config = self._find_default_config(self.spec)
        default = FastDummyVecEnv if self.vec_env_class is DummyVecEnv else self.vec_env_class
        # An algorithm whose workers build their own environments needs a VecEnv that remembers how.
        own, takes = getattr(self.spec.cls, "vec_env_class", None), getattr(self.spec.cls, "vec_env_types", ())
        if own is not None and backend in VEC_ENV_TYPES and backend not in takes:
            allowed = ", ".join(("dummy", *takes))
            raise UserError(f"--vec-env {backend} with {algo}, which brings its own VecEnv; allowed: {allowed}")
        self.vec_env_class = default if own is None or backend in VEC_ENV_TYPES else own

    def _find_default_config(self, spec: AlgorithmSpec) -> str:
        """Of an algorithm's files the first that has an entry for the environment; of a single one no more is asked."""
        files = [str(find_config(file)) for file in spec.configs]
        if len(files) == 1:
            return files[0]
        known = [_read_conf_file(file).keys() for file in files]
        for name in (self.env_name.gym_id, "atari" if self._is_atari else "default"):
            for file, names in zip(files, known, strict=True):
                if name in names:
                    return file
        return files[-1]

    def _use_checkpoints(self, run: str | bool, frequency: int | None) -> None:
        """Decide whether to save checkpoints, and which run to go on with."""
        self._saves_checkpoints, self._checkpoint_freq = run is not False or frequency is not None, frequency
        self._resumed = Path(run) if isinstance(run, str) and run else None
        if self._saves_checkpoints and not issubclass(ALGOS[self.algo], OnPolicyAlgorithm | OffPolicyAlgorithm):
            raise UserError(
                f"--resume or --checkpoint-freq with {self.algo}; allowed: on-policy and off-policy algorithms"
            )
        if self._resumed is not None:
            self.save_path = str(self._resumed)
            self.params_path = f"{self.save_path}/{self.env_name}"
            self.continue_training = True
        elif run == "":
            print("There is no unfinished run to go on with: a new one begins")

    def create_callbacks(self) -> None:
        """Make RL Zoo's callbacks, and the one that saves checkpoints."""
        super().create_callbacks()
        if self._saves_checkpoints:
            frequency = self._checkpoint_freq or max(self.n_timesteps // PARTS, 1)
            self.callbacks.append(TrainingCheckpointCallback(frequency, Path(self.save_path, CHECKPOINTS)))

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        if self._resumed is None:
            return super()._load_pretrained_agent(hyperparams, env)
        model = resume(Path(self.save_path, CHECKPOINTS), env, device=None if self.device == "auto" else self.device)
        if model._total_timesteps != self.n_timesteps:
            raise UserError(
                f"--resume with {self.n_timesteps} steps; allowed: {model._total_timesteps}, with which the run was "
                "begun, since its schedules depend on it"
            )
        print(f"Going on with {self.save_path} after {model.num_timesteps} of {self.n_timesteps} steps")
        return model

    def learn(self, model: BaseAlgorithm) -> None:
        """Train, and know whether the training came to its end."""
        done = model.num_timesteps if self._resumed is not None else 0
        self.n_timesteps -= done

        def learn(n_timesteps: int, **keywords: Any) -> None:
            if n_timesteps > 0:
                model.learn(n_timesteps, **keywords, reset_num_timesteps=self._resumed is None)
            self._is_finished = True

        super().learn(SimpleNamespace(learn=learn, env=model.env, policy=model.policy))  # type: ignore[arg-type]

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """Save the model as RL Zoo does. Checkpoints of a training that came to its end are not needed any more."""
        super().save_trained_model(model)
        if self._is_finished and self._saves_checkpoints:
            rmtree(Path(self.save_path, CHECKPOINTS), ignore_errors=True)

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """Make everything that a training needs; where that fails, leave no trace of it."""
        self._envs: list[VecEnv] = []
        try:
            with self._explain_refusals(), self._distrust_downloads():
                return super().setup_experiment()
        except BaseException:
            for env in self._envs:
                env.close()
            if self._has_made_folder:
                discard_empty_run(self.save_path)
            raise
        finally:
            del self._envs

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """Make environments, and know them while it is not certain that a training comes of it."""
        self._purpose = eval_env, eval_env or no_log
        env = super().create_envs(n_envs, eval_env, no_log)
        if hasattr(self, "_envs"):
            self._envs.append(env)
        return env

    def _make_pool(self, env_fns: list[Any], **keywords: Any) -> VecEnv:
        """EnvPool's environments in place of those that RL Zoo would make; it seeds what comes back."""
        eval_env, without_log = self._purpose
        logged: dict[str, Any] = {"monitor_dir": self.save_path, "monitor_kwargs": self.monitor_kwargs}
        try:
            return make_vec_env(
                self.env_name.gym_id,
                len(env_fns),
                backend="envpool",
                **self._wrapping,
                env_kwargs=self.eval_env_kwargs if eval_env else self.env_kwargs,
                vec_env_kwargs=keywords,
                **({} if without_log else logged),
            )
        except ValueError as error:
            if not is_refused_argument(error):
                raise
            message = str(error).replace(f"wrapper_class={self.env_wrapper!r}", f"env_wrapper={self._wrapper_entry!r}")
            raise UserError(f"--vec-env envpool: {message}") from error

    @property
    def _wrapping(self) -> dict[str, Any]:
        """The wrapper of the environments: AtariWrapper by its class, which EnvPool has options for."""
        entry = self._wrapper_entry
        entries = entry if isinstance(entry, list) else [entry]
        name, arguments = next(iter(entries[0].items())) if isinstance(entries[0], dict) else (entries[0], {})
        if len(entries) == 1 and name == f"{AtariWrapper.__module__}.{AtariWrapper.__qualname__}":
            return {"wrapper_class": AtariWrapper, "wrapper_kwargs": arguments}
        return {"wrapper_class": self.env_wrapper}

    def create_log_folder(self) -> None:
        """Make the folder of the run, and know whether it was there before."""
        try:
            os.makedirs(self.save_path)
            self._has_made_folder = True
        except FileExistsError:  # that of a training that began at the same moment
            pass
        super().create_log_folder()

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the hyper-parameters: those of the YAML file, over them the trial's, over them the command line's."""
        _check_conf_file(self.config, self.env_name.gym_id, is_atari=self._is_atari)
        hyperparams, saved_hyperparams = self._read_hyperparameters()
        if self._resumed is not None:
            before = Path(self.params_path, "config.yml").read_text(encoding="utf-8")
            if before != yaml.dump(saved_hyperparams):
                raise UserError(
                    f"--resume: {self.save_path} was begun with other hyper-parameters, those of its config.yml; "
                    "allowed: the same, or to begin a new run without --resume"
                )
        if missing := sorted({"n_timesteps", "policy"} - hyperparams.keys()):
            raise UserError(f"The entry for {self.env_name.gym_id} in {self.config} lacks {' and '.join(missing)}")
        return hyperparams, saved_hyperparams

    def _read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.spec is None or self.trial_id is None or not (self.storage and self.study_name):
            return super().read_hyperparameters()
        trial_id, self.trial_id = self.trial_id, None  # the base class would replace policy_kwargs, and ignores trial 0
        hyperparams, _ = super().read_hyperparameters()
        self.trial_id = trial_id
        hyperparams = overlay(hyperparams, self.load_trial(self.storage, self.study_name, trial_id))
        hyperparams = overlay(hyperparams, self.custom_hyperparams or {})
        saved_hyperparams = OrderedDict(sorted(hyperparams.items()))
        print(f"Hyperparameters with those of trial {trial_id}:")
        pprint(saved_hyperparams)
        return hyperparams, saved_hyperparams

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, list[Any], Any]:
        try:
            self._wrapper_entry = hyperparams.get("env_wrapper")
            resolve_rollout_buffer(hyperparams)
            preprocessed = super()._preprocess_hyperparams(hyperparams)
            resolve_policy_classes(preprocessed[0])
            if self.spec is not None:
                parse_schedules(preprocessed[0], self.spec.cls)
        except Exception as error:
            if is_in_text(error):
                raise UserError(f"A hyper-parameter that is evaluated as Python is none: {error}") from error
            if is_refused_argument(error):
                raise UserError(str(error)) from error
            raise
        return preprocessed

    def hyperparameters_optimization(self) -> None:
        """Search hyper-parameters, with what is sampled extending the user's dictionaries of arguments."""
        with self._explain_refusals():
            self._search()

    def objective(self, trial: Any) -> float:
        """The score of a trial: with ``--n-seeds`` the median over seeds, each with environments of its own."""
        if self._n_seeds == 1:
            return super().objective(trial)
        return median_of_seeds(self, trial, self._n_seeds)

    def _search(self) -> None:
        if self.spec is None:
            super().hyperparameters_optimization()
            return
        sample = HYPERPARAMS_SAMPLER[self.algo]
        given = {key: value for key, value in self._hyperparams.items() if key in EXTENDED}
        HYPERPARAMS_SAMPLER[self.algo] = lambda *arguments: overlay(given, sample(*arguments))
        try:
            super().hyperparameters_optimization()
        finally:
            HYPERPARAMS_SAMPLER[self.algo] = sample

    @contextmanager
    def _distrust_downloads(self) -> Iterator[None]:
        """A model to go on with that was downloaded is loaded without running what its files hold."""
        if not (self.trained_agent and is_downloaded(Path(self.trained_agent).parent)):
            yield
            return
        try:
            with loading_safely():
                yield
        except UnsafeFileError as problem:
            raise UserError(
                f"-i {self.trained_agent}: it was downloaded, and is not trusted: {problem}\n"
                "If you trust it, copy it to a folder of your own without the file 'downloaded'."
            ) from problem

    @contextmanager
    def _explain_refusals(self) -> Iterator[None]:
        """What an algorithm refuses when it is made is the user's error, unless it is a bug."""
        try:
            yield
        except TypeError as error:
            if (explanation := self._explain_unexpected(str(error))) is None:
                raise
            raise UserError(explanation) from error
        except (AssertionError, ValueError) as error:
            if not self._hyperparams or not is_refused_argument(error):  # these are known once there are environments
                raise
            raise UserError(f"{self.algo} cannot be trained on {self.env_name.gym_id}: {error}") from error

    def _explain_unexpected(self, message: str) -> str | None:
        found = re.search(r"unexpected keyword argument '(\w+)'", message)
        if found is None:
            return None
        name, known = found[1], known_hyperparameters(ALGOS[self.algo])
        if name in self._hyperparams and name not in known:
            source = "-params" if name in (self.custom_hyperparams or {}) else self.config
            return f"{source}: {self.algo} has no argument {name!r}{suggest(name, known)}"
        dictionaries = {**self._hyperparams, "env_kwargs": self.env_kwargs}
        holders = [key for key, value in dictionaries.items() if isinstance(value, dict) and name in value]
        return f"{' or '.join(holders)} has {name!r}: {message}" if holders else None


def _check_n_seeds(args: argparse.Namespace, optimize: bool) -> int:
    n_seeds = getattr(args, "n_seeds", 1)
    if n_seeds < 1:
        raise UserError(f"--n-seeds {n_seeds}; allowed: an integer ≥ 1")
    if n_seeds > 1 and not optimize:
        raise UserError(f"--n-seeds {n_seeds} without -optimize; allowed: sb3-pg sweep --seeds 0-{n_seeds - 1}")
    return n_seeds


def _find_conf_file(given: str) -> str:
    """What ``--conf-file`` stands for: any that RL Zoo reads, ``package:file``, or a shipped ``zoo_configs/….yml``."""
    if Path(given).exists() or Path(given).suffix not in (".yml", ".yaml", ".py"):
        return given
    shipped = Path(given).parts[0] == SHIPPED
    try:
        return str(find_config(f"sb3_pg_ext:{given}" if shipped else given))
    except ValueError as error:
        folder = find_config(f"sb3_pg_ext:{SHIPPED}/reinforce.yml").parent
        known = [f"{SHIPPED}/{path.name}" for path in folder.glob("*.yml")]
        raise UserError(f"--conf-file {given}: there is no such file{suggest(given, known)}") from error


def _check_conf_file(config: str, env_id: str, *, is_atari: bool) -> None:
    """Refuse a YAML file without an entry for an environment, before RL Zoo fails to find it."""
    if not config.endswith((".yml", ".yaml")):
        return
    entries = _read_conf_file(config)
    name = env_id if env_id in entries else "atari" if is_atari else "default"
    if name not in entries:
        raise UserError(f"{config} has no entry {env_id!r}, and none named {name!r}{suggest(env_id, set(entries))}")
    if not isinstance(entries[name], dict):
        raise UserError(f"{config}: the entry {name!r} is {entries[name]!r}; allowed: a mapping of hyper-parameters")


def _read_conf_file(config: str) -> dict[str, Any]:
    try:
        entries = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{config} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{config} holds {type(entries).__name__}; allowed: a mapping from environments to entries")
    return entries


def register_minatar() -> None:
    """Make MinAtar's environments known where it is installed; importing it alone does not."""
    if find_spec("minatar") is None or "MinAtar/Breakout-v0" in gymnasium.registry:
        return
    from minatar.gym import register_envs

    register_envs()


def import_gym_packages(modules: Iterable[str]) -> None:
    """Import modules that register environments.

    :param modules: their names
    :raises UserError: if one of them cannot be imported
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise UserError(f"gym_packages={module!r} cannot be imported: {error}") from error


def _find_algorithms(plugins: Registry) -> Iterator[AlgorithmSpec]:
    for name in plugins.names(AlgorithmSpec):
        try:
            spec = plugins.find(AlgorithmSpec, name)
        except ValueError:
            continue
        if name in STOCK:
            warnings.warn(
                f"The algorithm {name!r} of {spec.cls.__module__} is left out: RL Zoo has its own", stacklevel=3
            )
        else:
            yield spec


def _lazily(function: Callable[..., dict[str, Any]] | str) -> Callable[..., dict[str, Any]]:
    if not isinstance(function, str):
        return function
    return lambda *arguments: resolve_name(function)(*arguments)


def _made_to_play(spec: AlgorithmSpec) -> type[Any]:
    """The class of an algorithm, as scripts take it that load a model only to act."""
    if spec.off_policy:
        return _without_replay_memory(spec.cls)
    return playing_with_masks(spec.cls) if takes_masks(spec.cls.predict) else spec.cls


def _without_replay_memory(cls: type[Any]) -> type[Any]:
    """The class, whose ``load`` allots a replay buffer of one step: RL Zoo does so for its own algorithms, by name."""
    load = partial(cls.load, buffer_size=1, optimize_memory_usage=False)
    return type(cls.__name__, (cls,), {"load": staticmethod(load)})
