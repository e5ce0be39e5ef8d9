"""Policy classes, which of them are plain MLPs, and what they say of whole rollouts."""
