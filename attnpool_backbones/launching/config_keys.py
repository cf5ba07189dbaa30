"""Keys and types of a config that are misspelt, found before anything is built.

mmengine ignores a key that it does not know, `trian_cfg` for instance, without a word.
"""

import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import MAX_PROCESSES, UserError, shortened
from attnpool_backbones.config_types import config_entries, type_name
from attnpool_backbones.launching.config_errors import (
    close_types,
    parameters_of,
    registries,
    suggestion,
)

__all__ = ['require_known_keys', 'require_shapes']

RUNNER_KEYS = (
    'model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg',
    'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'val_evaluator',
    'test_evaluator', 'default_hooks', 'custom_hooks', 'data_preprocessor', 'load_from', 'resume',
    'launcher', 'env_cfg', 'log_processor', 'log_level', 'visualizer', 'default_scope',
    'randomness', 'experiment_name', 'custom_imports', 'compile', 'strategy', 'tta_model',
    'tta_pipeline', 'model_wrapper_cfg', 'find_unused_parameters',
)  # fmt: skip
"""What a run reads at the top of a config."""

USUAL_NAMES = (
    'train_pipeline', 'val_pipeline', 'test_pipeline', 'dataset_type', 'data_root', 'metainfo',
    'vis_backends', 'backend_args', 'max_epochs', 'max_iters', 'train_dataset', 'val_dataset',
    'test_dataset', 'crop_size', 'img_scale', 'norm_cfg', 'model_cfg', 'optimizer', 'base_lr',
    'train_cfgs', 'dataset', 'interval', 'num_classes', 'batch_size', 'resume_from',
)  # fmt: skip
"""Names that configs give to intermediate values."""

HOOK_KEYS = (
    'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint',
    'visualization',
)  # fmt: skip
PARAMWISE_KEYS = (
    'lr_mult', 'decay_mult', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
    'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate',
    'custom_keys', 'num_layers', 'decay_rate', 'decay_type', 'layer_decay_rate',
)  # fmt: skip
FREE = {
    'default_hooks': HOOK_KEYS,
    'optim_wrapper.paramwise_cfg': PARAMWISE_KEYS,
}
"""Dicts whose keys are read one by one, where others are ignored."""

DICT, LIST, EITHER, TEXT = (Mapping,), (list, tuple), (Mapping, list, tuple), (str,)
WORDS = {DICT: 'a dict', LIST: 'a list', EITHER: 'a dict or a list', TEXT: 'a text'}
SHAPES = {
    **dict.fromkeys(
        (
            'model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg',
            'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper', 'default_hooks',
            'data_preprocessor', 'env_cfg', 'log_processor', 'visualizer', 'randomness',
            'strategy', 'tta_model', 'model_wrapper_cfg',
        ),
        DICT,
    ),
    **dict.fromkeys(('param_scheduler', 'val_evaluator', 'test_evaluator'), EITHER),
    **dict.fromkeys(('custom_hooks', 'tta_pipeline'), LIST),
    **dict.fromkeys(('work_dir', 'load_from', 'experiment_name', 'launcher'), TEXT),
}  # fmt: skip
"""What is read at the top of a config, where it is not None, and what it has to be."""

UNREAD = ('in_index',)
"""Arguments that nobody reads, but configs of MaskFormer give to its head as to others of mmseg."""

SIMILAR = 0.8


def require_known_keys(cfg: Config) -> None:
    """Checks a config for keys and types that are none, but nearly are.

    Args:
        cfg: The whole config.

    Raises:
        UserError: Listing all of them, with what was perhaps meant.
    """
    load_registries(cfg)
    content = cfg._cfg_dict
    read = {key: value for key, value in content.items() if key in RUNNER_KEYS}
    faults = [*misspelt(content, RUNNER_KEYS, (*USUAL_NAMES, *names_of_parts(content, read)))]
    for key, known in FREE.items():
        faults += misspelt(nested(content, key), known, prefix=f'{key}.')
    known_types = {name for registry in registries() for name in registry.module_dict}
    typed = {key: entry for key, entry in config_entries(read) if entry.get('type') is not None}
    for key, entry in typed.items():
        owner = [outer for name, outer in typed.items() if key.startswith((f'{name}.', f'{name}['))]
        owners = [kind for outer in owner[-1:] for kind in classes_of(outer)]
        faults += entry_faults(key, entry, owners, known_types)
    if faults:
        raise UserError(
            '\n'.join(
                [f'{cfg.filename} has keys or types that are none:', *map('  {}'.format, faults)]
            )
        )


