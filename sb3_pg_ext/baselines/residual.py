"""Baselines that improve on the critic: by the action, or by the time that is left. Fitted to earlier batches only."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from sb3_pg_ext.arguments import check_count, check_flag, check_positive, check_range
from sb3_pg_ext.baselines.episodes import ActionFactors, Correction, Episodes

LARGEST = 10.0
"""Observations are clipped to ±10, as what is far out would decide a regression alone."""


@dataclass
class Regression:
    """Ridge regression on batches, of which the k-th before the latest has the weight decay^k.

        w = (Σ + ridge·diag Σ)⁻¹ m,   Σ = Σ_k decay^k ΨᵀΨ/B,   m = Σ_k decay^k Ψᵀy/B

    The ridge is relative to the size of each feature ψ, so that none need be scaled. Before the first batch w is 0.

    :param decay: 0 for the latest batch alone, near 1 for a long memory
    :param ridge: relative to the mean square of every feature
    :raises ValueError: if ``decay`` is not in [0, 1), or ``ridge`` not positive
    """

    decay: float
    ridge: float
    _gram: np.ndarray | None = None
    _moment: np.ndarray | None = None
    _weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_range("decay", self.decay, 0, np.nextafter(1, 0), allowed="a number in [0, 1)")
        check_positive("ridge", self.ridge, allowed="a positive number")

    def weights(self, n_features: int) -> np.ndarray:
        """w, [F], float64.

        :param n_features: F
        """
        if self._gram is None or self._moment is None:
            return np.zeros(n_features)
        if self._weights is None:
            diagonal = np.diag(self._gram)
            penalty = np.diag(np.where(diagonal > 0, self.ridge * diagonal, 1.0))
            self._weights = np.linalg.solve(self._gram + penalty, self._moment)
        return self._weights

    def fit(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Take a batch in.

        :param features: Ψ, [B, F]
        :param targets: y, [B]
        """
        gram, moment = features.T @ features / len(targets), features.T @ targets / len(targets)
        if self._gram is not None and self._moment is not None:
            gram, moment = self.decay * self._gram + gram, self.decay * self._moment + moment
        self._gram, self._moment, self._weights = gram, moment, None

    def state_dict(self) -> dict[str, Any]:
        """Σ and m."""
        return {"gram": self._gram, "moment": self._moment}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._gram, self._moment, self._weights = state["gram"], state["moment"], None


@dataclass
class ActionResidual:
    """What :class:`QProp` and :class:`ActionFactorized` share: a model of what an action adds to V(s).

        Ā(s, a) = Σ_i Ā_i(s, a_i),   Ā_i(s, a_i) = x_i(a_i)ᵀ W_i φ(s),   φ(s) = (1, s)

    with the deviations x_i from the expectation under π, (a_i − μ_i)/σ_i of a Gaussian, 1[a_i = k] − π_i(k) of choices,
    so that E_{a_i~π_i} Ā_i = 0. W is the regression of G_t − V(s_t) in earlier batches, V(s_t) that of REINFORCE's
    critic.

    :param decay: of the regression, 0 for the last batch alone, near 1 for a long memory
    :param ridge: of the regression, relative to the mean square of every feature
    :raises ValueError: if ``decay`` is not in [0, 1), or ``ridge`` not positive
    """

    needs_values: ClassVar[bool] = True
    needs_actions: ClassVar[bool] = True
    max_observation_size: ClassVar[int] = 200

    decay: float = 0.9
    ridge: float = 1e-3
    _regression: Regression = field(init=False)

    def __post_init__(self) -> None:
        self._regression = Regression(self.decay, self.ridge)

    def fit(self, episodes: Episodes) -> None:
        """Take a batch in."""
        policy, actions = _given(episodes)
        self._regression.fit(self._features(episodes, policy.deviations(actions)), _residuals(episodes))

    def state_dict(self) -> dict[str, Any]:
        """What the regression has summed up."""
        return self._regression.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._regression.load_state_dict(state)

    def _features(self, episodes: Episodes, deviations: list[np.ndarray]) -> np.ndarray:
        """X ⊗ φ, factor by factor, [B, F]."""
        states = _states(episodes)
        return np.concatenate([(x[:, :, None] * states[:, None]).reshape(len(x), -1) for x in deviations], axis=1)

    def _slopes(self, episodes: Episodes, deviations: list[np.ndarray]) -> list[np.ndarray]:
        """W_i φ(s), [B, number of deviations of the factor] each."""
        states, slopes, start = _states(episodes), [], 0
        weights = self._regression.weights(states.shape[1] * sum(x.shape[1] for x in deviations))
        for x in deviations:
            stop = start + x.shape[1] * states.shape[1]
            slopes.append(states @ weights[start:stop].reshape(x.shape[1], -1).T)
            start = stop
        return slopes

    def _advantages(self, episodes: Episodes) -> list[np.ndarray]:
        """Ā_i(s_t, a_{t,i}), [B] each."""
        policy, actions = _given(episodes)
        deviations = policy.deviations(actions)
        return [(x * c).sum(axis=1) for x, c in zip(deviations, self._slopes(episodes, deviations), strict=True)]


