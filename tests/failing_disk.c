/* LD_PRELOAD: counts the calls that change a disk, over all processes of an installation, and at one of them pulls the
   plug (kill: the whole process group dies before the call) or fills the disk (full: from there on nothing new fits).

   FAILING_DISK: a file of 16 bytes, shared by all: the count so far, then the number of the call (0: none).
   FAILING_DISK_MODE: kill or full.

   Not played: data that was written and never synced, which a real power cut may take back. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int64_t *shared;
static int full;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAILING_DISK"), *mode = getenv("FAILING_DISK_MODE");
    int fd = path ? (int)openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    full = mode && strcmp(mode, "full") == 0;
    if (found != MAP_FAILED) shared = found;
}

/* Whether this call fails; new: whether it needs room. */
static int fails(int new) {
    if (!shared) return 0;
    int64_t count = __atomic_add_fetch(&shared[0], 1, __ATOMIC_SEQ_CST), wanted = shared[1];
    if (!wanted || count < wanted) return 0;
    if (!full) kill(0, SIGKILL);
    if (!new) return 0;
    errno = ENOSPC;
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define SIMPLE(result, name, new, parameters, arguments) \
    result name parameters { return fails(new) ? (result)-1 : NEXT(name) arguments; }

SIMPLE(int, mkdir, 1, (const char *p, mode_t m), (p, m))
SIMPLE(int, mkdirat, 1, (int d, const char *p, mode_t m), (d, p, m))
SIMPLE(int, symlink, 1, (const char *a, const char *b), (a, b))
SIMPLE(int, symlinkat, 1, (const char *a, int d, const char *b), (a, d, b))
SIMPLE(int, link, 1, (const char *a, const char *b), (a, b))
SIMPLE(int, rename, 0, (const char *a, const char *b), (a, b))
SIMPLE(int, renameat, 0, (int d, const char *a, int e, const char *b), (d, a, e, b))
SIMPLE(int, renameat2, 0, (int d, const char *a, int e, const char *b, unsigned int f), (d, a, e, b, f))
SIMPLE(int, unlink, 0, (const char *p), (p))
SIMPLE(int, unlinkat, 0, (int d, const char *p, int f), (d, p, f))
SIMPLE(int, rmdir, 0, (const char *p), (p))
SIMPLE(int, chmod, 0, (const char *p, mode_t m), (p, m))
SIMPLE(int, fchmodat, 0, (int d, const char *p, mode_t m, int f), (d, p, m, f))

ssize_t write(int fd, const void *data, size_t size) {
    struct stat s;
    if (shared && fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && fails(1)) return -1;
    return NEXT(write)(fd, data, size);
}

static int opening(int folder, const char *path, int flags) {
    return shared && (flags & O_CREAT) && fails(faccessat(folder, path, F_OK, 0) != 0);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        return opening(AT_FDCWD, path, flags) ? -1 : NEXT(name)(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        return opening(folder, path, flags) ? -1 : NEXT(name)(folder, path, flags, mode); \
    }
#undef open64
#undef openat64
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
