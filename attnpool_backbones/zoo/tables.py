"""Tables of all configs, rendered from the metafiles into Markdown pages."""

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.datasets.records import DATA_SETS, DIGIT_SCENES
from attnpool_backbones.markdown import markdown_table, replace_section
from attnpool_backbones.zoo.compared_models import ComparedModel, read_compared_models
from attnpool_backbones.zoo.config_names import HEADS, ConfigName, config_name, families
from attnpool_backbones.zoo.config_sizes import Size, measure_size
from attnpool_backbones.zoo.metafiles import (
    FILE_NAME,
    complete_metafile,
    dump_metafile,
    read_metafile,
)
from attnpool_backbones.zoo.sources import Source, read_sources, shown_entries

SECTION = 'configs'
"""Names of sections: all configs, and one config trained by several."""
TRAININGS = 'trainings'
PAGE = 'docs/results.md'
"""Where the table of all families is."""
HEADLINES = {'bbox_mAP': 'box', 'segm_mAP': 'mask', 'mIoU': 'mIoU'}
"""Metric -> its name in a table. Those of other sizes or scales stand beside them."""
BESIDE = {'mIoU_ms': 'multi-scale'}
DETAILS = {'bbox_mAP_s': 'small', 'bbox_mAP_m': 'medium', 'bbox_mAP_l': 'large'}
"""Shown where no headline is published."""
LEGEND = (
    'AP and mIoU in percent. *Published*: numbers of others, with the place and the date of their '
    'source; ours are *measured* and have columns of their own once there are any. Parameters are '
    'those of the whole model; MACs those of testing one image without auxiliary heads, with as '
    'many boxes and masks in the second stage as the test settings allow: 1000 boxes (2x and 20e: '
    '2000) and 100 masks on COCO.\n'
)
ONE_SEED = (
    '*Measured* with one seed and one recipe, which is unfit for PoolFormer and Swin: no '
    'comparison of families ([more](../../docs/benchmark/README.md)).\n'
)
"""Under the table of the nano sizes."""
CHOICE = (
    'Of each family and head: the best published config, or a small one where nothing is '
    'published. MACs at 800x1280 (COCO) or 512x2048 (ADE20K).\n'
)
_COLUMNS = ('config', 'parameters', 'MACs', 'published', 'source', 'measured', 'images/s', 'memory',
            'machine')  # fmt: skip
_NUMBERS = ('parameters', 'MACs', 'images/s', 'memory')


@dataclass(frozen=True)
class Row:
    """A config with what its metafile says."""

    config: ConfigName
    model: dict[str, Any]
    published: list[tuple[Source, dict[str, float]]]
    """What may be shown of the numbers of others."""


@dataclass(frozen=True)
class Output:
    """What one file should have in it."""

    path: Path
    content: str
    section: str | None = None
    """Of a Markdown file; None: the content is the whole file."""

    def is_current(self) -> bool:
        """Tells whether the file has the content already."""
        if not self.path.is_file():
            return False
        text = self.path.read_text(encoding='utf-8')
        if self.section is None:
            return text == self.content
        return f'<!-- {self.section} -->\n{self.content}<!-- /{self.section} -->' in text

    def write(self) -> None:
        """Puts the content into the file.

        Raises:
            UserError: The file has no place for it.
        """
        if self.section is None:
            write_atomically(self.content.encode(), self.path)
            return
        replace_section(self.path, self.section, self.content)


def make_outputs(
    root: Path, again: bool = False, tell: Callable[[str], None] = lambda line: None
) -> list[Output]:
    """Renders all metafiles and tables.

    Args:
        root: Of the clone.
        again: Whether the models that have a size are counted, too.
        tell: Called with the name of each config that is counted.

    Returns:
        The files as they should be, metafiles first, for counting takes long.

    Raises:
        UserError: A metafile that cannot be completed.
    """
    configs = root / 'configs'
    sources = read_sources(configs)

    def measure(config: ConfigName) -> Size:
        tell(f'counting configs/{config.path}')
        return measure_size(configs / config.path)

    files, tables, rows = [], [], []
    for family in families(configs):
        folder = configs / family
        known = read_metafile(folder / FILE_NAME)
        content = complete_metafile(configs, family, known, measure, again)
        own = [
            Row(config_name(model['Config']), model, shown_entries(model, sources))
            for model in content['Models']
        ]
        files.append(Output(folder / FILE_NAME, dump_metafile(content)))
        others = read_compared_models(folder, sources)
        tables.append(Output(folder / 'README.md', family_tables(own, others), SECTION))
        if several := trainings_table(own):
            tables.append(Output(folder / 'README.md', several, TRAININGS))
        rows += own
    return [*files, *tables, Output(root / PAGE, main_table(rows), SECTION)]


def family_tables(rows: Sequence[Row], others: Sequence[ComparedModel] = ()) -> str:
    """Returns one table for each data set, in Markdown.

    Args:
        rows: Of the family.
        others: Models that it is compared with; theirs are the last lines.
    """
    parts = [LEGEND]
    for data_set in DATA_SETS.values():
        chosen = [row for row in rows if row.config.data_set == data_set]
        sizes = {_metadata(row)['MACs Input'] for row in chosen}
        lines = [_cells(row, link=Path(row.config.path).name) for row in chosen]
        lines += [_cells_of_other(other) for other in others if other.data_set == data_set.name]
        parts.append(
            f'### {data_set.title}\n\nMACs of one {" or ".join(sorted(sizes))} image.\n\n'
            + _table(_COLUMNS, lines)
        )
    return '\n'.join([*parts, ONE_SEED])


