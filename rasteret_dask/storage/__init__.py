"""The only room through which bytes of a raster pass."""
