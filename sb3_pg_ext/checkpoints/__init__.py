"""What a training consists of: saving all of it, and going on from there."""

from sb3_pg_ext.checkpoints.resuming import resume
from sb3_pg_ext.checkpoints.saving import CheckpointWriter, save_checkpoint

__all__ = ["CheckpointWriter", "resume", "save_checkpoint"]
