"""Action distributions in NumPy, as functions of a network's outputs, with their derivatives in closed form.

What an update needs of a distribution are numbers for every state: log π(a|s), the entropy, KL(old‖π). Their
derivatives are vector-Jacobian products: c holds one number for every state, [B], and the result is the gradient of
Σ_b c_b·q_b in the distribution's parameters, in the order of :attr:`Head.parameters`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, ...]


class Head(ABC):
    """π(·|s) for every state of a batch."""

    parameters: Arrays
    """The network's outputs, [B, k]; of a Gaussian also log σ, [d], which all states share."""

    @abstractmethod
    def __getitem__(self, rows: Any) -> "Head":
        """The distributions of some of the states."""

    @abstractmethod
    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """Log π(a|s), [B]."""

    @abstractmethod
    def log_prob_vjp(self, actions: np.ndarray, c: np.ndarray) -> Arrays:
        """The gradient of Σ c·log π(a|s)."""

    @abstractmethod
    def entropy(self) -> np.ndarray:
        """The entropy, in nats, [B]."""

    @abstractmethod
    def entropy_vjp(self, c: np.ndarray) -> Arrays:
        """The gradient of Σ c·entropy."""

    @abstractmethod
    def kl(self, old: Any) -> np.ndarray:
        """KL(old‖π), in nats, summed over action dimensions, [B]."""

    @abstractmethod
    def kl_vjp(self, old: Any, c: np.ndarray) -> Arrays:
        """The gradient of Σ c·KL(old‖π)."""

    @abstractmethod
    def information(self, changes: Arrays) -> Arrays:
        """Products with the Fisher information of the parameters.

        :param changes: arrays like the parameters
        """

    @abstractmethod
    def information_roots(self) -> np.ndarray:
        """Roots r of the information of a state's outputs, Σ r rᵀ, [number of roots, B, k]; log σ is no output."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """An action in every state, [B, action_dim].

        :param rng: draws it
        """

    def sampled_scores(self, rng: np.random.Generator) -> np.ndarray:
        """The gradient of log π(a|s) in the outputs, at sampled actions: a single random root, [1, B, k].

        :param rng: draws the actions
        """
        return self.log_prob_vjp(self.sample(rng), np.ones(len(self.parameters[0]), self.parameters[0].dtype))[0][None]


class Discrete(Head):
    """Discrete actions as an exponential family, log π(a|s) = ⟨T(a), l⟩ − A(l), with ∇A = p and ∇²A the information.

    A subclass sets l, p and A(l), and says what T and the information are. A is the sum of ``log_partition``, [B, k] or
    0, which is taken last, lest large logits swamp small ones.
    """

    logits: np.ndarray
    probs: np.ndarray
    log_partition: Any

    @abstractmethod
    def statistics(self, actions: np.ndarray) -> np.ndarray:
        """T(a), [B, k]."""

    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """⟨T(a), l⟩ − A."""
        return (self.statistics(actions) * self.logits - self.log_partition).sum(1)

    def log_prob_vjp(self, actions: np.ndarray, c: np.ndarray) -> Arrays:
        """c·(T(a) − p)."""
        return (c[:, None] * (self.statistics(actions) - self.probs),)

    def entropy(self) -> np.ndarray:
        """A − ⟨p, l⟩."""
        return (self.log_partition - self.probs * self.logits).sum(1)

    def entropy_vjp(self, c: np.ndarray) -> Arrays:
        """−c·(∇²A)l."""
        (product,) = self.information((self.logits,))
        return (-c[:, None] * product,)

    def kl(self, old: "Discrete") -> np.ndarray:
        """A − A_old + ⟨p_old, l_old − l⟩."""
        return (self.log_partition - old.log_partition + old.probs * (old.logits - self.logits)).sum(1)

    def kl_vjp(self, old: "Discrete", c: np.ndarray) -> Arrays:
        """c·(p − p_old)."""
        return (c[:, None] * (self.probs - old.probs),)


class Categorical(Discrete):
    """One or several choices, independent given the state. T(a) is one-hot; l is normalised, so that A = 0.

    A logit of −∞ makes a choice impossible: its probability is exactly 0, and no derivative reaches it. Within l a
    large negative number stands for −∞, since 0·∞ would be NaN.

    :param outputs: logits, [B, Σ k], those of one choice after those of the other
    :param sizes: the numbers k
    """

    log_partition = 0

    def __init__(self, outputs: np.ndarray, sizes: Sequence[int]) -> None:
        self.parameters, self.sizes = (outputs,), sizes
        self._starts = np.cumsum([0, *sizes[:-1]]) if len(sizes) > 1 else 0
        shifted = outputs - self._spread(np.maximum, outputs)
        self.probs = np.exp(shifted)
        totals = self._spread(np.add, self.probs)
        self.logits = shifted - np.log(totals)
        self.probs /= totals
        self._impossible = None
        if self.logits.min() == -np.inf:
            self._impossible = self.logits == -np.inf
            # A third of the time of writing to where it is.
            np.maximum(self.logits, np.finfo(self.logits.dtype).min / 8, out=self.logits)

    def _spread(self, reduction: np.ufunc, array: np.ndarray) -> np.ndarray:
        """Reduce the numbers of every choice to one, which stands where all of them stood."""
        if len(self.sizes) == 1:
            return reduction.reduce(array, axis=1, keepdims=True)
        return np.repeat(reduction.reduceat(array, self._starts, axis=1), self.sizes, axis=1)

    def __getitem__(self, rows: Any) -> "Categorical":
        return Categorical(self.parameters[0][rows], self.sizes)

    def statistics(self, actions: np.ndarray) -> np.ndarray:
        """One-hot vectors, from indices [B, number of choices]."""
        one_hot = np.zeros(self.probs.shape, self.probs.dtype)
        choices = actions.astype(np.intp, copy=False)  # binary actions are stored as floats
        one_hot[np.arange(len(actions))[:, None], choices + self._starts] = 1
        return one_hot

    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """⟨T(a), l⟩; −∞ where an impossible choice was made."""
        if self._impossible is None:
            return super().log_prob(actions)
        chosen = np.arange(len(actions))[:, None], actions.astype(np.intp, copy=False) + self._starts
        log_probs = self.logits[chosen].sum(1)
        log_probs[self._impossible[chosen].any(1)] = -np.inf
        return log_probs

    def kl(self, old: "Discrete") -> np.ndarray:
        """⟨p_old, l_old − l⟩; ∞ where a choice that was possible has become impossible."""
        kls = super().kl(old)
        if self._impossible is not None:
            kls[(self._impossible & (old.probs > 0)).any(1)] = np.inf
        return kls

    def information(self, changes: Arrays) -> Arrays:
        """p·(u − Σ p u), choice by choice."""
        (u,) = changes
        return (self.probs * (u - self._spread(np.add, self.probs * u)),)

    def information_roots(self) -> np.ndarray:
        """√p_i·(e_i − p) for every i, within its choice."""
        choice_of = np.repeat(np.arange(len(self.sizes)), self.sizes)
        of_same_choice = (choice_of[:, None] == choice_of).astype(self.probs.dtype)
        differences = np.eye(len(choice_of), dtype=self.probs.dtype)[:, None] - of_same_choice[:, None] * self.probs
        return np.sqrt(self.probs.T)[:, :, None] * differences

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """One of every choice, as indices [B, number of choices]."""
        choices = np.split(self.logits, np.cumsum(self.sizes)[:-1], axis=1)
        return np.stack([(logits - np.log(rng.exponential(size=logits.shape))).argmax(1) for logits in choices], axis=1)


class Bernoulli(Discrete):
    """Several binary actions, independent given the state. T(a) = a.

    :param outputs: logits, [B, d]
    """

    def __init__(self, outputs: np.ndarray) -> None:
        self.parameters, self.logits = (outputs,), outputs
        self.probs = 0.5 * (1 + np.tanh(0.5 * outputs))
        self.log_partition = np.logaddexp(np.zeros_like(outputs), outputs)

    def __getitem__(self, rows: Any) -> "Bernoulli":
        return Bernoulli(self.logits[rows])

    def statistics(self, actions: np.ndarray) -> np.ndarray:
        """The actions themselves, 0 or 1, [B, d]."""
        return actions

    def information(self, changes: Arrays) -> Arrays:
        """p(1 − p)·u."""
        return (self.probs * (1 - self.probs) * changes[0],)

    def information_roots(self) -> np.ndarray:
        """√(p(1 − p))·e_i for every i."""
        return _diagonal_roots(np.sqrt(self.probs * (1 - self.probs)))

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """0 or 1, [B, d]."""
        return (rng.random(self.probs.shape) < self.probs).astype(self.probs.dtype)


class DiagGaussian(Head):
    """A Gaussian with independent dimensions, whose standard deviations are the same in all states.

    :param mean: μ, [B, d]
    :param log_std: log σ, [d]
    """

    def __init__(self, mean: np.ndarray, log_std: np.ndarray) -> None:
        self.parameters = self.mean, self.log_std = mean, log_std
        self.std = np.exp(log_std)

    def __getitem__(self, rows: Any) -> "DiagGaussian":
        return DiagGaussian(self.mean[rows], self.log_std)

    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """−½ Σ_d z² − Σ_d (log σ + ½ log 2π), with z = (a − μ)/σ; actions are [B, d]."""
        z = (actions - self.mean) / self.std
        return -0.5 * (z * z).sum(1) - (self.log_std.sum() + self.mean.dtype.type(0.5 * z.shape[1] * np.log(2 * np.pi)))

    def log_prob_vjp(self, actions: np.ndarray, c: np.ndarray) -> Arrays:
        """c·z/σ and Σ_b c·(z² − 1)."""
        z = (actions - self.mean) / self.std
        weighted = c[:, None] * z
        return weighted / self.std, (weighted * z).sum(0) - c.sum()

    def entropy(self) -> np.ndarray:
        """Σ_d (log σ + ½ log 2πe)."""
        constant = 0.5 * len(self.log_std) * np.log(2 * np.pi * np.e)
        return np.full(len(self.mean), self.log_std.sum() + constant, self.mean.dtype)

    def entropy_vjp(self, c: np.ndarray) -> Arrays:
        """0 and Σ_b c."""
        return np.zeros_like(self.mean), np.full_like(self.log_std, c.sum())

    def kl(self, old: "DiagGaussian") -> np.ndarray:
        """Σ_d [log(σ/σ_old) + (σ_old² + (μ − μ_old)²) / 2σ² − ½]."""
        ratio, shift = old.std / self.std, (self.mean - old.mean) / self.std
        return (self.log_std - old.log_std + 0.5 * (ratio * ratio - 1)).sum() + 0.5 * (shift * shift).sum(1)

    def kl_vjp(self, old: "DiagGaussian", c: np.ndarray) -> Arrays:
        """c·(μ − μ_old)/σ² and Σ_b c·(1 − (σ_old² + (μ − μ_old)²)/σ²)."""
        ratio, shift = old.std / self.std, (self.mean - old.mean) / self.std
        weighted = c[:, None] * shift
        return weighted / self.std, c.sum() * (1 - ratio * ratio) - (weighted * shift).sum(0)

    def information(self, changes: Arrays) -> Arrays:
        """u/σ² of the mean and, of all states together, 2·B·u of log σ."""
        of_mean, of_log_std = changes
        return of_mean / self.std / self.std, 2 * len(of_mean) * of_log_std

    def information_roots(self) -> np.ndarray:
        """e_i/σ_i for every i, of the mean."""
        return _diagonal_roots(np.broadcast_to(1 / self.std, self.mean.shape))

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """μ + σ·z, [B, d]."""
        return self.mean + self.std * rng.standard_normal(self.mean.shape).astype(self.mean.dtype)


def _diagonal_roots(roots: np.ndarray) -> np.ndarray:
    """One for every dimension, [d, B, d], of what is independent in all of them, [B, d]."""
    return np.eye(roots.shape[1], dtype=roots.dtype)[:, None] * roots
