/* Times system calls that natsup has nothing to do with, in a loop.
 *
 *   loops getppid|dup-close COUNT     prints nanoseconds a turn: the median of 20 parts of the loop
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PARTS 20

static int ascending(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    int copying = argc > 1 && strcmp(argv[1], "dup-close") == 0;
    long count = (argc > 2 ? atol(argv[2]) : 1000000) / PARTS, i;
    double parts[PARTS];
    int part;

    usleep(1500000); /* a supervisor has finished its imports */
    for (part = 0; part < PARTS; part++) {
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        for (i = 0; i < count; i++) {
            if (copying)
                close(dup(0));
            else
                syscall(SYS_getppid);
        }
        clock_gettime(CLOCK_MONOTONIC, &after);
        parts[part] = ((after.tv_sec - before.tv_sec) * 1e9 + after.tv_nsec - before.tv_nsec) / count;
    }
    qsort(parts, PARTS, sizeof(double), ascending);
    printf("%.2f\n", parts[PARTS / 2]);
    return 0;
}
