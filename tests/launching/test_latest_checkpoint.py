"""``--resume auto`` takes the newest sound checkpoint, and never starts over beside others."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.launching import latest_checkpoint
from attnpool_backbones.launching.latest_checkpoint import UnusableCheckpoints, newest_best
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint as find
from attnpool_backbones.launching.resuming import choose_checkpoint_to_resume
from tests.engine.tiny_run import make_config, make_runner

EPOCHS = [f'epoch_{epoch}.pth' for epoch in (1, 2, 3, 4)]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp('whole')
    make_runner('latest', make_config(folder)).train()
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it, in which ``last_checkpoint`` names the original."""
    for name in [*EPOCHS, 'last_checkpoint']:
        shutil.copy2(whole / name, tmp_path)
    return tmp_path


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(255 - byte for byte in content[middle : middle + 8])
    path.write_bytes(content)


def change(*keys: str, value: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = read_content(str(path))
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        torch.save(content, path)

    return damage


NAN = torch.tensor([torch.nan])

# what happens to a checkpoint -> what the message says of it
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    'empty': (lambda path: path.write_bytes(b''), 'could not be read as|is no checkpoint'),
    'one_byte': (lambda path: path.write_bytes(b'x'), 'could not be read as|is no checkpoint'),
    'cut_off': (cut, 'could not be read as|is no checkpoint'),
    'rotten': (flip, 'could not be read as|is no checkpoint'),
    'text': (lambda path: path.write_text('Not Found'), 'could not be read as|is no checkpoint'),
    'nan_weight': (change('state_dict', 'layer.bias', value=NAN), 'NaN in layer.bias'),
    'infinite': (
        change('state_dict', 'layer.bias', value=torch.ones(1) / 0),
        'infinite numbers in',
    ),
    'no_counters': (change('meta', value={}), 'cannot be resumed: its meta.epoch is None'),
    'folder': (lambda path: (path.unlink(), path.mkdir()), '(cannot|could not) be read|no file'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_newest_sound_one(name, run, capsys):
    fault, message = FAULTS[name]
    fault(run / 'epoch_4.pth')
    if name == 'folder':
        with pytest.raises(UnusableCheckpoints, match='epoch_4.pth'):
            find(str(run))
        return
    assert find(str(run)) == str(run / 'epoch_3.pth')
    # it is not written over, and not stumbled upon again
    assert sorted(path.name for path in run.glob('*.pth*')) == [
        *EPOCHS[:3],
        'epoch_4.pth.damaged',
    ]
    assert find(str(run)) == str(run / 'epoch_3.pth')


def listing(folder: Path) -> dict[str, tuple]:
    return {p.name: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in folder.iterdir()}


@pytest.mark.parametrize('name', FAULTS)
def test_never_starts_over(name, run):
    fault, message = FAULTS[name]
    for epoch in EPOCHS:
        fault(run / epoch)
    before = listing(run)
    with pytest.raises(UnusableCheckpoints, match=f'epoch_1.pth .*({message})') as error:
        find(str(run))
    for part in (*EPOCHS, '--resume FILE', '--work-dir', str(run / 'last_checkpoint')):
        assert part in str(error.value)
    assert listing(run) == before


def test_damaged_files_keep_apart(run):
    for number in range(2):
        shutil.copy2(run / 'epoch_1.pth', run / 'epoch_4.pth')
        (run / 'epoch_4.pth').write_text(f'damage {number}')
        assert find(str(run)) == str(run / 'epoch_3.pth')
    assert (run / 'epoch_4.pth.damaged').read_text() == 'damage 0'
    assert (run / 'epoch_4.pth.damaged1').read_text() == 'damage 1'


def test_most_iterations_win_over_note_and_time(run):
    (run / 'last_checkpoint').write_text(str(run / 'epoch_2.pth'))
    os.utime(run / 'epoch_1.pth')
    assert find(str(run)) == str(run / 'epoch_4.pth')


def test_notes_may_name_nothing(run):
    (run / 'epoch_4.pth').unlink()
    names = str(run / 'epoch_4.pth').encode(), b'/run/that/was/moved/epoch_4.pth'
    for content in (*names, b'', bytes(8), b'\xff\xfe\x00', b'x' * 10_000):
        (run / 'last_checkpoint').write_bytes(content)
        assert find(str(run)) == str(run / 'epoch_3.pth')
    (run / 'last_checkpoint').unlink()
    assert find(str(run)) == str(run / 'epoch_3.pth')


@METRICS.register_module(force=True)
class GivenScores(BaseMetric):
    """Gives each validation the next score."""

    def __init__(self, scores: list[int]) -> None:
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results.append(None)

    def compute_metrics(self, results: list) -> dict[str, int]:
        return dict(score=next(self.scores))


def config(folder: Path, epochs: int, scores: list[int] | None = None) -> Config:
    """Of a training that saves its best, if there are scores."""
    cfg = make_config(folder, hooks=(dict(type='attnpool_backbones.WorkFolderHook'),))
    cfg.train_cfg.max_epochs = epochs
    if scores is not None:
        cfg.val_dataloader = dict(cfg.train_dataloader, sampler=dict(type='DefaultSampler'))
        cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='GivenScores', scores=scores)
        cfg.default_hooks.checkpoint.update(save_best='score', rule='greater')
    return cfg


def train(
    folder: Path, epochs: int, resume: str | None = None, scores: list[int] | None = None
) -> None:
    cfg = config(folder, epochs, scores)
    cfg.resume, cfg.load_from = resume is not None, resume
    make_runner('runs', cfg).train()


@pytest.fixture(scope='module')
def begun_anew_once(tmp_path_factory):
    """The folder of a finished run, in which another one was started and stopped."""
    folder = tmp_path_factory.mktemp('anew')
    train(folder, 4)
    train(folder, 2)
    return folder


@pytest.fixture
def begun_anew(begun_anew_once, tmp_path):
    return shutil.copytree(begun_anew_once, tmp_path / 'run')


def test_an_older_run_is_not_gone_on_with(begun_anew):
    assert find(str(begun_anew)) == str(begun_anew / 'epoch_2.pth')
    # a hard kill may leave an old note, which names the right run all the same
    (begun_anew / 'last_checkpoint').write_text(str(begun_anew / 'epoch_1.pth'))
    assert find(str(begun_anew)) == str(begun_anew / 'epoch_2.pth')
    (begun_anew / 'last_checkpoint').write_text(str(begun_anew / 'epoch_3.pth'))
    assert find(str(begun_anew)) == str(begun_anew / 'epoch_4.pth')


def test_a_resumed_run_stays_the_same_run(begun_anew):
    train(begun_anew, 3, resume=str(begun_anew / 'epoch_2.pth'))
    (begun_anew / 'last_checkpoint').write_text(str(begun_anew / 'epoch_1.pth'))
    assert find(str(begun_anew)) == str(begun_anew / 'epoch_3.pth')


def go_on(folder: Path, epochs: int, resume: str, scores: list[int] | None = None) -> None:
    """Trains on as the command line does."""
    cfg = config(folder, epochs, scores)
    choose_checkpoint_to_resume(cfg, resume)
    make_runner('runs', cfg).train()


@pytest.mark.parametrize('place', ['here', 'elsewhere', 'an address', 'from before runs had names'])
def test_a_run_that_went_back_is_gone_on_with(place, tmp_path):
    folder = tmp_path / 'run'
    train(folder, 4)
    start = folder / 'epoch_2.pth'
    if place == 'elsewhere':
        start = Path(shutil.copy(start, tmp_path))
    if place == 'from before runs had names':
        for name in EPOCHS:
            change('message_hub', 'runtime_info', 'run', value=None)(folder / name)
    go_on(folder, 3, f'file://{start}' if place == 'an address' else str(start))
    assert find(str(folder)) == str(folder / 'epoch_3.pth')
    abandoned = (folder / 'epoch_4.pth').read_bytes()
    # from here on it is one run
    (folder / 'last_checkpoint').unlink()
    go_on(folder, 3, 'auto')
    assert find(str(folder)) == str(folder / 'epoch_3.pth')
    assert (folder / 'epoch_4.pth').read_bytes() == abandoned
    go_on(folder, 4, 'auto')
    assert len({run_of(folder / name) for name in EPOCHS[2:]}) == 1
    assert find(str(folder)) == str(folder / 'epoch_4.pth')


def run_of(path: Path) -> str:
    return read_content(str(path))['message_hub']['runtime_info']['run']


@pytest.mark.parametrize('resume', ['auto', 'epoch_2.pth'])
def test_a_run_that_goes_on_from_its_end_stays_the_same(resume, tmp_path):
    train(tmp_path, 2)
    go_on(tmp_path, 3, 'auto' if resume == 'auto' else str(tmp_path / resume))
    assert len({run_of(tmp_path / name) for name in EPOCHS[:3]}) == 1


def test_the_best_of_an_earlier_run_is_not_that_of_a_later_one(tmp_path):
    train(tmp_path, 4, scores=[1, 4, 3, 2])
    best = tmp_path / 'best_score_epoch_2.pth'
    assert newest_best(tmp_path) == best
    train(tmp_path, 2)
    assert best.exists() and newest_best(tmp_path) is None
    for path in tmp_path.glob('epoch_*.pth'):  # of before runs had names
        change('message_hub', 'runtime_info', 'run', value=None)(path)
    assert newest_best(tmp_path) == best


@pytest.mark.parametrize(
    ('before', 'after', 'best'),
    [
        ([1, 2, 3, 4], [0, 0], None),  # that of its second epoch was removed
        ([1, 2, 3, 4], [0, 5], 4),
        ([1, 5, 3, 4], [0, 0], 2),  # of what it shares with the branch that was left
        ([1, 2, 4, 3], [3, 0], 3),
    ],
)
def test_the_best_of_a_branch_that_was_left_is_not_used(before, after, best, tmp_path):
    train(tmp_path, 4, scores=before)
    go_on(tmp_path, 4, str(tmp_path / 'epoch_2.pth'), scores=after)
    found = newest_best(tmp_path)
    assert found == (best and tmp_path / f'best_score_epoch_{best}.pth')
    if best in (3, 4):
        assert run_of(found) == run_of(tmp_path / 'epoch_4.pth')


def test_a_best_that_no_checkpoint_names_yet_is_that_of_its_run(tmp_path):
    train(tmp_path, 2, scores=[1, 2])
    (tmp_path / 'best_score_epoch_2.pth').rename(tmp_path / 'best_score_epoch_3.pth')
    assert newest_best(tmp_path) == tmp_path / 'best_score_epoch_3.pth'


@pytest.mark.parametrize('noted', ['missing', 'no name', 'damaged'])
def test_the_newest_best_counts_where_the_run_is_not_known(noted, tmp_path):
    train(tmp_path, 2, scores=[1, 2])
    other = Path(shutil.copy(tmp_path / 'epoch_1.pth', tmp_path / 'best_other_epoch_1.pth'))
    change('message_hub', 'runtime_info', 'run', value='other')(other)
    os.utime(other, (2**32, 2**32))
    assert newest_best(tmp_path) == tmp_path / 'best_score_epoch_2.pth'
    if noted == 'no name':
        (tmp_path / 'last_checkpoint').unlink()
    elif noted == 'missing':
        (tmp_path / 'epoch_2.pth').unlink()
    else:
        cut(tmp_path / 'epoch_2.pth')
    assert newest_best(tmp_path) == other


@pytest.mark.parametrize('name', ['cut_off', 'nan_weight'])
def test_the_newest_of_the_right_run_is_damaged(name, begun_anew):
    FAULTS[name][0](begun_anew / 'epoch_2.pth')
    assert find(str(begun_anew)) == str(begun_anew / 'epoch_1.pth')
    assert (begun_anew / 'epoch_4.pth').exists()


@pytest.mark.parametrize('run', [7, ['x'], {}, None])
def test_runs_that_are_no_names_are_none(run, begun_anew):
    for epoch in (1, 2):
        change('message_hub', 'runtime_info', 'run', value=run)(begun_anew / f'epoch_{epoch}.pth')
    assert find(str(begun_anew)) == str(begun_anew / 'epoch_4.pth')


def refuse(path: Path, errno: int) -> Callable:
    opened = Path.open

    def open_or_refuse(self: Path, *args: object, **kwargs: object) -> object:
        if self == path:
            raise OSError(errno, os.strerror(errno))
        return opened(self, *args, **kwargs)

    return open_or_refuse


@pytest.mark.parametrize('errno', [13, 5, 116])  # rights, a bad disk, a server that forgot
def test_unreadable(errno, run, monkeypatch):
    monkeypatch.setattr(Path, 'open', refuse(run / 'epoch_4.pth', errno))
    reason = os.strerror(errno)
    with pytest.raises(UnusableCheckpoints, match=rf'epoch_4.pth cannot be read \({reason}\)'):
        find(str(run))
    assert (run / 'epoch_4.pth').exists()
    monkeypatch.undo()
    monkeypatch.setattr(Path, 'open', refuse(run / 'epoch_1.pth', errno))
    assert find(str(run)) == str(run / 'epoch_4.pth')  # an older one does not matter


def test_unreadable_folder(run, monkeypatch):
    def deny(_: object) -> None:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(latest_checkpoint.os, 'listdir', deny)
    with pytest.raises(UnusableCheckpoints, match='cannot be looked into'):
        find(str(run))


def test_missing_mounts(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path / 'mount' / 'run')
    with pytest.raises(UnusableCheckpoints, match='mount/run, which is not there'):
        find(str(tmp_path / 'link'))
    (tmp_path / 'last_checkpoint').write_text('/mnt/disk/run/epoch_7.pth')
    with pytest.raises(UnusableCheckpoints, match='/mnt/disk/run/epoch_7.pth, .* mounted'):
        find(str(tmp_path))
    (tmp_path / 'epoch_8.pth').symlink_to('/mnt/disk/run/epoch_8.pth')
    with pytest.raises(UnusableCheckpoints, match='epoch_8.pth is not there'):
        find(str(tmp_path))


def test_checkpoints_elsewhere(run, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('logs')
    assert find(str(work_dir), out_dir=str(run)) == str(run / 'epoch_4.pth')


def test_other_models(run):
    content = read_content(str(run / 'epoch_4.pth'))
    content['state_dict']['head.weight'] = torch.ones(3)
    content['meta']['iter'] = 1000
    torch.save(content, run / 'epoch_9.pth')
    own = {'layer.weight', 'layer.bias'}
    assert find(str(run), lambda shapes: set(shapes) == own) == str(run / 'epoch_4.pth')
    assert (run / 'epoch_9.pth.damaged').exists()


def test_weights_are_no_obstacle(run, tmp_path_factory):
    content = read_content(str(run / 'epoch_4.pth'))
    best = {key: content[key] for key in ('meta', 'state_dict', 'message_hub')}
    torch.save(best, run / 'best_score_epoch_4.pth')
    torch.save(dict(state_dict=content['state_dict']), run / 'pretrained.pth')
    os.utime(run / 'epoch_4.pth', (1, 1))
    assert find(str(run)) == str(run / 'epoch_4.pth')
    assert (run / 'best_score_epoch_4.pth').exists() and (run / 'pretrained.pth').exists()
    fresh = tmp_path_factory.mktemp('fresh')
    shutil.copy(run / 'pretrained.pth', fresh)
    assert find(str(fresh)) is None


def test_checkpoints_without_optimizer(run):
    """``save_optimizer=False``: nothing to go on from, and nothing to write over."""
    for name in EPOCHS:
        content = read_content(str(run / name))
        del content['optimizer']
        torch.save(content, run / name)
    with pytest.raises(UnusableCheckpoints, match='epoch_4.pth cannot be resumed: it has no opt'):
        find(str(run))


def test_nothing_there(tmp_path):
    assert find(str(tmp_path)) is None
    assert find(str(tmp_path / 'missing')) is None
