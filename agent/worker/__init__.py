"""The worker: the process that holds one loaded model and judges strips with it.

    __main__.py  the process: setup, loop, end      checks.py   is this strip fit to be judged
    judge.py     one strip, from file to answer     scoring.py  heatmap -> score, regions
    session.py   the ONNX model                     heatmaps.py, picture.py  what is written
    tiff.py      reading strips, after tiff_structure.py and tiff_tags.py have looked; lzw.py
    light.py     is it in the light of the training     ignored.py  dead pixels and masks
    trial.py, sight.py  what a model must prove         process.py, memory.py  what the process may do and use

Of the service only this folder imports onnxruntime, tifffile and OpenCV.
"""
