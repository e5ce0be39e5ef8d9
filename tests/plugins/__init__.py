"""Tests of the plug-in system."""
