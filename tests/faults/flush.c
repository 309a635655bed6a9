/* While the file named by FLUSH_FAILS exists nothing can be flushed to the disk; all else goes on. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int flush(long call, int descriptor)
{
    const char *name = getenv("FLUSH_FAILS");
    if (name != NULL && access(name, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int) syscall(call, descriptor);
}

int fsync(int descriptor) { return flush(SYS_fsync, descriptor); }

int fdatasync(int descriptor) { return flush(SYS_fdatasync, descriptor); }
