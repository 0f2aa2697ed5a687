#!/bin/sh
# cgroups.sh NAME COMMAND...: run a command with a /sys/fs/cgroup of its own, of version 2, whose
# root is a new cgroup: the engines find what they want whatever the machine has, and leave nothing
# in its own. `cgroups.sh NAME` removes the cgroup, once all that ran there has ended.
set -eu
name=$1
shift
export NATSUP_TEST_CGROUP="$name"
exec unshare --mount --propagation slave sh -euc '
    top=$(mktemp -d)
    mount -t cgroup2 cgroup2 "$top"
    own=$top/$NATSUP_TEST_CGROUP
    if [ $# = 0 ]; then
        [ ! -d "$own" ] || find "$own" -depth -type d -exec rmdir {} \;
        umount "$top"
        rmdir "$top"
        exit
    fi
    mkdir -p "$own"
    echo $$ > "$own/cgroup.procs"
    unset NATSUP_TEST_CGROUP
    exec unshare --cgroup sh -euc "
        umount -R /sys/fs/cgroup 2>/dev/null || :
        umount \"$top\"
        rmdir \"$top\"
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        exec \"\$@\"" sh "$@"
' sh "$@"
