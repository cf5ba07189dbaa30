"""What the named benchmarks compare, and what they are to reach."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from attnpool_backbones.benchmark.cases import LAYOUTS, TASKS, Case, Job
from attnpool_backbones.benchmark.cost_curves import cost_of, fit_exponent, tokens_of
from attnpool_backbones.benchmark.models import REFERENCES
from attnpool_backbones.benchmark.operators import memory_of
from attnpool_backbones.benchmark.peers import forms_of
from attnpool_backbones.benchmark.yardstick import APART, HERE

CROP = (512, 512)
DETECTION = (800, 1344)
CURVE_SIZES = (CROP, (640, 832), DETECTION, (1024, 1536), (1344, 2048))
"""Height and width, from segmentation's crop to a large detection image."""

SGE, RESNET = 'AttnResNet:sge_resnet50', 'AttnResNet:resnet50'
SPEEDUPS = {
    'DeepViT:s': (2.5, 2.5),
    'DeepViT:16b': (2.5, 2.5),
    'CoAtNet:0': (2.0, 1.8),
    'MetaFormer:caformer_s18': (1.6, 1.5),
    'MetaFormer:poolformer_s24': (1.2, 1.2),
    'PatchConvNet:s60': (1.0, 1.1),
}
"""How many times faster than the plain form a model is to be, forward and in a train step."""
OVERHEADS = (0.05, 0.15)
"""What SGE may add to a plain ResNet-50, forward and in a train step."""
PEAKS = {'forward': 1.5e9, 'train': 6e9}
"""Bytes that DeepViT-16B and CoAtNet-0 may take at detection's size (training with ``with_cp``)."""
LARGE_ATTENTION = ('DeepViT:16b', 'CoAtNet:0')
MEMORY_EXPONENT = 1.1
BFLOAT16_SPEEDUP = 2.0
BFLOAT16_MODELS = ('PatchConvNet:s60', 'MetaFormer:poolformer_s24', 'CoAtNet:0')
FAMILIES = (*SPEEDUPS, SGE)
"""One model of each family, or two."""
OPERATOR_SPEEDUPS = {
    ('mmcv.nms', (2000, 1), 1): (0.8, None),
    ('mmcv.nms', (6000, 1), 1): (1.5, None),
    ('mmcv.nms', (6000, 80), 1): (0.8, None),
    ('mmcv.softnms', (1000, 1), 1): (0.8, None),
    ('mmcv.nms_match', (2000, 1), 1): (0.8, None),
    ('mmcv.bbox_overlaps', (20000, 1), 1): (0.8, None),
    ('mmcv.roi_align', (100, 168), 1): (1.5, 3.0),
    ('mmcv.roi_align_small', (48, 48), 8): (0.8, 0.8),
    ('mmcv.roi_align_max', (48, 48), 8): (0.8, 0.8),
    ('mmcv.deform_conv', (50, 84), 1): (0.8, 0.8),
    ('mmcv.modulated_deform_conv', (50, 84), 1): (0.8, 0.8),
    ('mmcv.psamask', (24, 32), 1): (0.8, 0.8),
}
"""How many times as fast as mmcv's compiled ones our operators are to be, forward and backward."""
ROI_MEMORY = tuple(
    Case(model=model, size=(100, 168), task=task)
    for model in ('mmcv.roi_align', 'mmcv.roi_align_whole_map')
    for task in ('forward', 'backward')
)
"""What may use, at its peak, twice the memory of its input and output."""
PREDICTION_SPEED = 0.9
"""Of a model's own, that a folder of images is predicted on with."""
PREDICTIONS = {
    'predict.nano-detector': ((192, 192), 64),
    'predict.nano-segmentor': ((192, 192), 64),
    'predict.detector': ((480, 640), 2),
}
"""Size and number of the images."""
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


def time_job(name: str, cases: Iterable[Case]) -> Job:
    """Returns a job that measures the times of cases side by side."""
    case = tuple(cases)
    return Job(name=f'{name} {case[0].task} {_size(case[0])}', quantity='time', cases=case)


def memory_job(case: Case) -> Job:
    """Returns the job that measures the peak memory of a case."""
    return Job(name=case.label(), quantity='memory', cases=(case,))


def against_plain(case: Case) -> Job:
    """Returns the job that compares a case with its plain form."""
    return time_job(case.model, (case, replace(case, form='plain')))


def _size(case: Case) -> str:
    return 'x'.join(map(str, case.size))


def _both_tasks(model: str, **fields: Any) -> list[Case]:
    return [Case(model=model, task=task, **fields) for task in TASKS]


def _sge(task: str, size: tuple[int, int] = CROP) -> Job:
    cases = [Case(model=model, task=task, size=size) for model in (SGE, RESNET)]
    return time_job(SGE, [*cases, replace(cases[0], form='plain')])


def _peak_case(model: str, task: str) -> Case:
    return Case(model=model, task=task, size=DETECTION, with_cp=task == 'train')


def _memory_curve(model: str) -> list[Case]:
    return [Case(model=model, task='train', size=size, with_cp=True) for size in CURVE_SIZES[:3]]


def _targets() -> list[Job]:
    peaks = [_peak_case(model, task) for model in LARGE_ATTENTION for task in TASKS]
    curves = [case for model in FAMILIES for case in _memory_curve(model)]
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
        for case in _both_tasks(model)
    ]


def _dtypes() -> list[Job]:
    return [_dtype_job(model) for model in FAMILIES]


