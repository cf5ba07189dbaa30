"""What exported files score on digit scenes, of 32 and of 8 bits, beside the models they are of.

Every family in nano size, under every head that can be exported, learns 64 small scenes by heart:
the cheapest training after which a metric moves with the files and not with chance. A row that is
finished is kept while the code stays the same; an interrupted call goes on where it was.
"""

import copy
import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import nn

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import source_digest
from attnpool_backbones.datasets.digit_scenes import SIZE, generate
from attnpool_backbones.experiments.digit_training import labelled
from attnpool_backbones.experiments.nano_heads import FAMILIES, HEADS, nano_config
from attnpool_backbones.export.exporting import EXAMPLE, describe, first_images, prepared
from attnpool_backbones.export.graph import Sizes, build_graph, fixed_because, trace
from attnpool_backbones.export.int8 import quantise
from attnpool_backbones.export.onnx_file import to_onnx
from attnpool_backbones.inference.exported_facts import Facts
from attnpool_backbones.inference.exported_model import ExportedModel
from attnpool_backbones.inference.onnx_engine import OnnxEngine, read_onnx
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.machine import processor_name, usable_cores
from attnpool_backbones.markdown import markdown_table, replace_section
from attnpool_backbones.stopwatch import median_seconds

SIDE = 64
"""Pixels of a scene."""
SCENES = 64
STEPS = 250
BATCH = 8
PASSES = 8
"""Evaluations of a pair of files that tell what 8 bits lose."""
NOISE = 0.25
"""Standard deviation of the noise in their scenes, of 255. It is less than what rounding does to a
pixel, and moves a score of so few scenes by up to 1.0: one evaluation of each would tell little."""
TIMED_SIDE = 256
"""Pixels of the image that the files are timed on."""
TIMED_ROUNDS = 40
METRICS = {'coco/bbox_mAP': 'bbox', 'coco/segm_mAP': 'segm', 'mIoU': 'mIoU'}
"""Key of an evaluator -> label in the table."""
ROWS = tuple(f'{family}/{head}' for head in HEADS for family in FAMILIES)
"""Names of all rows."""
COLUMNS = (
    'head of backbone', 'metric', 'model', 'ONNX', '8 bits', 'lost with 8 bits', 'ONNX (ms)',
    '8 bits (ms)',
)  # fmt: skip


