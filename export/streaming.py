"""`export.streaming.StreamingSession` is `export.StreamingSession`, here until version 1.0."""

from export.onnx.streaming import StreamingSession

__all__ = ["StreamingSession"]
