"""What every baseline of REINFORCE has to satisfy."""

import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from sb3_pg_ext.baselines import ActionFactors, Baseline, Episodes, LearningBaseline, corrections
from sb3_pg_ext.plugins import BaselineSpec
from sb3_pg_ext.rollouts.episodes import sees_actions
from sb3_pg_ext.testing.arrays import arrays_of, assert_close, assert_unchanged, map_arrays
from sb3_pg_ext.testing.properties import find_failures, hint

LENGTHS = {"episodes of 1, 7 and 3 steps": (1, 7, 3), "two episodes of one step": (1, 1)}
N_PARAMETERS = 4
N_CHOICES = (2, 3)
"""An action consists of two choices."""

Make = Callable[[], Baseline]
Batches = Sequence[Episodes]


def find_baseline_failures(spec: BaselineSpec, **kwargs: Any) -> list[str]:
    """Which properties a baseline lacks, one message each.

    :param spec: the record under which a plug-in provides it
    :param kwargs: parameters of the baseline
    """
    make = partial(spec.factory, **kwargs)
    batches = make_batches(getattr(make(), "needs_episodes", 1))
    returns_what_it_should = (
        returns_one_finite_float32_number_per_episode_and_component
        if spec.per_component
        else returns_one_finite_float32_number_per_step
    )
    if failures := find_failures([does_not_modify_its_input, returns_what_it_should], make, batches):
        return failures
    properties = [
        is_deterministic,
        does_not_depend_on_the_order_of_episodes,
    ]
    if spec.unbiased:
        properties.append(does_not_see_what_the_action_leads_to)
        if sees_actions(make()):
            properties.append(gives_back_what_it_takes_for_the_action)
    if not getattr(make(), "needs_values", False):
        properties.append(needs_no_values)
    if hasattr(make(), "fit"):
        properties.append(goes_on_from_its_state)
    return find_failures(properties, make, batches)


def make_batches(n_episodes: int = 1) -> dict[str, Batches]:
    """Random batches of episodes, by their description. A baseline uses and is fitted to all before the last.

    :param n_episodes: so many episodes at least in every batch
    """
    batches: dict[str, Batches] = {}
    for description, lengths in LENGTHS.items():
        for total_returns in (False, True):
            earlier, episodes = (
                _make_episodes(some * math.ceil(n_episodes / len(some)), total_returns) for some in ((4, 2), lengths)
            )
            described = f"{description}, {'total returns' if total_returns else 'rewards to go'}"
            batches[described] = [episodes]
            batches[f"{described}, after fitting to others"] = [earlier, episodes]
    return batches


def _make_episodes(lengths: tuple[int, ...], total_returns: bool) -> Episodes:
    """Standard normal rewards, observations, values and scores; returns without discounting."""
    rng = np.random.default_rng(0)
    n_steps = sum(lengths)
    rewards = rng.standard_normal(n_steps, dtype=np.float32)
    t = np.concatenate([np.arange(length) for length in lengths])
    of_actions = np.random.default_rng(1)
    odds = [of_actions.uniform(0.5, 2, (n_steps, n)) for n in N_CHOICES]
    return Episodes(
        rewards=rewards,
        returns=_sum_rewards(rewards, lengths, total_returns),
        observations=rng.standard_normal((n_steps, 3), dtype=np.float32),
        t=t,
        episode_id=np.repeat(np.arange(len(lengths)), lengths),
        total_returns=total_returns,
        values=rng.standard_normal(n_steps, dtype=np.float32),
        scores=rng.standard_normal((n_steps, N_PARAMETERS), dtype=np.float32),
        weights=(0.9**t).astype(np.float32),
        actions=np.stack([of_actions.integers(n, size=n_steps) for n in N_CHOICES], axis=1),
        policy=ActionFactors(tuple(each / each.sum(axis=1, keepdims=True) for each in odds)),
    )


def _sum_rewards(rewards: np.ndarray, lengths: Iterable[int], total_returns: bool) -> np.ndarray:
    returns = []
    for episode in np.split(rewards, np.cumsum(list(lengths))[:-1]):
        to_go = np.cumsum(episode[::-1])[::-1]
        returns.append(np.full_like(to_go, to_go[0]) if total_returns else to_go)
    return np.concatenate(returns)


def returns_one_finite_float32_number_per_step(make: Make, batches: Batches) -> None:
    """The baseline has the shape [B]."""
    _assert_finite_float32(_predict(make, batches), (len(batches[-1].returns),))


def returns_one_finite_float32_number_per_episode_and_component(make: Make, batches: Batches) -> None:
    """The baseline has the shape [m, n]."""
    _assert_finite_float32(_predict(make, batches), (len(batches[-1].lengths), N_PARAMETERS))


def does_not_modify_its_input(make: Make, batches: Batches) -> None:
    """Neither when it is used nor when it is fitted."""
    given = [map_arrays(np.copy, episodes) for episodes in batches]
    _predict(make, [*given, given[-1]])
    for before, after in zip(batches, given, strict=True):
        assert_unchanged(before, after)


def is_deterministic(make: Make, batches: Batches) -> None:
    """The same batches have the same baseline."""
    first, second = (_predict(make, batches) for _ in range(2))
    assert np.array_equal(first, second), "a second time the same batches have another baseline"


def does_not_depend_on_the_order_of_episodes(make: Make, batches: Batches) -> None:
    """Episodes in reverse order have their baselines in reverse order."""
    *earlier, episodes = batches
    order = np.argsort(-episodes.episode_id, kind="stable")
    reverse = map_arrays(lambda x: x[order], episodes)
    reverse = replace(reverse, episode_id=reverse.episode_id[0] - reverse.episode_id)
    _assert_same(_predict_steps(make, [*earlier, reverse]), _predict_steps(make, batches)[order])


