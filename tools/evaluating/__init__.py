"""Whether a model can be trusted: judged on strips whose truth is known, and against another model."""

import agent  # noqa: F401 - before any file here loads onnxruntime, which would upload usage data otherwise
