"""Where voxels lie: whether the volumes of a case agree, orientation, voxel size, one grid for all cases of a set."""
