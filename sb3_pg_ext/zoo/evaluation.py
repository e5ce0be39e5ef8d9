"""Evaluate what RL Zoo has trained."""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rl_zoo3.utils import ALGOS, EnvironmentName, get_saved_hyperparams
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_pg_ext.envs import FastDummyVecEnv
from sb3_pg_ext.evaluation.episode_cache import CachedEpisode, EpisodeCache, fingerprint
from sb3_pg_ext.evaluation.episodes import Episode, check_seeds, copy_statistics, play_episodes
from sb3_pg_ext.evaluation.statistics import bootstrap_interval, mean_interval, median
from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import bridge
from sb3_pg_ext.zoo.action_masks import create_test_env
from sb3_pg_ext.zoo.runs import get_model_path
from sb3_pg_ext.zoo.user_errors import UserError

FIRST_SEED = 1000
N_EPISODES = 200
N_ENVS = 16


@dataclass(frozen=True)
class Trained:
    """A model of a run of RL Zoo.

    :param model: the model
    :param env: environments, wrapped as in training
    :param run: the folder of the run
    :param path: the file of the model
    """

    model: BaseAlgorithm
    env: VecEnv
    run: str
    path: str


def evaluate_latest_run(algo: str, env_id: str, folder: str, n_episodes: int, seed: int) -> tuple[list[float], str]:
    """Play complete episodes with deterministic actions, in fresh environments wrapped as in training.

    Where it has action masks, and the model takes them, they are used.

    :param algo: the Zoo id
    :param env_id: id of the environment
    :param folder: RL Zoo's log folder; its latest run of this algorithm and environment is evaluated
    :param n_episodes: number of episodes
    :param seed: seed of the first episode; the others have those that follow
    :return: the return of every episode, in the environment's own rewards, and the folder of the run
    """
    bridge.install(registry(), play=True)
    trained = load_trained(algo, env_id, folder, n_envs=min(N_ENVS, n_episodes))
    try:
        episodes = play_episodes(trained.model, trained.env, range(seed, seed + n_episodes))
    finally:
        trained.env.close()
    return [episode.episode_return for episode in episodes], trained.run


def load_trained(
    algo: str,
    env_id: str,
    folder: str,
    exp_id: int = 0,
    load_best: bool = False,
    n_envs: int = N_ENVS,
    env_kwargs: dict[str, Any] | None = None,
    device: str = "auto",
) -> Trained:
    """Load a model as RL Zoo's ``enjoy`` finds it, and make environments wrapped as in its training.

    :param algo: the Zoo id
    :param env_id: id of the environment
    :param folder: RL Zoo's log folder
    :param exp_id: number of the run; 0 for the latest that holds the model
    :param load_best: the best model instead of the last, with the statistics beside it where there are some
    :param n_envs: number of environments
    :param env_kwargs: arguments of the environment, over those of the training
    :param device: where the model computes
    :raises ValueError: if there is no such model
    """
    name = EnvironmentName(env_id)  # for folders, without a slash
    _, path, run = get_model_path(exp_id, folder, algo, name, load_best)
    hyperparams, stats_path = get_saved_hyperparams(f"{run}/{name}", test_mode=True)
    arguments = {**(hyperparams.pop("env_kwargs", None) or {}), **_given_in_training(run, name), **(env_kwargs or {})}
    env = create_test_env(
        env_id,
        n_envs=n_envs,
        stats_path=stats_path,
        hyperparams=hyperparams,
        env_kwargs=arguments,
        should_render=False,
        vec_env_cls=FastDummyVecEnv,
    )
    beside = Path(path).with_name("vecnormalize.pkl")
    normalizer = unwrap_vec_normalize(env)
    if load_best and normalizer is not None and beside.exists():
        copy_statistics(VecNormalize.load(str(beside), normalizer.venv), normalizer)
    more: dict[str, Any] = {}
    if issubclass(ALGOS[algo], OffPolicyAlgorithm):
        more |= {"buffer_size": 1}
        more |= {"optimize_memory_usage": False} if "optimize_memory_usage" in hyperparams else {}
        more |= {"env": env} if "HerReplayBuffer" in str(hyperparams.get("replay_buffer_class", "")) else {}
    return Trained(ALGOS[algo].load(path, device=device, **more), env, run, path)


def _given_in_training(run: str, name: str) -> dict[str, Any]:
    """What ``--env-kwargs`` said in training."""
    path = Path(run, name, "args.yml")
    if not path.is_file():
        return {}
    with path.open() as file:
        return yaml.load(file, Loader=yaml.UnsafeLoader).get("env_kwargs") or {}  # RL Zoo's own, as it reads it


