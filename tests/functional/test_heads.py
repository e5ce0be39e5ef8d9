"""Action distributions in NumPy against PyTorch's, and against sums over all actions, in double precision."""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, kl_divergence

from sb3_pg_ext.functional.heads import Bernoulli, Categorical, DiagGaussian


class Choices(NamedTuple):
    """Discrete actions with these numbers of choices."""

    sizes: tuple[int, ...]

    @property
    def shapes(self):
        return ((sum(self.sizes),),)

    def ours(self, outputs):
        return Categorical(outputs, self.sizes)

    def theirs(self, outputs):
        return [TorchCategorical(logits=part) for part in outputs.split(self.sizes, dim=1)]

    def sample(self, rng, parameters):
        return rng.integers(0, self.sizes, size=(len(parameters[0]), len(self.sizes)))

    def expectation(self, parameters):
        return enumerate_all(self, parameters, product(*map(range, self.sizes)), int)


class Switches(NamedTuple):
    """So many binary actions."""

    n: int

    @property
    def shapes(self):
        return ((self.n,),)

    def ours(self, outputs):
        return Bernoulli(outputs)

    def theirs(self, outputs):
        return [TorchBernoulli(logits=column) for column in outputs.unbind(1)]

    def sample(self, rng, parameters):
        return rng.integers(0, 2, parameters[0].shape).astype(parameters[0].dtype)

    def expectation(self, parameters):
        return enumerate_all(self, parameters, product((0, 1), repeat=self.n), float)


class Gaussian(NamedTuple):
    """A Gaussian of so many dimensions."""

    n: int

    @property
    def shapes(self):
        return (self.n,), (self.n,)

    def ours(self, mean, log_std):
        return DiagGaussian(mean, log_std)

    def theirs(self, mean, log_std):
        return [Normal(*pair) for pair in zip(mean.unbind(1), log_std.exp(), strict=True)]

    def sample(self, rng, parameters):
        return rng.normal(size=parameters[0].shape).astype(parameters[0].dtype)

    def expectation(self, parameters):
        """Gauss–Hermite quadrature, exact here, since nothing is of a higher order than z⁴."""
        mean, log_std = parameters
        nodes, weights = np.polynomial.hermite.hermgauss(4)
        for z, w in zip(product(nodes, repeat=self.n), product(weights, repeat=self.n), strict=True):
            weight = np.prod(w) / np.pi ** (self.n / 2)
            yield np.full(len(mean), weight), mean + np.sqrt(2) * np.exp(log_std) * z


def enumerate_all(kind, parameters, actions, dtype):
    """Pairs of π(a|s), [B], and a, [B, action_dim], over all actions."""
    for action in actions:
        repeated = np.tile(np.array(action, dtype), (len(parameters[0]), 1))
        yield their_log_prob(kind, tensors(parameters), repeated).exp().numpy(), repeated


KINDS = {
    "Categorical": Choices((4,)),
    "one choice": Choices((1,)),
    "MultiCategorical": Choices((3, 2, 4)),
    "MultiCategorical of equal sizes": Choices((2, 2)),
    "Bernoulli": Switches(3),
    "DiagGaussian": Gaussian(2),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
BATCH = 5


def draw(kind, seed, scale=1.0, batch=BATCH):
    """Parameters: the outputs, [batch, k], and log σ, [d], where there is one."""
    rng = np.random.default_rng(seed)
    of_outputs, *of_shared = kind.shapes
    return scale * rng.normal(size=(batch, *of_outputs)), *(0.5 * rng.normal(size=shape) for shape in of_shared)


def tensors(parameters):
    return tuple(th.tensor(p) for p in parameters)


def their_log_prob(kind, parameters, actions):
    columns = th.from_numpy(actions).unbind(1)
    return sum(part.log_prob(a) for part, a in zip(kind.theirs(*parameters), columns, strict=True))


def their_entropy(kind, parameters):
    return sum(part.entropy() for part in kind.theirs(*parameters))


def their_kl(kind, old, new):
    return sum(kl_divergence(p, q) for p, q in zip(kind.theirs(*old), kind.theirs(*new), strict=True))


def assert_close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def assert_all_close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert np.shape(one) == np.shape(other)
        assert_close(one, other)


@each_kind
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 0.1, 1.0, 5.0]), batch=st.integers(1, 4))
def test_numbers_against_torch(kind, seed, scale, batch):
    old, new = draw(kind, seed, scale, batch), draw(kind, [seed, 1], scale, batch)
    actions, ours = kind.sample(np.random.default_rng(seed), new), kind.ours(*new)
    assert_close(ours.log_prob(actions), their_log_prob(kind, tensors(new), actions))
    assert_close(ours.entropy(), their_entropy(kind, tensors(new)))
    assert_close(ours.kl(kind.ours(*old)), their_kl(kind, tensors(old), tensors(new)))
    for numbers in (ours.log_prob(actions), ours.entropy(), ours.kl(kind.ours(*old))):
        assert numbers.shape == (batch,)


