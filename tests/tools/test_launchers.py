"""The shell launchers start the processes that they were asked for."""

import os
import subprocess

import pytest

# script, arguments, environment -> what torchrun or srun has to be told
CASES = {
    'one_machine': (
        'dist_train.sh',
        ['config.py', '4', '--amp'],
        {},
        ['--nnodes=1 --node-rank=0', '--master-port=0', '--nproc-per-node=4',
         'train.py config.py --launcher pytorch --amp'],
    ),
    'first_of_two_machines': (
        'dist_train.sh',
        ['config.py', '4'],
        dict(NNODES='2', MASTER_ADDR='10.0.0.1'),
        ['--nnodes=2 --node-rank=0 --master-addr=10.0.0.1 --master-port=29500'],
    ),
    'second_of_two_machines': (
        'dist_test.sh',
        ['config.py', 'a.pth', '8'],
        dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='29600'),
        ['--nnodes=2 --node-rank=1 --master-addr=10.0.0.1 --master-port=29600',
         '--nproc-per-node=8', 'test.py config.py a.pth --launcher pytorch'],
    ),
    'slurm_two_machines': (
        'slurm_train.sh',
        ['gpu', 'job', 'config.py', '16', '--resume'],
        dict(SRUN_ARGS='--time=1:00 --exclusive', CPUS_PER_TASK='6'),
        ['--partition=gpu --job-name=job --ntasks=16 --ntasks-per-node=8 --gres=gpu:8',
         '--cpus-per-task=6', '--time=1:00 --exclusive', 'train.py config.py --launcher slurm '
         '--resume', 'port 29500'],
    ),
    'slurm_part_of_a_machine': (
        'slurm_test.sh',
        ['gpu', 'job', 'config.py', 'a.pth', '2'],
        dict(PORT='29700'),
        ['--ntasks=2 --ntasks-per-node=2 --gres=gpu:2', 'test.py config.py a.pth --launcher slurm',
         'port 29700'],
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_arguments(name, tmp_path, repo_root):
    script, arguments, environment, expected = CASES[name]
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho "$@" port $MASTER_PORT\n')
    srun.chmod(0o755)
    inherited = {k: os.environ[k] for k in ('PATH', 'HOME') if k in os.environ}
    inherited['PATH'] = f'{tmp_path}{os.pathsep}{inherited["PATH"]}'
    done = subprocess.run(
        ['bash', str(repo_root / 'tools' / script), *arguments],
        env={**inherited, **environment, 'PYTHON': 'echo'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for part in expected:
        assert part in done.stdout
