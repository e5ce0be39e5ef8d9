"""The estimators that come with the package: each is a frozen dataclass over ``functional/returns.py``.

Advantages are always relative to V. Unless stated otherwise, ``returns`` is advantages + V.
"""

from dataclasses import dataclass
from typing import Any

from sb3_pg_ext.arguments import check_count, check_range
from sb3_pg_ext.estimators.contract import AdvantageEstimate, Rollout, check_unit_interval
from sb3_pg_ext.functional import returns
from sb3_pg_ext.functional.returns import Floats


@dataclass(frozen=True)
class GAE:
    """Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438).

        A_t = δ_t + γλ·(1 − end_t)·A_{t+1}

    Bit by bit that of SB3's rollout buffer; its returns are the λ-returns.

    :param gae_lambda: λ in [0, 1], from bias to variance; a host gives its own
    :raises ValueError: if λ is outside [0, 1]
    """

    gae_lambda: float = 0.95

    def __post_init__(self) -> None:
        check_unit_interval("gae_lambda", self.gae_lambda)

    def __call__(self, rollout: Rollout) -> AdvantageEstimate:
        """Estimate advantages and λ-returns."""
        advantages = returns.gae(rollout.td_errors, rollout.episode_ends, rollout.gamma, self.gae_lambda)
        return _relative_to_values(rollout, advantages)


@dataclass(frozen=True)
class MonteCarlo:
    """Monte-Carlo returns minus V (Sutton & Barto 2018, section 13.4).

        A_t = G_t − V(s_t),   G_t = r_t + γ·(1 − end_t)·G_{t+1} + γ·cut_t·V(s_{t+1})

    It bootstraps only where an episode is cut: by a truncation, or by the end of the rollout. This is GAE with λ = 1.
    """

    def __call__(self, rollout: Rollout) -> AdvantageEstimate:
        """Estimate G − V and G."""
        return GAE(1.0)(rollout)


@dataclass(frozen=True)
class NStep:
    """n rewards, then a bootstrap (Sutton & Barto 2018, equation 7.1).

        A_t = r_t + γ·r_{t+1} + … + γ^{n−1}·r_{t+n−1} + γ^n·V(s_{t+n}) − V(s_t)

    and fewer rewards where the episode or the rollout ends earlier.

    :param n: number of rewards, at least 1
    :raises ValueError: if n is no such integer
    """

    n: int = 5

    def __post_init__(self) -> None:
        check_count("n", self.n, allowed="an integer, at least 1")

    def __call__(self, rollout: Rollout) -> AdvantageEstimate:
        """Estimate advantages and n-step returns."""
        advantages = returns.n_step(rollout.td_errors, rollout.episode_ends, rollout.gamma, self.n)
        return _relative_to_values(rollout, advantages)


@dataclass(frozen=True)
class TD0:
    """One-step temporal differences (Sutton & Barto 2018, section 6.1): A_t = δ_t."""

    def __call__(self, rollout: Rollout) -> AdvantageEstimate:
        """Estimate δ and r + γV."""
        return _relative_to_values(rollout, rollout.td_errors)


@dataclass(frozen=True)
class VTrace:
    """V-trace (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561), with the λ of their remark 2.

        ρ_t = min(ρ̄, π/μ),   c_t = λ·min(c̄, π/μ)
        v_t = V(s_t) + ρ_t·δ_t + γ·(1 − end_t)·c_t·(v_{t+1} − V(s_{t+1}))
        A_t = r_t + γ·(1 − terminated_t)·[λ·v_{t+1} + (1 − λ)·V(s_{t+1})] − V(s_t)

    ``returns`` is v. Deviation from the paper: the advantages come *without* the factor ρ_t. An objective in log π
    multiplies by min(ρ̄, π/μ) itself; an objective in the ratio, such as PPO's, has it already.

    :param rho_bar: ρ̄ ≥ 0, the cap of the ratio that weighs δ_t: it decides the fixed point
    :param c_bar: c̄ in [0, ρ̄], the cap of the ratio in the trace: it decides how fast the fixed point is reached
    :param lambda_: λ in [0, 1], from bias to variance; its own, not the host's ``gae_lambda``
    :raises ValueError: if a parameter is outside its range; when called, if the rollout lacks log-probabilities
    """

    rho_bar: float = 1.0
    c_bar: float = 1.0
    lambda_: float = 1.0

    def __post_init__(self) -> None:
        _check_cap("rho_bar", self.rho_bar)
        _check_cap("c_bar", self.c_bar)
        if self.rho_bar < self.c_bar:
            raise ValueError(f"rho_bar={self.rho_bar!r} is less than c_bar={self.c_bar!r}; allowed: rho_bar ≥ c_bar")
        check_unit_interval("lambda_", self.lambda_)

    def __call__(self, rollout: Rollout) -> AdvantageEstimate:
        """Estimate advantages and the targets v."""
        if rollout.behaviour_log_probs is None or rollout.target_log_probs is None:
            raise ValueError("vtrace requires behaviour_log_probs and target_log_probs, and the rollout has None")
        advantages, corrections = returns.vtrace(
            rollout.td_errors,
            rollout.episode_ends,
            rollout.gamma,
            rollout.target_log_probs - rollout.behaviour_log_probs,
            self.rho_bar,
            self.c_bar,
            self.lambda_,
        )
        return AdvantageEstimate(advantages, rollout.values + corrections)


@dataclass(frozen=True)
class UPGO:
    """Upgoing policy update (Vinyals et al. 2019, https://doi.org/10.1038/s41586-019-1724-z).

        A_t = δ_t + γλ_t·(1 − end_t)·A_{t+1},   λ_t = 1 if δ_{t+1} ≥ 0 else 0

    ``returns`` is the λ-return, so that the critic is not trained on optimistic targets.

    :param gae_lambda: λ of the λ-returns, in [0, 1]; a host gives its own
    :raises ValueError: if λ is outside [0, 1]
    """

    gae_lambda: float = 0.95

    def __post_init__(self) -> None:
        check_unit_interval("gae_lambda", self.gae_lambda)

    def __call__(self, rollout: Rollout) -> AdvantageEstimate:
        """Estimate upgoing advantages and λ-returns."""
        advantages = returns.upgo(rollout.td_errors, rollout.episode_ends, rollout.gamma)
        return AdvantageEstimate(advantages, GAE(self.gae_lambda)(rollout).returns)


def _relative_to_values(rollout: Rollout, advantages: Floats) -> AdvantageEstimate:
    return AdvantageEstimate(advantages, advantages + rollout.values)


def _check_cap(name: str, value: Any) -> None:
    if value != float("inf"):  # without a cap
        check_range(name, value, 0, allowed="a number, at least 0")
