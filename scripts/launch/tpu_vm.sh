#!/usr/bin/env bash
# Trains on a slice of Cloud TPU VMs that is asked for as a queued resource:
#
#   scripts/launch/tpu_vm.sh NAME ZONE TYPE RUNTIME --config configs/omgsr_s_512.py --workdir gs://B/D ...
#   scripts/launch/tpu_vm.sh omgsr us-east5-b v5litepod-16 v2-alpha-tpuv5-lite --config ...
#
# What follows RUNTIME are the arguments of scripts/train.py. This checkout's last commit is copied
# to every host and installed there, and the same command is started on all of them. When the slice
# is preempted it is asked for again, and the run goes on from its last checkpoint. At the end the
# slice is deleted.
#
# QUEUE_FLAGS (default: --spot) goes to gcloud as it is, such as --reserved. DRY_RUN=1 prints the
# commands and runs none of them.
set -euo pipefail
[ $# -ge 5 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
name=$1 zone=$2 type=$3 runtime=$4
shift 4
cd "$(dirname "$0")/../.."
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT

run() {
    if [ -n "${DRY_RUN:-}" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

on_all_hosts() {
    run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

delete() {
    run gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet || true
}

create() {
    # shellcheck disable=SC2086  # several flags
    run gcloud compute tpus queued-resources create "$name" --node-id="$name" \
        --zone="$zone" --accelerator-type="$type" --runtime-version="$runtime" \
        ${QUEUE_FLAGS---spot}
}

state() {
    gcloud compute tpus queued-resources describe "$name" --zone="$zone" \
        --format='value(state.state)' 2>/dev/null || echo ABSENT
}

# A slice that is ready: waits for it, and asks for it again where it was taken away.
obtain() {
    local now
    if [ -n "${DRY_RUN:-}" ]; then create; return; fi
    while true; do
        now=$(state)
        case $now in
            ACTIVE) return ;;
            ABSENT) create ;;
            SUSPENDED | SUSPENDING | FAILED) delete ;;
        esac
        echo "the queued resource $name is $now" >&2
        sleep "${POLL_SECONDS:-30}"
    done
}

prepare() {
    run git archive --output="$here/omgsr.tar" HEAD
    run gcloud compute tpus tpu-vm scp "$here/omgsr.tar" "$name:" --zone="$zone" --worker=all
    on_all_hosts "rm -rf omgsr && mkdir omgsr && tar -xf omgsr.tar -C omgsr && \
cd omgsr && pip install --quiet -e '.[tpu]'"
}

train() {
    # The exit code is left in a file: ssh to several hosts does not tell it.
    on_all_hosts "cd omgsr && { python3 scripts/train.py $(printf '%q ' "$@"); echo \$? > code; }"
}

exit_code() {
    if [ -n "${DRY_RUN:-}" ]; then echo 0; return; fi
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=0 --command="cat omgsr/code" ||
        echo lost
}

while true; do
    obtain
    if prepare && train "$@"; then code=$(exit_code); else code=lost; fi
    case $code in
        0) delete; exit 0 ;;
        3 | 1[3-9][0-9] | lost)
            echo "the run was cut off ($code) and goes on" >&2
            sleep "${POLL_SECONDS:-30}" ;;
        *) echo "the run failed ($code); the slice $name is kept" >&2; exit "$code" ;;
    esac
done
