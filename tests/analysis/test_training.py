"""``attnpool figure training``: runs that were stopped, resumed and taken back."""

import json

import numpy as np
import pytest

from attnpool_backbones.analysis.command import parser_of_figures
from attnpool_backbones.analysis.run_logs import history_of
from attnpool_backbones.analysis.training import _smoothed, draw
from attnpool_backbones.cli import main
from attnpool_backbones.command_line import UserError


def batch(step, loss, epoch=None):
    counted = dict(step=step) if epoch is None else dict(step=step, epoch=epoch)
    return dict(loss=loss, loss_cls=loss / 2, lr=0.1 / step, iter=step, **counted)


def write_run(folder, *logs):
    for number, entries in enumerate(logs):
        path = folder / f'2026112{number}_000000' / 'vis_data' / 'scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    return folder


def score(step, value, **more):
    return {'coco/bbox_mAP': value, 'coco/bbox_mAP_50': value, 'step': step, **more}


FIRST = [batch(10, 8.0, 1), score(1, 0.1), batch(20, 7.0, 2), score(2, 0.2), batch(30, 6.0, 3)]
"""Three epochs, of which the last has no validation."""
CASES = {
    'whole': ([FIRST], [10, 20, 30], [8, 7, 6], [(1, 0.1), (2, 0.2)]),
    'went on': (
        [FIRST, [batch(30, 5.5, 3), score(3, 0.3)]],
        [10, 20, 30], [8, 7, 5.5], [(1, 0.1), (2, 0.2), (3, 0.3)],
    ),
    'went back': (
        [FIRST, [batch(20, 7.5, 2)]], [10, 20], [8, 7.5], [(1, 0.1)],
    ),
    'stopped in its validation': (
        [FIRST[:3], [score(2, 0.25), batch(30, 6.5, 3)]],
        [10, 20, 30], [8, 7, 6.5], [(1, 0.1), (2, 0.25)],
    ),
    'tested between': (
        [FIRST, [], [batch(40, 5.0, 4)]], [10, 20, 30, 40], [8, 7, 6, 5], [(1, 0.1), (2, 0.2)],
    ),
    'by iterations': (
        [[batch(10, 8.0), batch(20, 7.0), score(20, 0.1), batch(30, 6.0), score(30, 0.2)],
         [batch(30, 5.0)]],
        [10, 20, 30], [8, 7, 5], [(20, 0.1)],
    ),
    "by iterations, with mmengine's own names": (
        [[batch(10, 8.0), batch(20, 7.0), score(0, 0.1), batch(30, 6.0), score(0, 0.2)],
         [batch(30, 5.0), batch(40, 4.0), score(0, 0.3)], [score(0, 0.3), batch(50, 3.0)]],
        [10, 20, 30, 40, 50], [8, 7, 5, 4, 3], [(20, 0.1), (40, 0.3)],
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_logs_of_several_starts_are_one_history(case, tmp_path):
    logs, steps, losses, validations = CASES[case]
    history = history_of(write_run(tmp_path, *logs))
    assert [entry['step'] for entry in history.training] == steps
    assert [entry['loss'] for entry in history.training] == losses
    assert [(e['step'], e['coco/bbox_mAP']) for e in history.validations] == validations
    assert history.counts_epochs == ('by iterations' not in case)


def drawn(*words):
    args = parser_of_figures().parse_args(['training', *map(str, words)])
    return draw(args)


def test_one_run_with_the_parts_of_its_loss(tmp_path):
    drawing = drawn(write_run(tmp_path / 'run', FIRST))
    losses, rates, scores = drawing.figure.axes
    labels = [text.get_text() for text in losses.get_legend().get_texts()]
    assert labels == ['loss', 'loss_cls']
    (curve,) = scores.get_lines()
    assert curve.get_label() == 'coco/bbox_mAP'
    np.testing.assert_allclose(curve.get_xydata(), [[1, 10], [2, 20]])
    assert scores.get_xlabel() == 'epoch' and scores.get_ylabel() == 'coco/bbox_mAP (%)'
    assert drawing.reading == (
        f'{tmp_path / "run"}: coco/bbox_mAP was best with 20.0 % at epoch 2, the last validation: '
        'it may rise further.'
    )
    numbers = drawing.numbers['runs'][str(tmp_path / 'run')]
    np.testing.assert_allclose(numbers['lr']['value'], [0.01, 0.005, 0.1 / 30])


def test_runs_beside_each_other(tmp_path):
    by_epoch = write_run(tmp_path / 'a', [*FIRST, score(3, 0.15)])
    by_iteration = write_run(tmp_path / 'b', [batch(5, 2.0), dict(mIoU=40.0, step=5)])
    young = write_run(tmp_path / 'c', [batch(5, 2.0)])
    drawing = drawn(by_epoch, by_iteration, young, by_epoch)
    losses, _, scores = drawing.figure.axes
    labels = [text.get_text() for text in losses.get_legend().get_texts()]
    assert labels == [str(by_epoch), str(by_iteration), str(young)]
    assert scores.get_xlabel() == 'epoch or iteration'
    assert len(scores.get_lines()) == 2
    assert drawing.reading == (
        f'{by_epoch}: coco/bbox_mAP was best with 20.0 % at epoch 2, and is 15.0 % at epoch 3. '
        f'{by_iteration}: mIoU was best with 40.0 % at iteration 5. {young}: no validation yet.'
    )


def test_metrics_by_name(tmp_path):
    run = write_run(tmp_path / 'run', [*FIRST, score(3, 0.5, **{'coco/bbox_mAP_l': -1.0})])
    drawing = drawn(run, '--metric', 'bbox_mAP_50', 'coco/bbox_mAP')
    names = [line.get_label() for line in drawing.figure.axes[2].get_lines()]
    assert names == ['coco/bbox_mAP_50', 'coco/bbox_mAP']
    assert not drawn(run, '--metric', 'bbox_mAP_l').figure.axes[2].get_lines()  # no such objects
    with pytest.raises(UserError, match='--metric AP: no validation has it, but coco/bbox_mAP, '):
        drawn(run, '--metric', 'AP')


def test_a_score_that_is_no_number_is_not_the_best(tmp_path):
    run = write_run(tmp_path / 'run', [*FIRST, score(3, float('nan'))])
    assert 'was best with 20.0 % at epoch 2' in drawn(run).reading


def test_folders_without_a_training(tmp_path, capsys):
    tested = write_run(tmp_path / 'tested', [score(1, 0.1)])
    for folder in (tested, tmp_path / 'missing'):
        assert main(['figure', 'training', str(folder), '--out', str(tmp_path / 'out')]) == 2
        assert f'{folder}: no log of a training' in capsys.readouterr().err


def test_losses_are_averaged_backwards():
    values = np.arange(1.0, 201.0)
    np.testing.assert_allclose(_smoothed(values)[:4], [1, 1.5, 2, 2.5])
    np.testing.assert_allclose(_smoothed(values)[-1], values[-4:].mean())
    assert _smoothed(np.array([])).size == 0


def test_a_loss_that_is_no_number_leaves_the_others():
    values = np.arange(100.0)
    values[[40, 60, 61]] = np.nan, np.inf, np.nan
    smoothed = _smoothed(values)
    assert np.flatnonzero(np.isnan(smoothed)).tolist() == [61]
    assert smoothed[[41, 60, 99]].tolist() == [41, 59, 98.5]