def trainings_table(rows: Sequence[Row]) -> str:
    """Returns the configs that several have trained or tested, with all of their mIoU, in Markdown.

    Several trainings of one source are their mean, with the lowest and the highest.
    """
    rows = sorted(rows, key=lambda row: _metadata(row)['Parameters'])
    found = {row.config: _by_source(row) for row in rows}
    sources = dict.fromkeys(source for values in found.values() for source in values)
    lines = [
        [title(row), *(_spread(found[row.config].get(source, [])) for source in sources)]
        for row in rows
        if len(found[row.config]) > 1
    ]
    columns = [f'[{source.about}]({source.place}), {source.date}' for source in sources]
    return _table(('mIoU of', *columns), lines) if lines else ''


def main_table(rows: Sequence[Row]) -> str:
    """Returns the table of the best published config of each family and head, in Markdown.

    Where nothing is published it is the first one of the metafile, a small one.
    """
    configs = '../configs'  # as seen from the page
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.config.data_set != DIGIT_SCENES:
            groups.setdefault((row.config.family, row.config.head), []).append(row)
    lines = []
    for (family, _), members in groups.items():
        best = max(members, key=_rank)  # the first of equals
        cells = _cells(best, link=f'{configs}/{best.config.path}')
        lines.append([f'[{family}]({configs}/{family}/README.md)', *cells])
    return '\n'.join([_table(('family', *_COLUMNS), lines), LEGEND, CHOICE])


def title(row: Row) -> str:
    """Returns what people call a config, e.g. ``'PoolFormer-S24 RetinaNet 1x'``."""
    config = row.config
    collection = row.model['In Collection']
    rest = config.backbone[len(collection) :].strip('-').split('-')
    size = [part.upper() if re.fullmatch(r'[a-z]\d*', part) else part for part in rest]
    words = ['-'.join([collection, *size]), HEADS[config.head], config.schedule]
    return ' '.join(filter(None, words))


def _metadata(row: Row) -> dict[str, Any]:
    return row.model['Metadata']


def _rank(row: Row) -> float:
    """Orders configs by their first published headline."""
    for metric in HEADLINES:
        if entry := _first(row, metric):
            return entry[1][metric]
    return 0.0


def _cells(row: Row, link: str) -> list[str]:
    metadata, measurement = _metadata(row), row.model.get('Measurement', {})
    speed, memory = (measurement.get(key) for key in ('Images per second', 'Memory (MiB)'))
    return [
        f'[{title(row)}]({link})',
        f'{metadata["Parameters"] / 1e6:.1f} M',
        f'{metadata["MACs"] / 1e9:.{0 if metadata["MACs"] > 1e10 else 2}f} G',
        *_published(row),
        _measured(row.model),
        '-' if speed is None else f'{speed:.1f}',
        '-' if memory is None else f'{memory:.0f} MiB',
        measurement.get('Machine', '-'),
    ]


def _cells_of_other(other: ComparedModel) -> list[str]:
    published = [
        f'{name} {other.metrics[m]}' for m, name in HEADLINES.items() if m in other.metrics
    ]
    size = '-' if other.parameters is None else f'about {other.parameters:.0f} M'
    return [other.title, size, '-', ', '.join(published), other.source.link, *['-'] * 4]


def _first(row: Row, metric: str) -> tuple[Source, dict[str, float]] | None:
    """Returns the first published entry with a metric."""
    return next((entry for entry in row.published if metric in entry[1]), None)


def _published(row: Row) -> tuple[str, str]:
    """Returns the cells of the published numbers and of their sources."""
    shown = HEADLINES if any(_first(row, metric) for metric in HEADLINES) else DETAILS
    texts, sources = [], []
    for metric, name in shown.items():
        entry = _first(row, metric)
        if entry is None:
            continue
        source, values = entry
        texts.append(f'{name} {values[metric]}')
        if metric == 'mIoU':
            texts += [f'{n} {values[m]}' for m, n in BESIDE.items() if m in values]
        sources.append(source.link)
    return ', '.join(texts) or '-', '; '.join(dict.fromkeys(sources)) or '-'


def _by_source(row: Row) -> dict[Source, list[float]]:
    values: dict[Source, list[float]] = {}
    for source, metrics in row.published:
        if source.about and 'mIoU' in metrics:
            values.setdefault(source, []).append(metrics['mIoU'])
    return values


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f'{values[0]}' if values else '-'
    mean = statistics.mean(values)
    return f'{mean:.2f} ({min(values)} to {max(values)}, {len(values)} runs)'


def _measured(model: dict[str, Any]) -> str:
    metrics: dict[str, float] = {}
    for result in model['Results']:
        metrics |= result['Metrics']
    names = {**HEADLINES, **BESIDE}
    return ', '.join(f'{n} {metrics[m]}' for m, n in names.items() if m in metrics) or '-'


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, without the columns that are empty in every line."""
    used = [k for k in range(len(columns)) if any(cells[k] != '-' for cells in lines)]
    columns, *lines = ([cells[k] for k in used] for cells in (columns, *lines))
    return markdown_table(columns, lines, _NUMBERS)
