"""Trials on a dask.distributed cluster: the connection, the code that runs on workers, and its results."""
