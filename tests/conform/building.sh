# Makes a small C project and builds it by `make -j` in every way that counts. Says what it saw in
# lines of `name<TAB>value`. Argument: how many source files.
files=$1
say() { printf '%s\t%s\n' "$1" "$2"; }
mkdir -p project/part
cd project || exit 1
calls=""
i=0
while [ "$i" -lt "$files" ]; do
    printf 'int f%d(int x) { return x + %d; }\n' "$i" "$i" >"f$i.c"
    printf 'int g%d(int x) { return x - %d; }\n' "$i" "$i" >"part/g$i.c"
    calls="$calls x = f$i(x); x = g$i(x) + 1;"
    i=$((i + 1))
done
printf '#include <stdio.h>\nint main(void) { int x = 0; %s printf("%%d\\n", x); return 7; }\n' \
    "$calls" >main.c
cat >Makefile <<'MAKE'
CFLAGS = -w -O1
sources = $(wildcard *.c)
program: $(sources:.c=.o) part/part.a
	$(CC) -o $@ $^
part/part.a: part ;
.PHONY: part clean bad worse killed jobs
part:
	+$(MAKE) -C part
clean:
	rm -f program *.o part/*.o part/*.a
bad: ; @exit 3
worse: bad program
killed: ; @kill -9 $$$$
jobs: $(addprefix job,1 2 3 4 5 6 7 8)
job%: ; @sleep 0.05; echo $* >>jobs.done
MAKE
cat >part/Makefile <<'MAKE'
CFLAGS = -w -O1
part.a: $(patsubst %.c,%.o,$(wildcard *.c))
	ar rcD $@ $^
MAKE
build() {
    name=$1
    shift
    make "$@" >out 2>errors
    say "$name" "$? $(sed 's/([0-9]*)//' errors | grep -v 'Waiting for' | sort | cksum)"
}
build 'make -j' -j4
./program >answer
say 'the program' "$? $(cat answer)"
say 'its objects' "$(cat ./*.o part/*.o | cksum)"
build 'nothing to do' -j4
touch f1.c
build 'one to do' -j4
build 'is it done? (-q)' -q
build clean clean
build 'is it done now? (-q)' -q
build 'make -j without end' -j
build 'one target fails' -j1 bad
build 'it goes on (-k)' -k -j2 worse
build 'one is killed' killed
build 'no such target' -j4 nowhere
build 'jobs' -j8 jobs
say 'all jobs' "$(sort jobs.done | tr '\n' ' ')"
