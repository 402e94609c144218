#!/bin/bash
# cluster.sh DIR NODES: a real SLURM cluster on this machine, for tests. It ends when its standard input does.
#
# Run as the first process of new network, host-name, mount and PID namespaces: everything below dies with it, whatever
# happens. Host `ctl` (login and slurmctld) has address 10.88.0.254 on a bridge; host nodeN has 10.88.0.N, a network of
# its own and 8 pretended GPUs, so that a rendezvous at "localhost" fails here as it would on a cluster. All files are
# in DIR; DIR/ready appears once every node is idle. Needs root and slurmctld slurmd slurm-client munge iproute2.
set -euo pipefail
dir=$1 nodes=$2 network=10.88.0
export SLURM_CONF=$dir/etc/slurm.conf

write_configuration() {
  mkdir -p "$dir"/{etc,run,log,state,munge,dev}
  for i in $(seq "$nodes"); do mkdir -p "$dir/spool/node$i"; done
  # a GPU must be a character device, else SLURM leaves CUDA_VISIBLE_DEVICES unset; 1 3 is what /dev/null is
  for i in 0 1 2 3 4 5 6 7; do mknod "$dir/dev/nvidia$i" c 1 3; done
  {
    echo "127.0.0.1 localhost"
    echo "$network.254 ctl"
    for i in $(seq "$nodes"); do echo "$network.$i node$i"; done
  } > "$dir/etc/hosts"
  (umask 077; head -c 128 /dev/urandom > "$dir/munge/key")
  echo "NodeName=node[1-$nodes] Name=gpu File=$dir/dev/nvidia[0-7]" > "$dir/etc/gres.conf"
  # Sizes are pretended (config_overrides) and bind nothing. The waits are shortened: KillWait (TERM to KILL) from 30 s.
  cat > "$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=ctl($network.254)
SlurmctldPort=17817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
PriorityType=priority/basic
JobRequeue=1
EnforcePartLimits=ALL
ReturnToService=2
KillWait=10
SlurmdTimeout=15
MinJobAge=3600
GresTypes=gpu
PropagateResourceLimits=NONE
NodeName=node[1-$nodes] NodeAddr=$network.[1-$nodes] Port=17900 CPUs=64 SocketsPerBoard=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=1000000 Gres=gpu:8 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=1-00:00:00 DefaultTime=01:00:00 State=UP
CONF
}

start_network() {
  hostname ctl
  mount --bind "$dir/etc/hosts" /etc/hosts
  ip link set lo up
  ip link add bridge type bridge
  ip addr add "$network.254/24" dev bridge
  ip link set bridge up
}

start_munge() {
  # force: only root has to reach the socket, so the folders above it may be closed to others
  munged --foreground --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/munge/seed" --num-threads=4 > "$dir/log/munged.out" 2>&1 < /dev/null &
  daemons[munged]=$!
  until munge --socket="$dir/munge/socket" --no-input > /dev/null 2>&1; do check_daemons; sleep 0.05; done
}

start_controller() {
  slurmctld -D -i > "$dir/log/slurmctld.out" 2>&1 < /dev/null &
  daemons[slurmctld]=$!
}

start_node() { # NUMBER: slurmd in namespaces of its own, joined to the bridge by a cable
  local name=node$1 inside
  # shellcheck disable=SC2016 # the inner shell's variables
  unshare --net --uts --mount --pid --fork --kill-child --mount-proc --propagation private sh -c '
    hostname "$1"
    ip link set lo up
    until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
    ip addr add "$2/24" dev eth0
    ip link set eth0 up
    slurmd -D -N "$1" &
    while kill -0 $! 2> /dev/null; do wait $! || :; done # wait also takes in the orphans of jobs
  ' init "$name" "$network.$1" > "$dir/log/$name.out" 2>&1 < /dev/null &
  daemons[$name]=$!
  until inside=$(pgrep -P ${daemons[$name]}); do check_daemons; sleep 0.02; done
  ip link add "cable$1" type veth peer name eth0 netns "$inside"
  ip link set "cable$1" master bridge up
}

check_daemons() { # ends the cluster, with the reason, if one of them has died
  local name
  for name in "${!daemons[@]}"; do
    kill -0 "${daemons[$name]}" 2> /dev/null || { echo "$name died:"; tail -n 5 "$dir/log/$name.out"; exit 1; } >&2
  done
}

declare -A daemons
write_configuration
start_network
start_munge
start_controller
for i in $(seq "$nodes"); do start_node "$i"; done
until [ "$(sinfo --noheader --Node --states=idle --format=%N 2> /dev/null | wc -l)" = "$nodes" ]; do check_daemons; sleep 0.1; done
touch "$dir/ready"
cat > /dev/null
