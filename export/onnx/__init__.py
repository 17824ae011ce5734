"""ONNX: files written, read, run and verified."""
