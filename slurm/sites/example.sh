# A site: what one cluster needs, and no run says. Copy this file, name it after your cluster, fill it in, delete the rest.
#
#   source slurm/sites/mycluster.sh     in the shell you submit from: the SBATCH_ variables take effect there
#   sbatch train/.../RUN.slurm          slurm/launch sources the file again inside the job, and on every node
#
# It is read by bash more than once, so it only sets variables. sbatch lets an SBATCH_ variable replace the same option
# in a script's #SBATCH lines, and an option on its command line replace both. `man sbatch` lists all of them.

export TRAINYARD_SITE=example # the name of this file

# Read by sbatch
# export SBATCH_ACCOUNT=        # who pays
# export SBATCH_PARTITION=      # which nodes
# export SBATCH_QOS=
# export SBATCH_CONSTRAINT=     # which GPU, where a partition has several
# export SBATCH_GRES=gpu:4      # GPUs of one node; a run has as many processes on a node
# export SBATCH_CPUS_PER_GPU=   # where CPUs are not handed out with the node

# Read by slurm/launch
# source /etc/profile.d/modules.sh   # only where jobs lack the `module` command
# TRAINYARD_MODULES="gcc cuda"       # words for `module load`
# TRAINYARD_VENV=$HOME/environment   # folder of the Python environment; unset means the active one, else .venv here
# TRAINYARD_CONTAINER="apptainer exec --nv $HOME/image.sif"   # words before `python`; without TRAINYARD_VENV it is
#                                                             # the container's own python3

# export TRAINYARD_PORT=             # where a launch's processes meet, if a free port will not do (a firewall)

# Read by what is started: anything else the cluster needs, say the network interface or the place for runs
# export NCCL_SOCKET_IFNAME=
# export TRAINYARD_RUNS=$SCRATCH/runs
