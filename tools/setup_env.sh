# Sourced by quickstart.sh and run_tests.sh: creates a virtual environment and installs the project in it.
#   PYTHON   interpreter (default: python3)
#   VENV     folder of the environment (default: .venv in the project)
#   TORCH    build of PyTorch on Linux, cpu or cuda (default: cuda if nvidia-smi lists a GPU, otherwise cpu)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
cpu_index=https://download.pytorch.org/whl/cpu

pip_install() { # ARGUMENTS
    python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@"
}

torch_build() { # prints cpu, cuda, or default: the wheels of other systems are small
    if [ -n "${TORCH:-}" ]; then
        echo "$TORCH"
    elif [ "$(uname -s)" != Linux ]; then
        echo default
    elif nvidia-smi -L 2> /dev/null | grep GPU > /dev/null; then # not -q: with pipefail, nvidia-smi must not be cut off
        echo cuda
    else
        echo cpu
    fi
}

install_torch() { # A suitable installed version is kept.
    case $(torch_build) in
        # PyPI's wheels for Linux bring gigabytes of CUDA.
        cpu)
            pip_install --retries 1 --index-url "$cpu_index" --no-deps torch ||
                echo "$cpu_index cannot be reached; installing PyTorch from the usual index, which may bring CUDA"
            ;;
        cuda | default) ;;
        *)
            echo "TORCH must be cpu or cuda, got '$TORCH'" >&2
            return 1
            ;;
    esac
    pip_install torch setuptools wheel
}

setup_env() { # EXTRAS
    local venv=${VENV:-$root/.venv} stamp
    if [ ! -x "$venv/bin/python" ]; then
        echo "Creating a virtual environment in $venv"
        "${PYTHON:-python3}" -m venv "$venv"
    fi
    # shellcheck disable=SC1091
    . "$venv/bin/activate"
    # Install again only if the requirements have changed.
    stamp="$venv/.installed-$(cat setup.cfg setup.py pyproject.toml constraints.txt | cksum | tr ' ' -)-$1"
    if [ ! -f "$stamp" ]; then
        echo "Installing pvvae_plugin[$1] and its dependencies (a few minutes the first time)"
        install_torch # first and separately, for its build
        pip_install -e ".[$1]"
        rm -f "$venv"/.installed-*-"$1"
        touch "$stamp"
    fi
}
