"""ONNX files: written by torch's exporter, and run by onnxruntime on the CPU. The only user of the ONNX packages."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlx.exporting.network_file import INPUT, METADATA_KEY, OUTPUT, SPATIAL_AXES, RunNetwork
from dlx.exporting.plain import without_messages
from dlx.system.cpu_cores import available_cores
from dlx.system.errors import DlxError, SettingError, spell_error
from dlx.system.interrupts import raise_if_stopped
from dlx.trial.factories import model_geometry

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MIN_OPSET, MAX_OPSET = 18, 23  # torch's exporter writes 18 natively and converts to later ones
DEFAULT_OPSET = 18  # the oldest, which most programs read
MAX_BYTES = 2**31 - 2**20  # of the weights: a protobuf message holds 2 GiB, of which the operations need some
QUIET = 4  # onnxruntime's level of messages; errors are raised


def check_packages() -> None:
    """DlxError with the command that installs them if the ONNX packages are missing."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise DlxError(f"ONNX files need {name}, which is not installed: pip install 'dlx[onnx]'") from None


def check_opset(opset: int) -> None:
    """SettingError for a version of the operator set that cannot be written."""
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise SettingError(f"--opset: {opset} is out of range (expected {MIN_OPSET} to {MAX_OPSET})")


def onnx_bytes(network: nn.Module, example: Float[Tensor, "B C *S"], description: str, opset: int) -> bytes:
    """A plain network as an ONNX file, with the description in its `metadata_props`.

    Batch and sizes are dynamic; a size is a multiple of the network's stride. `example` is traced. DlxError if torch
    cannot export the network, or if it is too large for one file.
    """
    import onnx

    _check_size(network)
    dims, stride = model_geometry(network)
    sizes = {
        2 + axis: stride * torch.export.Dim(name) if stride > 1 else torch.export.Dim(name)
        for axis, name in enumerate(SPATIAL_AXES[dims])
    }
    try:
        with without_messages(), torch.no_grad():
            program: Any = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch"), **sizes},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
            model = program.model_proto
    except Exception as error:  # noqa: BLE001 - torch documents no set of errors
        raise_if_stopped()
        raise DlxError(f"torch cannot export this network to ONNX: {_cause(error)}") from None
    _remove_traces(model)
    onnx.helper.set_model_props(model, {METADATA_KEY: description})
    written = {entry.version for entry in model.opset_import if entry.domain == ""}
    if written != {opset}:
        raise SettingError(f"--opset: torch cannot write this network with {opset}, only with {max(written)}")
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def load_onnx(content: bytes) -> RunNetwork:
    """The network of a file, run by onnxruntime on the CPU. DlxError if it cannot be loaded or run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = available_cores()  # without a number it tries to bind threads to cores
    with _as_error("load"):
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        with _as_error("run"):
            (logits,) = session.run([OUTPUT], {INPUT: image.contiguous().numpy()})
        return torch.from_numpy(logits)

    return run


@contextmanager
def _as_error(what: str) -> Iterator[None]:
    """An error of onnxruntime, which has no common class, as DlxError."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        raise DlxError(f"onnxruntime cannot {what} the exported network: {spell_error(error)}") from None


def _check_size(network: nn.Module) -> None:
    num_bytes = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    if num_bytes > MAX_BYTES:
        raise DlxError(f"the weights take {num_bytes / 2**30:.2g} GiB; one ONNX file holds 2 GiB: --format torchscript")


def _remove_traces(model: Any) -> None:
    """Removes what the exporter notes on each operation: lines of source code with the paths of this machine."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    for entry in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del entry.metadata_props[:]
        entry.doc_string = ""


def _cause(error: BaseException) -> str:
    """The innermost cause of an exporter's error, in one line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return spell_error(error)
