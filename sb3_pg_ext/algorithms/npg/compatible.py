"""The natural gradient as the weights of a compatible critic."""

from collections.abc import Sequence

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.functional.compatible import episode_sums, fit_compatible
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.tensors.curvature import Product
from sb3_pg_ext.functional.tensors.solvers import Solution
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.scores import ScoreFunctions


def scores_of(policy: ActorCriticPolicy, steps: Steps, parameters: Sequence[th.Tensor]) -> np.ndarray:
    """∇log π(a|s) of all steps, [B, n].

    :param policy: π
    :param steps: the steps
    :param parameters: the parameters, in the order of the columns
    :raises NonFiniteError: if a score is not finite
    """
    functions = ScoreFunctions(policy, steps.inputs, steps.actions)
    scores = functions[:]
    ends = np.cumsum([0, *(parameter.numel() for parameter in functions.parameters)])
    columns = {p: np.arange(*ends[i : i + 2]) for i, p in enumerate(functions.parameters)}
    order = np.concatenate([columns[parameter] for parameter in parameters])
    if not np.isfinite(scores).all():
        raise NonFiniteError("scores of the policy: NaN or infinity")
    return scores[:, order]


def fit_episodes(buffer: RolloutBuffer, scores: np.ndarray, gamma: float, damping: float) -> np.ndarray:
    """The weights ω of the episodic natural actor-critic, [n].

    :param buffer: a full rollout buffer, [T, N]
    :param scores: of its steps, [T·N, n], step by step
    :param gamma: γ
    :param damping: that of the regression
    """
    starts = buffer.episode_starts.astype(bool)
    starts[0] = True
    n_steps, n_envs = starts.shape
    # Episodes are counted environment by environment.
    episode_id = (np.cumsum(starts.T.reshape(-1)) - 1).reshape(n_envs, n_steps).T
    times = np.arange(n_steps)[:, None]
    first = np.maximum.accumulate(np.where(starts, times, 0), axis=0)
    sums = episode_sums(scores, (gamma ** (times - first)).reshape(-1), episode_id.reshape(-1))
    order = np.argsort(episode_id[starts])
    returns, values = buffer.returns[starts][order], buffer.values[starts][order]
    weights, _ = fit_compatible(sums, returns, np.stack([np.ones_like(values), values], axis=1), damping)
    return weights


def solution_of(product: Product, b: th.Tensor, x: th.Tensor, damping: float) -> Solution:
    """A solution of (A + λI) x = b that was found in another way, with what conjugate gradients tell of theirs.

    :param product: v ↦ A v
    :param b: right-hand side, [n]
    :param x: the solution, [n]
    :param damping: λ
    """
    image = product(x)
    norm = float(th.linalg.vector_norm(b))
    residual = float(th.linalg.vector_norm(b - image - damping * x)) / norm if norm else 0.0
    return Solution(x, image, residual, 0, False)