def require_shapes(cfg: Config) -> None:
    """Checks that dicts and lists are what they are taken for, by whoever reads a config.

    Args:
        cfg: The whole config.

    Raises:
        UserError: Listing all that are something else.
    """
    content = cfg._cfg_dict
    faults = [
        f'{key} has to be {WORDS[shape]}, not {shortened(content[key])}'
        for key, shape in SHAPES.items()
        if content.get(key) is not None and not isinstance(content[key], shape)
    ]
    faults += count_faults(content)
    if not faults:
        faults += [
            f'{key} has to be a dict, not {shortened(value)}'
            for key, value in inner_dicts(content)
            if value is not None and isinstance(value, (str, int, float, list, tuple))
        ]
        for split in ('train', 'val', 'test'):
            for key, entry in config_entries(nested(content, f'{split}_dataloader.dataset')):
                steps = entry.get('pipeline')
                steps = [] if steps is None else steps
                name = f'{split}_dataloader.dataset.{key and key + "."}pipeline'
                if not isinstance(steps, LIST):
                    faults.append(f'{name} has to be a list, not {shortened(steps)}')
                    continue
                faults += [
                    f'{name} has {shortened(step)}, which is no step'
                    for step in steps
                    if step is None or isinstance(step, (str, int, float, list, tuple))
                ]
    if faults:
        raise UserError('\n'.join([f'{cfg.filename} cannot be used:', *map('  {}'.format, faults)]))


