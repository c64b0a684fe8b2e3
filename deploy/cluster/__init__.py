"""Prediction on several processes and machines by Dask (`pip install 'edgedistill[dask]'`): `edgedistill predict-many`.

Scheduling, lost workers and retries are Dask's own. Here is what a worker does with an image or with a chunk of a
raster, which workers are fit to do it, and what is left of a run that ended early.
"""
