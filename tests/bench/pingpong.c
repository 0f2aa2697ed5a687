/* The least that asking another process can take: a byte to it by a pipe, and one back.
 *
 *   pingpong COUNT [PROCESSOR]    nanoseconds a round: 1000 quantiles in a line
 *
 * That is two context switches, and a write and a read on each side. On one PROCESSOR both are
 * always on the same, as the kernel's synchronous wake-up would have them.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define QUANTILES 1000

static int ascending(const void *one, const void *other)
{
    long a = *(const long *)one, b = *(const long *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 20000, there[2], back[2], i;
    long *times = malloc(sizeof(long) * count);
    char byte = 0;

    if (argc > 2) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(atoi(argv[2]), &one);
        sched_setaffinity(0, sizeof(one), &one);
    }
    if (pipe(there) < 0 || pipe(back) < 0)
        return 1;
    if (fork() == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
            ;
        _exit(0);
    }
    for (i = 0; i < count; i++) {
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
            return 1;
        clock_gettime(CLOCK_MONOTONIC, &after);
        times[i] = (after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec;
    }
    qsort(times, count, sizeof(long), ascending);
    for (i = 0; i < QUANTILES; i++)
        printf("%ld ", times[(long)count * i / QUANTILES]);
    printf("\n");
    return 0;
}
