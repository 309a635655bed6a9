"""The parts of `bench.py`: the machine, the journey, and what people write by hand today."""

import agent  # noqa: F401 - before any file here loads onnxruntime, which would upload usage data otherwise
