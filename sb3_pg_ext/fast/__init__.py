"""Stock PPO, A2C and TRPO on the rollout engine of this package."""
