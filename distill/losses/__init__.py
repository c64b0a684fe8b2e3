"""Losses: plain functions over valid pixels, named in a registry and added up by expressions."""
