"""Both ways of choosing actions sample the policy's own distribution."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy

from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.policies.evaluation import action_tensor
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import actor_layers
from sb3_pg_ext.rollouts.action_sampling import MLPActionSampler, PolicyActionSampler, make_action_sampler

N_ENVS, N_CALLS = 200, 100
VECTOR = OBSERVATION_SPACES["Box"]
DISCRETE = spaces.Discrete(3)
GAUSSIAN = spaces.Box(-9, 9, (2,), np.float32)


def make_policy(action_space, observation_space=VECTOR, cls=ActorCriticPolicy, **kwargs):
    th.manual_seed(1)
    policy = cls(observation_space, action_space, lambda _: 1e-3, net_arch=[], **kwargs)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(std=0.7)
    return policy


def make_path(policy, path, n_envs=N_ENVS):
    if path == "PolicyActionSampler":
        return PolicyActionSampler(policy)
    return MLPActionSampler(policy, actor_layers(policy), n_envs, n_steps=16)


def sample(policy, path):
    """20 000 actions in one state, and the distribution that they should have."""
    obs = np.tile(np.float32([0.3, -0.9, 0.5]), (N_ENVS, 1))
    act = make_path(policy, path)
    th.manual_seed(2)
    actions = np.concatenate([act(PolicyInputs(obs)) for _ in range(N_CALLS)])
    with th.no_grad():
        return actions, policy.get_distribution(th.as_tensor(obs[:1])).distribution


def assert_fits(counts, probabilities):
    """Pearson's χ², five standard deviations above its mean at most."""
    expected = counts.sum() * np.asarray(probabilities, float)
    statistic, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


each_path = pytest.mark.parametrize("path", ["MLPActionSampler", "PolicyActionSampler"])


@each_path
def test_categorical(path):
    actions, distribution = sample(make_policy(spaces.Discrete(4)), path)
    assert_fits(np.bincount(actions, minlength=4), distribution.probs[0])


@each_path
def test_multi_categorical(path):
    actions, (first, second) = sample(make_policy(spaces.MultiDiscrete([3, 2])), path)
    joint = np.outer(first.probs[0], second.probs[0]).ravel()
    assert_fits(np.bincount(actions[:, 0] * 2 + actions[:, 1], minlength=6), joint)


@each_path
def test_bernoulli(path):
    actions, distribution = sample(make_policy(spaces.MultiBinary(2)), path)
    one, other = distribution.probs[0].numpy()
    joint = np.outer([1 - one, one], [1 - other, other]).ravel()
    assert_fits(np.bincount((actions[:, 0] * 2 + actions[:, 1]).astype(int), minlength=4), joint)


@each_path
def test_gaussian(path):
    actions, distribution = sample(make_policy(GAUSSIAN), path)
    assert not th.equal(*distribution.scale[0])
    for actions_d, mean, std in zip(actions.T, distribution.loc[0], distribution.scale[0], strict=True):
        # Kolmogorov and Smirnov's distance; one sample in 30 000 is further away than 2.3/√n.
        reached = th.distributions.Normal(mean, std).cdf(th.as_tensor(np.sort(actions_d))).numpy()
        n = len(reached)
        distance = np.abs(reached - (np.arange(n) + 0.5) / n).max()
        assert distance < 2.3 / np.sqrt(n)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 5 / np.sqrt(len(actions))


@each_path
@pytest.mark.parametrize("name", ACTION_SPACES)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_shapes_and_types(path, name, n_envs):
    space = ACTION_SPACES[name]
    act = make_path(make_policy(space), path, n_envs)
    actions = act(PolicyInputs(np.zeros((n_envs, 3), np.float32)))
    assert actions.shape == (n_envs, *space.shape)
    assert actions.dtype.kind == ("f" if name == "MultiBinary" else np.dtype(space.dtype).kind)  # as in SB3


@each_path
def test_the_seed_decides(path):
    policy = make_policy(GAUSSIAN)
    assert np.array_equal(*(sample(policy, path)[0] for _ in range(2)))


def test_noise_is_not_used_twice():
    act, _ = make_action_sampler(make_policy(GAUSSIAN), n_envs=2, n_steps=None)
    seen = np.concatenate([act(PolicyInputs(np.zeros((2, 3), np.float32))) for _ in range(600)])
    assert len(np.unique(seen[:, 0])) == 1200


def test_two_actions_that_are_certain():
    policy = make_policy(DISCRETE)
    with th.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(th.tensor([-1e4, 1e4, -1e4]))
    for path in ("MLPActionSampler", "PolicyActionSampler"):
        actions, _ = sample(policy, path)
        assert (actions == 1).all()


