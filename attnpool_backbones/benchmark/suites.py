"""What the named benchmarks compare."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

from attnpool_backbones.benchmark.cases import LAYOUTS, TASKS, Case, Job, memory_job, time_job
from attnpool_backbones.benchmark.models import REFERENCES
from attnpool_backbones.benchmark.peers import forms_of
from attnpool_backbones.benchmark.targets import (
    BFLOAT16_MODELS,
    CROP,
    CURVE_SIZES,
    DETECTION,
    FAMILIES,
    LARGE_ATTENTION,
    RESNET,
    ROI_MEMORY,
    SGE,
    SPEEDUPS,
    both_dtypes,
    both_tasks,
    memory_curve,
    operator_cases,
    peak_case,
    prediction_cases,
    with_plain,
)
from attnpool_backbones.benchmark.yardstick import APART, HERE

WHOLE_MODELS = (('retinanet', CROP), ('retinanet', DETECTION), ('mask-rcnn', CROP),
                ('mask-rcnn', DETECTION), ('upernet', CROP))  # fmt: skip
"""Heads, as configs name them, and sizes of the suite end-to-end."""
WHOLE_BACKBONES = (
    ('baselines', 'resnet50'), ('baselines', 'swin-tiny'), ('attn_resnet', 'sge-resnet50'),
    ('poolformer', 'poolformer-s24'), ('metaformer', 'caformer-s18'), ('coatnet', 'coatnet-0-rw'),
    ('patchconvnet', 'patchconvnet-s60'), ('deepvit', 'deepvit-s'),
)  # fmt: skip
"""Folders and names of backbones in configs; what comes first is beside each other one."""
NANO = ('PatchConvNet:nano', 'CoAtNet:nano', 'MetaFormer:nano', 'DeepViT:nano', 'AttnResNet:nano')


def against_plain(case: Case) -> Job:
    """Returns the job that compares a case with its plain form."""
    return time_job(case.model, with_plain(case))


def _sge(task: str) -> Job:
    ours, plain = with_plain(Case(model=SGE, task=task))
    return time_job(SGE, (ours, Case(model=RESNET, task=task), plain))


def _targets() -> list[Job]:
    peaks = [peak_case(model, task) for model in LARGE_ATTENTION for task in TASKS]
    curves = [case for model in FAMILIES for case in memory_curve(model)]
    # Forward passes first: where a train step's activations were freed, the plain forms find room
    # for maps that would be fresh memory, and page faults, in a process that only infers.
    times = []
    for task in TASKS:
        times += [against_plain(Case(model=model, task=task)) for model in SPEEDUPS]
        times.append(_sge(task))
    times += [_dtype_job(model) for model in BFLOAT16_MODELS]
    return [*times, *(memory_job(case) for case in dict.fromkeys([*peaks, *curves]))]


def _references() -> list[Job]:
    return [
        time_job(
            'all families',
            [Case(model=m, task=task, size=size, with_cp=False)
             for m in (*FAMILIES, RESNET, *REFERENCES)],
        )
        for size in (CROP, DETECTION)
        for task in TASKS
        if (size, task) != (DETECTION, 'train')  # the graphs of ten models at a time
    ]  # fmt: skip


def _curves() -> list[Job]:
    cases = [Case(model=model, size=size) for size in CURVE_SIZES for model in FAMILIES]
    trained = [replace(case, task='train', with_cp=True) for case in cases]
    return [
        *(time_job(f'{case.model} alone', [case]) for case in cases),
        *(memory_job(case) for case in cases),
        *(memory_job(case) for case in trained if case.size in CURVE_SIZES[:3]),
    ]


def _layouts() -> list[Job]:
    return [
        time_job(f'{case.model} layouts', (case, replace(case, layout='channels_last')))
        for model in (*FAMILIES, RESNET)
        for case in both_tasks(model)
    ]


def _dtypes() -> list[Job]:
    return [_dtype_job(model) for model in FAMILIES]


def _dtype_job(model: str) -> Job:
    return time_job(f'{model} dtypes', both_dtypes(model))


def _compiled() -> list[Job]:
    return [
        time_job(f'{case.model} compiled', (case, replace(case, compiled=True)))
        for model in FAMILIES
        for case in both_tasks(model)
    ]


def _operators() -> list[Job]:
    times = [time_job(cases[0].model, cases) for cases, _ in operator_cases()]
    return [*times, *map(memory_job, ROI_MEMORY)]


def _end_to_end() -> list[Job]:
    jobs = []
    for head, size in WHOLE_MODELS:
        files = _configs_of(head)
        for task, file in product(reversed(TASKS), files[1:]):
            cases = [Case(model=f, task=task, size=size) for f in (files[0], file)]
            jobs.append(time_job(f'{Path(file).stem} end to end', cases))
    return jobs


def _configs_of(head: str) -> list[str]:
    """Returns the configs of a head, that of mmdet's ResNet-50 first."""
    files = []
    for folder, backbone in WHOLE_BACKBONES:
        found = sorted((HERE / 'configs' / folder).glob(f'{head}_{backbone}_*.py'))
        # relative to the clone, in which the benchmark runs
        names = [str(file.relative_to(HERE)) for file in found if 'digit' not in file.name]
        files += names[:1]
    return files


