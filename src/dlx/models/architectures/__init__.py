"""Networks by name, as the registry lists them: U-Nets, ResNets, VGGs, and a classifier of single voxels."""
