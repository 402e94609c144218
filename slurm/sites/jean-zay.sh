# Jean Zay (IDRIS, France), its H100 nodes: 4 GPUs and 96 cores each. Not tried there by us: compare it with IDRIS's own
# pages about partitions and modules. Your hours are yours to name: export SBATCH_ACCOUNT=PROJECT@h100

export TRAINYARD_SITE=jean-zay

export SBATCH_CONSTRAINT=h100
export SBATCH_GRES=gpu:4
export SBATCH_CPUS_PER_GPU=24
export SBATCH_HINT=nomultithread

TRAINYARD_MODULES="arch/h100" # modules built for these nodes; it comes before any other

export TRAINYARD_RUNS=${TRAINYARD_RUNS:-$SCRATCH/runs} # the home folder is small
