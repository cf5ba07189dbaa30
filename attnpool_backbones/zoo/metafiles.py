"""The metafiles of the model zoo: facts kept by hand, completed from configs and models.

``configs/<family>/metafile.yml`` has the form that OpenMMLab's ``mim`` reads. By hand one keeps its
``Collections`` and, of each of its ``Models``,

- ``Published``: numbers of others, each entry with its ``Source`` (see
  :mod:`attnpool_backbones.zoo.sources`), a ``Status`` (``published``, or ``unverified`` where
  nobody has found the source: such numbers are never shown) and ``Metrics`` in percent, named as
  the evaluators name them;
- the ``Metrics`` in ``Results``: what *we* measured, empty until then. This is what ``mim`` shows;
- ``Measurement``: ``Command`` and ``Machine`` of what we measured, and maybe ``Images per second``
  and ``Memory (MiB)``.

Everything else is generated: one model for each config of the family. Models stay in the order
that they have; new ones come last, by name.
"""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.zoo.config_names import ConfigName, list_configs
from attnpool_backbones.zoo.config_sizes import Size

FILE_NAME = 'metafile.yml'

_HEADER = """\
# By hand: Collections, and of each model Published (numbers of others), the Metrics in Results
# (what we measured) and Measurement; see attnpool_backbones/zoo/metafiles.py. The rest is
# written by python tools/analysis_tools/make_tables.py
"""
_KEPT = ('Published', 'Measurement')
_TASKS = {
    'bbox_': 'Object Detection',
    'segm_': 'Instance Segmentation',
    'mIoU': 'Semantic Segmentation',
}
"""Beginning of a metric's name -> the task that it belongs to."""


def read_metafile(path: Path) -> dict[str, Any]:
    """Reads a metafile.

    Returns:
        Its ``Collections`` and ``Models``.

    Raises:
        UserError: It is missing, is no YAML, or lacks one of the two lists or a name in them.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    for part in ('Collections', 'Models'):
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all('Name' in entry for entry in entries):
            raise UserError(f'{path} must have a list {part!r} of entries with a Name')
    return content


def complete_metafile(
    configs: Path,
    family: str,
    content: dict[str, Any],
    measure: Callable[[ConfigName], Size],
    again: bool = False,
) -> dict[str, Any]:
    """Brings the generated part of a metafile up to date.

    Args:
        configs: Folder of all configs.
        family: Folder of its configs in there.
        content: Of the metafile as it is.
        measure: Called for the size of a model that has none yet.
        again: Whether it is called for all models.

    Returns:
        The whole content.

    Raises:
        UserError: The metafile knows something about a config that is not there, or has no
            collection for one that is.
    """
    known = {model['Name']: model for model in content['Models']}
    here = {config.stem: config for config in list_configs(configs) if config.family == family}
    for name, model in known.items():
        if name not in here and _has_facts(model):
            raise UserError(
                f'configs/{family}/{FILE_NAME} has results of {name}, but there is no such '
                'config; move or remove them'
            )
    models = []
    for name in sorted(here, key=_order_of(known)):
        config, old = here[name], known.get(name, {})
        size = None if again else _stored_size(old)
        models.append(
            {
                'Name': name,
                'In Collection': collection_of(config, content['Collections']),
                'Config': f'configs/{config.path}',
                'Metadata': _metadata(config, configs, size or measure(config)),
                'Results': old['Results'] if _is_measured(old) else _empty_results(config),
                **{key: old[key] for key in _KEPT if old.get(key)},
            }
        )
    return {'Collections': content['Collections'], 'Models': models}


def record_measurement(
    root: Path, name: str, metrics: dict[str, float], measurement: dict[str, Any]
) -> None:
    """Puts what we measured for one model into its metafile.

    Args:
        root: Of the clone.
        name: Of the model, i.e. its config.
        metrics: Metric, named as the evaluators name it, to percent, kept to one decimal place.
        measurement: ``Command`` and ``Machine``; maybe ``Images per second``, ``Memory (MiB)``.

    Raises:
        UserError: No metafile has the model, or the model no result that a metric belongs to.
    """
    found = [config for config in list_configs(root / 'configs') if config.stem == name]
    if not found:
        raise UserError(f'no config {name} in {root / "configs"}')
    path = root / 'configs' / found[0].family / FILE_NAME
    content = read_metafile(path)
    model = next((m for m in content['Models'] if m['Name'] == name), None)
    if model is None:
        raise UserError(f'{path} lacks {name}; call python tools/analysis_tools/make_tables.py')
    results = {result['Task']: result['Metrics'] for result in model['Results']}
    for metric, value in metrics.items():
        task = next((t for start, t in _TASKS.items() if metric.startswith(start)), None)
        if task not in results:
            raise UserError(f'{name} has no result for {metric}; it has {", ".join(results)}')
        results[task][metric] = round(value, 1)
    model['Measurement'] = measurement
    write_atomically(dump_metafile(content).encode(), path)


def dump_metafile(content: dict[str, Any]) -> str:
    """Returns the text of a metafile."""
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return _HEADER + body


def collection_of(config: ConfigName, collections: list[dict[str, Any]]) -> str:
    """Returns the collection whose name a backbone's name begins with, the longest if several do.

    Raises:
        UserError: There is none.
    """
    names = [c['Name'] for c in collections if config.backbone.startswith(c['Name'].lower())]
    if not names:
        raise UserError(
            f'configs/{config.family}/{FILE_NAME} has no collection for '
            f'{config.backbone}; there are {", ".join(c["Name"] for c in collections)}'
        )
    return max(names, key=len)


def _is_measured(model: dict[str, Any]) -> bool:
    return any(result.get('Metrics') for result in model.get('Results') or [])


def _has_facts(model: dict[str, Any]) -> bool:
    return _is_measured(model) or any(model.get(key) for key in _KEPT)


def _stored_size(model: dict[str, Any]) -> Size | None:
    metadata = model.get('Metadata', {})
    try:
        height, width = metadata['MACs Input'].split('x')
        return Size(metadata['Parameters'], metadata['MACs'], int(height), int(width))
    except KeyError:
        return None


def _metadata(config: ConfigName, configs: Path, size: Size) -> dict[str, Any]:
    cfg = Config.fromfile(configs / config.path)
    parameters, macs, height, width = astuple(size)
    length = {'Epochs': 'max_epochs', 'Iterations': 'max_iters'}
    # The recipes of digit scenes are written for one process, all others for eight GPUs.
    scaling = cfg.get('auto_scale_lr') or {}
    batch = scaling.get('base_batch_size', cfg.train_dataloader.batch_size)
    return {
        'Training Data': config.data_set.name,
        'Batch Size': batch,
        **{unit: cfg.train_cfg[key] for unit, key in length.items() if key in cfg.train_cfg},
        'Parameters': parameters,
        'MACs': macs,
        'MACs Input': f'{height}x{width}',
    }


def _empty_results(config: ConfigName) -> list[dict[str, Any]]:
    tasks = [_TASKS['mIoU' if config.segments else 'bbox_']]
    if 'mask' in config.head:
        tasks.append(_TASKS['segm_'])
    return [{'Task': task, 'Dataset': config.data_set.name, 'Metrics': {}} for task in tasks]


def _order_of(known: dict[str, Any]) -> Callable[[str], tuple[int, str]]:
    places = {name: place for place, name in enumerate(known)}
    return lambda name: (places.get(name, len(places)), name)
