"""Files from strangers: looking into them, and loading them, without running anything that they bring along."""

from sb3_pg_ext.checkpoints.safety.conversion import convert, safe_save
from sb3_pg_ext.checkpoints.safety.inspection import ModelReport, inspect_model
from sb3_pg_ext.checkpoints.safety.loading import safe_load
from sb3_pg_ext.checkpoints.safety.objects import safe_load_normalization, safe_load_replay_buffer
from sb3_pg_ext.checkpoints.safety.pickles import UnsafeFileError

__all__ = [
    "ModelReport",
    "UnsafeFileError",
    "convert",
    "inspect_model",
    "safe_load",
    "safe_load_normalization",
    "safe_load_replay_buffer",
    "safe_save",
]
