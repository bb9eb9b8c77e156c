/* SPDX-License-Identifier: GPL-2.0 */
/* How the report knows: memory in use, page frames, what the host can reach. */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>

/* Must come before the first touch. */
void probe_init(void);

/* Access one word as the host; false if that gave SIGBUS. */
bool probe_read(const __u64 *word, __u64 *value);
bool probe_write(__u64 *word, __u64 value);

/* Have the kernel read a word for the host; returns 0 or errno. */
int probe_syscall(const __u64 *word);

/* Memory held by a file, in bytes. */
__u64 probe_file_memory(int fd);

/* Memory that the whole machine uses, KVM's page tables included, in bytes. */
__u64 probe_machine_memory(void);

/* Memory that can still be allocated, in bytes. */
__u64 probe_available_memory(void);

/* One entry of the host's page table per page; see probe_mapped() and _frame(). */
void probe_page_table(const void *start, size_t nr_pages, __u64 *entries);

static inline bool probe_mapped(__u64 entry)
{
	return entry >> 63;
}

/* Page frame number; 0 if this process may not know it (CAP_SYS_ADMIN). */
static inline __u64 probe_frame(__u64 entry)
{
	return probe_mapped(entry) ? entry & ((1ULL << 55) - 1) : 0;
}

__u64 probe_clock_ns(void);

#endif /* PROBE_H */
