"""Plans become Dask graphs, arrays and cubes."""
