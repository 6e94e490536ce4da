/* A custom operator `evil:Evil` (float in, the same float out) that does one bad thing, once the call comes that was agreed on.

   Attributes: `act` says what, `at` when: 0 in the first call (the golden vector), n > 0 in the n-th call, n < 0 after -n
   milliseconds. An act that the system denies is told on stderr as `denied: ACT` and ends in abort(); one that it allows is told as
   `did: ACT`. ONNX Runtime's header is not in its wheel: the few members used here have had these places since version 1 of the C API,
   which is frozen.

   EVIL_FOLDER (a folder nobody may write to), EVIL_STATE (the agent's folder), EVIL_PORT (its endpoint) come from the environment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

typedef void *(*Any)();
typedef struct { const Any *(*GetApi)(uint32_t); const char *(*GetVersionString)(void); } ApiBase;
enum { CREATE_DOMAIN = 26, DOMAIN_ADD = 27, ADD_DOMAIN = 28, DATA = 51, SHAPE_COUNT = 61, SHAPE_DIMS = 62, SHAPE_SIZE = 64,
       SHAPE_OF = 65, ATTRIBUTE_INT = 86, ATTRIBUTE_TEXT = 87, INPUT = 90, OUTPUT = 91, RELEASE_SHAPE = 99 };

typedef struct Op {
    uint32_t version;
    void *(*CreateKernel)(const struct Op *, const Any *, const void *);
    const char *(*GetName)(const struct Op *);
    const char *(*GetExecutionProviderType)(const struct Op *);
    int (*GetInputType)(const struct Op *, size_t);
    size_t (*GetInputTypeCount)(const struct Op *);
    int (*GetOutputType)(const struct Op *, size_t);
    size_t (*GetOutputTypeCount)(const struct Op *);
    void (*KernelCompute)(void *, void *);
    void (*KernelDestroy)(void *);
    int (*GetInputCharacteristic)(const struct Op *, size_t);
    int (*GetOutputCharacteristic)(const struct Op *, size_t);
    void *later[32];
} Op;

typedef struct { const Any *api; char act[64]; int64_t at, calls; struct timespec born; } Kernel;

static void told(int did, const char *act) {
    dprintf(2, "%s: %s (%s)\n", did ? "did" : "denied", act, did ? "allowed" : strerror(errno));
    abort();
}

static const char *place(const char *name, const char *rest) {
    static char path[4096];
    const char *folder = getenv(name);
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "/nowhere", rest);
    return path;
}

static void *spin(void *unused) { for (;;) (void)unused; return 0; }
static void *sleeper(void *unused) { for (;;) pause(); return unused; }

static void hold(void) { /* the interpreter's lock, so that no thread of Python runs any more */
    int (*ensure)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
    if (ensure) ensure();
}

static int control(void) { /* the one Unix socket that is connected to the supervisor: its peer is our parent */
    for (int fd = 3; fd < 1024; fd++) {
        struct ucred peer;
        int listens = 0;
        socklen_t size = sizeof peer, flag = sizeof listens;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) || peer.pid != getppid()) continue;
        if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &flag) && !listens) return fd;
    }
    return -1;
}

static void say(const char *body, uint32_t size) {
    uint32_t head = htonl(size);
    int fd = control();
    if (write(fd, &head, 4) != 4 || write(fd, body, size) != (ssize_t)size) _exit(9);
}

static void frame(const char *key, const char *value) { /* {key: value} in CBOR, both short texts */
    char body[300];
    int size = snprintf(body, sizeof body, "\xa1%c%s%c%s", (int)(0x60 + strlen(key)), key, (int)(0x60 + strlen(value)), value);
    say(body, (uint32_t)size);
}

static int listeners(int (*harm)(int)) {
    int done = 0;
    for (int fd = 3; fd < 1024; fd++) {
        int listens = 0;
        socklen_t size = sizeof listens;
        if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) && listens && harm(fd) == 0) done++;
    }
    return done;
}
static int shut(int fd) { return shutdown(fd, SHUT_RDWR); }
static int backlog(int fd) { return listen(fd, 0); }
static int unspecified(int fd) { struct sockaddr none = {.sa_family = AF_UNSPEC}; return connect(fd, &none, sizeof none); }

