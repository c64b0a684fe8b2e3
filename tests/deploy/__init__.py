"""Tests of the device side, and the tiny bundles that they share (tiny.py)."""
