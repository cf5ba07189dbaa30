"""What ``attnpool export`` does: record, write, compare, and only then put the file there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_dense_task
from attnpool_backbones.datasets.limits import MAX_PIXELS
from attnpool_backbones.export.checking import Agreement, compare
from attnpool_backbones.export.graph import (
    SMALLEST,
    Sizes,
    build_graph,
    example,
    fixed_because,
    trace,
)
from attnpool_backbones.export.images import ImageInput
from attnpool_backbones.export.int8 import keep_of, quantise
from attnpool_backbones.export.onnx_file import to_onnx
from attnpool_backbones.export.openvino_file import to_openvino, write_openvino
from attnpool_backbones.export.torch_file import run_program, to_pt2
from attnpool_backbones.inference.config_data import tested_dataset, tested_palette
from attnpool_backbones.inference.exported_facts import Facts
from attnpool_backbones.inference.exported_model import ExportedModel
from attnpool_backbones.inference.extras import require_extra
from attnpool_backbones.inference.loading import (
    find_model_files,
    load_model,
    max_pixels_of,
    predictor_of,
    predictor_of_file,
)
from attnpool_backbones.inference.onnx_engine import OnnxEngine
from attnpool_backbones.inference.openvino_engine import OpenVinoEngine
from attnpool_backbones.inference.prediction import Detections, Segmentation
from attnpool_backbones.inference.predictor import Predictor
from attnpool_backbones.inference.preparation import Preparation
from attnpool_backbones.inference.sources import open_source
from attnpool_backbones.necks import ScalePyramid
from attnpool_backbones.stopwatch import median_seconds
from attnpool_backbones.version import __version__

__all__ = ['Exported', 'Request', 'export']

EXAMPLE = (128, 160)
"""Height and width of the first image that a graph for any size is compared with its model on."""
CHECKED = 4
"""Images on which model and file are compared, of those that are named."""
COMPARED = 32
"""Images on which files of 32 and of 8 bits are compared."""
UNCHANGED = Preparation()


@dataclass(frozen=True)
class Request:
    """What to export.

    Args:
        model: The folder of a run, or a config.
        target: The file to write.
        checkpoint: Of the config. Default: the best of the run, else the last.
        size: Height and width of all images. Default: any, where the model allows it.
        batch: Images at once where the size is fixed. Default: 1.
        to: Kind of the file. Default: ``'onnx'``.
        images: What the file is compared on: a source of images. Default: smooth noise.
        int8: Whether convolutions and linear layers compute with 8 bits. Default: False.
        calibration: Images that tell how large maps get, of ``images``. Default: 64.
        cfg_options: Settings of the config to override. Default: none.
    """

    model: str
    target: str
    checkpoint: str | None = None
    size: tuple[int, int] | None = None
    batch: int = 1
    to: str = 'onnx'
    images: Any = None
    int8: bool = False
    calibration: int = 64
    cfg_options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Args:
        path: The file.
        facts: What it says about itself.
        agreement: With the model.
    """

    path: Path
    facts: Facts
    agreement: Agreement


def export(request: Request, tell: Callable[[str], None] = print) -> Exported:
    """Writes a model as a file that predicts what the model predicts, or nothing.

    Args:
        request: What to export.
        tell: Called with a line about each step.

    Raises:
        UserError: If the model cannot be exported, or the file does not agree with it.
    """
    if isinstance(request.images, str) and request.images == '-':
        raise UserError('--images -: images are read twice, standard input only once; name files')
    if request.int8 and (request.images is None or request.to != 'onnx'):
        raise UserError('--int8 is for --to onnx, and needs --images SOURCE to calibrate on')
    _, weights = find_model_files(request.model, request.checkpoint)
    tell(f'checkpoint: {weights}')
    if request.to != 'torch-export':
        require_extra('export', 'onnxscript')
    if request.to == 'openvino':
        require_extra('openvino')
    model, cfg, classes = load_model(request.model, request.checkpoint, request.cfg_options)
    sizes = choose_sizes(model, cfg, request)
    if sizes.fixed:
        size = sizes.height, sizes.width
        reason = '' if request.size else f', because {fixed_because(model)}'
        if request.size and request.size != size:
            reason = f', because the backbone sees whole patches of {patch_of(model)} pixels'
        tell(
            f'the file takes images of {sizes.height}x{sizes.width} (height and width), '
            f'{sizes.batch} at once, and no others{reason}'
        )
        stretched = Preparation.of_pipeline(tested_dataset(cfg).pipeline).size
        if stretched not in (None, size):
            height, width = stretched
            tell(
                f'the config stretches images to {height}x{width}, the file keeps their ratio and '
                f'pads them; --size {height} {width} makes one that stretches them, too'
            )
    else:
        tell('the file takes any number of images of any size')
    graph = build_graph(model, cfg)
    facts = describe(model, cfg, classes, sizes, Path(request.model).name)
    # an image that cannot be read is told before the work
    max_pixels = max_pixels_of(request.model, request.checkpoint, request.cfg_options)
    count = max(CHECKED, request.calibration) if request.int8 else CHECKED
    pictures, inputs = _images(request.images, count, max_pixels, facts)
    program = trace(graph, sizes)
    if request.to == 'torch-export':
        content = to_pt2(program, facts)
        engine = run_program(content, graph.outputs)
    else:
        content = to_onnx(program, graph.outputs, facts)
        engine = OnnxEngine(content)
    if request.to == 'openvino':
        files = to_openvino(content, facts)
        engine = OpenVinoEngine(*files)
    reference = predictor_of(model, cfg, classes, 'cpu')
    images = noise(sizes)
    if pictures:
        # a graph for any size has to be right for sizes that the images may not have
        images = pictures[:CHECKED] + images[1:]
    agreement = check(reference, engine, facts, images)
    tell(f'compared with the model: {agreement}')
    if not agreement.holds:
        raise UserError(
            f'{request.target} was not written: the file does not predict what the model does'
        )
    if request.int8:
        inputs, pictures = inputs[: request.calibration], pictures[: request.calibration]
        content = _quantised(content, engine, facts, request.target, pictures, inputs, tell)
    if request.to == 'openvino':
        write_openvino(*files, Path(request.target))
    else:
        write_atomically(content, request.target)
    return Exported(Path(request.target), facts, agreement)


