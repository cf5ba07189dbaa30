"""Runs a module on cases of a benchmark in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.command_line import UserError


def run_case_module(
    module: str, what: str, cases: Sequence[Case], device: str
) -> list[dict[str, Any]]:
    """Runs ``python -m module CASES_AS_JSON DEVICE THREADS``.

    Args:
        module: Its main part calls :func:`serve`.
        what: It finds out, for messages: ``'the memory'``.
        cases: What to run, one after the other.
        device: ``'cpu'`` or ``'cuda'``.

    Returns:
        What the module's function returned for each.

    Raises:
        UserError: The process failed, e.g. for want of memory.
    """
    arguments = [json.dumps([asdict(case) for case in cases]), device, str(torch.get_num_threads())]
    # -I would hide the package of a clone that is not installed.
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
    done = subprocess.run(
        [sys.executable, '-m', module, *arguments],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths)),
    )
    if done.returncode:
        reason = 'it was killed, perhaps for want of memory' if done.returncode < 0 else ''
        last = (done.stderr.strip().splitlines() or [''])[-1]
        labels = ', '.join(case.label() for case in cases)
        raise UserError(f'{what} of {labels} cannot be measured: {reason or last}')
    return json.loads(done.stdout.splitlines()[-1])


def serve(function: Callable[[Case, str], dict[str, Any]]) -> None:
    """Calls ``function(case, device)`` for the command line's cases and prints the answers."""
    cases, device, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(json.dumps([function(Case.from_dict(case), device) for case in json.loads(cases)]))
