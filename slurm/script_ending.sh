# Finds the checkout: at or above TRAINYARD_HOME; if unset, this script (bash) or the folder sbatch was called in.
for home in "${TRAINYARD_HOME:-$(dirname "$0")}" "${TRAINYARD_HOME:-${SLURM_SUBMIT_DIR:-.}}"; do
  home=$(CDPATH='' cd "$home" && pwd -P); while [ -n "$home" ] && [ ! -x "$home/slurm/launch" ]; do home=${home%/*}; done
  if [ -n "$home" ]; then exec "$home/slurm/launch" "$run" "$@"; fi
done
echo "error: no slurm/launch at or above ${TRAINYARD_HOME:-${SLURM_SUBMIT_DIR:-$(dirname "$0")}};" \
  "cd into the checkout before sbatch, or export TRAINYARD_HOME=CHECKOUT" >&2
exit 2
