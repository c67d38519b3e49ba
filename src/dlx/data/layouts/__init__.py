"""Data set layouts: which files of a folder are images and masks of which case. Reads no voxels."""
