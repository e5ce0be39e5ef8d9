"""Collecting: actions, transitions, rollout buffers, and what a rollout is worth."""
