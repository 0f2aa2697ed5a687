/* Times bind() calls that every supervisor lets pass: a specific address, on a bound socket.
 *
 *   binder COUNT     prints the median in nanoseconds
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int ascending(const void *one, const void *other)
{
    long a = *(const long *)one, b = *(const long *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 20000, i;
    long *times = malloc(sizeof(long) * count);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int sock = socket(AF_INET, SOCK_STREAM, 0);

    bind(sock, (struct sockaddr *)&address, sizeof(address));
    usleep(1500000); /* the supervisor has finished its imports */
    for (i = 0; i < count; i++) {
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        bind(sock, (struct sockaddr *)&address, sizeof(address));
        clock_gettime(CLOCK_MONOTONIC, &after);
        times[i] = (after.tv_sec - before.tv_sec) * 1000000000L + after.tv_nsec - before.tv_nsec;
    }
    qsort(times, count, sizeof(long), ascending);
    printf("%ld\n", times[count / 2]);
    return 0;
}
