"""TorchScript files: traced by torch, and read by libtorch (C++) as by torch.

torch 2.13 calls TorchScript deprecated in favour of `torch.export`, whose files a C++ program loads only after they
were compiled for one machine.
"""

import io
import zipfile

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlx.exporting.network_file import METADATA_KEY, RunNetwork
from dlx.exporting.plain import without_messages
from dlx.system.errors import DlxError, spell_error
from dlx.system.interrupts import raise_if_stopped

EXTRA_FILE = f"{METADATA_KEY}.json"
DEBUG_ENDING = ".debug_pkl"  # entries with lines of source code and the paths of this machine, which nothing needs


def torchscript_bytes(network: nn.Module, example: Float[Tensor, "B C *S"], description: str) -> bytes:
    """A plain network as a TorchScript file, with the description in its extra file `dlx.json`.

    Batch and sizes are dynamic; a size is a multiple of the network's stride. DlxError if torch cannot trace it.
    """
    file = io.BytesIO()
    try:
        with without_messages(), torch.no_grad():
            traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, file, _extra_files={EXTRA_FILE: description})
    except Exception as error:  # noqa: BLE001 - torch documents no set of errors
        raise_if_stopped()
        raise DlxError(f"torch cannot export this network to TorchScript: {spell_error(error)}") from None
    return _without_debug_entries(file)


def load_torchscript(content: bytes) -> RunNetwork:
    """The network of a file, run by torch on the CPU. DlxError if it cannot be run."""
    with without_messages():
        loaded = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]

    def run(image: Tensor) -> Tensor:
        try:
            with without_messages(), torch.inference_mode():
                logits: Tensor = loaded(image)
        except RuntimeError as error:
            raise DlxError(f"torch cannot run the exported network: {str(error).strip().splitlines()[-1]}") from None
        return logits

    return run


def _without_debug_entries(file: io.BytesIO) -> bytes:
    """The archive without the entries that only error messages use."""
    copied = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(copied, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            if not entry.filename.endswith(DEBUG_ENDING):
                target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))
    return copied.getvalue()
