"""Gradients of single states and actions, as flat vectors, for algorithms that learn at every step.

Two networks are differentiated apart, the actor's log π(a|s) and a critic, each in the parameters that it depends on. A
vector is a NumPy array where the policy is on the CPU, else a tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.action_heads import (
    BERNOULLI,
    CATEGORICAL,
    GAUSSIAN,
    HEADS,
    SOFTPLUS_GAUSSIAN,
    gaussian_std,
)
from sb3_pg_ext.functional.convolution import Convolution
from sb3_pg_ext.functional.finite import NonFiniteError, check_step
from sb3_pg_ext.functional.tensors import distributions
from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.functional.tensors.gradients import influential
from sb3_pg_ext.policies.evaluation import action_tensor, parts_of
from sb3_pg_ext.policies.exploration import StateDependentGaussianDistribution
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import (
    UnsupportedPolicyError,
    check_parameters,
    critic_layers,
    linear_modules,
    network_input,
    split_actor,
)
from sb3_pg_ext.rollouts.action_sampling import Noise

Vector = Any


class Layout:
    """Where parameters lie in a flat vector, one after the other.

    :param parameters: the parameters
    """

    def __init__(self, parameters: Sequence[th.Tensor]) -> None:
        self.parameters = list(parameters)
        sizes = [parameter.numel() for parameter in parameters]
        ends = np.cumsum([0, *sizes]).tolist()
        self.size = ends[-1]
        self.slices = [slice(*pair) for pair in pairwise(ends)]

    def pieces(self, vector: Vector) -> dict[th.Tensor, Vector]:
        """The parts of a vector, by parameter and in its shape; of an array they are views."""
        return {p: vector[part].reshape(tuple(p.shape)) for p, part in zip(self.parameters, self.slices, strict=True)}


def union(*layouts: Layout) -> Layout:
    """The parameters of all of them, each once."""
    return Layout(list(dict.fromkeys(parameter for layout in layouts for parameter in layout.parameters)))


def vector_of(tensor: th.Tensor) -> Vector:
    """A tensor as a vector: the same memory."""
    return tensor.detach().numpy() if tensor.device.type == "cpu" else tensor.detach()


@th.enable_grad()
def find_layouts(policy: ActorCriticPolicy) -> tuple[Layout, Layout]:
    """The parameters that log π depends on, and those that V depends on, frozen ones included.

    :param policy: the policy
    """
    parameters = list(policy.parameters())
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    policy.set_training_mode(False)
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        obs, _ = policy.obs_to_tensor(_zeros(policy.observation_space))
        with unvalidated_distributions():
            distribution = policy.get_distribution(obs)
            log_probs = distribution.log_prob(distribution.mode())
        layouts = (
            Layout(influential(log_probs, parameters)),
            Layout(influential(policy.predict_values(obs), parameters)),
        )
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    _forget_graph(policy)
    return layouts


@th.no_grad()
def _forget_graph(policy: ActorCriticPolicy) -> None:
    """Let the policy's latest distribution be one without a graph, which could not be copied."""
    with unvalidated_distributions():
        policy.get_distribution(policy.obs_to_tensor(_zeros(policy.observation_space))[0])


def _zeros(space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.items()}
    return np.zeros(space.shape, space.dtype)


class OfBoth(NamedTuple):
    """What actor and V give for a state and an action, and gradients in the parameters of both.

    :param value: V(s)
    :param log_prob: log π(a|s)
    :param entropy: H(π(·|s))
    :param gradient: of V + ½ log π, [P]
    :param of_entropy: of H, [P]
    """

    value: float
    log_prob: float
    entropy: float
    gradient: Vector
    of_entropy: Vector