def evaluate() -> None:
    """The script ``evaluate``: play complete episodes of a trained model from fixed seeds, and say how good it is."""
    parser = _make_parser()
    options = parser.parse_args()
    try:
        seeds = _parse_seeds(options.seeds, options.episodes)
        check_seeds("--seeds", seeds)
        cache = None if options.cache is None else EpisodeCache(options.cache, options.cache_size * 2**20)
    except ValueError as error:
        parser.error(str(error))
    for name in ("worst", "replay"):
        if getattr(options, name) is not None and cache is None:
            parser.error(f"--{name} takes episodes from a cache; allowed with --cache FOLDER")
    if options.output is not None and options.replay is None:
        parser.error("--output is of a replay; allowed with --replay SEED")
    bridge.import_gym_packages(options.gym_packages)
    n_envs = min(options.n_envs, len(seeds))
    with contextlib.redirect_stdout(sys.stderr):  # RL Zoo tells what it loads
        chosen = (options.algo, options.env, options.folder, options.exp_id, options.load_best)
        trained = load_trained(*chosen, n_envs=n_envs, device=options.device)
    deterministic = not options.stochastic
    try:
        if options.replay is not None:
            assert cache is not None
            cached = cache.find(trained.model, trained.env, options.replay, deterministic)
            if cached is None:
                raise UserError(
                    f"--replay {options.replay}: {options.cache} has no episode of this model from this seed; allowed: "
                    "the seeds of an evaluation with --cache"
                )
            mode = "human" if options.output is None else "rgb_array"
            with contextlib.redirect_stdout(sys.stderr):
                stage = load_trained(*chosen, n_envs=1, env_kwargs={"render_mode": mode}, device=options.device)
            try:
                replay(cached.episode, stage.env, options.output)
            finally:
                stage.env.close()
            return
        if cache is None:
            episodes = play_episodes(trained.model, trained.env, seeds, deterministic)
        else:
            episodes = cache.play(trained.model, trained.env, seeds, deterministic)
        result = summarize(episodes)
        result |= {"algo": options.algo, "env": options.env, "run": trained.run, "model": trained.path}
        result |= {"timesteps": trained.model.num_timesteps, "deterministic": deterministic}
        worst: list[CachedEpisode] = []
        if options.worst is not None:
            assert cache is not None
            worst = cache.worst(options.worst, fingerprint(trained.model, trained.env, deterministic))
            result["worst_cached"] = [
                {"seed": c.episode.seed, "return": c.episode.episode_return, "file": str(c.path)} for c in worst
            ]
    finally:
        trained.env.close()
    print(json.dumps(result, indent=1) if options.json else _format(result))


def summarize(episodes: Sequence[Episode]) -> dict[str, Any]:
    """What episodes say of a model, for JSON.

    :param episodes: the episodes, at least one
    :return: seeds, returns, lengths; the mean and the interquartile mean with 95 % intervals, None where there is a
        single episode; median, standard deviation, and the worst episode
    """
    returns = [episode.episode_return for episode in episodes]
    several = len(returns) > 1
    worst = min(episodes, key=lambda episode: episode.episode_return)
    successes = [episode.is_success for episode in episodes if episode.is_success is not None]
    intervals = {"mean": mean_interval(returns), "iqm": bootstrap_interval(returns, "iqm")}
    return {
        "n_episodes": len(returns),
        **{
            name: {
                "estimate": float(interval.estimate),
                "low": float(interval.low) if several else None,
                "high": float(interval.high) if several else None,
            }
            for name, interval in intervals.items()
        },
        "median": float(median(returns)),
        "std": float(np.std(returns, ddof=1)) if several else None,
        "worst": {"return": worst.episode_return, "seed": worst.seed},
        "mean_length": float(np.mean([episode.length for episode in episodes])),
        "success_rate": float(np.mean(successes)) if successes else None,
        "seeds": [episode.seed for episode in episodes],
        "returns": returns,
        "lengths": [episode.length for episode in episodes],
    }


