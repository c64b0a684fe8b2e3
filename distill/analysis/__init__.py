"""What `edgedistill compare` is made of: which models, their tables, and their plots (with matplotlib)."""
