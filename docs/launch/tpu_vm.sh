#!/usr/bin/env bash
# The same command on every worker of a Cloud TPU slice; JAX finds the others in the
# TPU's metadata.
#   NAME=my-slice ZONE=us-east5-b BUCKET=gs://my-bucket/b32 docs/launch/tpu_vm.sh
# Has not been run: no TPU was at hand. The workers need the checkout, with .venv made
# by `make` and `.venv/bin/pip install -e '.[tpu]'`, in ~/mmjax.
set -euo pipefail

: "${NAME:?the TPU}" "${ZONE:?its zone}" "${BUCKET:?where checkpoints go}"
CONFIG=${CONFIG:-configs/clip.py:vit_b32}

gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command "
  cd ~/mmjax && exec .venv/bin/mmjax train --distributed auto --config $CONFIG \
    --workdir ~/runs/b32 --config.checkpoint.folder=$BUCKET $*"