def replay(episode: Episode, env: VecEnv, output: str | None = None) -> None:
    """Play the actions of an episode again, from its seed.

    :param episode: with its steps
    :param env: a ``DummyVecEnv`` of one environment that renders: to the screen, or, for a file, ``"rgb_array"``
    :param output: a file, ``.gif`` or ``.webp``, which is a tenth as large; None: the screen
    :raises UserError: if the environment does not render, or ``output`` ends otherwise
    """
    if output is not None and Path(output).suffix.lower() not in (".gif", ".webp"):
        raise UserError(f"--output {output}; allowed: a name that ends with .gif or .webp")
    assert episode.steps is not None
    single, frames, total = env.unwrapped.envs[0], [], 0.0  # type: ignore[attr-defined]  # a DummyVecEnv
    single.reset(seed=episode.seed)
    ended = False
    for action in episode.steps.actions:
        if ended:  # by a wrapper around Monitor, as those of Atari end an episode with a life
            single.reset()
        frames.append(single.render())
        _, reward, terminated, truncated, _ = single.step(action)
        ended, total = terminated or truncated, total + float(reward)
    frames.append(single.render())
    expected = float(episode.steps.rewards.sum())
    print(f"seed {episode.seed}: return {total:.2f} in {len(episode.steps.actions)} steps")
    if not np.isclose(total, expected):
        print(f"This is not the episode of the cache, whose return is {expected:.2f}: the environment has changed.")
    if output is None:
        return
    if any(frame is None for frame in frames):
        raise UserError(f"--output {output}: the environment does not render to images")
    from PIL import Image  # of the extra zoo; only a recording needs it

    fps = single.metadata.get("render_fps", 30)
    first, *others = [Image.fromarray(np.asarray(frame, np.uint8)) for frame in frames]
    first.save(output, save_all=True, append_images=others, duration=max(20, round(1000 / fps)), loop=0)
    print(f"Saved {output}")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Play complete episodes of a trained model, each from a seed of its own, and say how good it is."
    )
    add = parser.add_argument
    add("--algo", required=True, choices=sorted(ALGOS), metavar="ALGO", help="the algorithm")
    add("--env", required=True, help="id of the environment")
    add("-f", "--folder", default="logs", help="log folder (default: logs)")
    add("--exp-id", type=int, default=0, help="number of the run (default: the latest that holds the model)")
    add("--load-best", action="store_true", help="the best model instead of the last")
    add("--episodes", type=_positive, help=f"number of episodes (default: {N_EPISODES})")
    add("--seeds", nargs="+", metavar="SEED", help=f"seeds, as 7 or 1000-1199 (default: from {FIRST_SEED})")
    add("--stochastic", action="store_true", help="sample actions instead of taking the most probable")
    add("--n-envs", type=_positive, default=N_ENVS, help=f"environments side by side (default: {N_ENVS})")
    add("--gym-packages", nargs="+", default=[], metavar="MODULE", help="modules that register environments")
    add("--device", default="auto", help="where the model computes (default: auto)")
    add("--cache", metavar="FOLDER", help="keep episodes here, and play none twice")
    add("--cache-size", type=_positive, default=1024, metavar="MIB", help="delete the oldest above it (default: 1024)")
    add("--worst", type=_positive, metavar="K", help="list the K worst episodes of this model in the cache")
    add("--replay", type=int, metavar="SEED", help="show an episode from the cache, and nothing else")
    add("--output", metavar="FILE.gif", help="record the replay instead of showing it; or FILE.webp")
    add("--json", action="store_true", help="write JSON for programs, with all returns")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: an integer ≥ 1")
    return int(text)


def _parse_seeds(given: list[str] | None, n_episodes: int | None) -> list[int]:
    if given is None:
        return list(range(FIRST_SEED, FIRST_SEED + (n_episodes or N_EPISODES)))
    seeds: list[int] = []
    for text in given:
        first, dash, last = text.partition("-")
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(last) >= int(first))):
            raise ValueError(f"--seeds {text}; allowed: an integer ≥ 0, or first-last")
        seeds += range(int(first), int(last if dash else first) + 1)
    if n_episodes not in (None, len(seeds)):
        raise ValueError(f"--episodes {n_episodes} with {len(seeds)} seeds; allowed: one of both")
    return seeds


def _format(result: dict[str, Any]) -> str:
    def spread(name: str) -> str:
        interval = result[name]
        if interval["low"] is None:
            return f"{interval['estimate']:.2f}"
        return f"{interval['estimate']:.2f}  [{interval['low']:.2f}, {interval['high']:.2f}]"

    how = "deterministic" if result["deterministic"] else "sampled"
    lines = [
        f"{result['model']}, {result['timesteps']} steps: {result['n_episodes']} episodes, {how} actions",
        f"mean    {spread('mean')}",
        f"median  {result['median']:.2f}",
        f"IQM     {spread('iqm')}",
        f"worst   {result['worst']['return']:.2f}  (seed {result['worst']['seed']})",
        f"length  {result['mean_length']:.2f}",
    ]
    if result["std"] is not None:
        lines.insert(4, f"sd      {result['std']:.2f}")
        lines.append("[…]: 95 % intervals")
    if result["success_rate"] is not None:
        lines.append(f"success {result['success_rate']:.1%}")
    if "worst_cached" in result:
        lines.append("worst episodes in the cache:")
        lines += [f"  {e['return']:.2f}  seed {e['seed']}  {e['file']}" for e in result["worst_cached"]]
    return "\n".join(lines)