@each_path
@pytest.mark.parametrize("name", ACTION_SPACES)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_bad_outputs_are_caught(path, name, number):
    policy = make_policy(ACTION_SPACES[name])
    with th.no_grad():
        policy.action_net.bias[0] = number
    if path == "PolicyActionSampler" and number == -np.inf and name in ("Discrete", "MultiDiscrete"):
        act = make_path(policy, path, 2)  # it is a choice that is never made
        first = [act(PolicyInputs(np.zeros((2, 3), np.float32))).reshape(2, -1)[:, 0] for _ in range(50)]
        assert 0 not in np.array(first)
        return
    with pytest.raises(NonFiniteError, match="policy output"):
        make_path(policy, path, 2)(PolicyInputs(np.zeros((2, 3), np.float32)))


@each_path
def test_bad_observations_are_caught(path):
    act = make_path(make_policy(DISCRETE), path, 2)
    obs = np.zeros((2, 3), np.float32)
    obs[1, 2] = np.nan
    problem = "observation nan in environment 1" if path == "MLPActionSampler" else "policy output.* distribution"
    with pytest.raises(NonFiniteError, match=problem):
        act(PolicyInputs(obs))


@pytest.mark.parametrize("space", [GAUSSIAN, DISCRETE, spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])])
def test_noise_goes_on_from_rollout_to_rollout(space):
    policy, obs = make_policy(space), np.ones((4, 3), np.float32)
    layers = actor_layers(policy)
    th.manual_seed(3)
    in_one = MLPActionSampler(policy, layers, 4, 10)
    at_once = [in_one(PolicyInputs(obs)) for _ in range(10)]
    th.manual_seed(3)
    rollouts = (MLPActionSampler(policy, layers, 4, 5) for _ in range(2))
    np.testing.assert_array_equal([act(PolicyInputs(obs)) for act in rollouts for _ in range(5)], at_once)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1000.0])
def test_bad_deviations_are_caught(number):
    policy = make_policy(GAUSSIAN)
    with th.no_grad():
        policy.log_std[1] = number
    with pytest.raises(NonFiniteError, match="standard deviation"):
        make_path(policy, "MLPActionSampler")
    with pytest.raises(NonFiniteError, match="policy output"):
        PolicyActionSampler(policy)(PolicyInputs(np.zeros((2, 3), np.float32)))


def test_large_outputs_are_not_bad():
    policy = make_policy(DISCRETE)
    with th.no_grad():
        policy.action_net.bias.copy_(th.tensor([1e30, -1e30, 0.0]))  # their squares are beyond float32
    assert (sample(policy, "MLPActionSampler")[0] == 0).all()


class Always(ActorCriticPolicy):
    """Overrides ``forward``, and with it what is done."""

    def forward(self, obs, deterministic=False):
        _, values, log_probs = super().forward(obs, deterministic)
        return th.full((len(obs),), 2), values, log_probs


def with_other_forward(policy):
    policy.forward = lambda obs: (th.full((len(obs),), 2), None, None)
    return policy


@pytest.mark.parametrize(
    "make", [lambda: make_policy(DISCRETE, cls=Always), lambda: with_other_forward(make_policy(DISCRETE))]
)
def test_a_policy_that_overrides_forward_acts_by_it(make):
    act, path = make_action_sampler(make(), n_envs=5, n_steps=None)
    assert "it overrides forward()" in path
    assert act(PolicyInputs(np.zeros((5, 3), np.float32))).tolist() == [2] * 5


def test_dictionaries():
    space = spaces.Dict({"vector": VECTOR, "number": spaces.Discrete(3)})
    policy = make_policy(DISCRETE, space, MultiInputActorCriticPolicy)
    act, _ = make_action_sampler(policy, n_envs=4, n_steps=None)
    obs = {"vector": np.zeros((4, 3), np.float32), "number": np.array([0, 1, 2, 0])}
    assert act(PolicyInputs(obs)).shape == (4,)


@pytest.mark.parametrize("squash", [False, True])
def test_state_dependent_noise_is_the_same_until_it_is_reset(squash):
    policy = make_policy(GAUSSIAN, use_sde=True, squash_output=squash)
    act, _ = make_action_sampler(policy, n_envs=3, n_steps=None)
    obs = np.ones((3, 3), np.float32) / 2
    policy.reset_noise(3)
    first, again = act(PolicyInputs(obs)), act(PolicyInputs(obs))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first[:, 0])) == 3
    policy.reset_noise(3)
    assert not np.array_equal(first, act(PolicyInputs(obs)))
    assert not squash or (np.abs(first) <= 1).all()


