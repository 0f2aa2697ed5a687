# What shells live by, many times over: processes, pipes, statuses, waits, traps, jobs. Says what it
# saw in lines of `name<TAB>value`. Arguments: the number of rounds, and the shell that runs it.
rounds=$1
shell=$2
say() { printf '%s\t%s\n' "$1" "$2"; }
value() { eval "$2"; say "$1" $?; }

# --- what the program was given ---
say umask "$(umask)"
say limits "$(ulimit -a | tr -s ' \n\t' ' ')"
say descriptors "$(ls /proc/self/fd | wc -l)"
say signals "$(grep -E '^(Sig(Blk|Ign|Cgt)|ShdPnd)' /proc/self/status | tr '\n\t' '  ')"
say nice "$(nice)"
say oom "$(cat /proc/self/oom_score_adj)"
say folder "${PWD##*/}"
say children "$(cat /proc/$$/task/$$/children | wc -w)"
say environment "$(env | grep -v -E '^(_|PWD|OLDPWD|NATSUP_STATE_DIR)=' | sort | cksum)"
say standard "$(readlink /proc/$$/fd/0)"

# --- thousands of short processes ---
i=0 sum=0
while [ $i -lt "$rounds" ]; do
    /bin/sh -c "exit $((i % 256))"
    sum=$((sum + $?))
    i=$((i + 1))
done
say statuses $sum

i=0 count=0
while [ $i -lt "$rounds" ]; do
    [ "$(/bin/echo $i | cat | tr 0-9 a-j | cat | tr a-j 0-9)" = $i ] && count=$((count + 1))
    i=$((i + 5))
done
say pipelines $count

i=0
while [ $i -lt "$rounds" ]; do
    /bin/true &
    i=$((i + 1))
    [ $((i % 50)) = 0 ] && wait
done
wait
say 'background, all waited for' $?
say 'a second wait' "$(wait; echo $?)"
say 'a burst of lines' "$(seq 1 20000 | sort -rn | sed -n 1,17000p | cksum)"
say 'a reader that leaves' "$(yes | head -n 3 | tr '\n' .)"

# --- statuses and signals ---
value 'not found' '/nowhere/at/all 2>/dev/null'
value 'not executable' '/etc/hostname 2>/dev/null'
value 'status through a pipe' '(exit 3) | (cat; exit 4)'
for signal in HUP INT QUIT KILL USR1 PIPE ALRM TERM SYS XCPU; do
    (ulimit -c 0; $shell -c "kill -$signal \$\$") 2>/dev/null
    say "died of $signal" $?
done
sleep 60 &
kill -TERM $!
wait $! 2>/dev/null
say 'waited for a killed one' $?
(exit 9) &
wait $!
say 'waited for one that failed' $?
wait 999999 2>/dev/null
say 'waited for nobody' $?
value timeout 'timeout 0.2 sleep 60'
value 'timeout in the foreground' 'timeout --foreground -s INT 0.2 sleep 60'
value 'timeout by KILL' '$shell -c "timeout -s KILL 0.2 sleep 60" 2>/dev/null'

# --- traps ---
say 'trap on exit' "$($shell -c 'trap "echo -n left" EXIT; exit 6'; echo ", $?")"
say 'trap in a loop' "$($shell -c '
    n=0; trap "n=\$((n + 1))" USR1
    i=0; while [ $i -lt 200 ]; do kill -USR1 $$; i=$((i + 1)); done; echo $n')"
say 'trap in a wait' "$($shell -c '
    trap "echo trapped" USR1
    sleep 60 & child=$!
    (sleep 0.3; exec kill -USR1 $$) &
    wait $child; echo $?
    kill $child; wait $child 2>/dev/null; echo $?' 2>/dev/null | tr '\n' ' ')"
say 'trap from a child' "$($shell -c '
    trap "seen=yes" USR1; parent=$$
    $0 -c "kill -USR1 $parent"; echo $seen' "$shell")"
say 'ignored stays ignored' "$($shell -c 'trap "" TERM; $0 -c "kill \$\$; echo alive"' "$shell")"
say 'CHLD' "$($shell -c 'trap "n=x\$n" CHLD; /bin/true; /bin/true; echo ${n:+some}')"

# --- jobs, on a terminal ---
jobs_of() {
    JOB="set -m; $1" script -qec "exec $shell -c \"\$JOB\"" /dev/null </dev/null |
        sed 's/[0-9]\{4,\}/PID/g' | tr -s '\r\n ' ';; '
}
say 'own groups' "$(jobs_of '
    sleep 60 & [ "$(ps -o pgid= -p $! | tr -d " ")" = $! ] && echo own
    kill -TERM -$!; wait $!; echo $?')"
say 'a pipeline is one group' "$(jobs_of '
    exec 2>/dev/null
    sleep 60 | sleep 60 | sleep 60 & last=$!
    group=$(ps -o pgid= -p $last | tr -d " ")
    until [ "$(ps -e -o pgid= -o comm= | grep -c "^ *$group sleep")" = 3 ]; do :; done
    kill %1; wait $last; echo $?')"
# What bash says of its jobs, and when, is a matter of which signal it takes first.
say 'stopped and continued' "$(jobs_of '
    exec 2>/dev/null
    sleep 60 & kill -STOP $!
    until [ "$(ps -o state= -p $!)" = T ]; do :; done; echo T
    kill -CONT $!
    until [ "$(ps -o state= -p $!)" = S ]; do :; done; echo S
    kill $!; while kill -0 $!; do wait $!; done')"
say 'brought to the front' "$(jobs_of '
    (ps -o tpgid=,pgid= -p $$ | { read a b; [ $a != $b ] && echo behind; }; sleep 0.2; exit 5) &
    fg >/dev/null; echo $?')"
say 'the terminal interrupts' "$(jobs_of '
    (trap "exit 4" INT; kill -INT 0; sleep 60); echo $?')"
say 'a whole group killed' "$(setsid -w $shell -c '
    sleep 60 | sleep 60 &
    trap "" TERM; kill -TERM 0; wait; echo $?' 2>/dev/null)"
say 'orphans' "$($shell -c '(/bin/sh -c "sleep 0.1; echo orphan" &)' | cat)"
say 'left to wait for' "$(jobs -p | wc -l)"
