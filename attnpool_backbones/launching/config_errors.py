"""What cannot be built from a config, as one message with the config's key."""

import difflib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import UserError, is_lost_partner
from attnpool_backbones.compatibility import IncompatibleEnvironment
from attnpool_backbones.config_types import config_entries, type_name
from attnpool_backbones.launching.runners import NotesStart

__all__ = ['explained', 'key_of', 'parameters_of', 'started', 'words_of']


def parameters_of(kind: Callable) -> tuple[set[str], bool]:
    """Returns the arguments that a class or a function takes, and whether it takes any others.

    What a class hands on as `**kwargs` is looked for in its bases.

    Args:
        kind: The class or function.
    """
    names: set[str] = set()
    for owner in inspect.getmro(kind) if inspect.isclass(kind) else (kind,):
        call = vars(owner).get('__init__') if inspect.isclass(owner) else owner
        if call is None or owner is object:
            continue
        try:
            parameters = inspect.signature(call).parameters.values()
        except (TypeError, ValueError):  # of C
            return names, True
        takes_any = False
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_any = True
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name != 'self':
                names.add(parameter.name)
        if not takes_any:
            return names, False
    return names, True


@contextmanager
def explained(cfg: Config, what: str) -> Iterator[None]:
    """Turns what goes wrong while a part of a config is built into one message.

    Args:
        cfg: The whole config.
        what: What is built, for the message.

    Raises:
        UserError: Naming the key of the config that it went wrong at.
    """
    try:
        yield
    except (UserError, IncompatibleEnvironment, MemoryError):
        raise
    except Exception as error:  # constructors are anybody's code
        if is_lost_partner(error):
            raise
        entry = failed_entry(error.__traceback__)
        key = key_of(cfg, entry, what) if entry is not None else ''
        name = type_name(entry) if entry is not None else ''
        where = f' at {key}' if key else ''
        kind = f' ({name})' if name else ''
        raise UserError(
            f'{what} of {cfg.filename} cannot be built{where}{kind}: {words_of(error, entry)}'
        ) from error


@contextmanager
def started(cfg: Config, runner: NotesStart) -> Iterator[None]:
    """Turns what goes wrong before the first iteration of a run into one message.

    Later errors are of the code and pass as they are.

    Args:
        cfg: The whole config.
        runner: The run's.

    Raises:
        UserError: Naming the key of the config that it went wrong at.
    """
    try:
        yield
    except Exception:
        if runner.has_started:
            raise
        with explained(cfg, 'the run'):
            raise


def failed_entry(trace: TracebackType | None) -> Mapping[str, Any] | None:
    """Returns the dict that the innermost builder was given when it failed."""
    entry = None
    while trace is not None:
        frame = trace.tb_frame
        # a loop builds its dataloader itself, which has no type
        given = {'build_from_cfg': 'cfg', 'build_dataloader': 'dataloader'}
        if frame.f_code.co_name in given:
            entry = frame.f_locals.get(given[frame.f_code.co_name])
        trace = trace.tb_next
    return entry if isinstance(entry, Mapping) else None


def key_of(cfg: Config, entry: Mapping[str, Any], part: str = '') -> str:
    """Returns the dotted key of a dict that was built, the most similar one of its type.

    Builders often add to what the config says, and heads to their parts.

    Args:
        cfg: The whole config.
        entry: As the builder got it.
        part: Key of the part that was built, which comes first among equals. Default: none.
    """
    best, best_score = '', (0.0, False)
    for key, other in config_entries(cfg._cfg_dict):
        if not key or type_name(other) != type_name(entry):
            continue
        same = sum(name in entry and _equal(entry[name], value) for name, value in other.items())
        score = same / max(len(other), 1), bool(part) and key.startswith(f'{part}.')
        if same and score > best_score:
            best, best_score = key, score
    return best


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError, RuntimeError):  # arrays
        return False


def words_of(error: Exception, entry: Mapping[str, Any] | None = None) -> str:
    """Words an error of a constructor or a layer, with what was perhaps meant."""
    text = ' '.join(
        str(error.args[0] if isinstance(error, KeyError) and error.args else error).split()
    )
    unknown = re.match(r"['`\"]?(\S+?)['`\"]? is not in the (\S+)::", text)
    if unknown:
        name, registry = unknown[1], unknown[2]
        close = close_types(name)
        return f'there is no {name} in {registry}' + suggestion(close)
    argument = re.search(r"unexpected keyword argument '(\w+)'", text)
    if argument and entry is not None:
        kind = find_anywhere(entry.get('type'))
        names = parameters_of(kind)[0] if kind is not None else set()
        close = difflib.get_close_matches(argument[1], sorted(names), n=1, cutoff=0.6)
        return f'it does not take {argument[1]}' + suggestion(close)
    if isinstance(error, ValueError) and text:
        return text  # a sentence about an argument
    if text:
        return f'{type(error).__name__}: {text}'
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__} in {last.name}: {last.line}'


def suggestion(close: list[str]) -> str:
    """Words what was perhaps meant."""
    return f'; did you mean {" or ".join(close)}?' if close else ''


# ------------------------------------------------------------------ all that is registered


def registries() -> list[Any]:
    """Returns every registry of every scope that is loaded."""
    import mmengine.registry as root

    found = []
    waiting = [value for value in vars(root).values() if isinstance(value, root.Registry)]
    while waiting:
        registry = waiting.pop()
        if registry not in found:
            found.append(registry)
            waiting += registry.children.values()
    return found


def find_anywhere(kind: Any) -> Any:
    """Returns what a type stands for in any registry, None if in none."""
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    name = kind.rpartition('.')[2]
    for registry in registries():
        if name in registry.module_dict:
            return registry.module_dict[name]
    return None


def close_types(kind: str) -> list[str]:
    """Returns registered names that a misspelt one may stand for."""
    name = kind.rpartition('.')[2]
    known = {n for registry in registries() for n in registry.module_dict}
    return difflib.get_close_matches(name, sorted(known), n=2, cutoff=0.7)
