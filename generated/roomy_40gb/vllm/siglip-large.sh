#!/bin/sh
# siglip-large on roomy_40gb: fits one GPU of roomy_40gb
# generated from stack.yaml by imageworks compile; do not edit
# plan sha256:815ca0553a240561335839942c8d418cae72e1414e2f5b67794509d5e616b520, stack.yaml:133
#
# Why these values:
#   --host=127.0.0.1                     only this machine; clients come through the proxy
#   --port=24004                         derived: one port per model id
#   --served-model-name=siglip-large     the id, by which readiness recognises the model
#   --max-model-len=64                   context: declared
#   --max-num-seqs=2                     concurrency: defaults.concurrency
#   --gpu-memory-utilization=0.087       upper bound: 3.42 GiB planned of 39.00, the smallest card that matches, rounded down
#   --limit-mm-per-prompt={"image":1}    the most that a role it can answer allows: embedding
#   --runner=pooling                     typed: models.siglip-large.vllm
set -eu
stack=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
cd -- "$stack"
models=${IMAGEWORKS_MODELS:-models}
case $models in /*) ;; *) models=$stack/$models ;; esac
export CUDA_DEVICE_ORDER=PCI_BUS_ID
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"
export DO_NOT_TRACK=1
export HF_HUB_OFFLINE=1
export VLLM_NO_USAGE_STATS=1
exec vllm serve "$models"/google/siglip-large-patch16-384 \
  --host=127.0.0.1 \
  --port=24004 \
  --served-model-name=siglip-large \
  --max-model-len=64 \
  --max-num-seqs=2 \
  --gpu-memory-utilization=0.087 \
  '--limit-mm-per-prompt={"image":1}' \
  --runner=pooling
