"""The RL Zoo bridge and the command line."""
