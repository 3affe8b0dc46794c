/* A stand-in for libnvidia-ml.so.1, so that the real nvidia-ml-py can be tested without a GPU.
 *
 * Build: gcc -shared -fPIC -O1 -Wall -Wextra -Werror -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fake_nvml.c
 * Use:   LD_LIBRARY_PATH=<its folder> FAKE_NVML=<state file> python ...
 *
 * State file, one record a line, read anew at every call:
 *   gpu  <total MiB> <MIG: 1 on, 0 off, -1 unsupported> <compute major> <minor> <uuid> <name with spaces>
 *   mig  <gpu index> <slot> <MiB> <uuid> <name with spaces>     a slice; slots may have gaps
 *   fail <function> <nvml error>                                 fails for everyone
 *   lost <gpu index> <function> <nvml error>                     fails for one card only
 *   base <gpu index> <MiB>                                       used by nobody who can be named
 *   proc <gpu index> <pid> <MiB> [stay]                          used by a process: until it is dead, or longer
 *   proc mig <slice index> <pid> <MiB> [stay]
 *   slow <function> <ms>                                         answers late
 *   crash <function>                                             takes the calling process down
 *   more <folder>                                                every file in it holds `proc` lines, or `<pid> <MiB>`
 *                                                                for card 0
 * Without FAKE_NVML the file `state` beside the library is read. None at all: the driver is not loaded.
 * Handles: card 1.., slice 100..
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_DRIVER = 9, MAX = 32, SLICES = 7, PROCESSES = 256 };
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } Memory2;
typedef struct { unsigned pid; u64 used; unsigned instance, compute; } Process;
typedef struct { u64 mib, base; int mig, major, minor; char uuid[96], name[96]; } Card;
typedef struct { int card, slot; u64 mib; char uuid[96], name[96]; } Slice;
typedef struct { int device; unsigned pid; u64 mib; } Use; /* device: a handle */
typedef struct { int card, code; char function[96]; } Failure; /* card -1: every card */

static Card cards[MAX];
static Slice slices[MAX];
static Failure failures[MAX];
static Use uses[PROCESSES];
static int n_cards, n_slices, n_failures, n_uses;

static void read_use(const char *line) {
    Use *u = &uses[n_uses];
    char stay[8] = "";
    int mig = sscanf(line, "proc mig %d %u %llu %7s", &u->device, &u->pid, &u->mib, stay) >= 3;
    if (n_uses == PROCESSES) return;
    if (!mig && sscanf(line, "proc %d %u %llu %7s", &u->device, &u->pid, &u->mib, stay) < 3) {
        u->device = 0;
        if (sscanf(line, "%u %llu", &u->pid, &u->mib) < 2) return;
    }
    u->device += mig ? 100 : 1;
    if (strcmp(stay, "stay") && kill((pid_t)u->pid, 0) && errno == ESRCH) return;
    n_uses++;
}

static void read_folder(const char *path) {
    DIR *folder = opendir(path);
    char name[1024], line[512];
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(name, "r");
        while (file && fgets(line, sizeof line, file)) read_use(line);
        if (file) fclose(file);
    }
    if (folder) closedir(folder);
}

static void pause_ms(long ms) {
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&wait, &wait) && errno == EINTR) {}
}

/* Opens the state: the file of the variable, or the one beside this library, for programs with a closed environment. */
static FILE *state(void) {
    const char *path = getenv("FAKE_NVML");
    char beside[1024];
    Dl_info self;
    if (path) return fopen(path, "r");
    if (!dladdr((void *)cards, &self) || !strrchr(self.dli_fname, '/')) return NULL;
    snprintf(beside, sizeof beside, "%.*s/state", (int)(strrchr(self.dli_fname, '/') - self.dli_fname), self.dli_fname);
    return fopen(beside, "r");
}

