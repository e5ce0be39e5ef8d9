"""Evaluate what RL Zoo has trained."""

from rl_zoo3.utils import ALGOS, EnvironmentName, get_saved_hyperparams
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import bridge
from sb3_pg_ext.zoo.action_masks import create_test_env
from sb3_pg_ext.zoo.runs import get_model_path


def evaluate_latest_run(algo: str, env_id: str, folder: str, n_episodes: int, seed: int) -> tuple[list[float], str]:
    """Play complete episodes with deterministic actions, in a fresh environment wrapped as in training.

    Where it has action masks, and the model takes them, they are used.

    :param algo: the Zoo id
    :param env_id: id of the environment
    :param folder: RL Zoo's log folder; its latest run of this algorithm and environment is evaluated
    :param n_episodes: number of episodes
    :param seed: seed of the environment
    :return: the return of every episode, in the environment's own rewards, and the folder of the run
    """
    bridge.install(registry(), play=True)
    _, model_path, run = get_model_path(0, folder, algo, EnvironmentName(env_id))
    hyperparams, stats_path = get_saved_hyperparams(f"{run}/{env_id}")
    env = create_test_env(env_id, seed=seed, stats_path=stats_path, hyperparams=hyperparams, should_render=False)
    returns, _ = evaluate_policy(ALGOS[algo].load(model_path), env, n_episodes, return_episode_rewards=True)
    env.close()
    assert isinstance(returns, list)
    return returns, run
