"""``--out``, ``--show``, ``--show-dir`` and ``--report``: where the predictions of a test go."""

import os
from importlib.util import find_spec

from mmengine.config import Config, ConfigDict

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_dense_task, recognise_task
from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets.building import innermost
from attnpool_backbones.datasets.config_paths import metrics_of
from attnpool_backbones.launching.training_options import set_hook

__all__ = [
    'dump_predictions', 'enable_pictures', 'enable_report', 'is_pickle', 'write_label_maps',
]  # fmt: skip

DUMPS = {'mmdet': 'DumpDetResults', 'mmseg': 'DumpResults'}


def enable_pictures(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Makes a test draw its predictions.

    Args:
        cfg: The whole config, changed in place.
        show: Whether to open windows.
        show_dir: An absolute folder for the pictures, or None.
        wait_time: Seconds that a window stays.

    Raises:
        UserError: If the config has nothing to draw with, or no window can be opened here.
    """
    if show:
        require_screen()
    if show_dir is not None and cfg.get('visualizer') is None:
        raise UserError(f'--show-dir {show_dir}: {cfg.filename} has no visualizer')
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    old = hooks.get('visualization') or {}
    hooks.visualization = ConfigDict(
        type='attnpool_backbones.PredictionPictureHook',
        out_dir=show_dir,
        show=show,
        wait_time=wait_time,
        score_thr=old.get('score_thr', 0.3),
    )


def require_screen() -> None:
    """Checks that windows can be opened.

    Raises:
        UserError: If they would be waited for in vain.
    """
    import matplotlib

    # what matplotlib chooses where it cannot open any
    if matplotlib.get_backend().lower() == 'agg':
        raise UserError(
            '--show: there is no screen here, or no toolkit that matplotlib can open windows with; '
            '--show-dir FOLDER writes the pictures'
        )


def is_pickle(out: str) -> bool:
    """Tells whether ``--out`` names a pickle file; anything else is a folder."""
    return os.path.splitext(out)[1] in ('.pkl', '.pickle')


def dump_predictions(cfg: Config, file: str) -> None:
    """Makes a test write its predictions to a pickle file, after the metrics.

    Args:
        cfg: The whole config, changed in place.
        file: As typed.
    """
    dump = ConfigDict(type=DUMPS[recognise_dense_task(cfg, '--out')], out_file_path=file)
    add_metric(cfg, dump)


def write_label_maps(cfg: Config, folder: str) -> None:
    """Makes a test of a segmentor write its label maps, as PNG files.

    Args:
        cfg: The whole config, changed in place.
        folder: As typed.

    Raises:
        UserError: If the config is a detector's.
    """
    if recognise_dense_task(cfg, '--out') == 'mmdet':
        raise UserError(f'--out {folder}: detections are written to a .pkl or .pickle file')
    folders, suffixes = [], []
    for dataset in innermost(cfg.test_dataloader.dataset):
        prefix = (dataset.get('data_prefix') or {}).get('img_path') or ''
        folders.append(os.path.join(dataset.get('data_root') or '', prefix))
        suffixes.append(dataset.get('img_suffix'))
    writer = ConfigDict(type='attnpool_backbones.LabelMapWriter', out_dir=folder, roots=folders)
    if suffixes[0] and len(set(suffixes)) == 1:
        writer.suffix = suffixes[0]
    add_metric(cfg, writer)


def enable_report(cfg: Config, folder: str, title: str) -> None:
    """Makes a test write what the model gets wrong.

    Args:
        cfg: The whole config, changed in place.
        folder: Of the page, as typed.
        title: Of the page.

    Raises:
        UserError: If the evaluator of a detector finds no errors to tell or tests several data
            sets, or hotcoco is missing.
    """
    metrics = metrics_of(cfg.get('test_evaluator'))
    task = recognise_task(cfg)
    if task == 'mmengine':
        add_metric(cfg, ConfigDict(type='attnpool_backbones.ImageConfusion'))
    elif task == 'mmseg':
        known = next((each for each in metrics if type_name(each) == 'IoUMetric'), {})
        counter = ConfigDict(type='attnpool_backbones.PixelConfusion')
        counter.ignore_index = known.get('ignore_index', 255)
        add_metric(cfg, counter)
    else:
        if find_spec('hotcoco') is None:
            raise UserError("--report needs hotcoco: pip install 'hotcoco>=1.3'")
        found = [each for each in metrics if type_name(each) == 'CocoMetric']
        if not found:
            names = ', '.join(map(str, map(type_name, metrics))) or 'no metric'
            raise UserError(f'--report is of what CocoMetric finds; the test_evaluator has {names}')
        if any(each.get('ann_file') != found[0].get('ann_file') for each in found):
            raise UserError(
                '--report is of one set of labels; the test_evaluator has several, of CocoMetrics'
            )
        coco = next((each for each in found if not _does_instead(each)), None)
        if coco is None:
            raise UserError(
                '--report needs a CocoMetric that evaluates bbox or segm, not '
                + _does_instead(found[0])
            )
        if len(found) > 1:
            kinds = coco.get('metric', 'bbox')
            print(f'--report is of the first CocoMetric that evaluates boxes or masks: {kinds}')
        coco.outfile_prefix = os.path.join(os.path.abspath(folder), '.predictions')
    hook = ConfigDict(type='attnpool_backbones.ReportHook', out_dir=folder, title=title)
    set_hook(cfg, hook)


def _does_instead(coco: ConfigDict) -> str:
    """Returns what a ``CocoMetric`` does instead of evaluating boxes or masks, if it does not."""
    if coco.get('format_only'):
        return 'format_only'
    kinds = coco.get('metric', 'bbox')
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return '' if {'bbox', 'segm'}.intersection(kinds) else ', '.join(kinds)


def add_metric(cfg: Config, metric: ConfigDict) -> None:
    """Adds a metric to those of a test, after them."""
    set_metrics(cfg, [*metrics_of(cfg.get('test_evaluator')), metric])


def set_metrics(cfg: Config, metrics: list) -> None:
    """Gives a test other metrics, in the evaluator that it has."""
    evaluator = cfg.get('test_evaluator')
    if isinstance(evaluator, ConfigDict) and 'metrics' in evaluator:
        evaluator.metrics = metrics
    else:
        cfg.test_evaluator = metrics
