"""RL Zoo's scripts with action masks, which it does not know: where the environments have them, models use them."""

from collections.abc import MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from rl_zoo3 import utils
from rl_zoo3.callbacks import TrialEvalCallback
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.rollouts.action_masks import acts_with_masks

_create_test_env = utils.create_test_env
_test_envs: list[VecEnv] = []
"""The one that was made last, in which the model that is loaded next will play."""
_masked: MutableMapping[BaseAlgorithm, VecEnv] = WeakKeyDictionary()
"""By models that play with masks, the environments that say them."""


def create_test_env(*arguments: Any, **keywords: Any) -> VecEnv:
    """RL Zoo's function of the same name, after which a model that is loaded plays with the environment's masks."""
    _test_envs[:] = [_create_test_env(*arguments, **keywords)]
    return _test_envs[0]


def playing_with_masks(cls: Any) -> type[Any]:
    """An algorithm's class, whose loaded models take the masks of the environment that :func:`create_test_env` made.

    :param cls: the class, whose ``predict()`` takes masks
    """

    class Player(cls):
        @classmethod
        def load(kind, *arguments: Any, **keywords: Any) -> Any:
            model = super().load(*arguments, **keywords)
            if _test_envs and acts_with_masks(model, _test_envs[0]):
                _masked[model] = _test_envs[0]
            return model

        def predict(self, *arguments: Any, **keywords: Any) -> Any:
            if self in _masked:
                keywords.setdefault("action_masks", get_action_masks(_masked[self]))
            return super().predict(*arguments, **keywords)

    Player.__name__ = cls.__name__
    return Player


class ZooEvalCallback(MaskableEvalCallback):
    """SB3's ``EvalCallback``, and sb3-contrib's ``MaskableEvalCallback`` where environments and model have masks."""

    def _init_callback(self) -> None:
        super()._init_callback()
        self.use_masking = acts_with_masks(self.model, self.eval_env)

    def _on_step(self) -> bool:
        return super()._on_step() if self.use_masking else EvalCallback._on_step(self)


class ZooTrialEvalCallback(TrialEvalCallback, ZooEvalCallback):
    """The same, for the trials of a search for hyper-parameters."""
