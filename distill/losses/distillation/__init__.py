"""Losses of a student against its teacher."""