/* Reads the state; returns the error code that `function` must give for everyone, else OK. */
static int load(const char *function) {
    FILE *file = state();
    char line[512], word[512];
    long number;
    u64 mib;
    if (!file) return NO_DRIVER;
    n_cards = n_slices = n_failures = n_uses = 0;
    while (fgets(line, sizeof line, file)) {
        if (n_cards == MAX || n_slices == MAX || n_failures == MAX) break;
        Card *c = &cards[n_cards];
        Slice *s = &slices[n_slices];
        Failure *f = &failures[n_failures];
        if (sscanf(line, "gpu %llu %d %d %d %95s %95[^\n]", &c->mib, &c->mig, &c->major, &c->minor, c->uuid, c->name) == 6) { c->base = 0; n_cards++; }
        else if (sscanf(line, "mig %d %d %llu %95s %95[^\n]", &s->card, &s->slot, &s->mib, s->uuid, s->name) == 5) n_slices++;
        else if (sscanf(line, "fail %95s %d", f->function, &f->code) == 2) { f->card = -1; n_failures++; }
        else if (sscanf(line, "lost %d %95s %d", &f->card, f->function, &f->code) == 3) n_failures++;
        else if (sscanf(line, "base %ld %llu", &number, &mib) == 2 && number < n_cards) cards[number].base = mib;
        else if (sscanf(line, "slow %511s %ld", word, &number) == 2) { if (!strcmp(word, function)) pause_ms(number); }
        else if (sscanf(line, "crash %511s", word) == 1) { if (!strcmp(word, function)) abort(); }
        else if (sscanf(line, "more %511s", word) == 1) read_folder(word);
        else read_use(line);
    }
    fclose(file);
    for (int i = 0; i < n_failures; i++)
        if (failures[i].card < 0 && !strcmp(failures[i].function, function)) return failures[i].code;
    return OK;
}

/* Finds what a handle means; *slice is NULL for a whole card. */
static int find(const char *function, void *handle, Card **card, Slice **slice) {
    size_t id = (size_t)handle;
    int code = load(function), is_slice = id >= 100;
    if (code) return code;
    if (is_slice ? id - 100 >= (size_t)n_slices : id < 1 || id > (size_t)n_cards) return INVALID;
    *slice = is_slice ? &slices[id - 100] : NULL;
    int index = is_slice ? (*slice)->card : (int)id - 1;
    *card = &cards[index];
    for (int i = 0; i < n_failures; i++)
        if (failures[i].card == index && !strcmp(failures[i].function, function)) return failures[i].code;
    return OK;
}
#define FIND Card *card; Slice *slice; int code = find(__func__, handle, &card, &slice); if (code) return code

static int put(char *target, unsigned room, const char *text) {
    if (strlen(text) >= room) return TOO_SMALL;
    strcpy(target, text);
    return OK;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return load(__func__); }
int nvmlInit_v2(void) { return load(__func__); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == NO_DRIVER ? "Driver Not Loaded" : code == 15 ? "GPU is lost" : "fake NVML error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { int code = load(__func__); *count = (unsigned)n_cards; return code; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
    void *handle = (void *)(size_t)(index + 1);
    FIND;
    *out = handle;
    return OK;
}
int nvmlDeviceGetUUID(void *handle, char *out, unsigned room) { FIND; return put(out, room, slice ? slice->uuid : card->uuid); }
int nvmlDeviceGetName(void *handle, char *out, unsigned room) { FIND; return put(out, room, slice ? slice->name : card->name); }
static u64 used(void *handle, u64 base, u64 total) {
    u64 sum = base;
    for (int i = 0; i < n_uses; i++)
        if (uses[i].device == (int)(size_t)handle) sum += uses[i].mib;
    return (sum < total ? sum : total) << 20;
}
int nvmlDeviceGetMemoryInfo(void *handle, Memory *out) {
    FIND;
    u64 total = slice ? slice->mib : card->mib, taken = used(handle, slice ? 0 : card->base, total);
    *out = (Memory){total << 20, (total << 20) - taken, taken};
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, Memory2 *out) {
    FIND;
    u64 total = slice ? slice->mib : card->mib, taken = used(handle, slice ? 0 : card->base, total);
    *out = (Memory2){out->version, total << 20, 0, (total << 20) - taken, taken};
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *out) {
    FIND;
    unsigned room = *count;
    *count = 0;
    for (int i = 0; i < n_uses; i++) {
        if (uses[i].device != (int)(size_t)handle) continue;
        if (out && *count < room) out[*count] = (Process){uses[i].pid, uses[i].mib << 20, ~0u, ~0u};
        ++*count;
    }
    return *count > room ? TOO_SMALL : OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
    int code = load(__func__);
    if (code) return code;
    for (int i = 0; i < n_cards; i++)
        if (!strcmp(uuid, cards[i].uuid)) return nvmlDeviceGetHandleByIndex_v2((unsigned)i, out);
    for (int i = 0; i < n_slices; i++)
        if (!strcmp(uuid, slices[i].uuid)) { *out = (void *)(size_t)(100 + i); return OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    FIND;
    *major = card->major, *minor = card->minor;
    return OK;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *pending) {
    FIND;
    if (slice || card->mig < 0) return NOT_SUPPORTED;
    *now = *pending = (unsigned)card->mig;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) { FIND; *count = slice ? 0 : SLICES; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned slot, void **out) {
    FIND;
    for (int i = 0; i < n_slices; i++)
        if (&cards[slices[i].card] == card && slices[i].slot == (int)slot) { *out = (void *)(size_t)(100 + i); return OK; }
    return NOT_FOUND;
}
