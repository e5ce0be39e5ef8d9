"""Baselines of REINFORCE: the contract that plug-ins share, and the built-in ones."""
