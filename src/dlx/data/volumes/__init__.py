"""What a volume file says of itself, read and checked in Python before SimpleITK sees it: one module a format.

Each format has `check_<format>(file: OpenedFile) -> Claim`, which reads the header, follows the voxel data to their
end without keeping them, and raises BadFile with the cause. Nothing here imports SimpleITK or turns voxels into
volumes: `dlx.data.volumes.reading` does.
"""