@dataclass
class QProp(ActionResidual):
    """b(s, a) = V(s) + η Ā(s, a), with the correction η ∇_θ E_{a~π} Ā(s, a) (Gu et al. 2017, Q-Prop).

    Of a Gaussian, Ā is linear in a, and the correction η ∇_aĀ·∇_θμ(s), as in the paper; of choices it is exact, too.

    Deviations from the paper (https://arxiv.org/abs/1611.02247): Ā is a regression on earlier batches instead of the
    derivative of a network that is trained off-policy; the conservative η is one number, from the batch before. The
    paper's, from the return of the very step that it is applied to, depends on its action, which makes a bias (Tucker
    et al. 2018, https://arxiv.org/abs/1802.10031).

    :param conservative: η = 1 if Cov(G − V, Ā) was positive in the last batch, for which Ā was not fitted; else η = 0.
        Without it, η = 1.
    :param decay: of the regression, 0 for the last batch alone, near 1 for a long memory
    :param ridge: of the regression, relative to the mean square of every feature
    :raises ValueError: if ``decay`` is not in [0, 1), or ``ridge`` not positive
    """

    conservative: bool = True
    _eta: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("conservative", self.conservative)
        self._eta = 0.0 if self.conservative else 1.0

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """V(s_t) + η Ā(s_t, a_t), [B]."""
        return (_values(episodes) + self._eta * sum(self._advantages(episodes))).astype(np.float32)

    def correction(self, episodes: Episodes) -> Iterator[Correction]:
        """Where η = 0 there is none."""
        policy, actions = _given(episodes)
        if self._eta:
            yield from policy.probes(self._slopes(episodes, policy.deviations(actions)), actions)

    def fit(self, episodes: Episodes) -> None:
        """Choose η by what was predicted of the batch, then take it in."""
        if self.conservative:
            self._eta = float(np.dot(sum(self._advantages(episodes)), _residuals(episodes)) > 0)
        super().fit(episodes)

    def state_dict(self) -> dict[str, Any]:
        """What the regression has summed up, and η."""
        return super().state_dict() | {"eta": self._eta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        super().load_state_dict(state)
        self._eta = state["eta"]


@dataclass
class ActionFactorized(ActionResidual):
    """b_i(s, a_{−i}) = V(s) + Σ_{j≠i} Ā_j(s, a_j) for the factor i of a policy π = Π_i π_i (Wu et al. 2018).

    Each is subtracted from the return for its own factor, Σ_i ∇log π_i(a_i|s)(G − b_i), and depends on its action in no
    way. Of an action with a single factor it is V(s).

    REINFORCE multiplies one number with ∇log π of the whole action. The rest is a correction by
    ∇log π_i(a_i) = ∇log π(a) − E_{a_i'~π_i} ∇log π(a_i', a_{−i}).

    Deviation from the paper (https://arxiv.org/abs/1803.07246): Ā is a regression on earlier batches instead of a
    network.
    """

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """V(s_t) + Σ_i Σ_{j≠i} Ā_j(s_t, a_{t,j}), [B]."""
        return (_values(episodes) + sum(self._of_others(episodes))).astype(np.float32)

    def correction(self, episodes: Episodes) -> Iterator[Correction]:
        """Σ_i Σ_{j≠i} Ā_j·E_{a_i'} ∇log π(a_i', a_{−i})."""
        policy, actions = _given(episodes)
        for i, of_others in enumerate(self._of_others(episodes)):
            for others, probability in policy.support(i, actions):
                yield others, probability * of_others

    def _of_others(self, episodes: Episodes) -> list[np.ndarray]:
        """Σ_{j≠i} Ā_j, [B], for every i."""
        advantages = self._advantages(episodes)
        total: Any = sum(advantages)
        return [total - own for own in advantages]


@dataclass
class ValueTime:
    """b(s, t) = V'(s) + r̂(s)·Σ_{i=t}^{T−1} γ^{i−t}: V knows the time that is left (Tucker et al. 2018, section 5).

    Where episodes end at a time limit that the observation does not show, V(s) cannot know what is left; this can, and
    has no bias. V' is REINFORCE's critic, and what it lacks a regression of G_t − V(s_t) in earlier batches on φ(s) and
    φ(s)·Σγ^{i−t}, with φ(s) = (1, s, s²).

    :param horizon: T, the time limit; ``None`` for the length of the longest episode before
    :param decay: of the regression, 0 for the last batch alone, near 1 for a long memory
    :param ridge: of the regression, relative to the mean square of every feature
    :raises ValueError: if ``horizon`` is not positive, ``decay`` not in [0, 1), or ``ridge`` not positive
    """

    needs_values: ClassVar[bool] = True
    max_observation_size: ClassVar[int] = 200

    horizon: int | None = None
    decay: float = 0.9
    ridge: float = 1e-3
    _regression: Regression = field(init=False)
    _longest: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.horizon is not None:
            check_count("horizon", self.horizon)
        self._regression = Regression(self.decay, self.ridge)

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """V(s_t), and what it lacks, [B]."""
        features = self._features(episodes)
        return (_values(episodes) + features @ self._regression.weights(features.shape[1])).astype(np.float32)

    def fit(self, episodes: Episodes) -> None:
        """Take a batch in."""
        self._longest = max(self._longest, int(episodes.t.max()) + 1)
        self._regression.fit(self._features(episodes), _residuals(episodes))

    def state_dict(self) -> dict[str, Any]:
        """What the regression has summed up, and the longest episode."""
        return self._regression.state_dict() | {"longest": self._longest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._regression.load_state_dict(state)
        self._longest = state["longest"]

    def _features(self, episodes: Episodes) -> np.ndarray:
        """[B, F]."""
        left, gamma = np.maximum((self.horizon or self._longest) - episodes.t, 0), float(episodes.gamma)
        sums = left.astype(np.float64) if gamma == 1 else (1 - gamma**left) / (1 - gamma)
        states = _states(episodes)
        states = np.concatenate([states, states[:, 1:] ** 2], axis=1)
        return np.concatenate([states, sums[:, None] * states], axis=1)


def _states(episodes: Episodes) -> np.ndarray:
    """(1, s), [B, 1 + size of an observation], float64."""
    observations, n_steps = episodes.observations, len(episodes.t)
    arrays = observations.values() if isinstance(observations, dict) else [observations]
    columns = [np.clip(array.reshape(n_steps, -1).astype(np.float64), -LARGEST, LARGEST) for array in arrays]
    return np.concatenate([np.ones((n_steps, 1)), *columns], axis=1)


def _values(episodes: Episodes) -> np.ndarray:
    assert episodes.values is not None, "REINFORCE trains a critic for every baseline that needs values"
    return episodes.values.astype(np.float64)


def _residuals(episodes: Episodes) -> np.ndarray:
    return episodes.returns - _values(episodes)


def _given(episodes: Episodes) -> tuple[ActionFactors, np.ndarray]:
    assert episodes.policy is not None, "REINFORCE says of the policy what baselines with needs_actions read"
    assert episodes.actions is not None, "and which actions it took"
    return episodes.policy, episodes.actions
