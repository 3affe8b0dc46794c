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
 * No state file: the driver is not loaded. Handles: card 1.., slice 100..
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_DRIVER = 9, MAX = 32, SLICES = 7 };
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } Memory;
typedef struct { u64 mib; int mig, major, minor; char uuid[96], name[96]; } Card;
typedef struct { int card, slot; u64 mib; char uuid[96], name[96]; } Slice;
typedef struct { int card, code; char function[96]; } Failure; /* card -1: every card */

static Card cards[MAX];
static Slice slices[MAX];
static Failure failures[MAX];
static int n_cards, n_slices, n_failures;

/* Reads the state; returns the error code that `function` must give for everyone, else OK. */
static int load(const char *function) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    if (!file) return NO_DRIVER;
    n_cards = n_slices = n_failures = 0;
    while (fgets(line, sizeof line, file)) {
        if (n_cards == MAX || n_slices == MAX || n_failures == MAX) break;
        Card *c = &cards[n_cards];
        Slice *s = &slices[n_slices];
        Failure *f = &failures[n_failures];
        if (sscanf(line, "gpu %llu %d %d %d %95s %95[^\n]", &c->mib, &c->mig, &c->major, &c->minor, c->uuid, c->name) == 6) n_cards++;
        else if (sscanf(line, "mig %d %d %llu %95s %95[^\n]", &s->card, &s->slot, &s->mib, s->uuid, s->name) == 5) n_slices++;
        else if (sscanf(line, "fail %95s %d", f->function, &f->code) == 2) { f->card = -1; n_failures++; }
        else if (sscanf(line, "lost %d %95s %d", &f->card, f->function, &f->code) == 3) n_failures++;
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
int nvmlDeviceGetMemoryInfo(void *handle, Memory *out) {
    FIND;
    u64 total = (slice ? slice->mib : card->mib) << 20;
    *out = (Memory){total, total, 0};
    return OK;
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
