"""Tests of NPG."""
