"""Fisher products in double precision: against the definition, and against the Hessian of the KL.

In the definition the expectation over actions is taken by enumeration, or by Gauss–Hermite quadrature.
"""

from itertools import product

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.distributions import Bernoulli, Beta, Categorical, Normal
from torch.func import functional_call

from sb3_pg_ext.functional.tensors.curvature import fisher_product
from sb3_pg_ext.functional.tensors.distributions import snapshot
from sb3_pg_ext.functional.tensors.divergences import kl
from sb3_pg_ext.functional.tensors.solvers import conjugate_gradients
from sb3_pg_ext.functional.tensors.vectors import flatten, split_like

SIZES = (3, 2)  # of two discrete actions
BATCH = 4


class Policy(nn.Module):
    """Observations [B, 3] → an action distribution; ``expect`` gives the terms (weight, log π) of its expectation."""

    def __init__(self, n_outputs):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, n_outputs))
        self.log_std = nn.Parameter(th.tensor([-0.5, 0.3]))


class Discrete(Policy):
    def forward(self, obs):
        return Categorical(logits=self.net(obs))

    def expect(self, distribution):
        return [(distribution.probs[:, a], distribution.logits[:, a]) for a in range(distribution.logits.shape[1])]


class MultiDiscrete(Policy):
    def forward(self, obs):
        return [Categorical(logits=part) for part in self.net(obs).split(SIZES, dim=1)]

    def expect(self, distributions):
        log_probs = [
            sum(part.logits[:, a] for part, a in zip(distributions, actions, strict=True))
            for actions in product(*map(range, SIZES))
        ]
        return [(log_prob.exp(), log_prob) for log_prob in log_probs]


class MultiBinary(Policy):
    def forward(self, obs):
        return Bernoulli(logits=self.net(obs))

    def expect(self, distribution):
        words = product((0.0, 1.0), repeat=distribution.logits.shape[1])
        log_probs = [distribution.log_prob(th.tensor(word).expand(BATCH, -1)).sum(1) for word in words]
        return [(log_prob.exp(), log_prob) for log_prob in log_probs]


class Gaussian(Policy):
    """Five nodes integrate the products of two scores, polynomials of degree 4, without error."""

    def forward(self, obs):
        return Normal(self.net(obs), th.ones(len(obs), 1) * self.log_std.exp())

    def expect(self, distribution):
        nodes, weights = np.polynomial.hermite_e.hermegauss(5)
        weights = weights / weights.sum()
        terms = []
        for i, j in product(range(5), repeat=2):
            noise = th.tensor([nodes[i], nodes[j]])
            actions = (distribution.loc + distribution.scale * noise).detach()
            terms.append((th.tensor(weights[i] * weights[j]).expand(BATCH), distribution.log_prob(actions).sum(1)))
        return terms


class StateDependentGaussian(Gaussian):
    def forward(self, obs):
        mean, difference = self.net(obs).chunk(2, dim=1)
        return Normal(mean, (self.log_std + difference).clamp(-2, 1).exp())


KINDS = {
    "Categorical": lambda: Discrete(4),
    "MultiCategorical": lambda: MultiDiscrete(sum(SIZES)),
    "Bernoulli": lambda: MultiBinary(3),
    "Normal": lambda: Gaussian(2),
    "Normal with state-dependent deviation": lambda: StateDependentGaussian(4),
}


@pytest.fixture(autouse=True)
def double_precision():
    th.set_default_dtype(th.float64)
    with th.random.fork_rng():
        th.manual_seed(0)
        yield
    th.set_default_dtype(th.float32)


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def policy(request):
    return request.param()


@pytest.fixture
def obs():
    return 2 * th.randn(BATCH, 3)


def actor_parameters(policy):
    return list(policy.parameters()) if isinstance(policy, Gaussian) else list(policy.net.parameters())


def dense(products, n):
    return th.stack([products(unit) for unit in th.eye(n)], dim=1)


def fisher_by_definition(policy, obs, parameters):
    total = 0
    for weights, log_probs in policy.expect(policy(obs)):
        for weight, log_prob in zip(weights.detach(), log_probs, strict=True):
            score = flatten(th.autograd.grad(log_prob, parameters, retain_graph=True))
            total = total + weight * th.outer(score, score)
    return total / len(obs)


def hessian_of_kl(policy, obs, parameters):
    names = [name for name, p in policy.named_parameters() if any(p is other for other in parameters)]
    parameters = [policy.get_parameter(name) for name in names]
    old = snapshot(policy(obs))

    def divergence(vector):
        replaced = dict(zip(names, split_like(vector, parameters), strict=True))
        return kl(old, functional_call(policy, replaced, (obs,))).mean()

    return th.autograd.functional.hessian(divergence, flatten(parameters).detach())


