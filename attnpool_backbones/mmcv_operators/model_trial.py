"""One trial of a model of mmdet's or mmseg's own configs: it is built and predicts once.

It has random weights, and predicts for one small random image.
"""

import contextlib
import copy
import gc
import importlib
import os
import re
import signal
import string
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed

SIZES = ((160, 224), (512, 512))  # height, width; if these fail, what the config names
SECONDS = 240  # for one model
PROMPT = 'cat . dog'
MARKS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', '.', '?')


class TooSlow(Exception):
    """A model took longer than it may."""


def try_config(path: Path, seconds: int = SECONDS) -> str:
    """Builds the model of a config and predicts once; returns what went wrong, or ''.

    Args:
        path: The config.
        seconds: How long it may take with images of one size. Default: 240.
    """
    from mmengine.config import Config

    try:
        with quiet():
            config = Config.fromfile(path)
    except Exception as error:
        return _reason(error)
    reason = ''
    for size in dict.fromkeys((*SIZES, *_own_sizes(config))):
        try:
            with quiet(), _time_limit(seconds):
                _predict(config, size)
            return ''
        except Exception as error:
            reason = _reason(error)
        finally:
            gc.collect()
        if reason.startswith(('needs', 'MissingOperator', 'TooSlow', 'FileNotFound')):
            break
    return reason


def _own_sizes(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Returns the height and width that a config crops images to, if it does."""
    size = config.get('crop_size')
    return [tuple(size)] if isinstance(size, (list, tuple)) else []


def _predict(config: Mapping[str, Any], size: tuple[int, int]) -> None:
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, init_default_scope

    scope = config.get('default_scope', 'mmdet')
    init_default_scope(scope)
    importlib.import_module(f'{scope}.models')
    model_config = copy.deepcopy(config['model'])
    if 'teacher_ckpt' in model_config:
        model_config['teacher_ckpt'] = None  # weights on the network
    with tempfile.TemporaryDirectory() as folder, _folder(shipped(scope)):
        if 'language_model' in model_config:
            _write_language_model(folder)
            _rename(model_config, model_config['language_model']['name'], folder)
        # for one process, as mmdet's and mmseg's own functions for inference make it; some name the
        # configs of their teachers in the folder
        with _process_group():
            model = revert_sync_batchnorm(MODELS.build(model_config))
    model.eval()
    preprocessor = model_config.get('data_preprocessor') or {}
    channels = len(preprocessor.get('mean') or '') or 3  # those of two images for changes
    with torch.no_grad():
        model.test_step(_inputs(scope, model, (channels, *size)))


def _rename(config: dict[str, Any], old: str, new: str) -> None:
    """Puts a string in the place of another one, wherever a config has it."""
    for key, value in config.items():
        if isinstance(value, dict):
            _rename(value, old, new)
        elif value == old:
            config[key] = new


def _write_language_model(folder: str) -> None:
    """Writes a BERT with random weights that reads letters; its width is that of the base size."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = string.ascii_lowercase + string.digits
    tokens = [*MARKS, *letters, *(f'##{letter}' for letter in letters)]
    vocabulary = Path(folder, 'vocab.txt')
    vocabulary.write_text('\n'.join(tokens))
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(tokens), num_hidden_layers=2)).save_pretrained(folder)


def _inputs(scope: str, model: torch.nn.Module, image: tuple[int, int, int]) -> dict[str, Any]:
    """Returns a batch of one image, or of one frame."""
    if scope == 'mmseg':
        from mmseg.structures import SegDataSample

        sample = SegDataSample()
        shape = dict(img_shape=image[1:], ori_shape=image[1:], pad_shape=image[1:])
        sample.set_metainfo(shape)
        return dict(inputs=[torch.randint(0, 255, image, dtype=torch.uint8)], data_samples=[sample])
    from mmdet import testing
    from mmdet.models.mot import BaseMOTModel

    if isinstance(model, BaseMOTModel):
        return testing.demo_track_inputs(
            batch_size=1, num_frames=1, image_shapes=image, num_classes=2
        )
    texts = [PROMPT] if hasattr(model, 'language_model') else None
    batch = testing.demo_mm_inputs(
        batch_size=1,
        image_shapes=[image],
        with_mask=True,
        with_semantic=True,
        texts=texts,
        custom_entities=True,
    )
    if type(model).__name__ == 'FastRCNN':  # takes proposals from a file
        for sample in batch['data_samples']:
            sample.proposals = sample.gt_instances.clone()
    return batch


def shipped(library: str) -> Path:
    """Returns the folder of what a library's wheel ships besides its code."""
    return Path(importlib.import_module(library).__file__).parent / '.mim'


def _reason(error: Exception) -> str:
    missing = error
    while missing is not None:
        if isinstance(missing, ModuleNotFoundError):
            return f'needs {(missing.name or "").partition(".")[0]}'
        missing = missing.__cause__ or missing.__context__
    return f'{type(error).__name__}: {first_line(error)}'


def first_line(error: Exception) -> str:
    """Returns what an error says, in a line without folders of this machine."""
    text = ' '.join(str(error).split())
    return re.sub(r'(?<!\w)/(?:\S*/)?', '', text)[:160]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves out warnings and what is printed."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter('ignore')
        yield


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _process_group() -> Iterator[None]:
    """Makes a group of this process alone, without which mmcv builds no SyncBatchNorm."""
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlow(f'took longer than {seconds} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
