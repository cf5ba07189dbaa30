"""What ends a command that the user can do something about is one line, and an exit code."""

import argparse
import errno
import io
import os
import subprocess
import sys

import pytest

from attnpool_backbones.command_line import (
    UserError,
    exit_command,
    line_of,
    number_above_zero,
    run_command,
    whole_number,
)
from attnpool_backbones.stop_signals import Stopped

WORKER = RuntimeError('DataLoader worker (pid 12) is killed by signal: Killed.')
PEER = RuntimeError('[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:4242')

# what is raised, whether in one of several processes -> exit code, what the line says
ENDS = {
    'message': (UserError('no such file'), False, 2, 'error: no such file'),
    'full disk': (OSError(errno.ENOSPC, 'No space left', 'a.json'), False, 2, 'left (a.json)'),
    'bad disk': (OSError(errno.EIO, 'Input/output error'), False, 2, 'the disk fails: Input'),
    'no rights': (
        PermissionError(errno.EACCES, 'Permission denied', 'a.py'),
        False,
        2,
        'a.py: Per',
    ),
    'long name': (OSError(errno.ENAMETOOLONG, 'Name too long', 'a' * 999), False, 2, 'too long'),
    'killed loader': (WORKER, False, 2, 'lower num_workers'),
    'lost partner': (PEER, True, 3, 'another process of this run was lost'),
}


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize('name', ENDS)
def test_one_line(name, capsys, monkeypatch):
    error, several, code, part = ENDS[name]
    monkeypatch.delenv('RANK', raising=False)
    if several:
        monkeypatch.setenv('RANK', '1')
    assert run_command(raising(error)) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and part in line


def test_a_missing_package_is_named(capsys):
    assert run_command(raising(ModuleNotFoundError("No module named 'yaml'", name='yaml'))) == 2
    told = capsys.readouterr().err
    assert told.startswith('error: ') and 'yaml is missing' in told and 'install pyyaml' in told


@pytest.mark.parametrize('error', [PEER, OSError(errno.ENOENT, 'no file'), RuntimeError('shape')])
def test_other_errors_stay_what_they_are(error, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(type(error)):
        run_command(raising(error))


@pytest.mark.parametrize(
    ('error', 'code'), [(Stopped(15), 143), (UserError('no'), 2), (KeyboardInterrupt(), 130)]
)
def test_exit_codes(error, code, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit) as stop:
        exit_command(raising(error))
    assert stop.value.code == code


def test_a_process_of_several_ends_at_once(monkeypatch):
    ended = []
    monkeypatch.setenv('RANK', '0')
    for name in ('atexit._run_exitfuncs', 'threading._shutdown'):
        monkeypatch.setattr(f'attnpool_backbones.process_lifetime.{name}', lambda: None)
    monkeypatch.setattr(os, '_exit', ended.append)
    with pytest.raises(SystemExit):
        exit_command(raising(Stopped(10)))
    assert ended == [138]


ENDING = """
import concurrent.futures, threading, time
from attnpool_backbones.process_lifetime import end_now
pool = concurrent.futures.ThreadPoolExecutor()
pool.submit(int).result()
threading.Thread(target=lambda: (time.sleep(0.2), print('done', flush=True))).start()
end_now(7)
"""


def test_threads_that_wait_for_work_do_not_keep_a_process():
    done = subprocess.run(
        [sys.executable, '-c', ENDING], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (7, 'done\n'), done.stderr


def test_names_that_are_no_text_are_printed(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding='utf-8')
    monkeypatch.setattr(sys, 'stdout', output)
    assert run_command(lambda: print(os.fsdecode(b'\xff.png'))) == 0
    output.flush()
    assert output.buffer.getvalue() == b'\\udcff.png\n'


@pytest.mark.parametrize('text', ['0', '9', '-1', '9' * 20, '9' * 5000, 'nan', '1.5', '', 'x'])
def test_whole_numbers(text):
    parse = whole_number(1, 8)
    assert (parse('1'), parse('8')) == (1, 8)
    with pytest.raises(argparse.ArgumentTypeError, match='no whole number from 1 to 8') as caught:
        parse(text)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize('text', ['0', '-1', '1.5', 'x'])
def test_whole_numbers_without_an_end(text):
    assert whole_number(1)('1000000000') == 10**9
    with pytest.raises(argparse.ArgumentTypeError, match='is more than 1000000000'):
        whole_number(1)('9' * 400)
    with pytest.raises(argparse.ArgumentTypeError, match='no whole number from 1 on'):
        whole_number(1)(text)


@pytest.mark.parametrize('text', ['0', '-1', 'nan', 'inf', '1e999', 'x', 'x' * 5000])
def test_numbers_above_zero(text):
    assert number_above_zero('1e-4') == 1e-4
    with pytest.raises(argparse.ArgumentTypeError, match='no number above 0') as caught:
        number_above_zero(text)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    'said, first, last',
    [('', 'ValueError', 'ValueError'), (' \n', 'ValueError', 'ValueError'),
     ('\none\ntwo\n', 'one', 'two'), ('x' * 999, 'x' * 300, 'x' * 300)],
)  # fmt: skip
def test_one_line_of_an_error(said, first, last):
    assert (line_of(ValueError(said)), line_of(ValueError(said), last=True)) == (first, last)
