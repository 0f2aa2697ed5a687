/* A web server and its visitors: connections per second.
 *
 *   web SECONDS VISITORS
 *
 * The server is one process that accepts, reads a request, answers it and closes; so many processes
 * connect, ask and read to the end, one connection after another. Prints connections per second.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char ANSWER[] = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello";
static const char REQUEST[] = "GET / HTTP/1.0\r\n\r\n";

static double now(void)
{
    struct timespec found;
    clock_gettime(CLOCK_MONOTONIC, &found);
    return found.tv_sec + found.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 2, began;
    int visitors = argc > 2 ? atoi(argv[2]) : 2, i, listening, one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    pid_t server, pids[visitors];
    long *done = mmap(NULL, sizeof(long) * visitors, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0), all = 0;
    char text[512];

    listening = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listening, (struct sockaddr *)&address, size) < 0 || listen(listening, 512) < 0)
        return 1;
    getsockname(listening, (struct sockaddr *)&address, &size);
    server = fork();
    while (server == 0) {
        int sock = accept(listening, NULL, NULL);
        if (sock >= 0 && read(sock, text, sizeof(text)) > 0)
            if (write(sock, ANSWER, sizeof(ANSWER) - 1) < 0)
                return 1;
        close(sock);
    }
    usleep(1500000); /* a supervisor has finished its imports */
    began = now();
    for (i = 0; i < visitors; i++) {
        pids[i] = fork();
        while (pids[i] == 0) {
            struct linger at_once = {1, 0}; /* no TIME_WAIT: the ports would run out */
            int sock = socket(AF_INET, SOCK_STREAM, 0);
            if (now() - began > seconds)
                _exit(0);
            if (connect(sock, (struct sockaddr *)&address, size) < 0 ||
                write(sock, REQUEST, sizeof(REQUEST) - 1) < 0)
                _exit(1);
            while (read(sock, text, sizeof(text)) > 0)
                ;
            setsockopt(sock, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
            close(sock);
            done[i]++;
        }
    }
    for (i = 0; i < visitors; i++) {
        waitpid(pids[i], NULL, 0);
        all += done[i];
    }
    printf("%.1f\n", all / (now() - began));
    fflush(stdout);
    kill(server, SIGKILL);
    return 0;
}
