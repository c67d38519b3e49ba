"""dlx: which remedy helps my segmentation network, and by how much, beyond the noise of the seed?"""

__version__ = "0.1.0"
