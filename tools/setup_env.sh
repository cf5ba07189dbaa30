#!/usr/bin/env bash
# Creates or completes .venv with the pinned versions of requirements/: bash tools/setup_env.sh [PYTHON]
#
# All of it are wheels; mmcv-lite's operators are those of this package, in plain torch. With
# OPS=compiled mmcv is built with its own instead, which needs a C++ compiler (and nvcc for CUDA);
# OPS=plain goes back. Without OPS a .venv keeps the operators that it has.
#
# Each step writes a stamp into .venv/.stamps after its last command. A call runs the steps whose
# stamp is missing or was written for other inputs, so an interrupted set-up is finished by the
# next call.
set -euo pipefail

readonly asked_python=${1:-}
readonly base_python=${asked_python:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly venv=$root/.venv
readonly stamps=$venv/.stamps
readonly python=$venv/bin/python

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }
fingerprint() { cat "$@" | cksum | tr ' ' '-'; }
is_done() { [[ -f $stamps/$1 && $(<"$stamps/$1") == "$2" ]]; }

stamp() {
    printf '%s\n' "$2" > "$stamps/$1.new"
    mv "$stamps/$1.new" "$stamps/$1"
}

install() {
    "$python" -m pip install --no-input --disable-pip-version-check "$@" \
        | awk '/^ *Downloading .* [MG]B\)/ || /^Installing / {print; fflush()}' \
        || fail "pip could not install the packages above; run 'make setup' again to go on from here"
}

# Takes the lock on file descriptor $1; says $2 before it waits for it.
lock() {
    command -v flock > /dev/null || return 0
    flock -n "$1" || { say "$2"; flock "$1"; }
}

# A .venv that was copied or moved is made again: its pip and other scripts name the old folder.
make_venv() {
    "$base_python" -c '' 2> /dev/null \
        || fail "'$base_python' does not run; name a Python 3.10 or later: make setup PYTHON=python3.11"
    "$base_python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || fail "$("$base_python" --version) cannot be used, 3.10 and later can: make setup PYTHON=python3.11"
    say "creating .venv with $("$base_python" --version)"
    if [[ -e $stamps/venv ]] \
        || ! { "$base_python" -m venv "$venv" && "$python" -m pip --version > /dev/null; }; then
        "$base_python" -m venv --clear "$venv" \
            || fail "'$base_python -m venv' failed; on Debian and Ubuntu it needs the package python3-venv"
        mkdir -p "$stamps"
    fi
}

# Prints nothing if the interpreter does not run.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null || true; }

