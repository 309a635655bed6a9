"""What holds for all tests."""

import agent  # noqa: F401 - before any test loads onnxruntime, which would upload usage data otherwise
