"""The product in miniature: a broker, a simulated camera, a bundled model and the real service, on one screen."""