@each_kind
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 5.0]), batch=st.integers(1, 4))
def test_products_against_autograd(kind, seed, scale, batch):
    old, new = draw(kind, seed, scale, batch), draw(kind, [seed, 1], scale, batch)
    rng = np.random.default_rng(seed)
    actions, c, ours = kind.sample(rng, new), rng.normal(size=batch), kind.ours(*new)

    def gradient(function):
        variables = [p.requires_grad_() for p in tensors(new)]
        return th.autograd.grad(function(variables) @ th.from_numpy(c), variables, materialize_grads=True)

    assert_all_close(ours.log_prob_vjp(actions, c), gradient(lambda p: their_log_prob(kind, p, actions)))
    # The entropy of a Gaussian does not depend on the mean, not even for autograd, hence the 0·p.
    assert_all_close(ours.entropy_vjp(c), gradient(lambda p: their_entropy(kind, p) + 0 * p[0].sum(1)))
    assert_all_close(ours.kl_vjp(kind.ours(*old), c), gradient(lambda p: their_kl(kind, tensors(old), p)))


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def of_flat_vector(kind, parameters, function):
    """A function of the parameters as one of all their numbers in one tensor, and this tensor."""
    sizes, shapes = [p.size for p in parameters], [p.shape for p in parameters]

    def of_vector(vector):
        return function([piece.view(shape) for piece, shape in zip(vector.split(sizes), shapes, strict=True)])

    return of_vector, th.from_numpy(flat(parameters))


def assert_is_information(kind, parameters, matrix):
    rng = np.random.default_rng(7)
    for _ in range(3):
        changes = tuple(rng.normal(size=p.shape) for p in parameters)
        result = kind.ours(*parameters).information(changes)
        assert [array.shape for array in result] == [p.shape for p in parameters]
        assert_close(flat(result), matrix @ flat(changes))


@each_kind
def test_information_is_the_expectation_of_squared_scores(kind):
    """Σ_b E[∇log π(a|s_b) ∇log π(a|s_b)ᵀ], in all parameters of all states."""
    parameters, matrix = draw(kind, 0), 0
    for weights, actions in kind.expectation(parameters):
        function, vector = of_flat_vector(kind, parameters, lambda p, a=actions: their_log_prob(kind, p, a))
        scores = th.autograd.functional.jacobian(function, vector).numpy()
        matrix = matrix + scores.T @ (weights[:, None] * scores)
    assert_is_information(kind, parameters, matrix)


@each_kind
def test_information_is_the_curvature_of_the_divergence(kind):
    parameters = draw(kind, 1)
    function, vector = of_flat_vector(
        kind, parameters, lambda p: their_kl(kind, tensors(parameters), p).sum() + 0 * sum(q.sum() for q in p)
    )
    assert_is_information(kind, parameters, th.autograd.functional.hessian(function, vector).numpy())


@each_kind
def test_definitions(kind):
    """Σ π = 1, H = −E[log π], KL(old‖π) = E_old[log π_old − log π], E[∇log π] = 0."""
    old, new = draw(kind, 0), draw(kind, 1)
    old_head, head = kind.ours(*old), kind.ours(*new)
    pairs = list(kind.expectation(new))
    assert_close(sum(weights for weights, _ in pairs), np.ones(BATCH))
    assert_close(sum(-weights * head.log_prob(a) for weights, a in pairs), head.entropy())
    scores = zip(*(head.log_prob_vjp(a, weights) for weights, a in pairs), strict=True)
    assert_all_close(map(sum, scores), [np.zeros_like(p) for p in new])
    terms = (weights * (old_head.log_prob(a) - head.log_prob(a)) for weights, a in kind.expectation(old))
    assert_close(sum(terms), head.kl(old_head))


@each_kind
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-4, 1.0, 100.0]))
def test_divergence_is_positive(kind, seed, scale):
    old, new = draw(kind, seed), draw(kind, seed)
    moved = tuple(p + scale * q for p, q in zip(new, draw(kind, [seed, 1]), strict=True))
    assert (kind.ours(*moved).kl(kind.ours(*old)) >= -1e-13).all()
    np.testing.assert_allclose(kind.ours(*new).kl(kind.ours(*old)), 0, atol=1e-14)
    c = np.ones(BATCH)
    assert_all_close(kind.ours(*new).kl_vjp(kind.ours(*old), c), [np.zeros_like(p) for p in new])


