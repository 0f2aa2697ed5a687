/* Binds in great numbers, and says what came of it, on lines of JSON:
 *
 *     load bomb PROCESSES BINDS FIRST   processes that each bind and close so many ports, one by one
 *     load threads THREADS FIRST        threads that bind a port each, all at once, and keep it;
 *                                       FIRST 0: one that natsup lets pass
 *     load held SOCKETS FIRST           sockets that are bound by eight threads, and kept
 *     load soak FIRST                   a few sockets, bound and closed again, until a line comes
 *     load passed                       binds that natsup lets pass, until a line comes
 *
 * What is kept is closed, all at once, when a line comes; then it waits for the end of its input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 200000
#define LANES 8

/* Shared with children. */
static struct result {
    int number; /* the errno of its bind(), -1: none was made */
    float seconds;
} *results;
static int *socks;
static int count, first;
static pthread_barrier_t barrier;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void must(int truth, const char *what)
{
    if (!truth) {
        perror(what);
        exit(1);
    }
}

static int bind_port(int n, int port, in_addr_t host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    double began;

    must(sock >= 0, "socket");
    address.sin_addr.s_addr = htonl(host);
    began = now();
    results[n].number = bind(sock, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;
    results[n].seconds = now() - began;
    return sock;
}

static int by_length(const void *one, const void *other)
{
    float a = ((const struct result *)one)->seconds, b = ((const struct result *)other)->seconds;

    return (a > b) - (a < b);
}

static void say(double seconds)
{
    int failed = 0, silent = 0, error = 0;

    for (int n = 0; n < count; n++) {
        silent += results[n].number < 0;
        if (results[n].number > 0) {
            failed++;
            error = results[n].number;
        }
    }
    qsort(results, count, sizeof(*results), by_length);
    printf("{\"binds\": %d, \"unanswered\": %d, \"failed\": %d, \"errno\": %d, \"seconds\": %.3f,"
           " \"median\": %.6f, \"p99\": %.6f, \"worst\": %.6f}\n",
           count, silent, failed, error, seconds, results[count / 2].seconds,
           results[(int)(count * 0.99)].seconds, results[count - 1].seconds);
    fflush(stdout);
}

static void bomb(int processes, int binds)
{
    double began = now();

    count = processes * binds;
    for (int n = 0; n < processes; n++) {
        int pid = fork();

        must(pid >= 0, "fork");
        if (pid == 0) {
            for (int m = n * binds; m < (n + 1) * binds; m++)
                close(bind_port(m, first + m, INADDR_ANY));
            _exit(0);
        }
    }
    while (wait(0) > 0)
        ;
    say(now() - began);
}

static void *one_thread(void *number)
{
    int n = (int)(long)number;

    pthread_barrier_wait(&barrier);
    socks[n] = first ? bind_port(n, first + n, INADDR_ANY) : bind_port(n, 0, INADDR_LOOPBACK);
    return 0;
}

static void *one_lane(void *number)
{
    for (int n = (int)(long)number; n < count; n += LANES)
        socks[n] = bind_port(n, first + n, INADDR_ANY);
    return 0;
}

static void hold(int threads, void *(*work)(void *))
{
    pthread_t *all = calloc(threads, sizeof(*all));
    pthread_attr_t attributes;
    double began = now();
    char line[10];

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 16);
    pthread_barrier_init(&barrier, 0, threads);
    for (int n = 0; n < threads; n++)
        must(pthread_create(&all[n], &attributes, work, (void *)(long)n) == 0, "pthread_create");
    for (int n = 0; n < threads; n++)
        pthread_join(all[n], 0);
    say(now() - began);
    if (fgets(line, sizeof(line), stdin) == 0)
        return;
    for (int n = 0; n < count; n++)
        close(socks[n]);
    puts("{\"closed\": true}");
    fflush(stdout);
    while (getchar() != EOF)
        ;
}

static int told(int milliseconds)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};

    return poll(&input, 1, milliseconds) != 0;
}

static void passed(void)
{
    for (count = 0; count < MOST && !told(2); count++)
        close(bind_port(count, 0, INADDR_LOOPBACK));
    say(0);
}

static void soak(void)
{
    int kept[8] = {0};

    for (count = 0; count < MOST && !told(count % 16 ? 5 : 300); count++) {
        int *sock = &kept[count % 8];

        if (*sock > 0)
            close(*sock);
        *sock = bind_port(count, first + count % 100, INADDR_ANY);
    }
    say(0);
    for (int n = 0; n < 8; n++)
        close(kept[n]);
    while (getchar() != EOF)
        ;
}

int main(int argc, char **argv)
{
    struct rlimit files;

    must(argc > 1, "arguments");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    results = mmap(0, MOST * sizeof(*results), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                   -1, 0);
    must(results != MAP_FAILED, "mmap");
    socks = calloc(MOST, sizeof(*socks));
    for (int n = 0; n < MOST; n++)
        results[n].number = -1;
    if (argc > 2)
        count = atoi(argv[2]);
    first = atoi(argv[argc - 1]);
    if (!strcmp(argv[1], "bomb"))
        bomb(count, atoi(argv[3]));
    else if (!strcmp(argv[1], "threads"))
        hold(count, one_thread);
    else if (!strcmp(argv[1], "held"))
        hold(LANES, one_lane);
    else if (!strcmp(argv[1], "soak"))
        soak();
    else
        passed();
    return 0;
}