def test_against_the_definition(policy, obs):
    parameters = actor_parameters(policy)
    products = fisher_product(policy(obs), parameters)
    expected = fisher_by_definition(policy, obs, parameters)
    assert expected.abs().max() > 0.01
    th.testing.assert_close(dense(products, len(expected)), expected, rtol=1e-10, atol=1e-12)


def test_against_the_hessian_of_the_kl(policy, obs):
    parameters = actor_parameters(policy)
    expected = hessian_of_kl(policy, obs, parameters)
    products = fisher_product(policy(obs), parameters)
    th.testing.assert_close(dense(products, len(expected)), expected, rtol=1e-8, atol=1e-10)


def test_the_matrix_is_symmetric_and_positive_semi_definite(policy, obs):
    parameters = actor_parameters(policy)
    matrix = dense(fisher_product(policy(obs), parameters), sum(p.numel() for p in parameters))
    th.testing.assert_close(matrix, matrix.T, rtol=1e-12, atol=1e-13)
    assert th.linalg.eigvalsh(matrix).min() > -1e-12


def test_the_batch_is_averaged(policy, obs):
    parameters = actor_parameters(policy)
    v = th.randn(sum(p.numel() for p in parameters))
    single = [fisher_product(policy(o[None]), parameters)(v) for o in obs]
    th.testing.assert_close(fisher_product(policy(obs), parameters)(v), sum(single) / len(obs), rtol=1e-10, atol=1e-12)


def test_logits_may_be_shifted(obs):
    """Only differences of logits count, and so only those are measured."""
    logits = th.randn(BATCH, 3, requires_grad=True)
    products = fisher_product(Categorical(logits=logits), [logits])
    th.testing.assert_close(products(th.ones(BATCH * 3)), th.zeros(BATCH * 3), rtol=0, atol=1e-14)


def test_a_fixed_deviation_plays_no_part(obs):
    net = nn.Linear(3, 2)
    parameters = list(net.parameters())
    v = th.randn(8)
    fixed = fisher_product(Normal(net(obs), 2 * th.ones(2)), parameters)(v)
    unit = fisher_product(Normal(net(obs), th.ones(2)), parameters)(v)
    th.testing.assert_close(fixed, unit / 4)


def test_a_convolution():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    images, parameters = th.rand(BATCH, 1, 5, 5), list(net.parameters())
    v = th.randn(sum(p.numel() for p in parameters))
    old = Categorical(logits=net(images).detach())
    gradient = flatten(th.autograd.grad(kl(old, Categorical(logits=net(images))).mean(), parameters, create_graph=True))
    expected = flatten(th.autograd.grad(gradient @ v, parameters))
    # For a piecewise linear network the Hessian of the KL has no other part.
    th.testing.assert_close(fisher_product(Categorical(logits=net(images)), parameters)(v), expected)


def test_nothing_is_left_on_the_parameters(policy, obs):
    parameters = actor_parameters(policy)
    fisher_product(policy(obs), parameters)(th.randn(sum(p.numel() for p in parameters)))
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("log_std", [-57.0, 57.0])
def test_extreme_deviations_neither_overflow_nor_underflow(log_std):
    """The information of log σ is 2, whatever it is."""
    log_std = th.full((1, 1), log_std, dtype=th.float32, requires_grad=True)
    distribution = Normal(th.zeros(1, 1, dtype=th.float32), log_std.exp())
    assert float(fisher_product(distribution, [log_std])(th.ones(1, dtype=th.float32))) == pytest.approx(2)


def test_an_unknown_distribution():
    x = th.ones(2, 1, requires_grad=True)
    with pytest.raises(TypeError, match="Beta is not known"):
        fisher_product(Beta(x, x), [x])


def test_natural_gradients_do_not_depend_on_the_coordinates(obs):
    """With θ = M φ, F⁻¹g in φ is M⁻¹ times that in θ: the distribution changes in the same way."""
    mixing = th.randn(6, 6)
    theta = th.randn(6, requires_grad=True)
    phi = th.linalg.solve(mixing, theta.detach()).requires_grad_()
    advantages = th.tensor([1.0, -2.0, 0.5, 0.3])

    def natural_gradient(parameter, weights):
        distribution = Normal(th.tanh(obs) @ weights.view(3, 2), th.tensor([0.5, 1.5]))
        objective = (distribution.log_prob(th.ones(BATCH, 2)).sum(1) * advantages).mean()
        (gradient,) = th.autograd.grad(objective, parameter, retain_graph=True)
        return conjugate_gradients(fisher_product(distribution, [parameter]), gradient, 60, tolerance=1e-13).x

    in_theta, in_phi = natural_gradient(theta, theta), natural_gradient(phi, mixing @ phi)
    th.testing.assert_close(mixing @ in_phi, in_theta, rtol=1e-6, atol=1e-8)
