// What the race detector is told of the order in which threads wait for each other: nothing, without it.
#pragma once

#ifdef FASTCONV_EMULATOR_TSAN
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#else
#define __tsan_acquire(address)
#define __tsan_release(address)
#endif