def _dtype_job(model: str) -> Job:
    case = Case(model=model)
    return time_job(f'{model} dtypes', (replace(case, dtype='bfloat16'), case))


def _compiled() -> list[Job]:
    return [
        time_job(f'{case.model} compiled', (case, replace(case, compiled=True)))
        for model in FAMILIES
        for case in _both_tasks(model)
    ]


def _operator_cases() -> list[tuple[Case, float]]:
    cases = []
    for (model, size, batch), bounds in OPERATOR_SPEEDUPS.items():
        for task, bound in zip(('forward', 'backward'), bounds, strict=True):
            if bound is not None:
                cases.append((Case(model=model, size=size, batch=batch, task=task), bound))
    return cases


def _operators() -> list[Job]:
    times = [
        time_job(case.model, (case, replace(case, form='compiled')))
        for case, _ in _operator_cases()
    ]
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


def _prediction_cases() -> list[tuple[Case, Case]]:
    cases = [
        Case(model=model, size=size, batch=images) for model, (size, images) in PREDICTIONS.items()
    ]
    return [(case, replace(case, form='plain')) for case in cases]


def _prediction() -> list[Job]:
    return [time_job(cases[0].model, cases) for cases in _prediction_cases()]


def _nano() -> list[Job]:
    cases = [case for model in NANO for case in _both_tasks(model, size=(64, 64))]
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


# ------------------------------------------------------------------ targets


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure that is to be reached."""

    text: str
    kind: str
    """``'speedup'``: how many times faster the first case is than the second; ``'overhead'``: how
    much longer it takes; ``'peak'``: bytes; ``'added'``: bytes beside those before the run;
    ``'exponent'``: of memory in tokens."""
    quantity: str
    cases: tuple[Case, ...]
    bound: float

    def is_met(self, value: float) -> bool:
        """Tells whether a measured value is good enough."""
        return value >= self.bound if self.kind == 'speedup' else value <= self.bound


def targets() -> list[Target]:
    """Returns everything that is to be reached."""
    found = []
    for model, bounds in SPEEDUPS.items():
        for case, bound in zip(_both_tasks(model), bounds, strict=True):
            found.append(
                Target(
                    text=f'{model} {case.task}, plain / ours',
                    kind='speedup',
                    quantity='time',
                    cases=(case, replace(case, form='plain')),
                    bound=bound,
                )
            )
    for task, bound in zip(TASKS, OVERHEADS, strict=True):
        cases = tuple(Case(model=model, task=task) for model in (SGE, RESNET))
        text = f'SGE on ResNet-50 {task}, added'
        found.append(Target(text=text, kind='overhead', quantity='time', cases=cases, bound=bound))
    for model in LARGE_ATTENTION:
        for task, bound in PEAKS.items():
            case = _peak_case(model, task)
            text = f'{model} {task}{" with_cp" * case.with_cp} {_size(case)}, peak'
            found.append(
                Target(text=text, kind='peak', quantity='memory', cases=(case,), bound=bound)
            )
    for model in FAMILIES:
        found.append(
            Target(
                text=f'{model} train with_cp, exponent of memory in tokens',
                kind='exponent',
                quantity='memory',
                cases=tuple(_memory_curve(model)),
                bound=MEMORY_EXPONENT,
            )
        )
    for model in BFLOAT16_MODELS:
        case = Case(model=model)
        found.append(
            Target(
                text=f'{model} forward, float32 / bfloat16',
                kind='speedup',
                quantity='time',
                cases=(replace(case, dtype='bfloat16'), case),
                bound=BFLOAT16_SPEEDUP,
            )
        )
    for case, bound in _operator_cases():
        found.append(
            Target(
                text=f'{case.model} {_size(case)} {case.task}, compiled / ours',
                kind='speedup',
                quantity='time',
                cases=(case, replace(case, form='compiled')),
                bound=bound,
            )
        )
    for cases in _prediction_cases():
        found.append(
            Target(
                text=f'{cases[0].model} on a folder, share of the model alone',
                kind='speedup',
                quantity='time',
                cases=cases,
                bound=PREDICTION_SPEED,
            )
        )
    for case in ROI_MEMORY:
        text = f'{case.model} {case.task}, added to input and output'
        # these are there before the run
        bound = memory_of(case)
        found.append(Target(text=text, kind='added', quantity='memory', cases=(case,), bound=bound))
    return found


def measured_value(target: Target, results: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns what a benchmark measured for a target, None if it did not.

    Times are compared only if one job measured them side by side.

    Args:
        target: What is asked for.
        results: Of a benchmark, each with the ``key`` of its job.
    """
    jobs: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if result['quantity'] == target.quantity:
            job = result['key'] if target.quantity == 'time' else ''
            jobs.setdefault(job, []).append(result)
    for rows in jobs.values():
        found = [_find(rows, case) for case in target.cases]
        if None in found:
            continue
        if target.kind == 'peak':
            return found[0]['peak_bytes']
        if target.kind == 'added':
            return found[0]['peak_bytes'] - found[0]['idle_bytes']
        if target.kind == 'exponent':
            return fit_exponent([tokens_of(r) for r in found], [cost_of(r) for r in found])
        first, second = (row['seconds'] for row in found)
        return second / first if target.kind == 'speedup' else first / second - 1
    return None


def _find(rows: Sequence[Mapping[str, Any]], case: Case) -> Mapping[str, Any] | None:
    fields = asdict(case)
    matches = (row for row in rows if all(row[name] == fields[name] for name in fields))
    return next(matches, None)
