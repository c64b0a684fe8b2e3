"""`edgedistill students`."""
