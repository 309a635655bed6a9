/* Hide from a program what its processor can do, so that it computes as on a smaller one, at the full speed of a core.

   Libraries choose their kernels by the CPUID instruction. Linux can have it fault (flag cpuid_fault); the fault is
   answered here, with the bits of HIDDEN taken out. Compiled and preloaded by hiding.py, which has the table. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Of <asm/prctl.h>, whose older versions lack the last one. */
enum { SET_CPUID = 0x1012, GET_TILES_PERMISSION = 0x1022, TILE_DATA = 18 };

struct answer { uint32_t leaf, subleaf, eax, ebx, ecx, edx; };
static const struct answer hidden[] = {HIDDEN};
static struct sigaction before;

static void cpuid(struct answer *found) {
  __cpuid_count(found->leaf, found->subleaf, found->eax, found->ebx, found->ecx, found->edx);
}

static void answer(int signal, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const int kept_errno = errno;
  /* Only a fault of this kind has an instruction pointer that may be read: others may be jumps to nowhere. */
  if (info->si_code != SI_KERNEL || memcmp((void *)registers[REG_RIP], "\x0f\xa2", 2)) {
    /* Not ours: what the program had before takes it, when the instruction faults again or the signal comes again. */
    sigaction(SIGSEGV, &before, NULL);
    if (info->si_code <= 0) raise(signal);
    errno = kept_errno;
    return;
  }
  struct answer found = {.leaf = registers[REG_RAX], .subleaf = registers[REG_RCX]};
  syscall(SYS_arch_prctl, SET_CPUID, 1);
  cpuid(&found);
  syscall(SYS_arch_prctl, SET_CPUID, 0);
  for (size_t place = 0; place < sizeof hidden / sizeof *hidden; place++) {
    if (hidden[place].leaf != found.leaf || hidden[place].subleaf != found.subleaf) continue;
    found.eax &= ~hidden[place].eax;
    found.ebx &= ~hidden[place].ebx;
    found.ecx &= ~hidden[place].ecx;
    found.edx &= ~hidden[place].edx;
  }
  registers[REG_RAX] = found.eax;
  registers[REG_RBX] = found.ebx;
  registers[REG_RCX] = found.ecx;
  registers[REG_RDX] = found.edx;
  registers[REG_RIP] += 2;
  errno = kept_errno;
}

/* A fault inside of the handler is to end the program, so SIGSEGV stays blocked there: no SA_NODEFER. */
__attribute__((constructor)) static void begin(void) {
  struct sigaction ours = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &ours, &before);
  if (syscall(SYS_arch_prctl, SET_CPUID, 0)) {
    static const char said[] = "the system does not let CPUID fault\n";
    if (write(STDERR_FILENO, said, sizeof said - 1) < 0) _exit(98);
    _exit(99);
  }
}

/* For hiding.py, which looks whether it worked: what CPUID says to this program ... */
void ask_cpuid(struct answer *found) { cpuid(found); }

/* ... and whether anybody in it has asked the system for AMX's tiles, which nobody does who does not see AMX. */
int asked_for_tiles(void) {
  uint64_t permitted = 0;
  if (syscall(SYS_arch_prctl, GET_TILES_PERMISSION, &permitted)) return 0;
  return permitted >> TILE_DATA & 1;
}
