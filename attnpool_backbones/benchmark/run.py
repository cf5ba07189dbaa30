"""Runs the jobs of a benchmark one after the other, each result on disk as soon as it is there."""

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.benchmark.cases import Job
from attnpool_backbones.benchmark.kept_results import kept_results
from attnpool_backbones.benchmark.machine_rates import describe_machine, has_bfloat16_instructions
from attnpool_backbones.benchmark.memory_peak import measure_memory
from attnpool_backbones.benchmark.peers import FORMS as PEER_FORMS
from attnpool_backbones.benchmark.peers import official_sources, peer_versions
from attnpool_backbones.benchmark.timing import measure_times
from attnpool_backbones.benchmark.yardstick import commit_of
from attnpool_backbones.command_line import UserError, is_config
from attnpool_backbones.config_files import source_digest
from attnpool_backbones.duration import duration_words
from attnpool_backbones.process_memory import KEPT_MEMORY, keep_free_memory

FILE = 'results.json'


class ResultFile:
    """The results of a folder, kept with the machine that they belong to.

    Args:
        folder: Where ``results.json`` is or will be.
        machine: Of :func:`describe_machine`.

    Raises:
        UserError: The file is damaged, or its results are of another machine or setting.
    """

    def __init__(self, folder: Path, machine: dict[str, Any]):
        self.path = folder / FILE
        self.machine = machine
        self.results: list[dict[str, Any]] = kept_results(
            self.path, ('machine', 'results'), machine, 'choose another --out'
        )
        for result in self.results:
            result['size'] = tuple(result['size'])

    def rows(self, job: Job, origin: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the results of a job that were measured in just this way.

        Args:
            job: The job.
            origin: Of :func:`origin_of`. Results of older versions have none.
        """
        return [
            result
            for result in self.results
            if result['key'] == job.key() and result.get('origin') == origin
        ]

    def put(self, job: Job, rows: Sequence[dict[str, Any]], **facts: Any) -> None:
        """Stores the results of a job, each with further facts, in place of older ones."""
        key = job.key()
        named = [dict(row, job=job.name, quantity=job.quantity, key=key, **facts) for row in rows]
        self.results = [result for result in self.results if result['key'] != key] + named
        content = json.dumps(dict(machine=self.machine, results=self.results), indent=1)
        write_atomically(content.encode(), self.path)


def origin_of(job: Job, places: Mapping[str, Path], **options: Any) -> dict[str, Any]:
    """Returns what a job's results depend on besides its conditions and the machine.

    Args:
        job: The job.
        places: See :func:`attnpool_backbones.benchmark.peers.forms_of`.
        **options: Of :func:`measure_times`; a memory does not depend on them.

    Returns:
        The options, and ``code``: a digest of this package, its configs, the job's own and the
        official code that it runs.
    """
    configs = (Path(case.model) for case in job.cases if is_config(case.model))
    models = dict.fromkeys(case.model for case in job.cases if case.form == 'official')
    official = (file for model in models for file in official_sources(model, places['official']))
    code = source_digest(*(file for file in configs if file.is_file()), *official)
    return dict(options if job.quantity == 'time' else {}, code=code)


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    device: str,
    tell: Callable[[str], None],
    repeats: int = 7,
    warmup: int = 1,
    seconds: float = 120,
    time_limit: float | None = None,
    again: bool = False,
    keep_memory: bool = False,
    places: Mapping[str, Path] | None = None,
    command: str = '',
) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    """Does the jobs that are not done yet, by the same code with the same options.

    Args:
        jobs: What to do.
        folder: Where the results are kept.
        device: ``'cpu'`` or ``'cuda'``.
        tell: Called with a line about each job.
        repeats: See :func:`measure_times`.
        warmup: See :func:`measure_times`.
        seconds: See :func:`measure_times`.
        time_limit: Seconds after which no further job begins; one is always done. Default: none.
        again: Whether to repeat what was measured before.
        keep_memory: Whether this process keeps the memory that it frees, so that no run waits for
            fresh pages, as with an allocator that caches.
        places: See :func:`attnpool_backbones.benchmark.peers.forms_of`. Default: none.
        command: Kept with the results. Default: empty.

    Returns:
        The results of these jobs, those of earlier calls too; what they were measured on; and
        messages about what could not be measured: the next call tries it again.

    Raises:
        UserError: The C library cannot keep memory, or the folder's results are damaged or of
            another machine or setting.
    """
    machine = describe_machine(device)
    forms = sorted({case.form for job in jobs for case in job.cases})
    if any(form in PEER_FORMS for form in forms):
        machine |= peer_versions()
    if 'yardstick' in forms:
        machine['yardstick'] = commit_of(places['yardstick'])
    if keep_memory:
        if not keep_free_memory():
            raise UserError('--keep-memory needs the C library glibc; this is another')
        machine |= KEPT_MEMORY
    kept = ResultFile(folder, machine)
    options = dict(repeats=repeats, warmup=warmup, seconds=seconds)
    origins = {job.key(): origin_of(job, places or {}, **options) for job in jobs}
    waiting = [
        job for job in jobs if again or len(kept.rows(job, origins[job.key()])) != len(job.cases)
    ]
    if len(waiting) < len(jobs):
        tell(f'{len(jobs) - len(waiting)} of {len(jobs)} jobs were measured before')
    failures: list[str] = []
    began = time.monotonic()
    for index, job in enumerate(waiting):
        spent = time.monotonic() - began
        if index and time_limit is not None and spent > time_limit:
            tell(f'the time limit is reached; {len(waiting) - index} jobs are left: call again')
            break
        if _emulates(job, device):
            tell(f'{job.name}: left out, for this device has no bfloat16 instructions')
            continue
        rest = spent / index * (len(waiting) - index) if index else None
        left = '' if rest is None else f', about {duration_words(rest)} left'
        tell(f'[{index + 1}/{len(waiting)}] {job.quantity} of {job.name}{left}')
        rows, failed = [], []
        try:  # what cannot be measured does not end the others
            if job.quantity == 'time':
                rows, failed = measure_times(job.cases, device, repeats, warmup, seconds, places)
            else:
                rows = [measure_memory(case, device) for case in job.cases]
        except UserError as error:
            failed = [str(error)]
        for message in failed:
            tell(f'    {message}')
        failures += failed
        if rows:
            today = datetime.date.today().isoformat()
            kept.put(job, rows, origin=origins[job.key()], date=today, command=command)
            tell('    ' + '; '.join(_summary(row) for row in rows))
    unique = {job.key(): job for job in jobs}
    results = [row for key, job in unique.items() for row in kept.rows(job, origins[key])]
    return results, machine, list(dict.fromkeys(failures))


def _emulates(job: Job, device: str) -> bool:
    wanted = any(case.dtype == 'bfloat16' for case in job.cases)
    return wanted and not has_bfloat16_instructions(device)


def _summary(row: dict[str, Any]) -> str:
    name = f'{row["model"]} {row["form"]}' + ' channels_last' * (row['layout'] != 'contiguous')
    if 'seconds' in row:
        return f'{name} {row["seconds"]:.4g} s'
    return f'{name} {row["peak_bytes"] / 1e9:.2f} GB'
