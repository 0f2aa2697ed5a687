/* Times bind() calls that every supervisor lets pass: a specific address, on a bound socket.
 *
 *   binder COUNT [WAIT]          nanoseconds of the calls: 1000 quantiles in a line, so that word
 *                                500 is the median and word 990 the 99th percentile
 *   binder COUNT WAIT THREADS    calls per second, of so many threads at once
 *
 * WAIT: milliseconds before it begins; a supervisor has finished its imports by then.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define QUANTILES 1000

static struct sockaddr_in address = {.sin_family = AF_INET};
static int count;
static pthread_barrier_t barrier;

static int ascending(const void *one, const void *other)
{
    long a = *(const long *)one, b = *(const long *)other;
    return (a > b) - (a < b);
}

static long now(void)
{
    struct timespec found;
    clock_gettime(CLOCK_MONOTONIC, &found);
    return found.tv_sec * 1000000000L + found.tv_nsec;
}

static void *bind_often(void *unused)
{
    int sock = socket(AF_INET, SOCK_STREAM, 0), i;
    pthread_barrier_wait(&barrier);
    for (i = 0; i < count; i++)
        bind(sock, (struct sockaddr *)&address, sizeof(address));
    return unused;
}

int main(int argc, char **argv)
{
    int threads = argc > 3 ? atoi(argv[3]) : 0, i;
    count = argc > 1 ? atoi(argv[1]) : 20000;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    usleep(1000 * (argc > 2 ? atoi(argv[2]) : 1500));
    if (threads) {
        pthread_t each[threads];
        long begin;
        pthread_barrier_init(&barrier, NULL, threads + 1);
        for (i = 0; i < threads; i++)
            pthread_create(&each[i], NULL, bind_often, NULL);
        begin = now();
        pthread_barrier_wait(&barrier);
        for (i = 0; i < threads; i++)
            pthread_join(each[i], NULL);
        printf("%.1f\n", 1e9 * count * threads / (now() - begin));
    } else {
        long *times = malloc(sizeof(long) * count);
        int sock = socket(AF_INET, SOCK_STREAM, 0);
        bind(sock, (struct sockaddr *)&address, sizeof(address));
        for (i = 0; i < count; i++) {
            long begin = now();
            bind(sock, (struct sockaddr *)&address, sizeof(address));
            times[i] = now() - begin;
        }
        qsort(times, count, sizeof(long), ascending);
        for (i = 0; i < QUANTILES; i++)
            printf("%ld ", times[(long)count * i / QUANTILES]);
        printf("\n");
    }
    return 0;
}
