"""What a training consists of: saving all of it, going on from there, and loading what strangers have made."""

from sb3_pg_ext.checkpoints.resuming import resume
from sb3_pg_ext.checkpoints.safety import (
    ModelReport,
    UnsafeFileError,
    convert,
    inspect_model,
    safe_load,
    safe_load_normalization,
    safe_load_replay_buffer,
    safe_save,
)
from sb3_pg_ext.checkpoints.saving import CheckpointWriter, save_checkpoint

__all__ = [
    "CheckpointWriter",
    "ModelReport",
    "UnsafeFileError",
    "convert",
    "inspect_model",
    "resume",
    "safe_load",
    "safe_load_normalization",
    "safe_load_replay_buffer",
    "safe_save",
    "save_checkpoint",
]
