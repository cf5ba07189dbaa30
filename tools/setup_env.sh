#!/usr/bin/env bash
# Creates or completes .venv with the pinned versions of requirements/: bash tools/setup_env.sh [PYTHON]
#
# Each step writes a stamp into .venv/.stamps after its last command. A call runs the steps whose
# stamp is missing or was written for other inputs, so an interrupted set-up is finished by the
# next call. The mmcv wheel, built from source, is kept in the user's cache for other clones.
set -euo pipefail

readonly base_python=${1:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly venv=$root/.venv
readonly stamps=$venv/.stamps
readonly python=$venv/bin/python
readonly wheel_cache=${XDG_CACHE_HOME:-$HOME/.cache}/attnpool_backbones/wheels

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

make_venv() {
    "$base_python" -c '' 2> /dev/null \
        || fail "'$base_python' does not run; name a Python 3.10 to 3.12: make setup PYTHON=python3.11"
    "$base_python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
        || fail "$("$base_python" --version) cannot be used, Python 3.10 to 3.12 can: make setup PYTHON=python3.11"
    say "creating .venv with $("$base_python" --version)"
    if ! { "$base_python" -m venv "$venv" && "$python" -m pip --version > /dev/null; }; then
        "$base_python" -m venv --clear "$venv" \
            || fail "'$base_python -m venv' failed; on Debian and Ubuntu it needs the package python3-venv"
        mkdir -p "$stamps"
    fi
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
    rm -f "$stamps"/{build,mmcv,runtime,package}
}

check_cpp_compiler() {
    command -v "${CXX:-c++}" > /dev/null || command -v g++ > /dev/null || fail \
        'no C++ compiler (c++ or g++) was found; the mmcv operators are built from source and need one.' \
        'Debian, Ubuntu: apt-get install g++    Fedora: dnf install gcc-c++    macOS: xcode-select --install'
    "$python" -c 'import sys, sysconfig, pathlib
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' || fail \
        "the headers of $("$python" --version) (Python.h) are missing, building the mmcv operators needs them." \
        'Debian, Ubuntu: apt-get install python3-dev    Fedora: dnf install python3-devel'
}

check_cuda_compiler() {
    local home nvcc_version
    home=$("$python" -c 'from torch.utils.cpp_extension import CUDA_HOME; print(CUDA_HOME or "")' 2> /dev/null)
    [[ -n $home && -x $home/bin/nvcc ]] || fail \
        "PyTorch sees a CUDA device, but nvcc was not found; the CUDA operators of mmcv need it." \
        "Install the CUDA toolkit $1 or set CUDA_HOME to where it is."
    nvcc_version=$("$home/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    [[ ${nvcc_version%%.*} == "${1%%.*}" ]] || fail \
        "PyTorch was built with CUDA $1, but $home/bin/nvcc is of CUDA $nvcc_version; the major versions must agree." \
        "Set CUDA_HOME to a CUDA ${1%%.*} toolkit."
}

# One compiler process per core, but no more than memory holds (about 2 GiB each).
build_jobs() {
    local cores memory
    cores=$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)
    memory=$(awk '/^MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo 2> /dev/null || true)
    memory=${memory:-$cores}
    (( memory < 1 )) && memory=1
    echo $(( cores < memory ? cores : memory ))
}

# Runs in the background and keeps the lock: if this script is killed, the wheel still arrives.
build_wheel() {
    local folder=$1 work=$2 force_cuda=$3
    export TMPDIR=$work FORCE_CUDA=$force_cuda MMCV_WITH_OPS=1
    MAX_JOBS=$(build_jobs)
    export MAX_JOBS
    "$python" -m pip wheel --no-input --disable-pip-version-check --no-build-isolation --no-deps \
        --no-cache-dir --wheel-dir "$work/wheel" --requirement "$root/requirements/mmcv.txt" \
        && mv "$work"/wheel/mmcv-*.whl "$folder/"
}

show_progress() {
    local pid=$1 work=$2 begin=$SECONDS next=20 compiled total
    while kill -0 "$pid" 2> /dev/null; do
        sleep 1
        (( SECONDS - begin < next )) && continue
        next=$(( next + 20 ))
        compiled=$(find "$work" -name '*.o' 2> /dev/null | wc -l)
        total=$(find "$work" -name build.ninja -exec grep -c '^build .*\.o:' {} + 2> /dev/null || true)
        say "  $(( (SECONDS - begin) / 60 )) min $(( (SECONDS - begin) % 60 )) s:" \
            "$(( compiled )) of ${total:-about 80} files compiled"
    done
}

# Sets `wheel` to the mmcv wheel for this Python, torch and device, and builds it if it is not cached.
find_or_build_wheel() {
    local key folder work pid device cuda log=$venv/mmcv-build.log
    IFS=' ' read -r key device cuda < <("$python" - "${FORCE_CUDA:-0}" << 'PYTHON'
import platform
import sys

import torch

device = 'cpu'
if torch.cuda.is_available():
    devices = range(torch.cuda.device_count())
    archs = sorted({'sm%d%d' % torch.cuda.get_device_capability(index) for index in devices})
    device = '-'.join([f'cu{torch.version.cuda}', *archs])
elif sys.argv[1] == '1' and torch.version.cuda:
    device = f'cu{torch.version.cuda}'
python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
machine = f'{platform.system()}-{platform.machine()}'.lower()
print(f'{python}-torch{torch.__version__}-{device}-{machine}', device, torch.version.cuda or '-')
PYTHON
    ) || true
    [[ -n ${key:-} ]] || fail "torch cannot be imported from .venv: run 'make clean' and 'make setup'"

    folder=$wheel_cache/$key
    mkdir -p "$folder"
    exec 8> "$folder/.lock"
    lock 8 'another set-up is building the mmcv operators, waiting for it'
    find "$folder" -maxdepth 1 -name '.build-*' -exec rm -rf {} +
    wheel=$(find "$folder" -maxdepth 1 -name "mmcv-$mmcv_version-*.whl" | head -n 1)
    if [[ -n $wheel ]]; then
        say "mmcv operators ($device): wheel found in $folder"
    else
        check_cpp_compiler
        [[ $device == cpu ]] || check_cuda_compiler "$cuda"
        say "mmcv operators ($device): building them from source, once for this machine."
        say "  This takes about 6 minutes on two cores (CUDA operators: longer); log: $log"
        work=$(mktemp -d "$folder/.build-XXXXXX")
        set -m
        build_wheel "$folder" "$work" "$([[ $device == cpu ]] && echo 0 || echo 1)" > "$log" 2>&1 < /dev/null &
        pid=$!
        set +m
        trap 'kill -TERM -- -$pid 2> /dev/null; rm -rf "$work"; fail "interrupted; make setup goes on from here"' \
            INT TERM HUP
        show_progress "$pid" "$work" 8>&-
        if ! wait "$pid"; then
            tail -n 30 "$log" >&2
            rm -rf "$work"
            fail "the mmcv operators could not be built; the whole log is in $log"
        fi
        trap - INT TERM HUP
        rm -rf "$work"
        wheel=$(find "$folder" -maxdepth 1 -name "mmcv-$mmcv_version-*.whl" | head -n 1)
    fi
    exec 8>&-
}

verify() {
    "$python" -m attnpool_backbones.compatibility det seg scenes report || fail \
        'everything is installed, but does not work together (see above): try make clean and make setup.' \
        "If that does not help, remove $wheel_cache first, so that the mmcv operators are built anew."
}

cd "$root"
mkdir -p "$stamps"
exec 9> "$venv/.lock"
lock 9 'another set-up works on this .venv, waiting for it'

mmcv_version=$(sed -n 's/^mmcv==//p' requirements/mmcv.txt)
# A device that appears later asks for the CUDA operators; one that is away does not drop them.
target=cpu
if [[ ${FORCE_CUDA:-0} == 1 || -e /dev/nvidia0 || -e /dev/dxg ]]; then target=cuda; fi
venv_inputs=$root
build_inputs=$(fingerprint requirements/build.txt)
mmcv_inputs=$build_inputs-$mmcv_version
runtime_inputs=$(fingerprint requirements/*.txt)
package_inputs=$root-$(fingerprint setup.py pyproject.toml attnpool_backbones/version.py)

if is_done venv "$venv_inputs" && is_done build "$build_inputs" && is_done runtime "$runtime_inputs" \
    && { is_done mmcv "$mmcv_inputs-$target" || is_done mmcv "$mmcv_inputs-cuda"; } \
    && is_done package "$package_inputs" && is_done verified "$package_inputs-$runtime_inputs"; then
    exit 0
fi

rm -f "$stamps/verified"
if ! is_done venv "$venv_inputs"; then
    make_venv
    stamp venv "$venv_inputs"
fi
drop_partial_packages
if ! is_done build "$build_inputs"; then
    say 'installing torch and the build tools'
    install --requirement requirements/build.txt
    stamp build "$build_inputs"
fi
if ! is_done mmcv "$mmcv_inputs-$target" && ! is_done mmcv "$mmcv_inputs-cuda"; then
    find_or_build_wheel
    install --no-deps --force-reinstall "$wheel"
    stamp mmcv "$mmcv_inputs-$target"
fi
if ! is_done runtime "$runtime_inputs"; then
    say 'installing mmengine, mmdet, mmsegmentation and the test tools'
    install --constraint requirements/build.txt --constraint requirements/mmcv.txt \
        --requirement requirements/runtime.txt --requirement requirements/dev.txt
    stamp runtime "$runtime_inputs"
fi
if ! is_done package "$package_inputs"; then
    install --no-deps --no-build-isolation --editable .
    stamp package "$package_inputs"
fi
verify
stamp verified "$package_inputs-$runtime_inputs"
say 'the environment is ready'