def count_faults(content: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with numbers by which the machine would be exhausted."""
    most = content.get('max_pixels')
    if most is not None and not (is_whole(most) and most > 0):
        yield f'max_pixels has to be a whole number from 1 on, not {shortened(most)}'
    for split in ('train', 'val', 'test'):
        loader = content.get(f'{split}_dataloader')
        workers = loader.get('num_workers', 0) if isinstance(loader, Mapping) else 0
        if not (is_whole(workers) and 0 <= workers <= MAX_PROCESSES):
            yield (
                f'{split}_dataloader.num_workers has to be a whole number from 0 to '
                f'{MAX_PROCESSES}, not {shortened(workers)}'
            )


def is_whole(value: Any) -> bool:
    """Tells whole numbers from truths and others."""
    return isinstance(value, int) and not isinstance(value, bool)


def inner_dicts(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields what has to be a dict inside of a config whose top is as it should be."""
    for split in ('train', 'val', 'test'):
        loader = content.get(f'{split}_dataloader') or {}
        for name in ('dataset', 'sampler', 'batch_sampler', 'collate_fn'):
            yield f'{split}_dataloader.{name}', loader.get(name)
    for name in ('optimizer', 'clip_grad', 'paramwise_cfg'):
        yield f'optim_wrapper.{name}', nested(content, 'optim_wrapper').get(name)
    for name, hook in nested(content, 'default_hooks').items():
        yield f'default_hooks.{name}', hook
    for key in ('custom_hooks', 'param_scheduler', 'val_evaluator', 'test_evaluator'):
        entries = content.get(key)
        for index, entry in enumerate(entries if isinstance(entries, LIST) else ()):
            yield f'{key}[{index}]', entry


def load_registries(cfg: Config) -> None:
    """Has every registry of the config's scope, and of this package, register what it holds."""
    scopes = (cfg.get('default_scope'), 'attnpool_backbones')
    for scope in scopes:
        import_module(f'{scope}.registry')
    for registry in registries():
        if registry.scope in (*scopes, 'mmengine'):
            registry.import_from_location()


def nested(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns the dict at a dotted key, an empty one if there is none."""
    for name in key.split('.'):
        content = content.get(name) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def misspelt(
    entry: Mapping[str, Any], known: tuple[str, ...], fine: tuple[str, ...] = (), prefix: str = ''
) -> Iterator[str]:
    """Yields keys that are nearly one of the known ones."""
    for key, value in entry.items():
        # a config of pure Python has what it imports among its keys
        if key in known or key in fine or str(key).startswith('_') or callable(value):
            continue
        close = difflib.get_close_matches(str(key), [*known, *fine], n=1, cutoff=SIMILAR)
        if close and close[0] in known and sorted(close[0]) != sorted(f'{key}s'):
            yield f'{prefix}{key}{suggestion(close)}'


def names_of_parts(content: Mapping[str, Any], read: Mapping[str, Any]) -> list[str]:
    """Returns the keys of a config whose dict is a part of what a run reads: `norm_cfg`, say."""
    parts = [entry for key, entry in config_entries(read) if key not in ('', *read)]
    dicts = [key for key, value in content.items() if isinstance(value, Mapping) and value]
    return [key for key in dicts if content[key] in parts]


def entry_faults(
    key: str, entry: Mapping[str, Any], owners: Iterable[Any], known_types: set[str]
) -> Iterator[str]:
    """Yields what is wrong with the type and the arguments of one entry.

    Args:
        key: Its own.
        entry: With a type.
        owners: What builds it: classes of the entry around it.
        known_types: All names that are registered.
    """
    kind, name = entry['type'], type_name(entry)
    if isinstance(kind, str) and name not in known_types:
        close = close_types(name)
        # others are looked up by somebody who knows them: mmcv's operators, activations
        if close and not is_foreign(kind) and not is_quoted(name, owners):
            yield f'{key}.type={kind!r}{suggestion(close)}'
        return
    candidates = classes_of(entry)
    names: set[str] = set()
    for candidate in candidates:
        names |= parameters_of(candidate)[0]
    given = set(entry)
    for argument in sorted(given - names - {'type', '_scope_', '_delete_', *UNREAD}):
        close = difflib.get_close_matches(argument, sorted(names), n=1, cutoff=SIMILAR)
        if close and not is_quoted(argument, (*candidates, *owners)):
            yield f'{key}.{argument} of {name}{suggestion(close)}'


def classes_of(entry: Mapping[str, Any]) -> list[Any]:
    """Returns every class or function that the type of an entry may stand for."""
    kinds = [entry['type']]
    if isinstance(entry.get('base'), str):  # whose arguments WithImageHead takes, too
        kinds.append(entry['base'])
    found = []
    for kind in kinds:
        name = type_name(kind)
        known = [r.module_dict[name] for r in registries() if name in r.module_dict]
        found += known if isinstance(kind, str) else [kind]
    return found


def is_quoted(word: str, kinds: Iterable[Any]) -> bool:
    """Tells whether the source of a class, or of one of its bases, has a word as a text.

    Some classes take keys of their own out of what they build, have short names for their parts,
    or know old names of their arguments.
    """
    bases = {base.__module__ for kind in kinds for base in getattr(kind, '__mro__', (kind,))}
    quoted = re.compile(rf'[\'"]{re.escape(word)}[\'"]')
    for name in bases:
        if name.partition('.')[0] in ('builtins', 'torch'):
            continue
        try:
            source = inspect.getsource(sys.modules[name])
        except (KeyError, OSError, TypeError):  # of no file
            continue
        if quoted.search(source):
            return True
    return False


def is_foreign(kind: str) -> bool:
    """Tells whether a type is none of a registry, but of mmcv's operators or torch."""
    import torch

    if '.' in kind:
        return True
    try:
        from mmcv import ops
    except ImportError:
        ops = None
    return any(hasattr(module, kind) for module in (ops, torch.nn, torch.optim))