def _images(
    source: Any, count: int, max_pixels: int, facts: Facts
) -> tuple[list[np.ndarray], list[Tensor]]:
    """Reads the first images of a source, of which the first 32 are kept, and prepares all."""
    pictures, inputs = [], []
    if source is not None:
        for image, made in read_images(source, count, max_pixels, facts.preparation):
            inputs.append(made)
            if len(pictures) < COMPARED:
                pictures.append(image)
    return pictures, inputs


def _quantised(
    content: bytes,
    engine: Any,
    facts: Facts,
    target: str,
    pictures: list[np.ndarray],
    inputs: list[Tensor],
    tell: Callable[[str], None],
) -> bytes:
    """Quantises a file and tells what that costs and gains.

    Args:
        content: Of the file.
        engine: Runs it.
        facts: About it.
        target: Name of the file to write.
        pictures: Images on which both files are compared.
        inputs: Prepared images, on which it is calibrated.
        tell: Called with a line about each step.

    Raises:
        UserError: If little is left of what the file predicts.
    """
    tell(f'8 bits: calibrating on {len(inputs)} images')
    filled, at_once = ExportedModel(None, facts).filled, facts.batch or 1
    groups = (inputs[start : start + at_once] for start in range(0, len(inputs), at_once))
    smaller = quantise(content, map(filled, groups))
    quick = OnnxEngine(smaller)
    predictors = (predictor_of_file(engine, facts), predictor_of_file(quick, facts))
    kept = keep_of(*(_predictions(predictor, pictures, facts) for predictor in predictors))
    batch = filled(inputs[:at_once])
    times = median_seconds([partial(run, batch) for run in (engine, quick)])
    before, after = (seconds / at_once for seconds in times)
    what = 'objects' if facts.task == 'detection' else 'pixels'
    tell(
        f'8 bits: {kept.share:.1%} of {kept.total} {what} are told as before, an image takes '
        f'{after * 1e3:.1f} ms in place of {before * 1e3:.1f} ms, the file has '
        f'{len(smaller) / 2**20:.1f} MiB in place of {len(content) / 2**20:.1f} MiB'
    )
    if kept.share < 0.5:
        raise UserError(
            f'{target} was not written: with 8 bits less than half of the {what} are left; '
            'more and better --images may help'
        )
    return smaller