@each_path
@pytest.mark.parametrize(
    ("space", "masks"),
    [
        (spaces.Discrete(4), [[1, 0, 0, 1]]),
        (spaces.MultiDiscrete([3, 2]), [[0, 1, 1], [1, 0]]),
        (spaces.MultiBinary(2), [[1, 1], [0, 1]]),
    ],
    ids=str,
)
def test_masked_actions_are_never_taken(path, space, masks):
    policy = make_policy(space, cls=MaskableActorCriticPolicy)
    obs, allowed = np.tile(np.float32([0.3, -0.9, 0.5]), (N_ENVS, 1)), np.tile(np.concatenate(masks), (N_ENVS, 1)) == 1
    act = make_path(policy, path)
    actions = np.concatenate([act(PolicyInputs(obs, allowed)).reshape(N_ENVS, -1) for _ in range(N_CALLS)])
    with th.no_grad():
        outputs = policy.get_distribution(th.as_tensor(obs[:1]))
    parts = [outputs.distribution] if isinstance(space, spaces.Discrete) else outputs.distributions
    for taken, mask, part in zip(actions.T, map(np.array, masks), parts, strict=True):
        counts, p = np.bincount(taken, minlength=len(mask)), part.probs[0].numpy() * mask
        assert (counts[mask == 0] == 0).all()
        if mask.sum() > 1:
            assert_fits(counts[mask == 1], p[mask == 1] / p.sum())


@pytest.mark.parametrize(
    ("space", "sizes"),
    [(spaces.Discrete(4), [4]), (spaces.MultiDiscrete([3, 2]), [3, 2]), (spaces.MultiBinary(3), [2, 2, 2])],
    ids=str,
)
def test_both_paths_take_the_same_masked_actions_from_the_same_seed(space, sizes):
    policy, rng, taken = make_policy(space, cls=MaskableActorCriticPolicy), np.random.default_rng(0), []
    obs = rng.normal(size=(20, 3, 3)).astype(np.float32)
    masks = np.concatenate(
        [rng.permuted(np.arange(size) < rng.integers(1, size + 1, (20, 3, 1)), axis=2) for size in sizes], axis=2
    )
    assert not masks.all()
    for path in ("MLPActionSampler", "PolicyActionSampler"):
        act = make_path(policy, path, n_envs=3)
        th.manual_seed(3)
        taken.append([act(PolicyInputs(o, m)) for o, m in zip(obs, masks, strict=True)])
    np.testing.assert_array_equal(*taken)
    assert taken[0][0].dtype == taken[1][0].dtype


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_both_paths_take_the_same_actions_from_the_same_seed(name):
    policy, obs = make_policy(ACTION_SPACES[name]), np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    taken = []
    for path in ("MLPActionSampler", "PolicyActionSampler"):
        act = make_path(policy, path, 5)
        th.manual_seed(7)
        taken.append([act(PolicyInputs(obs)) for _ in range(50)])
    np.testing.assert_allclose(*map(np.array, taken), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ACTION_SPACES)
def test_log_probabilities_are_the_policys(name, masked):
    space, rng = ACTION_SPACES[name], np.random.default_rng(0)
    sizes = {"Discrete": [3], "MultiDiscrete": [3, 2], "MultiBinary": [2, 2]}.get(name)
    if masked and sizes is None:
        pytest.skip("its actions have no masks")
    policy = make_policy(space, cls=MaskableActorCriticPolicy if masked else ActorCriticPolicy)
    obs = rng.normal(size=(6, 5, 3)).astype(np.float32)
    masks = [None] * len(obs)
    if masked:
        masks = np.concatenate([np.eye(k)[rng.integers(k, size=(6, 5))] for k in sizes], 2)
        masks = np.maximum(masks, rng.random(masks.shape) < 0.5).astype(bool)
    act = make_path(policy, "MLPActionSampler", 5)
    assert act.evaluated is None
    for o, m in zip(obs, masks, strict=True):
        actions = act(PolicyInputs(o, m))
    _, log_probs = act.evaluated
    assert log_probs.shape == (6, 5)
    more = {"action_masks": masks[-1]} if masked else {}
    with th.no_grad():
        taken = action_tensor(actions.reshape(5, -1), space, policy.device)
        _, expected, _ = policy.evaluate_actions(th.as_tensor(obs[-1]), taken, **more)
    np.testing.assert_allclose(log_probs[-1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_steps", [7, 256, 300])
@pytest.mark.parametrize("name", ["Box", "MultiDiscrete"])
def test_what_was_drawn_ahead_is_given_back(name, n_steps):
    """The generator goes on as after the same steps by the policy itself, whether their number was known or not."""
    policy, inputs = make_policy(ACTION_SPACES[name]), PolicyInputs(np.zeros((2, 3), np.float32))
    layers, following = actor_layers(policy), []
    for act in (
        PolicyActionSampler(policy),
        MLPActionSampler(policy, layers, 2, n_steps),
        MLPActionSampler(policy, layers, 2, None),
    ):
        th.manual_seed(5)
        for _ in range(n_steps):
            act(inputs)
        act.finish()
        following.append(th.rand(3))
    assert th.equal(following[0], following[1])
    assert th.equal(following[0], following[2])
