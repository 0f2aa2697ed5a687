/* Becomes a command, and tells it when: BENCH_STARTED is the time, in nanoseconds of CLOCK_MONOTONIC.
 *
 *   since COMMAND [ARG...]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec now;
    char text[32];

    if (argc < 2)
        return 125;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof(text), "%lld", now.tv_sec * 1000000000LL + now.tv_nsec);
    setenv("BENCH_STARTED", text, 1);
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