static int reach(int kind, int close_after) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(getenv("EVIL_PORT") ? getenv("EVIL_PORT") : "9"));
    int fd = socket(AF_INET, kind, 0);
    if (fd < 0) return 0;
    int reached = !connect(fd, (struct sockaddr *)&to, sizeof to);
    if (close_after) close(fd);
    return reached;
}

static int locally(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", place("EVIL_STATE", "run.sock"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof to);
}

static void leak(size_t size) {
    char *more = malloc(size);
    if (!more) abort();
    memset(more, 1, size);
}

static void bomb(void) {
    int made = 0;
    for (int i = 0; i < 200; i++) {
        pid_t child = fork();
        if (child == 0) { sleep(60); _exit(0); }
        made += child > 0;
    }
    told(made > 0, "forkbomb");
}

static int orphan(void) { /* a child in a session of its own, which no signal to us reaches */
    pid_t child = fork();
    if (child == 0) { setsid(); sleep(600); _exit(0); }
    return child > 0;
}

static void perform(const char *act) {
    pid_t parent = getppid();
    struct rlimit low = {1, 1};
    struct stat seen;
    #define IS(name) (strcmp(act, name) == 0)
    if (IS("segfault")) *(volatile int *)8 = 1;
    else if (IS("abort")) abort();
    else if (IS("exit")) _exit(0);
    else if (IS("exit3")) exit(3);
    else if (IS("overflow")) { volatile char deep[1 << 16]; deep[0] = 1; perform(act); deep[1] = deep[0]; }
    else if (IS("spin")) spin(0);
    else if (IS("hold")) { hold(); spin(0); }
    else if (IS("sleep")) for (;;) pause();
    else if (IS("stop")) { kill(getpid(), SIGSTOP); }
    else if (IS("deaf")) { for (int n = 1; n < 32; n++) signal(n, SIG_IGN); spin(0); }
    else if (IS("kill-self")) raise(SIGKILL);
    else if (IS("alloc")) { for (;;) leak(64 << 20); }
    else if (IS("stderr")) { static char noise[65536]; memset(noise, 'x', sizeof noise); for (;;) if (write(2, noise, sizeof noise) < 0) abort(); }
    else if (IS("threads")) { pthread_t t; int made = 0; while (!pthread_create(&t, 0, sleeper, 0)) made++; dprintf(2, "%d threads\n", made); abort(); }
    else if (IS("fork")) told(orphan(), act);
    else if (IS("forkbomb")) bomb();
    else if (IS("exec")) { char *argv[] = {"sh", "-c", 0, 0}; argv[2] = malloc(5000); snprintf(argv[2], 5000, "echo x > %s", place("EVIL_FOLDER", "exec")); execv("/bin/sh", argv); told(0, act); }
    else if (IS("connect")) told(reach(SOCK_STREAM, 1), act);
    else if (IS("datagram")) told(reach(SOCK_DGRAM, 1), act);
    else if (IS("endpoint")) told(locally(), act);
    else if (IS("kill-parent")) told(kill(parent, SIGKILL) == 0, act);
    else if (IS("kill-group")) told(kill(-getpgid(parent), SIGKILL) == 0, act);
    else if (IS("signal-by-file")) { int fd = control(); int ok = !fcntl(fd, F_SETOWN, parent) && !fcntl(fd, F_SETSIG, SIGKILL); if (ok) fcntl(fd, F_SETFL, O_ASYNC); told(ok, act); }
    else if (IS("ptrace-parent")) told(ptrace(PTRACE_SEIZE, parent, 0, 0) == 0, act);
    else if (IS("limit-parent")) told(prlimit(parent, RLIMIT_CPU, &low, 0) == 0, act);
    else if (IS("slow-parent")) told(setpriority(PRIO_PROCESS, (id_t)parent, 19) == 0, act);
    else if (IS("write")) told(open(place("EVIL_FOLDER", "written"), O_WRONLY | O_CREAT, 0600) >= 0, act);
    else if (IS("overwrite")) told(open(place("EVIL_STATE", "record.a"), O_WRONLY) >= 0, act);
    else if (IS("unlink")) told(unlink(place("EVIL_STATE", "record.a")) == 0, act);
    else if (IS("chmod")) told(stat(place("EVIL_STATE", "."), &seen) == 0 && chmod(place("EVIL_STATE", "."), 0) == 0, act);
    else if (IS("passwd")) told(open("/etc/passwd", O_RDONLY) >= 0, act);
    else if (IS("keys")) told(open(place("EVIL_STATE", "record.a"), O_RDONLY) >= 0, act);
    else if (IS("shm")) { int id = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600); told(id >= 0, act); }
    else if (IS("shut-listeners")) told(listeners(shut) > 0, act);
    else if (IS("backlog")) told(listeners(backlog) > 0, act);
    else if (IS("unlisten")) told(listeners(unspecified) > 0, act);
    else if (IS("garbage")) { say("\xff\xff\xff\xff", 4); spin(0); }
    else if (IS("huge-frame")) { say("", 1u << 31); spin(0); }
    else if (IS("flood")) for (;;) frame("phase", "call");
    else if (IS("stuck-flood")) for (;;) frame("event", "stuck");
    else if (IS("connections")) for (;;) frame("event", "connection");
    else if (IS("odd-counts")) { char body[] = "\xa1\x65reply\xa2\x68" "counters\xa1\x65" "calls\x3b\x7f\xff\xff\xff\xff\xff\xff\xff\x66window\x61x"; for (;;) { say(body, sizeof body - 1); usleep(10000); } }
    else if (IS("hang-up")) { close(control()); spin(0); }
    else if (IS("outlive")) { int ok = !prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0); dprintf(2, "%s: outlive\n", ok ? "did" : "denied"); hold(); for (int fd = 3; fd < 1024; fd++) close(fd); spin(0); }
    else told(1, "an act nobody knows");
}

