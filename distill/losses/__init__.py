"""Losses: plain functions over valid pixels."""
