/* The simplest supervisor there is, to compare with: it receives, reads the address of a bind()
 * and lets it pass, in a loop.
 *
 *   notifier [-s] [-n] COMMAND [ARG...]
 *
 * -s: with synchronous wake-up (Linux 6.6); -n: it does not read the address
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#define SYNC_WAKE_UP 1 /* SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP */

static void die(const char *what)
{
    perror(what);
    exit(125);
}

static int install(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_bind, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void send_fd(int socket, int fd)
{
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(int));
    if (sendmsg(socket, &message, 0) < 0)
        die("sendmsg");
}

static int receive_fd(int socket)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    int fd = -1;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof(control)};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) < 1)
        die("recvmsg");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    return fd;
}

int main(int argc, char **argv)
{
    int pair[2], status, listener, sync = 0, blind = 0, option;
    pid_t child;

    while ((option = getopt(argc, argv, "+sn")) != -1) {
        sync |= option == 's';
        blind |= option == 'n';
    }
    argv += optind;
    if (!argv[0] || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        die("notifier");
    child = fork();
    if (child == 0) {
        listener = install();
        if (listener < 0)
            die("seccomp");
        send_fd(pair[0], listener);
        close(listener);
        execvp(argv[0], argv);
        die(argv[0]);
    }
    listener = receive_fd(pair[1]);
    if (sync && ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) < 0)
        die("synchronous wake-up");
    for (;;) {
        struct seccomp_notif call;
        struct seccomp_notif_resp answer;
        struct sockaddr_storage address;
        struct iovec here = {&address, 0}, there = {0};
        struct pollfd poll_for = {listener, POLLIN, 0};

        if (poll(&poll_for, 1, -1) < 0 || poll_for.revents & POLLHUP)
            break;
        memset(&call, 0, sizeof(call));
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
            continue;
        there.iov_base = (void *)call.data.args[1];
        here.iov_len = there.iov_len = call.data.args[2] & 127;
        if (!blind && process_vm_readv(call.pid, &here, 1, &there, 1, 0) < 0 && errno == EPERM)
            die("process_vm_readv");
        memset(&answer, 0, sizeof(answer));
        answer.id = call.id;
        answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
