/* The wall clock, as a process sees it that is started with LD_PRELOAD=jump.so: so many seconds
 * from the machine's as the file $JUMP says. The machine's own clock is everybody's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    const char *path = getenv("JUMP");
    if (clock != CLOCK_REALTIME || result || !path)
        return result;
    FILE *file = fopen(path, "re");
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) == 1)
            now->tv_sec += seconds;
        fclose(file);
    }
    return result;
}