class SampleBackend(ABC):
    """Acts with a policy, and differentiates it and a Q-network at single states.

    :param policy: the policy
    :param q_net: Q, or None
    :param layouts: the parameters of actor, V and Q
    """

    def __init__(self, policy: ActorCriticPolicy, q_net: Any, layouts: tuple[Layout, Layout, Layout | None]) -> None:
        self.policy, self.q_net = policy, q_net
        self.actor, self.critic, self.q = layouts
        self.both = union(self.actor, self.critic)

    @abstractmethod
    def act(self, inputs: PolicyInputs) -> np.ndarray:
        """Sample an action for every environment, [N, …], not yet clipped.

        :raises NonFiniteError: if the distribution's parameters are not finite
        """

    @abstractmethod
    def actor_gradient(self, inputs: PolicyInputs, actions: np.ndarray, c: float) -> tuple[float, float, Vector]:
        """Log π(a|s), the entropy, and the gradient of log π(a|s) + c·entropy.

        :param inputs: one state, [1, …]
        :param actions: [1, action_dim]
        :param c: weight of the entropy
        """

    @abstractmethod
    def values(self, inputs: PolicyInputs) -> np.ndarray:
        """V(s), [B]."""

    @abstractmethod
    def value_gradient(self, inputs: PolicyInputs) -> tuple[float, Vector]:
        """V(s) and its gradient.

        :param inputs: one state, [1, …]
        """

    @abstractmethod
    def gradients_of_both(self, inputs: PolicyInputs, actions: np.ndarray) -> OfBoth:
        """Gradients of V + ½ log π and of the entropy, in the parameters of :attr:`both`.

        :param inputs: one state, [1, …]
        :param actions: [1, action_dim]
        """

    @abstractmethod
    def probabilities(self, inputs: PolicyInputs) -> np.ndarray:
        """π(·|s) of Discrete actions, [B, n]."""

    def q_values(self, inputs: PolicyInputs, actions: np.ndarray) -> np.ndarray:
        """Q(s, a), [B]."""
        raise NotImplementedError

    def all_q_values(self, inputs: PolicyInputs) -> np.ndarray:
        """Q(s, ·) of Discrete actions, [B, n]."""
        raise NotImplementedError

    def q_gradient(self, inputs: PolicyInputs, actions: np.ndarray) -> tuple[float, Vector]:
        """Q(s, a) and its gradient.

        :param inputs: one state, [1, …]
        :param actions: [1, action_dim]
        """
        raise NotImplementedError

    @abstractmethod
    def means(self, inputs: PolicyInputs) -> np.ndarray:
        """μ(s) of Box actions, [B, action_dim]."""

    @abstractmethod
    def mean_gradient(self, inputs: PolicyInputs, u: np.ndarray) -> Vector:
        """The gradient of Σ u·μ(s).

        :param inputs: one state, [1, …]
        :param u: [action_dim]
        """

    def action_gradient(self, inputs: PolicyInputs, actions: np.ndarray) -> np.ndarray:
        """∇_a Q(s, a), [action_dim].

        :param inputs: one state, [1, …]
        :param actions: [1, action_dim]
        """
        raise NotImplementedError

    @abstractmethod
    def finish(self) -> None:
        """The rollout is over."""

    @abstractmethod
    def move(self, layout: Layout, scale: float, direction: Vector) -> None:
        """Add scale·direction to parameters, frozen ones left out.

        :param layout: which
        """


