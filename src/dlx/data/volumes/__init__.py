"""Reads volume files: each is checked in Python before SimpleITK decodes it, with one module per format.

Each format has `check_<format>(file: OpenedFile) -> Header`, which reads the header and the voxel data to their end,
without storing the data, and raises BadFile with the cause. `reading` chooses the check and makes volumes; `decoder` is
the only module that imports SimpleITK.
"""
