#!/bin/bash
#SBATCH --job-name=@name
#SBATCH --nodes=@nodes
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=@cores
#SBATCH --output=@folder/job.log
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@@@warning_s
#SBATCH --propagate=NONE
@options

# The nodes may lack this version of nsactors: the job's folder has it.
export PYTHONPATH=@package${PYTHONPATH:+:$PYTHONPATH}

# One step for each of the other nodes: `scancel JOB.STEP` ends the engines of that node alone. A step is killed without
# a warning, so another one removes what is left of it.
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST" | grep -vx "$SLURMD_NODENAME"); do
    step="srun --nodes=1 --ntasks=1 --overlap --nodelist=$node"
    { $step @python -m nsactors.cluster.node @folder/node.json
      $step @python -m nsactors.cluster.node --tidy; } &
done

# In place of this shell, so that the batch system's signals reach it.
export NSACTORS_ORIGIN="Slurm job $SLURM_JOB_ID" NSACTORS_STOP_WITH="scancel --batch --signal=TERM $SLURM_JOB_ID"
export NSACTORS_ENTER_WITH="srun --jobid=$SLURM_JOB_ID --nodes=1 --ntasks=1 --overlap --propagate=NONE --pty"
exec @python -m nsactors.cluster.batch_job @folder
