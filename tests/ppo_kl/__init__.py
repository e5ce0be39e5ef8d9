"""Tests of AdaptiveKLPPO."""
