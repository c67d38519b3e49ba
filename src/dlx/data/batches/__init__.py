"""From prepared cases to training batches: the voxels on the device, the patches of each step, augmentation."""
