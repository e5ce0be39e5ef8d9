"""Images as convolutions want them in memory."""

from collections.abc import Iterator

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN

from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError, check_methods, stock_class


def lay_out_images(policy: ActorCriticPolicy, inputs: PolicyInputs) -> PolicyInputs:
    """The same inputs, with the channels of images last in memory, where the policy does not mind.

    On a CPU PyTorch's convolutions differentiate such images in three quarters of the time. Rows of them are laid out
    likewise. What the arrays are asked for stays the same, [B, channels, height, width]; but a user's extractor may
    look at their memory, so this is for SB3's ``NatureCNN`` alone.

    :param policy: the policy
    :param inputs: what it sees of the states of a batch, [B, …]
    """
    if policy.device.type != "cpu":
        return inputs
    try:
        check_methods(policy, stock_class(policy), ("forward", "extract_features"))
    except UnsupportedPolicyError:
        return inputs
    observations = inputs.observations
    if not isinstance(observations, dict):
        laid_out = all(type(extractor) is NatureCNN for extractor in _extractors(policy))
        return inputs._replace(observations=channels_last(observations)) if laid_out else inputs
    images = set(observations)
    for extractor in _extractors(policy):
        if not isinstance(extractor, CombinedExtractor) or type(extractor) is not CombinedExtractor:
            return inputs
        images &= {key for key, part in extractor.extractors.items() if type(part) is NatureCNN}
    return inputs._replace(
        observations={key: channels_last(array) if key in images else array for key, array in observations.items()}
    )


def channels_last(images: np.ndarray) -> np.ndarray:
    """The same images, [B, channels, height, width], laid out as [B, height, width, channels]."""
    return th.from_numpy(images).contiguous(memory_format=th.channels_last).numpy()


def _extractors(policy: ActorCriticPolicy) -> Iterator[BaseFeaturesExtractor]:
    yield policy.features_extractor
    if not policy.share_features_extractor:
        yield policy.pi_features_extractor
        yield policy.vf_features_extractor
