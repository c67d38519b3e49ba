"""Trained networks as files for other programs: `dlx export`.

`onnx`, `onnxscript` and `onnxruntime`, which dlx does not install by default, are imported by `onnx_file` alone, when
its functions are called.
"""
