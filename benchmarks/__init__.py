"""How fast nsactors is beside bare Ray actors, ipyparallel and Dask, measured in turns: ``python -m benchmarks``."""