def on_scenes(cfg: Config, root: Path) -> Config:
    """Points a config at small scenes, on the training split of which it is tested too.

    Args:
        cfg: Of :func:`nano_config`; changed in place.
        root: Folder of the scenes.

    Returns:
        The config.
    """
    cfg.train_dataloader.batch_size = BATCH
    if 'size' in cfg.model.data_preprocessor:
        # else batches of the training would be padded to the config's 192 pixels: batch norms would
        # learn the statistics of padding, and the segmentor find nothing in scenes without it
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
    for part in ('rpn_head', 'bbox_head'):
        if 'anchor_generator' in (cfg.model.get(part) or {}):
            anchors = cfg.model[part].anchor_generator
            anchors.scales = [scale * SIDE / SIZE[0] for scale in anchors.scales]
    for split in ('train', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers, loader.persistent_workers = 0, False
        loader.dataset.data_root = str(root)
        loader.dataset.data_prefix = copy.deepcopy(cfg.train_dataloader.dataset.data_prefix)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize' and 'scale' in step:
                step.scale = (SIDE, SIDE)
    if 'ann_file' in cfg.test_evaluator:
        cfg.test_dataloader.dataset.ann_file = cfg.train_dataloader.dataset.ann_file
        cfg.test_evaluator.ann_file = str(root / cfg.train_dataloader.dataset.ann_file)
        if not (cfg.model.get('roi_head') or {}).get('mask_head'):
            cfg.test_evaluator.metric = ['bbox']
    return cfg


def trained(cfg: Config, steps: int = STEPS) -> nn.Module:
    """Trains a model for so many steps of one cycle of the learning rate."""
    set_random_seed(0)
    model = build_config_model(cfg).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    done = 0
    while done < steps:
        for batch in loader:
            data = model.data_preprocessor(batch, True)
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break
    return model.eval()


def score(model: nn.Module, cfg: Config) -> dict[str, float]:
    """Evaluates a model, or a file in its place, as a test does; in percent."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = loader.dataset.metainfo
        with torch.inference_mode():
            for batch in loader:
                evaluator.process(model.test_step(batch), batch)
        found = evaluator.evaluate(len(loader.dataset))
    return labelled(found, {key: key for key in METRICS})


def exported(model: nn.Module, cfg: Config, side: int = SIDE) -> tuple[bytes, Facts]:
    """Writes a model as ``attnpool export`` does.

    Args:
        model: A trained one.
        cfg: Its config.
        side: Pixels of all images, where the file takes no other. Default: 64.

    Returns:
        Content of the ONNX file, and what it says about itself.
    """
    fixed = fixed_because(model) is not None
    sizes = Sizes(side, side, 1, fixed=True) if fixed else Sizes(*EXAMPLE)
    graph = build_graph(model, cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        classes = Runner.build_dataloader(cfg.test_dataloader, seed=0).dataset.metainfo['classes']
    facts = describe(model, cfg, classes, sizes, 'digit scenes')
    return to_onnx(trace(graph, sizes), graph.outputs, facts), facts


def calibrated(content: bytes, facts: Facts, root: Path) -> bytes:
    """Makes the file of 8 bits, as ``attnpool export --int8`` does with all scenes as images."""
    images = first_images(str(root / 'images' / 'training'), SCENES)
    return quantise(content, (prepared(image, facts) for image in images))


def score_file(
    content: bytes, facts: Facts, cfg: Config, seed: int | None = None
) -> dict[str, float]:
    """Evaluates a file; in percent.

    Args:
        content: Of the file.
        facts: What it says about itself.
        cfg: Config with the scenes.
        seed: Of noise in the scenes. Default: none.
    """
    engine = OnnxEngine(content)
    if seed is None:
        return score(ExportedModel(engine, facts).eval(), cfg)
    rng = np.random.default_rng(seed)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return engine(images + rng.normal(0, NOISE, images.shape).astype(np.float32))

    return score(ExportedModel(run, facts).eval(), cfg)


def train_row(name: str, root: Path, folder: Path) -> dict[str, Any]:
    """Trains a row's model, exports it and evaluates both.

    Args:
        name: Among :data:`ROWS`.
        root: Folder of the scenes.
        folder: Gets the files, one for the times too where a file takes one size only.

    Returns:
        ``model`` and ``onnx``: key of the evaluator -> percent.
    """
    cfg = on_scenes(nano_config(*name.split('/')), root)
    model = trained(cfg)
    content, facts = exported(model, cfg)
    write_atomically(content, folder / 'whole.onnx')
    if facts.size is not None:
        write_atomically(exported(model, cfg, TIMED_SIDE)[0], folder / 'whole_timed.onnx')
    return dict(name=name, model=score(model, cfg), onnx=score_file(content, facts, cfg))


def quantise_row(name: str, root: Path, folder: Path) -> dict[str, Any]:
    """Makes a row's files of 8 bits of those of :func:`train_row` and evaluates them.

    Args:
        name: Among :data:`ROWS`.
        root: Folder of the scenes.
        folder: Of the files.

    Returns:
        ``int8``: key of the evaluator -> percent; ``lost``: key -> the loss of each pass.

    Raises:
        UserError: If there are no such files.
    """
    files = sorted(folder.glob('whole*.onnx'))
    if folder / 'whole.onnx' not in files:
        raise UserError(f'{folder}: no whole.onnx in it; remove the folder to train the row anew')
    cfg = on_scenes(nano_config(*name.split('/')), root)
    for whole in files:
        content, facts = read_onnx(whole)
        small = calibrated(content, facts, root)
        write_atomically(small, whole.with_name(whole.name.replace('whole', 'int8')))
        if whole.stem == 'whole':
            row: dict[str, Any] = dict(int8=score_file(small, facts, cfg))
            pairs = [
                [score_file(file, facts, cfg, seed) for file in (content, small)]
                for seed in range(PASSES)
            ]
            row['lost'] = {
                key: [one[key] - other[key] for one, other in pairs] for key in row['int8']
            }
    return row


def time_row(name: str, root: Path, folder: Path) -> dict[str, Any]:
    """Measures how long a row's files take for a scene of 256x256.

    Args:
        name: Among :data:`ROWS`.
        root: Folder of the scenes.
        folder: Of the files.

    Returns:
        ``seconds`` of the one of 32 and of the one of 8 bits, medians, and the ``machine``.
    """
    timed = '_timed' if (folder / 'whole_timed.onnx').exists() else ''
    engines = [
        OnnxEngine((folder / f'{kind}{timed}.onnx').read_bytes()) for kind in ('whole', 'int8')
    ]
    (scene,) = first_images(str(root / 'images' / 'training'), 1)
    scene = cv2.resize(scene, (TIMED_SIDE, TIMED_SIDE))
    images = scene.transpose(2, 0, 1)[None].astype(np.float32)
    machine = f'{usable_cores()} cores of {processor_name()}'
    seconds = median_seconds([partial(engine, images) for engine in engines], TIMED_ROUNDS)
    return dict(seconds=seconds, machine=machine)


STAGES = {'trained': train_row, 'int8': quantise_row, 'times': time_row}
"""Name of a result -> what makes it."""


def run(
    work_dir: Path, only: Sequence[str], stages: Sequence[str], tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measures what this code has not measured yet.

    Args:
        work_dir: Folder of the scenes, files and results.
        only: Patterns of names of rows; empty: all.
        stages: Among :data:`STAGES`.
        tell: Called with a line about each row.

    Returns:
        The finished rows, those of earlier calls by the same code too.

    Raises:
        UserError: If a pattern finds no row.
    """
    for pattern in only:
        if not any(fnmatch(name, pattern) for name in ROWS):
            raise UserError(f'--only {pattern}: no row; there are {", ".join(ROWS)}')
    names = [name for name in ROWS if not only or any(fnmatch(name, p) for p in only)]
    root = work_dir / 'digit_scenes'
    generate(root, train=SCENES, val=1, size=SIDE)
    code = source_digest()
    for number, name in enumerate(names, 1):
        folder = work_dir / name
        changed = False
        for stage in STAGES:
            if stage in stages and read_stage(folder, stage, code) is None:
                changed = True
                folder.mkdir(parents=True, exist_ok=True)
                for later in list(STAGES)[list(STAGES).index(stage) :]:  # they are of its files
                    (folder / f'{later}.json').unlink(missing_ok=True)
                found = dict(STAGES[stage](name, root, folder), code=code)
                write_atomically(json.dumps(found, indent=2).encode(), folder / f'{stage}.json')
        if changed:
            tell(f'[{number}/{len(names)}] {" | ".join(cells(read_row(folder, code)))}')
    rows = [read_row(work_dir / name, code) for name in ROWS]
    return [row for row in rows if row.keys() >= {'model', 'lost'}]


def read_stage(folder: Path, stage: str, code: str) -> dict[str, Any] | None:
    """Reads a result of a row, None if there is none of this code.

    Args:
        folder: Of the row.
        stage: Among :data:`STAGES`.
        code: Of :func:`source_digest`.
    """
    path = folder / f'{stage}.json'
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if found.pop('code', None) == code else None


def read_row(folder: Path, code: str) -> dict[str, Any]:
    """Reads what there is of a row, measured by this code."""
    row: dict[str, Any] = {}
    for stage in STAGES:
        row |= read_stage(folder, stage, code) or {}
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """Returns the cells of a row of the table."""
    family, head = row['name'].split('/')
    scores = [
        ' / '.join(f'{row[kind][key]:.1f}' for key in METRICS if key in row[kind])
        for kind in ('model', 'onnx', 'int8')
    ]
    times = [f'{1e3 * value:.1f}' for value in row.get('seconds', ())] or ['-', '-']
    metric = ' / '.join(METRICS[key] for key in row['model'])
    lost = ' / '.join(_mean(row['lost'][key]) for key in METRICS if key in row['lost'])
    return [f'{head} of {family}', metric, *scores, lost, *times]


def _mean(values: Sequence[float]) -> str:
    """Returns a mean and its standard error."""
    return f'{np.mean(values):.1f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}'


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the table in Markdown, with what it comes to and the machines under it."""
    table = markdown_table(COLUMNS, [cells(row) for row in rows], COLUMNS[2:])
    machines = sorted({row['machine'] for row in rows if 'machine' in row})
    whole = max(row['model'][key] - row['onnx'][key] for row in rows for key in row['model'])
    small = max(np.mean(values) for row in rows for values in row['lost'].values())
    text = f'{table}\nThe most that a file lost: {whole:.2f}, with 8 bits {small:.2f}.'
    return text + (f' Times: {"; ".join(machines)}.\n' if machines else '\n')


def publish(rows: Sequence[dict[str, Any]], page: Path) -> None:
    """Puts the table into the page on exports.

    Raises:
        UserError: If a row is missing: the page would lose it.
    """
    lacking = [name for name in ROWS if name not in {row['name'] for row in rows}]
    if lacking:
        raise UserError(
            f'{page} was left as it is: {len(lacking)} of {len(ROWS)} rows are not measured by '
            f'this code ({", ".join(lacking[:3])}{", ..." if lacking[3:] else ""}); --only has to '
            'take them in, too'
        )
    replace_section(page, 'scores', markdown(rows))