class AutogradSamples(SampleBackend):
    """The general path, with PyTorch."""

    def act(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the policy."""
        policy = self.policy
        with th.no_grad(), unvalidated_distributions():
            obs, more = inputs.tensors(policy.device)
            distribution = policy.get_distribution(obs, **more)
            if not distributions.is_finite(parts_of(distribution)):
                raise NonFiniteError("policy output: the parameters of the action distribution are not finite")
            actions = distribution.get_actions()
        return actions.cpu().numpy().reshape((-1, *(policy.action_space.shape or ())))

    def _gradient(self, output: th.Tensor, layout: Layout, keep: bool = False) -> Vector:
        trained = [p for p in layout.parameters if p.requires_grad]
        found: Any = th.autograd.grad(output, trained, retain_graph=keep, allow_unused=True) if trained else []
        by_parameter = dict(zip(trained, found, strict=True))
        pieces = [
            th.zeros(p.numel(), device=p.device) if by_parameter.get(p) is None else by_parameter[p].reshape(-1)
            for p in layout.parameters
        ]
        return vector_of(th.cat(pieces))

    def _log_prob(self, inputs: PolicyInputs, actions: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        policy = self.policy
        obs, more = inputs.tensors(policy.device)
        with unvalidated_distributions():
            distribution = policy.get_distribution(obs, **more)
            log_prob = distribution.log_prob(action_tensor(actions, policy.action_space, policy.device)).sum()
            entropy = distribution.entropy()
        return log_prob, -log_prob if entropy is None else entropy.sum()

    @th.enable_grad()
    def actor_gradient(self, inputs: PolicyInputs, actions: np.ndarray, c: float) -> tuple[float, float, Vector]:
        """By one backward pass."""
        log_prob, entropy = self._log_prob(inputs, actions)
        objective = log_prob + c * entropy if c else log_prob
        return log_prob.item(), entropy.item(), self._gradient(objective, self.actor)

    @th.no_grad()
    def values(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the policy."""
        return self.policy.predict_values(inputs.tensors(self.policy.device)[0]).flatten().cpu().numpy()

    @th.enable_grad()
    def value_gradient(self, inputs: PolicyInputs) -> tuple[float, Vector]:
        """By one backward pass."""
        value = self.policy.predict_values(inputs.tensors(self.policy.device)[0]).sum()
        return value.item(), self._gradient(value, self.critic)

    @th.enable_grad()
    def gradients_of_both(self, inputs: PolicyInputs, actions: np.ndarray) -> OfBoth:
        """By two backward passes through one forward pass."""
        policy = self.policy
        obs, more = inputs.tensors(policy.device)
        taken = action_tensor(actions, policy.action_space, policy.device)
        with unvalidated_distributions():
            value, log_prob, entropy = policy.evaluate_actions(obs, taken, **more)
        entropy = -log_prob if entropy is None else entropy
        gradient = self._gradient((value + 0.5 * log_prob).sum(), self.both, keep=True)
        of_entropy = self._gradient(entropy.sum(), self.both)
        return OfBoth(value.item(), log_prob.item(), entropy.item(), gradient, of_entropy)

    @th.no_grad()
    def probabilities(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the policy."""
        obs, more = inputs.tensors(self.policy.device)
        distribution: Any = self.policy.get_distribution(obs, **more).distribution
        return distribution.probs.cpu().numpy()

    @th.no_grad()
    def q_values(self, inputs: PolicyInputs, actions: np.ndarray) -> np.ndarray:
        """Ask the network."""
        return self.q_net(inputs.tensors(self.policy.device)[0], self._actions(actions)).cpu().numpy()

    @th.no_grad()
    def all_q_values(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the network."""
        return self.q_net.outputs(inputs.tensors(self.policy.device)[0]).cpu().numpy()

    @th.enable_grad()
    def q_gradient(self, inputs: PolicyInputs, actions: np.ndarray) -> tuple[float, Vector]:
        """By one backward pass."""
        assert self.q is not None
        value = self.q_net(inputs.tensors(self.policy.device)[0], self._actions(actions)).sum()
        return value.item(), self._gradient(value, self.q)

    def _mean(self, inputs: PolicyInputs) -> th.Tensor:
        distribution: Any = self.policy.get_distribution(inputs.tensors(self.policy.device)[0]).distribution
        return distribution.mean

    @th.no_grad()
    def means(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the policy."""
        with unvalidated_distributions():
            return self._mean(inputs).cpu().numpy()

    @th.enable_grad()
    def mean_gradient(self, inputs: PolicyInputs, u: np.ndarray) -> Vector:
        """By one backward pass."""
        with unvalidated_distributions():
            return self._gradient((self._mean(inputs) * self._actions(u)).sum(), self.actor)

    @th.enable_grad()
    def action_gradient(self, inputs: PolicyInputs, actions: np.ndarray) -> np.ndarray:
        """By one backward pass."""
        taken = self._actions(actions).requires_grad_(True)
        value = self.q_net(inputs.tensors(self.policy.device)[0], taken).sum()
        return th.autograd.grad(value, taken)[0][0].cpu().numpy()

    def finish(self) -> None:
        """Leave no graph in the policy."""
        _forget_graph(self.policy)

    def _actions(self, actions: np.ndarray) -> th.Tensor:
        return th.as_tensor(actions, dtype=th.float32, device=self.policy.device)

    @th.no_grad()
    def move(self, layout: Layout, scale: float, direction: Vector) -> None:
        """Parameter by parameter."""
        for parameter, piece in layout.pieces(th.as_tensor(direction)).items():
            if parameter.requires_grad:
                parameter.add_(piece, alpha=scale)


class SampleNet:
    """An MLP in NumPy whose gradients at single states lie in a flat vector.

    :param layers: its layers
    :param modules: the modules that they are the arrays of
    :param layout: the parameters
    :param std: of a Gaussian, the layer of log σ beside the last one, or the parameter log σ alone
    :param convolution: what comes first, with the module that it has its parameters of
    """

    def __init__(
        self,
        layers: list[mlp.Layer],
        modules: list[nn.Linear],
        layout: Layout,
        std: tuple[nn.Linear | None, th.Tensor] | None = None,
        convolution: tuple[Convolution, nn.Conv2d] | None = None,
    ) -> None:
        own: list[th.Tensor] = [p for module in modules for p in (module.weight, module.bias) if p is not None]
        own += [] if std is None else [std[1]] if std[0] is None else [std[0].weight, std[1]]
        own += [] if convolution is None else list(convolution[1].parameters())
        if {*own} != {*layout.parameters} or not all(p.is_contiguous() for p in own):
            raise UnsupportedPolicyError("it has parameters beside its networks'")
        self.layers, self.modules, self.layout, self.std = layers, modules, layout, std
        self.gradient = np.zeros(layout.size, np.float32)
        pieces = layout.pieces(self.gradient)
        self._gradients: mlp.Parameters = [
            (pieces[m.weight], None if m.bias is None else pieces[m.bias]) for m in modules
        ]
        self._std_weight = None if std is None or std[0] is None else std[0].weight.detach().numpy()
        self._std_bias = None if std is None else std[1].detach().numpy()
        self._of_std = [] if std is None else [None if std[0] is None else pieces[std[0].weight], pieces[std[1]]]
        self._vectors = [p.detach().numpy().reshape(-1) for p in layout.parameters]
        self.convolution = convolution
        self._convolution = None if convolution is None else convolution[0]
        self._of_convolution = () if convolution is None else tuple(pieces[p] for p in convolution[1].parameters())

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The outputs for a batch, [B, k], without log σ; :meth:`backward` knows nothing of them."""
        if self._convolution is not None:
            x = self._convolution.forward(self._convolution.patches(x))
        return mlp.forward(self.layers, x)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The outputs for a batch, [B, k]; of a Gaussian followed by log σ or what makes σ."""
        if self._convolution is not None:
            self._patches = self._convolution.patches(x)
            x = self._convolution.forward(self._patches)
        self._trace = mlp.trace(self.layers, x)
        outputs = self._trace[-1][-1]
        if self._std_bias is None:
            return outputs
        beside = np.broadcast_to(self._std_bias, outputs.shape)
        if self._std_weight is not None:
            beside = beside + np.dot(self._trace[-1][0], self._std_weight.T)
        return np.concatenate([outputs, beside], axis=1)

    def backward(self, u: np.ndarray) -> np.ndarray:
        """The gradient of Σ u·outputs for the latest batch, which held one state; it lies in memory that is used again.

        :param u: [k]
        """
        (weight, _, activations), (latent, *steps) = self.layers[-1], self._trace[-1]
        own = u[None, : len(weight)]
        for activation, before, after in zip(activations[::-1], steps[-2::-1], steps[:0:-1], strict=True):
            own = activation.product(own, before, after)
        of_weight, of_bias = self._gradients[-1]
        np.multiply(own.T, latent, out=of_weight)
        if of_bias is not None:
            of_bias[:] = own[0]
        of_latent = np.dot(own, weight)
        if self._std_bias is not None:
            beside = u[None, len(weight) :]
            of_std_weight, of_std_bias = self._of_std
            of_std_bias[:] = beside[0]
            if self._std_weight is not None:
                np.multiply(beside.T, latent, out=of_std_weight)
                of_latent += np.dot(beside, self._std_weight)
        self._of_first = own
        if len(self.layers) > 1:
            _, self._of_first = mlp.vjp(self.layers[:-1], self._trace[:-1], of_latent, self._gradients[:-1])
        if self._convolution is not None:
            of_features = np.dot(self._of_first, self.layers[0].weight)
            self._convolution.vjp(self._patches, self._trace[0][0], of_features, self._of_convolution)
        return self.gradient

    @property
    def outputs(self) -> np.ndarray:
        """What :meth:`forward` made of the latest batch, without log σ, [B, k]."""
        return self._trace[-1][-1]

    def of_inputs(self) -> np.ndarray:
        """The gradient in the inputs, [inputs], after :meth:`backward` of a network without deviations beside."""
        return np.dot(self._of_first, self.layers[0].weight)[0]

    def move(self, scale: float, direction: np.ndarray) -> None:
        """Add scale·direction to the parameters."""
        scaled = np.float32(scale) * direction
        for vector, part in zip(self._vectors, self.layout.slices, strict=True):
            vector += scaled[part]


class ArraySamples(SampleBackend):
    """A plain MLP in NumPy, without autograd.

    :param policy: the policy
    :param q_net: Q, or None
    :param layouts: the parameters of actor, V and Q
    :param n_envs: number of environments
    :param n_steps: number of steps of the rollout; ``None`` if not known
    :raises UnsupportedPolicyError: if PyTorch would compute something else
    """

    def __init__(
        self,
        policy: ActorCriticPolicy,
        q_net: Any,
        layouts: tuple[Layout, Layout, Layout | None],
        n_envs: int,
        n_steps: int | None,
    ) -> None:
        super().__init__(policy, q_net, layouts)
        self._make_nets(policy, q_net)
        self.kind, self.sizes = head_of(policy)
        self._head = HEADS[self.kind]
        self._noise = Noise(policy, n_envs, n_steps)
        self._shape = (n_envs, *(policy.action_space.shape or ()))
        self._acted_on: PolicyInputs | None = None

    def _make_nets(self, policy: ActorCriticPolicy, q_net: Any) -> None:
        body = policy.mlp_extractor
        layers, modules, std = split_actor(policy)
        self.actor_net = SampleNet(layers, modules, self.actor, std)
        self.critic_net = SampleNet(
            critic_layers(policy), linear_modules(body.value_net, policy.value_net), self.critic
        )
        check_parameters([*self.actor.parameters, *self.critic.parameters], list(policy.parameters()))
        self.q_sample_net: SampleNet | None = None
        if q_net is not None:
            assert self.q is not None
            layers, modules = q_net.plain_layers()
            self.q_sample_net = SampleNet(layers, modules, self.q)
            check_parameters(self.q.parameters, list(q_net.parameters()))
        self._nets = {id(self.actor): self.actor_net, id(self.critic): self.critic_net}
        if self.q_sample_net is not None:
            self._nets[id(self.q)] = self.q_sample_net
        self.parts: tuple[SampleNet | None, SampleNet, SampleNet] = None, self.actor_net, self.critic_net

    def act(self, inputs: PolicyInputs) -> np.ndarray:
        """Sample the distribution with noise as PyTorch draws it."""
        self._acted_on = None
        outputs = self.actor_net.forward(network_input(inputs.observations))
        if len(outputs) == 1:
            self._outputs, self._acted_on = outputs[0], inputs
        return self.sample(outputs)

    def sample(self, outputs: np.ndarray) -> np.ndarray:
        """An action for every environment.

        :param outputs: of the actor, [N, k]
        """
        check_step("policy output", outputs if self.kind >= GAUSSIAN else np.maximum(outputs, -1e30))
        noise = next(self._noise)
        if self.kind == CATEGORICAL:
            ends = np.cumsum(self.sizes)[:-1]
            perturbed = outputs - noise
            choices = [part.argmax(1) for part in np.split(perturbed, ends, axis=1)] if len(ends) else None
            return (perturbed.argmax(1) if choices is None else np.stack(choices, axis=1)).reshape(self._shape)
        if self.kind == BERNOULLI:
            return (noise < 0.5 * (1 + np.tanh(0.5 * outputs))).astype(np.float32).reshape(self._shape)
        half = outputs.shape[1] // 2
        mean, x = outputs[:, :half], outputs[:, half:]  # a tenth of np.split()
        std = gaussian_std(x, self.kind, bool(self.sizes[0]))
        return (mean + noise * std).reshape(self._shape)

    def actor_gradient(self, inputs: PolicyInputs, actions: np.ndarray, c: float) -> tuple[float, float, Vector]:
        """From the pass that chose the action, if there was one."""
        if self._acted_on is not inputs:
            self._outputs = self.actor_net.forward(network_input(inputs.observations))[0]
        self._acted_on = None
        u = np.empty_like(self._outputs)
        log_prob, entropy = self._head(self._outputs, self.sizes, actions[0].astype(np.float32, copy=False), c, u)
        return float(log_prob), float(entropy), self.actor_net.backward(u)

    def values(self, inputs: PolicyInputs) -> np.ndarray:
        """By one pass."""
        return self.critic_net.predict(network_input(inputs.observations))[:, 0]

    def value_gradient(self, inputs: PolicyInputs) -> tuple[float, Vector]:
        """By two passes."""
        value = self.critic_net.forward(network_input(inputs.observations))[0, 0]
        return float(value), self.critic_net.backward(np.ones(1, np.float32))

    def gradients_of_both(self, inputs: PolicyInputs, actions: np.ndarray) -> OfBoth:
        """From the passes that give each of them: actor and V share nothing here."""
        value, of_value = self.value_gradient(inputs)
        log_prob, entropy, of_actor = self.actor_gradient(inputs, actions, 0.0)
        of_actor = of_actor.copy()
        with_entropy = self.actor_gradient(inputs, actions, 1.0)[2]
        gradient = np.concatenate([0.5 * of_actor, of_value])
        of_entropy = np.concatenate([with_entropy - of_actor, np.zeros_like(of_value)])
        return OfBoth(value, log_prob, entropy, gradient, of_entropy)

    def probabilities(self, inputs: PolicyInputs) -> np.ndarray:
        """The softmax of the outputs."""
        logits = self.actor_net.predict(network_input(inputs.observations))
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    def q_values(self, inputs: PolicyInputs, actions: np.ndarray) -> np.ndarray:
        """By one pass."""
        outputs = self._q_outputs(inputs, actions)
        if self.q_net.is_discrete:
            return outputs[np.arange(len(outputs)), actions.astype(int)[:, 0]]
        return outputs[:, 0]

    def all_q_values(self, inputs: PolicyInputs) -> np.ndarray:
        """By one pass."""
        return self._q_outputs(inputs, np.empty((0, 1)))

    def _q_outputs(self, inputs: PolicyInputs, actions: np.ndarray) -> np.ndarray:
        assert self.q_sample_net is not None
        return self.q_sample_net.forward(self.q_net.array_input(network_input(inputs.observations), actions))

    def q_gradient(self, inputs: PolicyInputs, actions: np.ndarray) -> tuple[float, Vector]:
        """By two passes."""
        assert self.q_sample_net is not None
        outputs = self._q_outputs(inputs, actions)[0]
        u = np.zeros_like(outputs)
        index = int(actions[0, 0]) if self.q_net.is_discrete else 0
        u[index] = 1
        return float(outputs[index]), self.q_sample_net.backward(u)

    def means(self, inputs: PolicyInputs) -> np.ndarray:
        """By one pass."""
        return self.actor_net.predict(network_input(inputs.observations))

    def mean_gradient(self, inputs: PolicyInputs, u: np.ndarray) -> Vector:
        """By two passes."""
        self._acted_on = None
        outputs = self.actor_net.forward(network_input(inputs.observations))[0]
        of_outputs = np.zeros_like(outputs)
        of_outputs[: len(u)] = u
        return self.actor_net.backward(of_outputs)

    def action_gradient(self, inputs: PolicyInputs, actions: np.ndarray) -> np.ndarray:
        """By two passes."""
        self.q_gradient(inputs, actions)
        assert self.q_sample_net is not None
        return self.q_sample_net.of_inputs()[-actions.shape[1] :]

    def finish(self) -> None:
        """Give back what was drawn ahead."""
        self._noise.give_back()

    def move(self, layout: Layout, scale: float, direction: Vector) -> None:
        """In the memory of the policy's own parameters."""
        if layout is not self.critic:
            self._acted_on = None
        if layout is self.both:
            self.actor_net.move(scale, direction[: self.actor.size])
            self.critic_net.move(scale, direction[self.actor.size :])
        else:
            self._nets[id(layout)].move(scale, direction)


def head_of(policy: ActorCriticPolicy) -> tuple[int, np.ndarray]:
    """Which of :data:`~sb3_pg_ext.functional.action_heads.HEADS` a plain MLP's outputs go to, and its sizes."""
    match policy.action_dist:
        case CategoricalDistribution(action_dim=size):
            return CATEGORICAL, np.array([size])
        case MultiCategoricalDistribution(action_dims=sizes):
            return CATEGORICAL, np.array(sizes)
        case BernoulliDistribution():
            return BERNOULLI, np.zeros(1, int)
        case StateDependentGaussianDistribution(std_function="softplus"):
            return SOFTPLUS_GAUSSIAN, np.zeros(1, int)
        case StateDependentGaussianDistribution():
            return GAUSSIAN, np.ones(1, int)
        case DiagGaussianDistribution():
            return GAUSSIAN, np.zeros(1, int)
    raise UnsupportedPolicyError(f"it acts by {type(policy.action_dist).__name__}")
