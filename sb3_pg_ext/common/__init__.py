"""The SB3 glue that algorithms share: rollouts, action selection, buffers, guards against bad numbers."""
