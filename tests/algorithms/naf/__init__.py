"""Tests of NAF."""
