"""Read cloud GeoTIFFs at scale: headers indexed once, pixels as lazy Dask cubes."""