static void *create(const Op *op, const Any *api, const void *info) {
    Kernel *kernel = calloc(1, sizeof *kernel);
    size_t size = sizeof kernel->act - 1;
    (void)op;
    kernel->api = api;
    if (api[ATTRIBUTE_TEXT](info, "act", kernel->act, &size) || api[ATTRIBUTE_INT](info, "at", &kernel->at)) _exit(8);
    clock_gettime(CLOCK_MONOTONIC, &kernel->born);
    return kernel;
}

static void compute(void *given, void *context) {
    Kernel *kernel = given;
    const Any *api = kernel->api;
    void *in, *out, *shape, *from, *to;
    int64_t dims[8] = {0};
    size_t rank, count;
    struct timespec now;
    if (api[INPUT](context, (size_t)0, &in) || api[SHAPE_OF](in, &shape) || api[SHAPE_COUNT](shape, &rank)) _exit(7);
    if (api[SHAPE_DIMS](shape, dims, rank) || api[SHAPE_SIZE](shape, &count)) _exit(7);
    api[RELEASE_SHAPE](shape);
    if (api[OUTPUT](context, (size_t)0, dims, rank, &out) || api[DATA](in, &from) || api[DATA](out, &to)) _exit(7);
    memcpy(to, from, count * sizeof(float));
    kernel->calls++;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ms = (now.tv_sec - kernel->born.tv_sec) * 1000 + (now.tv_nsec - kernel->born.tv_nsec) / 1000000;
    int due = kernel->at >= 0 ? kernel->calls > kernel->at : ms > -kernel->at;
    if (strcmp(kernel->act, "leak") == 0) { if (due) leak(16 << 20); }
    else if (due) perform(kernel->act);
}

static void destroy(void *kernel) { free(kernel); }
static const char *name(const Op *op) { (void)op; return "Evil"; }
static const char *nowhere(const Op *op) { (void)op; return 0; }
static int type(const Op *op, size_t i) { (void)op; (void)i; return 1; }
static size_t one(const Op *op) { (void)op; return 1; }
static int needed(const Op *op, size_t i) { (void)op; (void)i; return 0; }
static Op op = {8, create, name, nowhere, type, one, type, one, compute, destroy, needed, needed, {0}};

void *RegisterCustomOps(void *options, const ApiBase *base) {
    const Any *api = base->GetApi(8);
    void *domain, *failed;
    if ((failed = api[CREATE_DOMAIN]("evil", &domain)) || (failed = api[DOMAIN_ADD](domain, &op))) return failed;
    return api[ADD_DOMAIN](options, domain);
}
