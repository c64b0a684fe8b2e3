"""What `edgedistill inspect` is made of: a data set counted in one pass, its tables and its plots."""
