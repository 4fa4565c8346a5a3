#!/bin/bash
#$ -N @name
#$ -S /bin/bash
#$ -V
#$ -notify
#$ -j yes
#$ -o @folder/job.log
@options

# The nodes may lack this version of nsactors: the job's folder has it.
export PYTHONPATH=@package${PYTHONPATH:+:$PYTHONPATH}

# One task for each of the other hosts. The parallel environment is a matter of the site: give it as an option, such as
# `-pe mpi @nodes`, with one slot a host. `qrsh` passes words to a shell without quotes, so they are quoted here.
task=$(printf '%q ' env PYTHONPATH="$PYTHONPATH" @python -m nsactors.cluster.node @folder/node.json)
for host in $(awk '{ print $1 }' "$PE_HOSTFILE" | grep -vx "$HOSTNAME"); do
    # Warnings go to all processes of the job, and would end this one.
    { trap '' USR1 USR2; exec qrsh -inherit -nostdin "$host" "$task"; } &
done

# In place of this shell, so that the batch system's signals reach it.
export NSACTORS_ORIGIN="Grid Engine job $JOB_ID" NSACTORS_STOP_WITH="qdel $JOB_ID"
exec @python -m nsactors.cluster.batch_job @folder
