"""The worker: the process that holds one loaded model and judges strips with it.

    __main__.py  the process: setup, loop, end      checks.py   is this strip fit to be judged
    judge.py     one strip, from file to answer     scoring.py  heatmap -> score, regions
    session.py   the ONNX model                     heatmaps.py, picture.py  what is written
    tiff.py      reading strips

Only this folder imports numpy, onnxruntime, tifffile and OpenCV.
"""
