# The watchdog: PROCESS FOLDER LOGS RAYLET. It reads from a pipe that PROCESS holds open.
#
# Ray writes into its log that it ends the process, and nothing else says so: who has killed a process cannot be known
# from outside, and the raylet's state tells little, for that of an embedded Ray is killed as its driver ends.

read -r word && exit 0
grep -qs "Terminate the process" "$3"/python-core-driver-*_"$1".log || exit 0
text="nsactors: Ray's raylet (process $4) has died, and Ray has ended this process ($1) with it. \
The cluster is lost, with its engines and what they held; start Python anew, and another cluster."
if [ -t 2 ]; then
    printf '\n%s\n' "$text" >&2
else
    printf '%s\n' "$text" >&2
    umask 077
    mkdir -p "$2" && printf '%s\n' "$text" >"$2/$1.txt"
fi
