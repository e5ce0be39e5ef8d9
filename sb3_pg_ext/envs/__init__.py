"""Vectorised environments."""

from sb3_pg_ext.envs.fast_dummy import EnvFactory, FastDummyVecEnv

__all__ = ["EnvFactory", "FastDummyVecEnv"]
