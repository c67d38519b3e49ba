"""Encodes label volumes: a module for each format, whose `encode_<format>(labels, like)` returns the bytes of a file.

`labels` is (D, H, W) of an unsigned type, and `like` a file of the same format and size that `read_volume` has read.
What says where the voxels lie is copied from its header as it is stored, digit by digit and byte by byte; what
describes its intensities is left out. No writer needs SimpleITK, which would recompute the geometry.
"""