def test_by_hand():
    thirds = Categorical(np.log([[1.0, 2.0]]) + 7, (2,))
    np.testing.assert_allclose(thirds.log_prob(np.array([[1]])), np.log(2 / 3))
    np.testing.assert_allclose(thirds.entropy(), np.log(3) - 2 / 3 * np.log(2))
    even = Categorical(np.zeros((1, 2)), (2,))
    np.testing.assert_allclose(thirds.kl(even), 0.5 * np.log(3 / 2) + 0.5 * np.log(3 / 4))
    np.testing.assert_allclose(even.kl(thirds), 1 / 3 * np.log(2 / 3) + 2 / 3 * np.log(4 / 3))
    coin = Bernoulli(np.log([[2.0, 1.0]]))
    np.testing.assert_allclose(coin.log_prob(np.array([[0.0, 1.0]])), np.log(1 / 3) + np.log(1 / 2))
    np.testing.assert_allclose(coin.entropy(), np.log(3) - 2 / 3 * np.log(2) + np.log(2))
    normal, wide = (DiagGaussian(np.zeros((1, 1)), np.log([deviation])) for deviation in (1.0, 2.0))
    np.testing.assert_allclose(normal.log_prob(np.array([[2.0]])), -2 - 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(wide.entropy(), np.log(2) + 0.5 * np.log(2 * np.pi * np.e))
    np.testing.assert_allclose(wide.kl(normal), np.log(2) + 1 / 8 - 1 / 2)
    np.testing.assert_allclose(normal.kl(wide), -np.log(2) + 2 - 1 / 2)


@each_kind
@pytest.mark.parametrize("rows", [np.array([3, 0, 3]), slice(1, 3)], ids=["indices", "slice"])
def test_rows(kind, rows):
    outputs, *shared = draw(kind, 0)
    some, same = kind.ours(outputs, *shared)[rows], kind.ours(outputs[rows], *shared)
    actions = kind.sample(np.random.default_rng(0), same.parameters)
    assert_all_close(some.parameters, same.parameters)
    assert_close(some.log_prob(actions), same.log_prob(actions))
    assert_close(some.entropy(), same.entropy())
    other = draw(kind, 1)
    assert_close(
        kind.ours(other[0][rows], *other[1:]).kl(some), kind.ours(*other).kl(kind.ours(outputs, *shared))[rows]
    )


def test_choices_far_apart():
    head = Categorical(np.array([[0.0, -1e4, 1e4, 0.0]]), (2, 2))
    np.testing.assert_array_equal(head.log_prob(np.array([[0, 0]])), [0])
    np.testing.assert_array_equal(head.log_prob(np.array([[1, 1]])), [-2e4])
    np.testing.assert_array_equal(head.entropy(), [0])
    even = Categorical(np.zeros((1, 4)), (2, 2))
    np.testing.assert_allclose(head.kl(even), -2 * np.log(2) + 1e4)
    np.testing.assert_allclose(even.kl(head), 2 * np.log(2))
    assert_all_close(head.log_prob_vjp(np.array([[1, 1]]), np.ones(1)), [[[-1, 1, -1, 1]]])
    assert_all_close(head.entropy_vjp(np.ones(1)), [np.zeros((1, 4))])


def test_switches_far_apart():
    head, even = Bernoulli(np.array([[1e4, -1e4]])), Bernoulli(np.zeros((1, 2)))
    np.testing.assert_array_equal(head.log_prob(np.array([[1.0, 0.0]])), [0])
    np.testing.assert_array_equal(head.log_prob(np.array([[0.0, 1.0]])), [-2e4])
    np.testing.assert_array_equal(head.entropy(), [0])
    np.testing.assert_allclose(head.kl(even), -2 * np.log(2) + 1e4)
    np.testing.assert_allclose(even.kl(head), 2 * np.log(2))
    assert_all_close(head.log_prob_vjp(np.array([[0.0, 1.0]]), np.ones(1)), [[[-1, 1]]])
    assert_all_close(head.entropy_vjp(np.ones(1)), [np.zeros((1, 2))])


@pytest.mark.parametrize("kind", [Choices((2, 2)), Switches(4)])
def test_large_logits_swamp_no_small_ones(kind):
    outputs = np.array([[3e3, 0, 0.1, 0.2]], np.float32)
    actions = np.array([[0, 1]]) if isinstance(kind, Choices) else np.array([[1.0, 0, 1, 1]], np.float32)
    exact = kind.ours(outputs.astype(np.float64))
    for result, expected in [
        (kind.ours(outputs).log_prob(actions), exact.log_prob(actions)),
        (kind.ours(outputs).entropy(), exact.entropy()),
        (kind.ours(outputs).kl(kind.ours(0.99 * outputs)), exact.kl(kind.ours((0.99 * outputs).astype(np.float64)))),
    ]:
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_small_and_large_deviations():
    log_std, z = np.array([-30.0, 30.0]), np.array([[1.0, -2.0]])
    head = DiagGaussian(np.zeros((1, 2)), log_std)
    np.testing.assert_allclose(head.log_prob(np.exp(log_std) * z), -2.5 - np.log(2 * np.pi))
    np.testing.assert_allclose(head.entropy(), np.log(2 * np.pi * np.e))
    shifted = DiagGaussian(np.array([[0.0, 3 * np.exp(30)]]), log_std)
    np.testing.assert_allclose(shifted.kl(head), [4.5])


@each_kind
@np.errstate(invalid="ignore")
def test_not_a_number_stays_in_its_row(kind):
    outputs, *shared = draw(kind, 0)
    outputs[1, 0] = np.nan
    head, old = kind.ours(outputs, *shared), kind.ours(*draw(kind, 1))
    actions = kind.sample(np.random.default_rng(0), head.parameters)
    for numbers in (head.log_prob(actions), head.kl(old), old.kl(head)):
        np.testing.assert_array_equal(np.isnan(numbers), [False, True, False, False, False])


@each_kind
def test_single_precision_stays_single(kind):
    old, new = (kind.ours(*(p.astype(np.float32) for p in draw(kind, seed))) for seed in (0, 1))
    actions, c = kind.sample(np.random.default_rng(0), new.parameters), np.ones(BATCH, np.float32)
    numbers = new.log_prob(actions), new.entropy(), new.kl(old)
    products = new.log_prob_vjp(actions, c), new.entropy_vjp(c), new.kl_vjp(old, c), new.information(new.parameters)
    arrays = [*numbers, *(array for arrays in products for array in arrays)]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@each_kind
def test_arguments_are_left_alone(kind):
    old, new, changes = draw(kind, 0), draw(kind, 1), draw(kind, 2)
    rng = np.random.default_rng(0)
    actions, c = kind.sample(rng, new), rng.normal(size=BATCH)
    arguments = [*old, *new, *changes, actions, c]
    before = [array.copy() for array in arguments]
    head, old_head = kind.ours(*new), kind.ours(*old)

    def everything():
        numbers = head.log_prob(actions), head.entropy(), head.kl(old_head)
        products = head.log_prob_vjp(actions, c), head.entropy_vjp(c), head.kl_vjp(old_head, c)
        return [*numbers, *(a for arrays in (*products, head.information(changes)) for a in arrays)]

    for first, second in zip(everything(), everything(), strict=True):
        np.testing.assert_array_equal(first, second)
    for array, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_logit_of_minus_infinity_makes_a_choice_impossible():
    """Against the distribution over the choices that are left, in double precision."""
    rng = np.random.default_rng(0)
    outputs, c = rng.normal(size=(6, 5)), rng.normal(size=6)
    allowed = np.array([True, False, True, False, True])
    masked = np.where(allowed, outputs, -np.inf)
    head, left = Categorical(masked, (5,)), Categorical(outputs[:, allowed], (3,))
    old_left = Categorical(rng.normal(size=(6, 3)), (3,))
    old_outputs = np.full((6, 5), -np.inf)
    old_outputs[:, allowed] = old_left.parameters[0]
    old = Categorical(old_outputs, (5,))
    actions, actions_left = np.full((6, 1), 2), np.full((6, 1), 1)
    assert (head.probs[:, ~allowed] == 0).all()
    np.testing.assert_allclose(head.log_prob(actions), left.log_prob(actions_left), rtol=1e-12)
    np.testing.assert_allclose(head.entropy(), left.entropy(), rtol=1e-12)
    np.testing.assert_allclose(head.kl(old), left.kl(old_left), rtol=1e-12)
    for ours, theirs in (
        (head.log_prob_vjp(actions, c), left.log_prob_vjp(actions_left, c)),
        (head.entropy_vjp(c), left.entropy_vjp(c)),
        (head.kl_vjp(old, c), left.kl_vjp(old_left, c)),
        (head.information((outputs,)), left.information((outputs[:, allowed],))),
    ):
        np.testing.assert_allclose(ours[0][:, allowed], theirs[0], rtol=1e-9, atol=1e-12)
        assert (ours[0][:, ~allowed] == 0).all()
    assert (head.log_prob(np.ones((6, 1), int)) == -np.inf).all()
    assert (head.kl(Categorical(outputs, (5,))) == np.inf).all()
    assert np.isfinite(Categorical(outputs, (5,)).kl(head)).all()
    assert (head[:2].kl(old[:2]) == head.kl(old)[:2]).all()


def test_impossible_choices_among_several():
    outputs = np.array([[0.0, -np.inf, 1.0, 2.0, -np.inf]], np.float32)
    head = Categorical(outputs, (2, 3))
    np.testing.assert_allclose(head.probs, [[1, 0, 0.26894143, 0.7310586, 0]], rtol=1e-6)
    np.testing.assert_allclose(head.log_prob(np.array([[0, 1]])), np.log([0.7310586]), rtol=1e-5)
    assert np.isfinite(head.entropy()).all()
