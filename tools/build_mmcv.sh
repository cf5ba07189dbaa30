# Builds mmcv with its compiled operators. tools/setup_env.sh reads this file for OPS=compiled, and
# calls find_or_build_wheel with its own variables and functions: root, venv, python, say, fail, lock.
#
# The wheel is kept in the user's cache, by Python, torch and device, for other clones.

readonly wheel_cache=${XDG_CACHE_HOME:-$HOME/.cache}/attnpool_backbones/wheels

check_python() {
    "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || fail \
        "mmcv cannot be built for $("$python" --version), for 3.10 to 3.12 it can: make clean, then" \
        'OPS=compiled make setup PYTHON=python3.11. Without OPS=compiled nothing is built.'
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
        --no-cache-dir --wheel-dir "$work/wheel" --requirement "$root/requirements/mmcv_compiled.txt" \
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
    local mmcv_version
    mmcv_version=$(sed -n 's/^mmcv==//p' "$root/requirements/mmcv_compiled.txt")
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
        check_python
        check_cpp_compiler
        [[ $device == cpu ]] || check_cuda_compiler "$cuda"
        say "mmcv operators ($device): building them from source, once for this machine."
        say "  This takes about 6 minutes on two cores (CUDA operators: longer); log: $log"
        work=$(mktemp -d "$folder/.build-XXXXXX")
        set -m
        build_wheel "$folder" "$work" "$([[ $device == cpu ]] && echo 0 || echo 1)" > "$log" 2>&1 < /dev/null &
        pid=$!
        set +m
        trap 'kill -TERM -- -$pid 2> /dev/null; rm -rf "$work"; fail "interrupted; OPS=compiled make setup goes on from here"' \
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