# A .venv breaks when the Python that it was made with goes; one of another version stays as it is.
check_interpreter() {
    local own asked
    own=$(version_of "$python")
    if [[ -z $own ]]; then
        say "the Python of .venv does not run any more, making .venv again"
        rm -f "$stamps"/*
        return
    fi
    [[ -n $asked_python ]] || return 0
    asked=$(version_of "$asked_python")
    [[ -n $asked ]] || fail "'$asked_python' does not run; .venv has Python $own: leave PYTHON out to keep it"
    [[ $asked == "$own" ]] || fail \
        ".venv has Python $own, but '$asked_python' is $asked: leave PYTHON out to keep .venv," \
        "or remove it first: rm -rf .venv"
}

# pip writes RECORD last: a distribution without it, or without a file named in it, was cut off.
# Its metadata goes, and with it the stamps of the steps that install, so that pip installs it
# again; the '~' folders are pip's own leftovers.
drop_partial_packages() {
    local dropped
    dropped=$("$python" - << 'PYTHON'
import csv
import shutil
import sysconfig
from pathlib import Path

site = Path(sysconfig.get_path('purelib'))
for leftover in site.glob('~*'):
    shutil.rmtree(leftover, ignore_errors=True)
for info in site.glob('*.dist-info'):
    record = info / 'RECORD'
    complete = record.is_file()
    if complete:
        with record.open(newline='', encoding='utf-8') as lines:
            names = [row[0] for row in csv.reader(lines) if row and not row[0].endswith('.pyc')]
        complete = all((site / name).exists() for name in names)
    if not complete:
        print(info.stem)
        shutil.rmtree(info)
PYTHON
    )
    [[ -z $dropped ]] && return
    say "installed only in part, installing again:" $dropped
    rm -f "$stamps"/{wheels,mmcv,package}
}

has_compiled_operators() { compgen -G "$venv/lib/python*/site-packages/mmcv/_ext*.so" > /dev/null; }

verify() {
    "$python" -m attnpool_backbones.compatibility det seg scenes report || fail \
        'everything is installed, but does not work together (see above): try make clean and make setup.' \
        "If that does not help with OPS=compiled, remove the built wheels in ${wheel_cache:-the cache} first."
}

# torch alone only warns, and a training on the CPU looks like a slow one.
tell_of_unused_gpu() {
    [[ -e /dev/nvidia0 || -e /dev/dxg ]] || return 0
    "$python" - << 'PYTHON'
import torch

if not torch.cuda.is_available():
    made = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs only'
    print(
        f'setup: torch {torch.__version__}, made for {made}, cannot use the GPU of this machine: '
        'trainings will run on the CPU. An older driver needs a torch for an older CUDA, see '
        'docs/installing.md'
    )
PYTHON
}

cd "$root"
mkdir -p "$stamps"
exec 9> "$venv/.lock"
lock 9 'another set-up works on this .venv, waiting for it'

ops=${OPS:-plain}
if [[ -z ${OPS:-} ]] && has_compiled_operators; then ops=compiled; fi
case $ops in
    plain) mmcv=requirements/mmcv.txt ;;
    compiled) mmcv=requirements/mmcv_compiled.txt ;;
    *) fail "OPS is '$ops'; choose plain (operators in plain torch) or compiled (mmcv's own)" ;;
esac

venv_inputs=$root
lists=(requirements/{base,runtime,dev}.txt)
mmcv_inputs=$ops-$(fingerprint requirements/base.txt "$mmcv")
if [[ $ops == compiled ]]; then
    lists+=(requirements/mmcv_build.txt)
    # A device that appears later asks for the CUDA operators; one that is away does not drop them.
    target=cpu
    if [[ ${FORCE_CUDA:-0} == 1 || -e /dev/nvidia0 || -e /dev/dxg ]]; then target=cuda; fi
    is_done mmcv "$mmcv_inputs-cuda" && target=cuda
    mmcv_inputs=$mmcv_inputs-$target
fi
wheels_inputs=$(fingerprint "${lists[@]}")
package_inputs=$root-$(fingerprint setup.py pyproject.toml attnpool_backbones/version.py)
all_inputs=$package_inputs-$wheels_inputs-$mmcv_inputs

if is_done venv "$venv_inputs"; then check_interpreter; fi
if is_done venv "$venv_inputs" && is_done verified "$all_inputs"; then
    exit 0
fi

rm -f "$stamps/verified"
if ! is_done venv "$venv_inputs"; then
    make_venv
    stamp venv "$venv_inputs"
fi
drop_partial_packages
if ! is_done wheels "$wheels_inputs"; then
    say 'installing torch, mmengine, mmdet, mmsegmentation and the test tools'
    install "${lists[@]/#/--requirement=}"
    stamp wheels "$wheels_inputs"
fi
if ! is_done mmcv "$mmcv_inputs"; then
    if [[ $ops == compiled ]]; then
        source tools/build_mmcv.sh
        find_or_build_wheel
    fi
    # Both distributions own the same folder.
    "$python" -m pip uninstall --yes --quiet mmcv mmcv-lite 2> /dev/null
    if [[ $ops == compiled ]]; then
        install --no-deps "$wheel"
    else
        install --constraint requirements/base.txt --requirement "$mmcv"
    fi
    stamp mmcv "$mmcv_inputs"
fi
if ! is_done package "$package_inputs"; then
    install --no-deps --no-build-isolation --editable .
    stamp package "$package_inputs"
fi
if [[ $ops == plain ]]; then
    # For what imports mmcv without this package: mmdet's own tools, scripts.
    "$python" -m attnpool_backbones.mmcv_operators install > /dev/null
fi
verify
stamp verified "$all_inputs"
tell_of_unused_gpu
say 'the environment is ready'
