#!/bin/bash
#BSUB -J @name
#BSUB -n @slots
#BSUB -R span[ptile=@cores]
#BSUB -o @folder/job.log
#BSUB -wa USR1
#BSUB -wt @warning_min
@options

# The nodes may lack this version of nsactors: the job's folder has it.
export PYTHONPATH=@package${PYTHONPATH:+:$PYTHONPATH}

# One task for each of the other hosts; `blaunch` runs it under LSF's control.
for host in $(tr ' ' '\n' <<< "$LSB_HOSTS" | sort -u | grep -vx "$HOSTNAME"); do
    # The warning goes to all processes of the job, and would end this one.
    { trap '' USR1
      exec blaunch "$host" env PYTHONPATH="$PYTHONPATH" @python -m nsactors.cluster.node @folder/node.json; } &
done

# In place of this shell, so that the batch system's signals reach it.
export NSACTORS_ORIGIN="LSF job $LSB_JOBID" NSACTORS_STOP_WITH="bkill $LSB_JOBID"
exec @python -m nsactors.cluster.batch_job @folder
