"""Advantage estimators: the contract that hosts and plug-ins share, and the built-in ones."""
