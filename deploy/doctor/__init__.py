"""`edgedistill doctor`: what of this machine and its packages works, what does not, and the command that mends it."""
