"""Vectorised environments."""

from sb3_pg_ext.envs.envpool_vec_env import EnvPoolVecEnv
from sb3_pg_ext.envs.fast_dummy import EnvFactory, FastDummyVecEnv
from sb3_pg_ext.envs.gymnasium_vec_env import GymnasiumVecEnv
from sb3_pg_ext.envs.making import make_vec_env
from sb3_pg_ext.envs.step_infos import StepInfos

__all__ = ["EnvFactory", "EnvPoolVecEnv", "FastDummyVecEnv", "GymnasiumVecEnv", "StepInfos", "make_vec_env"]
