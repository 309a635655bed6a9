"""strip-agent: scores strip images from line-side cameras and publishes the results over MQTT."""

import os

__version__ = "0.1.0"

# onnxruntime uploads usage data unless this is set before it is loaded. Whatever loads it here imports `agent` first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
