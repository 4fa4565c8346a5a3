#!/bin/bash
#PBS -N @name
#PBS -l select=@nodes:ncpus=@cores
#PBS -l place=scatter
#PBS -j oe
#PBS -o @folder/job.log
@options

# The nodes may lack this version of nsactors: the job's folder has it.
export PYTHONPATH=@package${PYTHONPATH:+:$PYTHONPATH}

# One task for each of the other nodes; `pbsdsh` counts the nodes of the job from 0, which is this one.
for number in $(seq 1 $((@nodes - 1))); do
    pbsdsh -n "$number" -- env PYTHONPATH="$PYTHONPATH" @python -m nsactors.cluster.node @folder/node.json &
done

# In place of this shell, so that the batch system's signals reach it.
export NSACTORS_ORIGIN="PBS job $PBS_JOBID" NSACTORS_STOP_WITH="qdel $PBS_JOBID"
exec @python -m nsactors.cluster.batch_job @folder
