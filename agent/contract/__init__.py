"""What the exporter and the box share: what a model file is (`model.py`), its papers, its golden strip."""
