/* Signals without SA_RESTART, in a stream, to a thread in bind() and close().
 *
 * Binds UDP port 7000 and says "ready". On a line of input it binds port 7001, and as soon as the
 * port is taken, by natsup on its behalf, signals begin. Says what came of it: the errno, how many
 * signals came meanwhile, the milliseconds, the port that the socket has. Then binds and closes
 * others, thousands of times, under the same signals; says how often each failed for a signal, and
 * how often something else was wrong. On the next line closes all, and ends with its input. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TAKEN " 00000000:1B59 " /* 7001 in /proc/net/udp */
#define ROUNDS 5000

static atomic_int sent, over;
static pthread_t victim;

static void caught(int number)
{
    (void)number;
}

static int is_taken(void)
{
    static char text[1 << 16];
    int fd = open("/proc/thread-self/net/udp", O_RDONLY);
    ssize_t length, whole = 0;

    while ((length = read(fd, text + whole, sizeof(text) - 1 - whole)) > 0)
        whole += length;
    text[whole] = 0;
    close(fd);
    return strstr(text, TAKEN) != 0;
}

static void *pester(void *unused)
{
    while (!is_taken())
        ;
    while (!over) {
        pthread_kill(victim, SIGUSR1);
        sent++;
        usleep(200);
    }
    return unused;
}

static int bind_to(int sock, unsigned address, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};

    to.sin_addr.s_addr = htonl(address);
    return bind(sock, (struct sockaddr *)&to, sizeof(to)) ? errno : 0;
}

static int port_of(int sock)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof(address);

    getsockname(sock, (struct sockaddr *)&address, &length);
    return ntohs(address.sin_port);
}

static long milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wait_for_line(void)
{
    int c;

    do {
        c = getchar();
        if (c == EOF && !feof(stdin)) {
            clearerr(stdin); /* a signal */
            c = 0;
        }
    } while (c != '\n' && c != EOF);
}

int main(void)
{
    struct sigaction action = {.sa_handler = caught};
    int first = socket(AF_INET, SOCK_DGRAM, 0), second = socket(AF_INET, SOCK_DGRAM, 0);
    int number, binds = 0, closes = 0, wrong = 0;
    pthread_t thread;
    long begin;

    sigaction(SIGUSR1, &action, 0);
    if (bind_to(first, INADDR_ANY, 7000))
        return 1;
    puts("ready");
    fflush(stdout);
    wait_for_line();
    victim = pthread_self();
    pthread_create(&thread, 0, pester, 0);
    begin = milliseconds();
    number = bind_to(second, INADDR_ANY, 7001);
    printf("%d %d %ld %d\n", number, sent, milliseconds() - begin, port_of(second));
    for (int round = 0; round < ROUNDS; round++) {
        int sock = socket(AF_INET, SOCK_STREAM, 0);

        while ((number = bind_to(sock, INADDR_LOOPBACK, 0)) == EINTR) {
            binds++;
            wrong += port_of(sock) != 0; /* nothing has happened */
        }
        wrong += number != 0 || port_of(sock) == 0;
        while (close(sock) != 0) {
            closes++;
            wrong += errno != EINTR || fcntl(sock, F_GETFD) < 0; /* nor here */
        }
        wrong += fcntl(sock, F_GETFD) >= 0;
    }
    over = 1;
    pthread_join(thread, 0);
    printf("%d %d %d\n", binds, closes, wrong);
    fflush(stdout);
    wait_for_line();
    close(first);
    close(second);
    puts("closed");
    fflush(stdout);
    wait_for_line();
    return 0;
}
