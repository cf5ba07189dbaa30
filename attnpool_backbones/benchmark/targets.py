"""What the benchmark is to reach, and what it reached."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from attnpool_backbones.benchmark.cases import TASKS, Case, size_text
from attnpool_backbones.benchmark.cost_curves import cost_of, fit_exponent, tokens_of
from attnpool_backbones.benchmark.operators import memory_of

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


def with_plain(case: Case) -> tuple[Case, Case]:
    """Returns a case and its plain form."""
    return case, replace(case, form='plain')


def both_tasks(model: str) -> list[Case]:
    """Returns a forward pass and a train step."""
    return [Case(model=model, task=task) for task in TASKS]


def both_dtypes(model: str) -> tuple[Case, Case]:
    """Returns forward passes in bfloat16 and in float32."""
    return Case(model=model, dtype='bfloat16'), Case(model=model)


def peak_case(model: str, task: str) -> Case:
    """Returns a case whose peak memory counts."""
    return Case(model=model, task=task, size=DETECTION, with_cp=task == 'train')


def memory_curve(model: str) -> tuple[Case, ...]:
    """Returns the cases over whose sizes memory is to grow slowly."""
    sizes = CURVE_SIZES[:3]
    return tuple(Case(model=model, task='train', size=size, with_cp=True) for size in sizes)


def operator_cases() -> list[tuple[tuple[Case, Case], float]]:
    """Returns operators, ours and mmcv's compiled one, with how many times as fast is to be."""
    cases = []
    for (model, size, batch), bounds in OPERATOR_SPEEDUPS.items():
        for task, bound in zip(('forward', 'backward'), bounds, strict=True):
            if bound is not None:
                case = Case(model=model, size=size, batch=batch, task=task)
                cases.append(((case, replace(case, form='compiled')), bound))
    return cases


def prediction_cases() -> list[tuple[Case, Case]]:
    """Returns folders of images, each with the model alone."""
    return [
        with_plain(Case(model=model, size=size, batch=images))
        for model, (size, images) in PREDICTIONS.items()
    ]


@dataclass(frozen=True)
class Target:
    """A figure that is to be reached."""

    text: str
    kind: str
    """``'speedup'``: how many times faster the first case is than the second; ``'overhead'``: how
    much longer it takes; ``'peak'``: bytes; ``'added'``: bytes beside those before the run;
    ``'exponent'``: of memory in tokens."""
    cases: tuple[Case, ...]
    bound: float

    @property
    def quantity(self) -> str:
        """``'time'`` or ``'memory'``."""
        return 'time' if self.kind in ('speedup', 'overhead') else 'memory'

    def is_met(self, value: float) -> bool:
        """Tells whether a measured value is good enough."""
        return value >= self.bound if self.kind == 'speedup' else value <= self.bound


def targets() -> list[Target]:
    """Returns everything that is to be reached."""
    found = []
    for model, bounds in SPEEDUPS.items():
        for case, bound in zip(both_tasks(model), bounds, strict=True):
            text = f'{model} {case.task}, plain / ours'
            found.append(Target(text, 'speedup', with_plain(case), bound))
    for task, bound in zip(TASKS, OVERHEADS, strict=True):
        cases = tuple(Case(model=model, task=task) for model in (SGE, RESNET))
        found.append(Target(f'SGE on ResNet-50 {task}, added', 'overhead', cases, bound))
    for model in LARGE_ATTENTION:
        for task, bound in PEAKS.items():
            case = peak_case(model, task)
            text = f'{model} {task}{" with_cp" * case.with_cp} {size_text(case.size)}, peak'
            found.append(Target(text, 'peak', (case,), bound))
    for model in FAMILIES:
        text = f'{model} train with_cp, exponent of memory in tokens'
        found.append(Target(text, 'exponent', memory_curve(model), MEMORY_EXPONENT))
    for model in BFLOAT16_MODELS:
        text = f'{model} forward, float32 / bfloat16'
        found.append(Target(text, 'speedup', both_dtypes(model), BFLOAT16_SPEEDUP))
    for cases, bound in operator_cases():
        case = cases[0]
        text = f'{case.model} {size_text(case.size)} {case.task}, compiled / ours'
        found.append(Target(text, 'speedup', cases, bound))
    for cases in prediction_cases():
        text = f'{cases[0].model} on a folder, share of the model alone'
        found.append(Target(text, 'speedup', cases, PREDICTION_SPEED))
    for case in ROI_MEMORY:
        text = f'{case.model} {case.task}, added to input and output'
        bound = memory_of(case)  # these are there before the run
        found.append(Target(text, 'added', (case,), bound))
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
