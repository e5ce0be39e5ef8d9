"""Tests of REINFORCE."""
