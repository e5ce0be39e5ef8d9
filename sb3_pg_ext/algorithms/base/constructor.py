"""What constructors share: arguments that are passed on to SB3, and their documentation.

Every algorithm spells out its signature, as editors and RL Zoo need it. What follows from that is written once.
"""

import inspect
import re
from collections.abc import Mapping
from copy import copy
from typing import Any

from sb3_pg_ext.plugins.configs import find_constructors

DOCUMENTATION = {
    "policy": 'the policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a class',
    "env": "the environment: its id, an environment or a VecEnv",
    "learning_rate": "learning rate of the optimiser; a number, or a function of the remaining progress (1 to 0)",
    "n_steps": "number of steps in every environment for one update",
    "batch_size": "the largest size of a minibatch",
    "n_epochs": "number of passes over a rollout",
    "gamma": "discount factor γ",
    "gae_lambda": "λ of the advantage estimator",
    "discount_state_distribution": "whether the advantage of step t of an episode is weighted with γᵗ, as in the "
    "gradient of the discounted return; as usual it is not",
    "normalize_advantage": "whether to scale the advantages of a minibatch to mean 0 and standard deviation 1",
    "ent_coef": "weight of the entropy bonus",
    "vf_coef": "weight of the critic's loss",
    "max_grad_norm": "the gradient is scaled down to this norm; ``None`` for no clipping",
    "use_sde": "whether to explore with generalised state-dependent noise (gSDE)",
    "sde_sample_freq": "sample a new noise matrix every so many steps; −1 for once in a rollout",
    "rollout_buffer_class": "a subclass of SB3's rollout buffer; ``None`` for SB3's own",
    "rollout_buffer_kwargs": "its further arguments",
    "advantage_estimator": "the name of a registered estimator, or an instance",
    "advantage_estimator_kwargs": "the estimator's own parameters",
    "engine": 'how updates are differentiated: ``"array"`` in NumPy, for plain MLPs on the CPU; ``"compiled"`` '
    'likewise with numba, where updates consist of minibatches; ``"autograd"``; ``"auto"`` for the fastest that can',
    "stats_window_size": "over how many episodes ``rollout/ep_rew_mean`` and ``ep_len_mean`` are averaged",
    "tensorboard_log": "directory for TensorBoard; ``None`` for no logging",
    "policy_kwargs": "arguments of the policy",
    "verbose": "0 for no output, 1 for information, 2 for debugging",
    "seed": "seed of all random generators",
    "device": 'where to compute: ``"cpu"``, ``"cuda"`` or ``"auto"``',
    "_init_setup_model": "whether to build the network at once",
}
"""Of arguments that mean the same in several algorithms, what their docstrings say."""


def arguments_of(base: type, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Of the local variables at the beginning of a constructor, those that another class's constructor takes.

    Dictionaries are copied, since SB3 writes into that of the policy's arguments.

    :param base: the other class, such as SB3's ``OnPolicyAlgorithm``
    :param scope: ``locals()``
    """
    names = inspect.signature(base).parameters
    return {name: copy(value) if isinstance(value, dict) else value for name, value in scope.items() if name in names}


def refuse_unused(model: Any, choice: str, *names: str) -> None:
    """Refuse arguments that a choice leaves without meaning, unless they have their defaults.

    :param model: the algorithm
    :param choice: what was chosen, for the message
    :param names: the arguments
    :raises ValueError: naming the first that has another value
    """
    signatures = [inspect.signature(constructor).parameters for constructor in find_constructors(type(model))]
    for name in names:  # where a subclass passes its arguments on, the class that takes it by name has the default
        value, default = getattr(model, name), next(taken[name].default for taken in signatures if name in taken)
        if value != default:
            raise ValueError(f"{name}={value!r} together with {choice}, where it is unused; allowed: {default!r}")


def complete_docstring(cls: type) -> None:
    """Add to a class's docstring the shared arguments that its constructor takes and that it does not tell of.

    :param cls: the class; one without a constructor or a docstring of its own is left alone
    """
    if "__init__" not in vars(cls) or not cls.__doc__:
        return
    text = inspect.cleandoc(cls.__doc__)
    told = set(re.findall(r"^:param (\w+):", text, re.MULTILINE))
    lines = [
        f":param {name}: {DOCUMENTATION[name]}"
        for name in inspect.signature(cls).parameters
        if name in DOCUMENTATION and name not in told
    ]
    body, raises, errors = text.partition("\n:raises")
    cls.__doc__ = "\n".join([body.rstrip(), *lines]) + raises + errors
