"""mmcv's operators without its compiled extension.

mmcv keeps its operators in a compiled module, ``mmcv._ext``, for which there is no wheel on most
machines: ``mmcv-lite`` and a plain ``pip install mmcv`` without a compiler lack it. Its own Python
code, ``mmcv.ops``, takes any module of that name. :mod:`.extension` is one in plain torch. It gets
there in two ways, and in both a compiled module, where there is one, comes first:

- Importing ``attnpool_backbones`` puts a finder after all others on ``sys.meta_path``
  (:mod:`.finder`): whoever imports ``mmcv._ext`` after that, and has no other, gets ours. Our
  tools do so, and so do configs with ``custom_imports = dict(imports=['attnpool_backbones'])``.
- ``python -m attnpool_backbones.mmcv_operators install`` writes a file of a few lines into mmcv
  (:mod:`.placing`), for programs that import mmcv before this package, or without it; ``remove``
  takes it out, ``status`` tells which operators serve.

No function or module of mmcv is changed. The first operator that runs says in the log who serves.
"""
