# Sourced by quickstart.sh and run_tests.sh: a virtual environment with the project installed in it.
#   PYTHON   interpreter to make it with (default: python3)
#   VENV     where it is (default: .venv in the project)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

setup_env() { # EXTRAS
    local venv=${VENV:-$root/.venv} stamp
    if [ ! -x "$venv/bin/python" ]; then
        echo "Making a virtual environment in $venv"
        "${PYTHON:-python3}" -m venv "$venv"
    fi
    # shellcheck disable=SC1091
    . "$venv/bin/activate"
    # Install again only when what is to be installed has changed.
    stamp="$venv/.installed-$(cat setup.cfg setup.py pyproject.toml constraints.txt | cksum | tr ' ' -)-$1"
    if [ ! -f "$stamp" ]; then
        echo "Installing pvvae_plugin[$1] and what it needs (a few minutes the first time)"
        # torch on its own first: whatever is installed already and fits is kept.
        python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch setuptools wheel
        python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$1]"
        rm -f "$venv"/.installed-*-"$1"
        touch "$stamp"
    fi
}
