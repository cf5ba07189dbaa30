"""``--out``, ``--show`` and ``--show-dir``: where the predictions of a test go."""

import os

from mmengine.config import Config, ConfigDict

from attnpool_backbones.launching.config import recognise_task
from attnpool_backbones.launching.errors import PreflightError
from attnpool_backbones.launching.input_files import metrics_of

__all__ = ['dump_predictions', 'enable_pictures', 'is_pickle', 'write_label_maps']

VISUALIZATION_HOOKS = {'mmdet': 'DetVisualizationHook', 'mmseg': 'SegVisualizationHook'}
DUMPS = {'mmdet': 'DumpDetResults', 'mmseg': 'DumpResults'}


def enable_pictures(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Makes a test draw its predictions.

    Args:
        cfg: The whole config, changed in place.
        show: Whether to open windows.
        show_dir: An absolute folder for the pictures, or None.
        wait_time: Seconds that a window stays.
    """
    task = recognise_task(cfg)
    hook = cfg.default_hooks.setdefault('visualization', ConfigDict(type=VISUALIZATION_HOOKS[task]))
    hook.draw = True
    if show:
        hook.show = True
        hook.wait_time = wait_time
    if show_dir is None:
        return
    if task == 'mmdet':
        # an absolute folder is taken as it is, a relative one is put into the run's folder
        hook.test_out_dir = show_dir
    else:
        hook.interval = 1
        cfg.visualizer.save_dir = show_dir


def is_pickle(out: str) -> bool:
    """Tells whether ``--out`` names a pickle file; anything else is a folder."""
    return os.path.splitext(out)[1] in ('.pkl', '.pickle')


def dump_predictions(cfg: Config, file: str) -> None:
    """Makes a test write its predictions to a pickle file, after the metrics.

    Args:
        cfg: The whole config, changed in place.
        file: As typed.
    """
    dump = ConfigDict(type=DUMPS[recognise_task(cfg)], out_file_path=file)
    evaluator = cfg.get('test_evaluator')
    metrics = [*metrics_of(evaluator), dump]
    if isinstance(evaluator, ConfigDict) and 'metrics' in evaluator:
        evaluator.metrics = metrics
    else:
        cfg.test_evaluator = metrics


def write_label_maps(cfg: Config, folder: str) -> None:
    """Makes a test of a segmentor write its label maps, as PNG files.

    Args:
        cfg: The whole config, changed in place.
        folder: As typed.

    Raises:
        PreflightError: If the config is a detector's.
    """
    if recognise_task(cfg) == 'mmdet':
        raise PreflightError(f'--out {folder}: detections are written to a .pkl or .pickle file')
    for metric in metrics_of(cfg.get('test_evaluator')):
        metric.output_dir = folder
        metric.keep_results = True
