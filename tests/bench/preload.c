/* The simplest shim there is, to compare with: it looks at the address of a bind() within the
 * program and goes on. What calls the kernel without the C library passes it unseen.
 *
 *   LD_PRELOAD=preload.so COMMAND
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>

static int (*genuine)(int, const struct sockaddr *, socklen_t);
volatile unsigned seen; /* so that the look is not optimised away */

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    if (!genuine)
        genuine = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
    if (length >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET)
        seen = ((const struct sockaddr_in *)address)->sin_addr.s_addr;
    return genuine(fd, address, length);
}
