"""What the files of all formats have in common: the names in them, and a loaded file as a function."""

from collections.abc import Callable

from torch import Tensor

INPUT, OUTPUT = "image", "logits"
SPATIAL_AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}
METADATA_KEY = "dlx"  # of the description in the file

RunNetwork = Callable[[Tensor], Tensor]  # (B, C, *S) float32 on the host -> logits (B, N, *S)
