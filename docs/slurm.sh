#!/bin/bash
# A run on the nodes of a Slurm job, from a checkout with `make install-engines` that all nodes see:
#   MODEL=vllm:/data/models/my-model RUN_DIR=/data/runs/first sbatch docs/slurm.sh
# The same line again goes on where it was; Slurm itself does so after a preemption or the loss of a node.
#SBATCH --job-name=kernelfleet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=8
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

model=${MODEL:?name it: MODEL=vllm:PATH_OR_ID sbatch docs/slurm.sh}
run_dir=${RUN_DIR:-$SLURM_SUBMIT_DIR/runs/slurm}
port=6379

cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate
ulimit -n "$(ulimit -Hn)"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_node=${nodes[0]}
head_ip=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head_node" hostname --ip-address | awk '{print $1}')

# One token for head, nodes and runner: nobody else on the network can use this cluster.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_ADDRESS="$head_ip:$port"
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

ray_on() {  # how many nodes, srun's choice of them, then the options of ray start
  local n_nodes=$1 which=$2
  shift 2
  srun --overlap --nodes="$n_nodes" --ntasks="$n_nodes" "$which" \
    ray start "$@" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
}

ray_on 1 "--nodelist=$head_node" --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false
for _ in $(seq 60); do
  if ray status >/dev/null 2>&1; then break; fi
  sleep 2
done
ray status  # ends the job here when no head came up

if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  ray_on "$((SLURM_JOB_NUM_NODES - 1))" "--exclude=$head_node" --address="$RAY_ADDRESS"
fi

# The nodes that are there when the runner begins are those that get engines.
count='import ray, sys; ray.init(); sys.exit(sum(n["Alive"] for n in ray.nodes()) < int(sys.argv[1]))'
for _ in $(seq 60); do
  if python -c "$count" "$SLURM_JOB_NUM_NODES" >/dev/null 2>&1; then break; fi
  sleep 2
done

# In place of this shell, so that Slurm's SIGTERM reaches the runner: it drains, and ends within --signal's time.
exec python -m runner --model "$model" --cluster ray --concurrency 256 --run-dir "$run_dir" --set grace_s=60
