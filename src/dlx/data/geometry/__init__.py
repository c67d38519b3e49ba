"""Where voxels lie: whether the volumes of a case agree, orientation, voxel size, and one grid for all cases of a set."""
