"""The exporter: from a checkpoint to the model file of the line."""

import agent  # noqa: F401 - before any file here loads onnxruntime, which would upload usage data otherwise
