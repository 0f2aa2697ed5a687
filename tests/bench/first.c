/* Binds a TCP port of the wildcard address at once, prints how many nanoseconds after
 * BENCH_STARTED that was done, and keeps the port until its standard input ends.
 *
 *   since natsup exec -- first PORT
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct timespec now;
    char byte;
    int sock = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    if (bind(sock, (struct sockaddr *)&address, sizeof(address)) < 0) {
        perror("bind");
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec - atoll(getenv("BENCH_STARTED")));
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