def does_not_see_what_the_action_leads_to(make: Make, batches: Batches) -> None:
    """Whatever follows from the action of a step may be otherwise: its baseline stays, or the gradient is biased."""
    *earlier, episodes = batches
    expected = _predict_steps(make, batches)
    for i in range(len(episodes.lengths)):
        own = np.flatnonzero(episodes.episode_id == i)
        sequels = [
            (f"goes on otherwise from step {t} on", own[: t + 1], _with_another_sequel(episodes, step))
            for t, step in enumerate(own.tolist())
        ]
        for what, rows, other in (*sequels, ("is longer", own, _longer(episodes, i))):
            with hint(f"if episode {i} {what}; should the record say unbiased=False?"):
                _assert_same(_predict_steps(make, [*earlier, other])[rows], expected[rows])


def _longer(episodes: Episodes, i: int) -> Episodes:
    """With a step more at the end of an episode, like the one before it."""
    last = np.flatnonzero(episodes.episode_id == i)[-1]
    longer = map_arrays(lambda array: np.insert(array, last + 1, array[last], axis=0), episodes)
    longer.t[last + 1] += 1
    return replace(longer, returns=_sum_rewards(longer.rewards, longer.lengths, longer.total_returns))


def _with_another_sequel(episodes: Episodes, step: int) -> Episodes:
    """Other rewards and scores from a step of an episode on, and other observations, values and actions after it."""
    rng = np.random.default_rng(1)
    own = episodes.episode_id == episodes.episode_id[step]
    since, after = (own & (episodes.t >= episodes.t[step] + k) for k in (0, 1))
    arrays = {name: array.copy() for name, array in arrays_of(episodes).items()}
    for name, rows in (("rewards", since), ("scores", since), ("observations", after), ("values", after)):
        arrays[name][rows] += rng.standard_normal(arrays[name][rows].shape, dtype=np.float32)
    arrays["actions"][after] = (arrays["actions"][after] + 1) % N_CHOICES
    arrays["returns"] = _sum_rewards(arrays["rewards"], episodes.lengths, episodes.total_returns)
    return replace(episodes, **arrays)


def gives_back_what_it_takes_for_the_action(make: Make, batches: Batches) -> None:
    """Σ_a π(a|s)[b(s, a)∇log π(a|s) − correction] = 0 at every step, in the logits of π."""
    *earlier, episodes = batches
    baseline = _fitted(make, earlier)
    taken, given = np.zeros((2, len(episodes.t), sum(N_CHOICES)))
    for choices in product(*map(range, N_CHOICES)):
        there = replace(episodes, actions=np.tile(choices, (len(episodes.t), 1)))
        assert there.policy is not None
        probability = np.prod([p[:, k] for p, k in zip(there.policy.probabilities, choices, strict=True)], axis=0)
        taken += _scores(there.policy, there.actions) * (probability * baseline(there))[:, None]
        for actions, terms in corrections(baseline, there):
            given += _scores(there.policy, actions) * (probability * terms)[:, None]
    with hint("averaged over all actions; is correction missing or wrong?"):
        assert_close(given, taken, lambda step, i: f"what it gives back for the derivative {i} at step {step} is")


def _scores(policy: ActionFactors, actions: np.ndarray | None) -> np.ndarray:
    """∇log π(a|s) in the logits, [B, Σ choices]."""
    assert actions is not None
    return np.concatenate(policy.deviations(actions), axis=1)


def needs_no_values(make: Make, batches: Batches) -> None:
    """REINFORCE trains no critic unless the baseline has ``needs_values = True``."""
    without = [replace(episodes, values=None) for episodes in batches]
    with hint("without values; is needs_values = True missing?"):
        _assert_same(_predict_steps(make, without), _predict_steps(make, batches))


def goes_on_from_its_state(make: Make, batches: Batches) -> None:
    """What it has learned is saved and loaded with the algorithm."""
    *earlier, episodes = batches
    learned, loaded = make(), make()
    assert isinstance(learned, LearningBaseline), "it has fit, but not state_dict and load_state_dict"
    assert isinstance(loaded, LearningBaseline)
    for batch in earlier:
        learned(batch)
        learned.fit(batch)
    loaded.load_state_dict(pickle.loads(pickle.dumps(learned.state_dict())))
    with hint("loaded from the state of one that learned"):
        _assert_same(loaded(episodes), learned(episodes))


def _predict(make: Make, batches: Batches) -> np.ndarray:
    """The baseline of the last batch, after it was used for and fitted to the earlier ones, as REINFORCE does."""
    return _fitted(make, batches[:-1])(batches[-1])


def _fitted(make: Make, batches: Batches) -> Baseline:
    baseline = make()
    fit = getattr(baseline, "fit", None)
    for episodes in batches:
        baseline(episodes)
        if fit is not None:
            fit(episodes)
    return baseline


def _predict_steps(make: Make, batches: Batches) -> np.ndarray:
    """One row for every step: its number, or those of its episode where every component has its own."""
    result = _predict(make, batches)
    return result if result.ndim == 1 else result[batches[-1].episode_id]


def _assert_finite_float32(result: np.ndarray, shape: tuple[int, ...]) -> None:
    assert isinstance(result, np.ndarray), f"it returned {type(result).__name__} instead of an array"
    assert result.shape == shape, f"it returned the shape {result.shape} instead of {shape}"
    assert result.dtype == np.float32, f"it returned {result.dtype} instead of float32"
    bad = np.argwhere(~np.isfinite(result))
    assert not bad.size, f"not finite, first at {bad[0].tolist()}"


def _assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert_close(actual, expected, lambda step, *_: f"the baseline of step {step} is")
