#!/bin/bash
#$ -N @name
#$ -S /bin/bash
#$ -V
#$ -notify
#$ -j yes
#$ -o @folder/job.log
@options

# One task for each of the other hosts. The parallel environment is a matter of the site: give it as an option, such as
# `-pe mpi @nodes`, with one slot a host.
for host in $(awk '{ print $1 }' "$PE_HOSTFILE" | grep -vx "$HOSTNAME"); do
    qrsh -inherit -nostdin "$host" @python -m nsactors.cluster.node @folder/node.json &
done

# In place of this shell, so that the batch system's signals reach it.
export NSACTORS_ORIGIN="Grid Engine job $JOB_ID" NSACTORS_STOP_WITH="qdel $JOB_ID"
exec @python -m nsactors.cluster.job @folder
