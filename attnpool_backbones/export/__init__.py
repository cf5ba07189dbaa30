"""Trained models as one file: graph, preparation of images, classes and thresholds.

- ``graph.py`` restates a model as tensors in, tensors out (``segmentor.py``, ``dense_detector.py``,
  ``two_stage.py``): it calls the model's own parts and says anew only what depends on the data.
- ``onnx_file.py`` and ``onnx_operators.py`` write it in ONNX.
- ``checking.py`` compares what the file predicts with what the model predicts.
- ``exporting.py`` is the command. ``attnpool_backbones.inference`` runs the files.
"""
