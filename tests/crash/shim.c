/* Preloaded into a process that plays an agent: counts its calls to the files below one folder, and meddles with the n-th one.
 * Kinds: c opens a new file, o an old one for writing, r one for reading, w writes, t cuts short, s syncs, n renames, u removes,
 * m makes a folder, x closes what was open for writing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BEFORE = 1, HALF, AFTER, ONCE, LASTING, LOSING };
static long at, calls, length;
static int mode, code;
static char folder[256], refused[16], seen[1 << 16], open_as[1 << 16], last[4096];
static off_t from;

/* The n-th call from now on. After a lasting failure, calls of these kinds fail too. After a losing one (a sync that fails, and
 * what was last written to the file is gone, as on Linux) the process is killed before it changes anything more. */
void edgeops_shim_arm(const char *below, long n, int how, int error, const char *kinds) {
    snprintf(folder, sizeof folder, "%s", below);
    snprintf(refused, sizeof refused, "%s", kinds);
    memset(seen, 0, sizeof seen);
    at = n, mode = how, code = error, calls = 0;
}
const char *edgeops_shim_seen(void) { return seen; }

static int die(void) { return kill(getpid(), SIGKILL); }
static int ours(const char *path) { return *folder && !strncmp(path, folder, strlen(folder)); }
static const char *name(int fd) {
    static char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    return path[size < 0 ? 0 : size] = 0, path;
}
/* What becomes of this call: 0 it is done, HALF or AFTER (and then the process is killed), -1 it fails. */
static int meet(char kind) {
    if (calls < (long)sizeof seen - 1) seen[calls] = kind;
    calls++;
    if (!at || calls < at) return 0;
    if (calls > at && mode == LOSING && strchr("cowtsnum", kind)) die();
    if (calls > at) return mode == LASTING && strchr(refused, kind) ? -1 : 0;
    if (mode == BEFORE) die();
    return mode >= ONCE ? -1 : mode;
}
#define REAL(type, function) type (*real)() = (type (*)())dlsym(RTLD_NEXT, #function)
#define CALL(function, kind, ours, ...) REAL(int, function); int fate = (ours) ? meet(kind) : 0; \
    if (fate < 0) return errno = code, -1; \
    int done = real(__VA_ARGS__); if (fate) die()
#define PLAIN(function, kind, ours, parameters, ...) int function parameters { CALL(function, kind, ours, __VA_ARGS__); return done; }
#define OPEN(function) int function(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); int bits = flags & O_CREAT ? va_arg(rest, int) : 0; va_end(rest); \
    char kind = !(flags & (O_WRONLY | O_RDWR)) ? 'r' : access(path, F_OK) ? 'c' : 'o'; \
    CALL(function, kind, ours(path), path, flags, bits); \
    if (done >= 0) open_as[done] = ours(path) ? kind : 0; \
    return done; }
#define WRITE(function, where, parameters, ...) ssize_t function parameters { \
    if (open_as[fd]) strcpy(last, name(fd)), from = where, length = size; \
    REAL(ssize_t, function); int fate = open_as[fd] ? meet('w') : 0; \
    if (fate == HALF || (fate < 0 && calls == at)) size /= 2, real(__VA_ARGS__); \
    if (fate == HALF) die(); \
    if (fate < 0) return errno = code, -1; \
    ssize_t done = real(__VA_ARGS__); if (fate) die(); \
    return done; }
/* A kill leaves what the page cache holds, so nothing need reach a platter here. */
#define SYNC(function) int function(int fd) { \
    int fate = open_as[fd] ? meet('s') : 0; \
    if (fate > 0) die(); \
    if (fate < 0 && mode == LOSING && !strcmp(last, name(fd))) lose(); \
    return fate < 0 ? errno = code, -1 : 0; }
static void lose(void) {
    char *nothing = calloc(1, length), was = *folder;
    *folder = 0; /* this is not a call of the agent */
    int file = open(last, O_WRONLY);
    if (file < 0 || pwrite(file, nothing, length, from) < 0) abort();
    close(file), free(nothing), *folder = was;
}
OPEN(open) OPEN(open64) SYNC(fsync) SYNC(fdatasync)
WRITE(write, lseek(fd, 0, SEEK_CUR), (int fd, const void *data, size_t size), fd, data, size)
WRITE(pwrite, to, (int fd, const void *data, size_t size, off_t to), fd, data, size, to)
WRITE(pwrite64, to, (int fd, const void *data, size_t size, off_t to), fd, data, size, to)
PLAIN(ftruncate64, 't', open_as[fd], (int fd, off_t size), fd, size)
PLAIN(rename, 'n', ours(to), (const char *old, const char *to), old, to)
PLAIN(unlink, 'u', ours(path), (const char *path), path)
PLAIN(mkdir, 'm', ours(path), (const char *path, mode_t bits), path, bits)
int close(int fd) {
    REAL(int, close);
    char was = open_as[fd];
    open_as[fd] = 0;
    int done = real(fd); /* the descriptor is gone even where this fails */
    return (was == 'c' || was == 'o') && meet('x') < 0 ? errno = code, -1 : done;
}
