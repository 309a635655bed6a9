"""strip-agent: scores strip images from line-side cameras and publishes the results over MQTT."""

__version__ = "0.1.0"
