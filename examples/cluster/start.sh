#!/usr/bin/env bash
# Starts a Ray cluster by hand, one machine at a time, and trains IMPALA on it.
#
#   on the first machine:     ./start.sh head
#   on every other machine:   ./start.sh join FIRST_MACHINE
#   on the first machine:     ./start.sh train 32          (32 actors)
#   on every machine, after:  ./start.sh stop
#
# Every machine needs the same Python and `pip install 'sb3_pg_ext[ray]'`. The first machine keeps two of its processors
# for the learner. Who knows the token that it keeps in ~/.ray/auth_token may use the cluster: copy that file to the other
# machines before they join.
set -euo pipefail
export RAY_AUTH_MODE=token
PORT="${PORT:-6379}"
case "${1:-}" in
head)
    [ -e ~/.ray/auth_token ] || ray get-auth-token --generate > /dev/null ||
        echo "This version of Ray has no tokens: whoever reaches port $PORT may use the cluster." >&2
    cpus=$(($(nproc) > 3 ? $(nproc) - 2 : 1))
    ray start --head --port="$PORT" --num-cpus="$cpus" --include-dashboard=false --disable-usage-stats
    ;;
join)
    ray start --address="${2:?the name or address of the first machine}:$PORT" --disable-usage-stats
    ;;
train)
    python "$(dirname "$0")/train.py" --actors "${2:?the number of actors}" --address auto
    ;;
stop)
    ray stop
    ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
