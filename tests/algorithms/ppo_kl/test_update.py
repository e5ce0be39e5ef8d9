"""An update against one calculated by hand, in double precision.

The policies are linear in the observation, the optimiser is plain gradient descent, and every epoch is one minibatch.
Of the second epoch on, ratios differ from 1 and the penalty has a gradient.
"""

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces

from sb3_pg_ext import AdaptiveKLPPO

N_STEPS, N_EPOCHS, LEARNING_RATE = 32, 3, 0.2


class Softmax:
    """π(a|s) ∝ exp(w_a·s + b_a); methods give derivatives by the logits z, [B, 3]."""

    space = spaces.Discrete(3)

    def __init__(self, z, parameters):
        odds = np.exp(z)
        self.p = odds / odds.sum(1, keepdims=True)

    def log_prob(self, actions):
        return np.log(self.p[np.arange(len(self.p)), actions[:, 0].astype(int)])

    def score(self, actions):
        return np.eye(3)[actions[:, 0].astype(int)] - self.p, {}

    def kl_gradient(self, old):
        return self.p - old.p, {}

    def entropy_gradient(self):
        entropy = -(self.p * np.log(self.p)).sum(1, keepdims=True)
        return -self.p * (np.log(self.p) + entropy), {}


class Gaussian:
    """π(a|s) = N(w·s + b, diag(σ²)); methods give derivatives by the mean z, [B, 2], and by log σ, [B, 2]."""

    space = spaces.Box(-100, 100, (2,), np.float32)

    def __init__(self, z, parameters):
        self.mean, self.std = z, np.exp(parameters["log_std"])

    def log_prob(self, actions):
        return (-0.5 * ((actions - self.mean) / self.std) ** 2 - np.log(self.std)).sum(1) - np.log(2 * np.pi)

    def score(self, actions):
        z = (actions - self.mean) / self.std
        return z / self.std, {"log_std": z**2 - 1}

    def kl_gradient(self, old):
        difference = self.mean - old.mean
        return difference / self.std**2, {"log_std": 1 - (old.std**2 + difference**2) / self.std**2}

    def entropy_gradient(self):
        return np.zeros_like(self.mean), {"log_std": np.ones_like(self.mean)}


def clipped(x, eps):
    return x if eps is None else np.clip(x, -eps, eps)


def by_hand(kind, parameters, rollout, arguments):
    """The parameters after the update, and by how much the ratios have come away from 1."""
    obs, actions, advantages, returns, old_values = rollout
    eps, eps_vf, max_norm = (arguments.get(key) for key in ("clip_range", "clip_range_vf", "max_grad_norm"))
    if arguments.get("normalize_advantage"):
        advantages = (advantages - advantages.mean()) / advantages.std(ddof=1)
    old = None
    for _ in range(N_EPOCHS):
        z = obs @ parameters["action_net.weight"].T + parameters["action_net.bias"]
        policy = kind(z, parameters)
        old = old or policy
        ratios = np.exp(policy.log_prob(actions) - old.log_prob(actions))
        weights = ratios * advantages
        if eps is not None:
            # No gradient where the clipped objective is the smaller one.
            weights = np.where(np.clip(ratios, 1 - eps, 1 + eps) * advantages < weights, 0, weights)
        terms = [
            (-weights[:, None], policy.score(actions)),
            (arguments["kl_coef"], policy.kl_gradient(old)),
            (-arguments.get("ent_coef", 0.0), policy.entropy_gradient()),
        ]
        by_output = sum(weight * gradient for weight, (gradient, _) in terms) / len(obs)
        gradient = {"action_net.weight": by_output.T @ obs, "action_net.bias": by_output.sum(0)}
        for weight, (_, further) in terms:
            for name, array in further.items():
                gradient[name] = gradient.get(name, 0) + (weight * array).mean(0)

        moved = obs @ parameters["value_net.weight"][0] + parameters["value_net.bias"] - old_values
        error = old_values + clipped(moved, eps_vf) - returns
        by_value = 0.5 * 2 * error * (clipped(moved, eps_vf) == moved) / len(obs)
        gradient |= {"value_net.weight": by_value[None] @ obs, "value_net.bias": by_value.sum(keepdims=True)}

        norm = np.sqrt(sum((array**2).sum() for array in gradient.values()))
        scale = 1.0 if max_norm is None else min(1.0, max_norm / norm)
        parameters = {name: parameters[name] - LEARNING_RATE * scale * gradient[name] for name in parameters}
    return parameters, np.abs(ratios - 1).max()


CASES = {
    "no penalty": {"kl_coef": 0.0},
    "fixed penalty": {"kl_coef": 2.0},
    "penalty and clipping": {"kl_coef": 0.5, "clip_range": 0.05},
    "clipping": {"kl_coef": 0.0, "clip_range": 0.1},
    "clipped critic": {"kl_coef": 0.0, "clip_range_vf": 0.02},
    "entropy bonus": {"kl_coef": 1.0, "ent_coef": 0.3},
    "normalised advantages": {"kl_coef": 1.0, "normalize_advantage": True},
    "clipped gradient": {"kl_coef": 1.0, "max_grad_norm": 0.3},
}


@pytest.mark.parametrize("kind", [Softmax, Gaussian])
@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_parameters_after_an_update(kind, arguments):
    model = AdaptiveKLPPO(
        "MlpPolicy",
        RandomEnv(kind.space),
        learning_rate=LEARNING_RATE,
        n_steps=N_STEPS,
        batch_size=N_STEPS,
        n_epochs=N_EPOCHS,
        adaptive_kl=False,
        policy_kwargs={"net_arch": [], "optimizer_class": th.optim.SGD},
        seed=1,
        device="cpu",
        **{"normalize_advantage": False, "max_grad_norm": None, **arguments},
    )
    before = parameters_of(model)
    model.learn(N_STEPS)
    buffer = model.rollout_buffer
    rollout = [
        getattr(buffer, name)[:, 0].astype(np.float64)
        for name in ("observations", "actions", "advantages", "returns", "values")
    ]
    expected, largest_change = by_hand(kind, before, rollout, arguments)
    assert largest_change > 0.01
    after = parameters_of(model)
    for name, array in expected.items():
        assert not np.allclose(array, before[name], atol=1e-4), name
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=2e-6, err_msg=name)


def parameters_of(model):
    return {name: p.detach().double().numpy() for name, p in model.policy.named_parameters()}
