"""Models of another checkout of this package, run in a process of their own.

Where nobody else's code of a model can be run, an older commit is what ours is measured against.
The other process answers requests one at a time and waits in between, so that its runs can be
interleaved with those of this process.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import torch

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.command_line import UserError
from attnpool_backbones.process_memory import KEPT_BY_ENVIRONMENT, keeps_free_memory

APART = ('yardstick', 'apart')
"""Forms that run in processes of their own. Ours does, too, where a yardstick is: what a process
did before decides which memory is at hand, and so how many page faults a run has."""
HERE = Path(__file__).resolve().parents[2]
"""This checkout."""
SETTLED = 0.01
"""Seconds after which the threads of the process that ran last no longer spin."""

_SERVER = """
import json, sys
from contextlib import nullcontext
sys.path.insert(0, sys.argv[1])
case, file, threads = json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
answers, sys.stdout = sys.stdout, sys.stderr
import torch
torch.set_num_threads(threads)
import attnpool_backbones.backbones
from attnpool_backbones.registry import MODELS
kind, _, arch = case['model'].partition(':')
options = dict(arch=arch, with_cp=case['with_cp'], norm_eval=case['norm_eval'])
model = MODELS.build(dict(type='attnpool_backbones.' + kind, **options))
stored = torch.load(file, weights_only=True)
model.load_state_dict(stored['weights'])
with torch.no_grad():
    outputs = model.eval()(stored['input'])
torch.save([y.contiguous() for y in outputs], file)
images = torch.randn(case['batch'], 3, *case['size'], generator=torch.Generator().manual_seed(0))
if case['layout'] == 'channels_last':
    images = images.contiguous(memory_format=torch.channels_last)
    model.to(memory_format=torch.channels_last)
train = case['task'] == 'train'
model.train(train)
function = torch.compile(model) if case['compiled'] else model
gradients = None
print('ready', file=answers, flush=True)
for line in sys.stdin:
    if line.strip() == 'clear':
        model.zero_grad(set_to_none=True)
    else:
        low = case['dtype'] != 'float32'
        with torch.enable_grad() if train else torch.no_grad():
            with torch.autocast('cpu', getattr(torch, case['dtype'])) if low else nullcontext():
                outputs = function(images)
            if train:
                gradients = gradients or [torch.randn_like(y) for y in outputs]
                torch.autograd.backward(outputs, gradients)
        del outputs
    print('done', file=answers, flush=True)
"""


def commit_of(checkout: Path) -> str:
    """Returns the short hash of a checkout's commit, or the folder's name where there is no git."""
    command = ['git', '-C', str(checkout), 'rev-parse', '--short', 'HEAD']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return checkout.name


class Yardstick:
    """A case of ours as another checkout runs it, with the weights that ours has.

    Args:
        case: What to run.
        device: ``'cpu'``.
        checkout: The other clone.

    Raises:
        UserError: It is no checkout of this package, does not know the model, or the device is not
            the CPU.
    """

    def __init__(self, case: Case, device: str, checkout: Path):
        if device != 'cpu':
            raise UserError('--yardstick measures on a CPU only')
        if not (checkout / 'attnpool_backbones' / '__init__.py').exists():
            raise UserError(f'--yardstick {checkout} is no checkout of this package')
        # Only here: peers build models, and models make yardsticks.
        from attnpool_backbones.benchmark.peers import COMPARED_SIZE, build_ours, difference

        self.case = case
        ours = build_ours(case.model).eval()
        x = torch.randn(1, 3, *COMPARED_SIZE, generator=torch.Generator().manual_seed(0))
        with TemporaryDirectory() as folder, torch.no_grad():
            file = Path(folder, 'weights.pth')
            torch.save(dict(weights=ours.state_dict(), input=x), file)
            self._start(checkout, file)
            self.difference: float | None = difference(ours(x), torch.load(file))

    def _start(self, checkout: Path, file: Path) -> None:
        arguments = [str(checkout), json.dumps(asdict(self.case)), str(file),
                     str(torch.get_num_threads())]  # fmt: skip
        others = [p for p in os.environ.get('PYTHONPATH', '').split(os.pathsep) if p]
        paths = [str(checkout), *(p for p in others if Path(p).resolve() != HERE)]
        kept = KEPT_BY_ENVIRONMENT if keeps_free_memory() else {}
        self.errors = TemporaryFile('w+')  # a pipe that nobody reads would stop it
        self.process = subprocess.Popen(
            [sys.executable, '-c', _SERVER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=checkout,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths), **kept),
        )
        self._await('ready')

    def _await(self, word: str) -> None:
        line = self.process.stdout.readline().strip()
        if line != word:
            self.process.kill()
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or ['it ended']
            raise UserError(f'the yardstick cannot run {self.case.label()}: {lines[-1]}')

    def _ask(self, word: str) -> None:
        self.process.stdin.write(f'{word}\n')
        self.process.stdin.flush()
        self._await('done')

    def clear(self) -> None:
        """Forgets the gradients of the last step, and lets threads come to rest."""
        self._ask('clear')
        time.sleep(SETTLED)

    def run(self) -> None:
        """Runs one forward pass or one training step, and waits for its end."""
        self._ask('run')

    def __del__(self) -> Any:
        process = getattr(self, 'process', None)
        if process is not None and process.poll() is None:
            process.kill()
            process.communicate()
