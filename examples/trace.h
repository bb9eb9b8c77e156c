/* SPDX-License-Identifier: GPL-2.0 */
/* What happened to the memory and when, for a picture: lines of text. */
#ifndef TRACE_H
#define TRACE_H

#include <stdbool.h>
#include <linux/types.h>

/* Without it nothing is written. */
void trace_open(const char *path, const char *name, __u64 size);
void trace_close(void);

void trace_convert(__u64 offset, __u64 size, bool to_private);
/* In use, in guest_memfd and in the other backing, if there is one. */
void trace_memory(__u64 gmem, __u64 other);

/* What happens from here on. */
void trace_phase(const char *text);

#endif /* TRACE_H */