def choose_sizes(model: nn.Module, cfg: Config, request: Request) -> Sizes:
    """Chooses what images the graph takes.

    Sides of one size become whole patches, unless the config stretches images to just that size.

    Raises:
        UserError: If a size is needed and nobody says one.
    """
    preparation = Preparation.of_pipeline(tested_dataset(cfg).pipeline)
    if request.size is not None:
        height, width = request.size
        if min(height, width) < SMALLEST:
            raise UserError(f'--size {height} {width}: sides have to be {SMALLEST} or more')
    else:
        reason = fixed_because(model)
        if reason is None:
            return Sizes(*EXAMPLE)
        scales = [step.scale for step in preparation.steps if step.scale is not None]
        if not scales:
            raise UserError(f'--size HEIGHT WIDTH has to be said: {reason}')
        height, width = preparation.size or scales[0][::-1]
    if (height, width) != preparation.size:
        patch = patch_of(model)
        height, width = (-(-side // patch) * patch for side in (height, width))
    return Sizes(height, width, request.batch, fixed=True)


def patch_of(model: nn.Module) -> int:
    """Returns the pixels of which a side has to be a multiple, so that no label is shifted."""
    if not hasattr(model, 'decode_head'):  # a detector does not resize its maps to the image
        return 1
    pyramids = (module for module in model.modules() if isinstance(module, ScalePyramid))
    return max((pyramid.in_stride for pyramid in pyramids), default=1)


def describe(
    model: nn.Module, cfg: Config, classes: Sequence[str], sizes: Sizes, name: str
) -> Facts:
    """Collects what travels in the file.

    Raises:
        UserError: If no file with it could be opened.
    """
    dataset = tested_dataset(cfg)
    palette = tested_palette(cfg, classes)
    test_cfg = model.test_cfg or {}
    of_objects = test_cfg.get('rcnn') or test_cfg
    is_detector = recognise_dense_task(cfg, 'attnpool export') == 'mmdet'
    preparation = Preparation.of_pipeline(dataset.pipeline)
    size = (sizes.height, sizes.width) if sizes.fixed else None
    if sizes.fixed and preparation.size != size:
        preparation = Preparation.into(size)
    has_masks = bool(getattr(getattr(model, 'roi_head', None), 'with_mask', False))
    facts = Facts(
        task='detection' if is_detector else 'segmentation',
        classes=tuple(classes),
        palette=tuple(tuple(int(value) for value in colour) for colour in palette),
        preparation=preparation,
        score=float(of_objects.get('score_thr', 0.0)) if is_detector else 0.0,
        mask=float(of_objects.mask_thr_binary) if has_masks else None,
        binary=getattr(getattr(model, 'decode_head', None), 'threshold', None),
        size=size,
        batch=sizes.batch if sizes.fixed else None,
        smallest=SMALLEST,
        fill=ImageInput(model.data_preprocessor).blank(),
        made=dict(model=name, attnpool_backbones=__version__, torch=torch.__version__),
    )
    try:
        return Facts.from_json(facts.to_json())
    except ValueError as error:
        raise UserError(f'an exported file cannot hold what the config says: {error}') from error


def check(reference: Predictor, engine: Any, facts: Facts, images: list[np.ndarray]) -> Agreement:
    """Compares a graph with its model, image by image.

    Args:
        reference: The model.
        engine: Runs the graph.
        facts: About the graph.
        images: H, W, 3 uint8 in blue, green, red.
    """
    if facts.size is not None:
        # Both see the same pixels: around an image of another size there would be room in the file
        # only.
        images = [cv2.resize(image, facts.size[::-1]) for image in images]
        facts = replace(facts, preparation=Preparation())
        reference.pipeline = facts.preparation
    predictors = (reference, predictor_of_file(engine, facts))
    return compare(*(_predictions(predictor, images, facts) for predictor in predictors))


def _predictions(
    predictor: Predictor, images: list[np.ndarray], facts: Facts
) -> Iterator[Detections | Segmentation]:
    """Yields predictions one by one: with a score of 0 an image has many masks of its size."""
    return predictor(images, score=0.0, batch=facts.batch or 1)


def prepared(image: np.ndarray, facts: Facts) -> np.ndarray:
    """Makes an image H, W, 3 the input of a graph, B, 3, H', W' float32.

    B is 1, or the number of images that the graph takes at once: then it is the same one.
    """
    return ExportedModel(None, facts).filled([facts.preparation(dict(img=image))['inputs']])


def first_images(source: Any, count: int) -> list[np.ndarray]:
    """Reads the first images of a source; see :func:`read_images`."""
    return [image for image, _ in read_images(source, count)]


def read_images(
    source: Any,
    count: int,
    max_pixels: int = MAX_PIXELS,
    preparation: Preparation = UNCHANGED,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Reads the first images of a source one by one.

    Args:
        source: As :func:`~attnpool_backbones.inference.sources.open_source` takes it.
        count: How many at most.
        max_pixels: How many an image may have. Default: 2**28.
        preparation: Of the images. Default: they stay as they are.

    Yields:
        An image H, W, 3 in blue, green, red, and 3, H', W' of it prepared.

    Raises:
        UserError: If one of them cannot be read or prepared, or has too many pixels, or there is
            none.
    """
    image = None
    for frame in islice(open_source(source, max_pixels=max_pixels).frames, count):
        image = frame.read()
        if image is None:
            raise UserError(f'--images: {frame.name} is no image')
        try:
            made = preparation(dict(img=image))['inputs']
        except cv2.error as error:  # of a side that becomes 0 pixels
            raise UserError(
                f'--images: {frame.name}: {image.shape[1]}x{image.shape[0]} pixels cannot be '
                f'prepared as the config says: {error.err}'
            ) from error
        yield image, made
    if image is None:
        raise UserError(f'--images: no image in {source} can be read')


def noise(sizes: Sizes) -> list[np.ndarray]:
    """Makes images of smooth noise, H, W, 3 uint8.

    They are of several sizes if the graph takes any, else as many as it takes at once.
    """
    shapes = [(sizes.height, sizes.width)]
    if not sizes.fixed:
        shapes += [(sizes.height - 27, sizes.width + 35), (sizes.height + 64, sizes.width - 60)]
    count = min(sizes.batch, CHECKED) if sizes.fixed else 1
    images = [image for shape in shapes for image in example(count, *shape).permute(0, 2, 3, 1)]
    return [image.to(torch.uint8).numpy() for image in images]
