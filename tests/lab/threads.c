/* bind() from threads and processes of all kinds. Says of each, on a line: its name, the errno that
 * a port of another host gave, the errno that its own port gave, and the port that its socket has.
 * Then waits for a line, closes all sockets, says "closed", and waits for the end of its input. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAKEN 7000

struct bound {
    const char *name;
    int port, sock, taken, own;
};

static int bind_to(int sock, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    return bind(sock, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;
}

static void bind_both(struct bound *one)
{
    one->taken = bind_to(one->sock, TAKEN);
    one->own = bind_to(one->sock, one->port);
}

static void say(const struct bound *one)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof(address);

    getsockname(one->sock, (struct sockaddr *)&address, &length);
    printf("%s %d %d %d\n", one->name, one->taken, one->own, ntohs(address.sin_port));
    fflush(stdout);
}

static void must(int truth, const char *what)
{
    if (!truth) {
        perror(what);
        _exit(1);
    }
}

static void *in_a_thread(void *one)
{
    bind_both(one);
    return 0;
}

static pthread_barrier_t unshared, done;

/* Its socket is under a number that means another one, or none, to the rest of the process. */
static void *with_its_own_table(void *argument)
{
    struct bound *one = argument;

    must(unshare(CLONE_FILES) == 0, "unshare");
    must(dup2(one->sock, 300) == 300, "dup2");
    close(one->sock);
    one->sock = 300;
    bind_both(one);
    say(one);
    pthread_barrier_wait(&unshared);
    pthread_barrier_wait(&done);
    return 0;
}

static int in_a_clone(void *one)
{
    bind_both(one);
    _exit(0);
}

static void clone_with(int flags, struct bound *one)
{
    static char stack[1 << 16] __attribute__((aligned(16)));
    int pid = clone(in_a_clone, stack + sizeof(stack), flags | CLONE_VM | SIGCHLD, one);

    must(pid > 0, "clone");
    must(waitpid(pid, 0, 0) == pid, "waitpid");
}

static struct bound all[] = {
    {"thread", 7001},
    {"vfork", 7002},
    {"clone-files", 7003},
    {"pid-namespace", 7004},
    {"leaderless", 7005},
    {"own-table", 7006},
};
static pthread_t leader;

static void *rest(void *unused)
{
    char line[10];

    pthread_join(leader, 0);
    bind_both(&all[4]);
    say(&all[4]);
    must(fgets(line, sizeof(line), stdin) != 0, "fgets");
    for (int n = 0; n < 5; n++)
        close(all[n].sock);
    pthread_barrier_wait(&done); /* the end of a thread closes what it alone has */
    puts("closed");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    exit(0);
}

int main(void)
{
    pthread_t thread, other;
    int fd;

    for (int n = 0; n < 6; n++) {
        all[n].sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        must(all[n].sock >= 0, "socket");
    }
    pthread_create(&thread, 0, in_a_thread, &all[0]);
    pthread_join(thread, 0);
    say(&all[0]);
    clone_with(CLONE_VFORK, &all[1]);
    say(&all[1]);
    clone_with(CLONE_VFORK | CLONE_FILES, &all[2]);
    say(&all[2]);
    clone_with(CLONE_NEWPID, &all[3]);
    say(&all[3]);
    pthread_barrier_init(&unshared, 0, 2);
    pthread_barrier_init(&done, 0, 2);
    fd = all[5].sock;
    pthread_create(&other, 0, with_its_own_table, &all[5]);
    pthread_barrier_wait(&unshared);
    close(fd);
    leader = pthread_self();
    pthread_create(&thread, 0, rest, 0);
    pthread_exit(0);
}
