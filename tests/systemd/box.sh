#!/bin/bash
# box.sh FOLDER OUTSIDE=INSIDE...: a systemd of its own, PID 1 of its own namespaces, over a view of
# this machine's files that keeps what is written to itself. Of its services it starts journald alone. The
# network is the caller's. Each OUTSIDE is to be seen as INSIDE. FOLDER/pid tells the pid of systemd.
set -eu
folder=$1; shift
binds=$*

# In a mount namespace: a control group for it alone. On version 1 and hybrid hosts, too, since
# version 2 is mounted here.
own_group() {
    mkdir -p "$folder/cgroup" "$folder/files"
    mount -t tmpfs -o mode=755 none "$folder/files"
    mount -t cgroup2 none "$folder/cgroup"
    mkdir "$folder/cgroup/$group"
    echo $$ >"$folder/cgroup/$group/cgroup.procs"
    mkfifo "$folder/inside" "$folder/alone"
    unshare --cgroup --pid --uts --ipc --fork --kill-child \
        unshare --mount --propagation slave bash -euc "$(declare -f become_systemd); become_systemd" &
    # Of what is in the group and not in the PID namespace systemd sees 0 for a pid, and neither
    # shows nor kills any process there (cg_read_pid(): EIO). But who leaves the group before the
    # namespace is made makes one of the whole machine's groups.
    read -r _ <"$folder/inside"
    echo $$ >"$folder/cgroup/cgroup.procs"
    echo $! >"$folder/cgroup/cgroup.procs"
    echo >"$folder/alone"
    wait
}

become_systemd() {
    echo >"$folder/inside"
    read -r _ <"$folder/alone"
    read -r pid _ </proc/self/stat # /proc is still the machine's, and its number is the machine's
    root=$folder/files/root
    mkdir -p "$folder/files/upper" "$folder/files/work" "$root"
    mount -t overlay none -o "lowerdir=/,upperdir=$folder/files/upper,workdir=$folder/files/work" "$root"
    mount -t proc -o nosuid,nodev,noexec none "$root/proc"
    mount --bind "$root/proc/sys" "$root/proc/sys" # or this systemd would set the machine's sysctls
    mount -o remount,bind,ro "$root/proc/sys"
    if [ -e "$root/proc/sysrq-trigger" ]; then mount --bind /dev/null "$root/proc/sysrq-trigger"; fi
    mount -t sysfs -o ro,nosuid,nodev,noexec none "$root/sys"
    mount -t cgroup2 -o nosuid,nodev,noexec none "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755,nosuid none "$root/dev"
    for name in null zero full random urandom tty; do
        : >"$root/dev/$name"
        mount --bind "/dev/$name" "$root/dev/$name"
    done
    mkdir -p "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 none "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin"
    ln -s fd/1 "$root/dev/stdout"
    ln -s fd/2 "$root/dev/stderr"
    : >"$folder/console"
    : >"$root/dev/console"
    mount --bind "$folder/console" "$root/dev/console"
    mount -t tmpfs -o mode=1777 none "$root/dev/shm"
    mount -t tmpfs -o mode=1777 none "$root/tmp"
    mount -t tmpfs -o mode=755,nosuid,nodev none "$root/run"
    mkdir -p "$root/run/lock" "$root/run/log/journal"
    for bind in $binds; do
        mkdir -p "$root${bind#*=}"
        mount --bind "${bind%%=*}" "$root${bind#*=}"
    done
    units=$root/etc/systemd/system
    rm -rf "$units"
    mkdir -p "$units" "$root/etc/systemd/journald.conf.d"
    for target in sysinit basic sockets timers local-fs multi-user graphical; do
        wants=$root/usr/lib/systemd/system/$target.target.wants
        if [ -d "$wants" ]; then mount -t tmpfs none "$wants"; fi
    done
    cat >"$units/sysinit.target" <<UNIT
[Unit]
DefaultDependencies=no
Requires=systemd-journald.socket systemd-journald.service
After=systemd-journald.service
UNIT
    printf '[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n' >"$units/basic.target"
    printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' >"$units/box.target"
    cat >"$root/etc/systemd/journald.conf.d/box.conf" <<CONF
[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
RateLimitBurst=0
CONF
    : >"$root/etc/fstab"
    mkdir -p "$root/mnt/.old"
    echo "$pid" >"$folder/pid.new"
    mv "$folder/pid.new" "$folder/pid"
    cd "$root"
    pivot_root . mnt/.old
    umount -l /mnt/.old
    exec env -i container=box PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --bounding-set -sys_module,-sys_time,-sys_rawio,-syslog \
        /lib/systemd/systemd --system --unit=box.target --log-target=console --show-status=no \
        </dev/null >/dev/console 2>&1
}

export folder binds group="natsup-box.$$"
echo "$group" >"$folder/group"
exec unshare --mount --propagation slave bash -euc "$(declare -f own_group become_systemd); own_group"