def _prediction() -> list[Job]:
    return [time_job(cases[0].model, cases) for cases in prediction_cases()]


def _nano() -> list[Job]:
    cases = [Case(model=model, task=task, size=(64, 64)) for model in NANO for task in TASKS]
    sizes = [(64, 64), (64, 96), (96, 128)]
    return [
        *(against_plain(case) for case in cases),
        *(time_job(f'{NANO[0]} alone', [Case(model=NANO[0], size=size)]) for size in sizes),
        memory_job(Case(model=NANO[0], size=(64, 64))),
    ]


SUITES = {
    'targets': _targets,
    'references': _references,
    'curves': _curves,
    'layouts': _layouts,
    'dtypes': _dtypes,
    'compiled': _compiled,
    'operators': _operators,
    'end-to-end': _end_to_end,
    'predict': _prediction,
    'nano': _nano,
}
"""Name -> jobs. ``targets``: each family against its plain form, memory at detection's size;
``references``: all families beside ResNet-50 and Swin-T; ``curves``: cost over resolution;
``layouts``, ``dtypes`` (bfloat16), ``compiled`` (torch.compile): what these options give;
``operators``: ours against mmcv's compiled ones; ``end-to-end``: iterations and predictions of
detectors and segmentors beside those of mmdet's ResNet-50, by part; ``predict``: a folder of images
beside the model alone; ``nano``: a check that everything runs."""


NOT_IN_ALL = ('operators', 'end-to-end', 'predict', 'nano')


def suite_jobs(name: str) -> list[Job]:
    """Returns the jobs of a suite; for ``'all'`` those of all suites of backbones but ``nano``."""
    names = [n for n in SUITES if n not in NOT_IN_ALL] if name == 'all' else [name]
    jobs = [job for n in names for job in SUITES[n]()]
    return list({job.key(): job for job in jobs}.values())


def peer_jobs(cases: Iterable[Case], places: Mapping[str, Path]) -> list[Job]:
    """Returns one job for each case of ours: it beside all who can run the same model.

    Ours and others' are measured in both layouts, another checkout of ours as it is. Compiled
    ones have ours beside them that is not compiled.

    Args:
        cases: Of ours, in the default layout.
        places: See :func:`attnpool_backbones.benchmark.peers.forms_of`.
    """
    jobs = []
    for case in cases:
        forms = forms_of(case.model, places)
        if forms:
            beside = [
                replace(case, form=form, layout=layout)
                for form in ('ours', *forms)
                for layout in (LAYOUTS[:1] if form in APART else LAYOUTS)
            ]
            beside += [replace(case, compiled=False)] * case.compiled
            words = [case.dtype] * (case.dtype != 'float32') + ['compiled'] * case.compiled
            jobs.append(time_job(' '.join([case.model, *words, 'peers']), beside))
    return jobs
