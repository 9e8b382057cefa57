#!/usr/bin/env bash
# Tries `nnunet_cil run --launcher slurm` on a Slurm to try things on: a graph of jobs to its scores, failures, kills,
# time limits, drained nodes and a restarted controller. Prints OK or FAIL for each check; fails if one failed.
#
#   benchmarks/slurm_check.sh FOLDER     a new folder, on a disk that the nodes share
#
# Never on a cluster in use: it drains nodes and restarts the controller, so it needs root. A Slurm of one node is enough:
# on Debian or Ubuntu, `apt-get install slurm-wlm munge`, an /etc/slurm/slurm.conf (JobRequeue=1; the manual's example
# for one machine), then munged, slurmctld and slurmd.
set -eu
die() { echo "slurm_check: $*" >&2; exit 2; }
[ $# = 1 ] || die "Call it as benchmarks/slurm_check.sh FOLDER."
for command in sbatch squeue scontrol slurmctld; do
  command -v "$command" >/dev/null || die "'$command' is not there. The head of $0 says how to get a Slurm."
done
[ "$(id -u)" = 0 ] || die "It drains nodes and restarts the controller: run it as root, on a Slurm to try things on."
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$here/..:$here/../tests${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" "$here/slurm_check.py" "$1"
