/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel tells about a guest_memfd: its state in /proc/PID/fdinfo, and
 * counts of what was done to it among KVM's binary statistics.
 */
#ifndef STATS_H
#define STATS_H

#include <stdbool.h>
#include <sys/types.h>
#include <linux/types.h>

#include "vm.h"

/* In bytes.  Only a kernel that converts in place tells private and shared. */
struct gmem_state {
	__u64 size;
	__u64 allocated;
	__u64 private;
	__u64 shared;
	__u64 ranges;		/* neighbours have different attributes */
};

/* False if @fd of process @pid is not a guest_memfd, or the kernel doesn't tell. */
bool stats_state(pid_t pid, int fd, struct gmem_state *state);

/* A counter of a VM, by its name; false if there is none.  @fd: KVM_GET_STATS_FD */
bool stats_counter(int fd, const char *name, __u64 *value);

/* Compare what the kernel tells with what the VMM has counted. */
void stats_report(struct vm *vm);

/*
 * Print the state of all guest_memfds of a process, and its VM's counters, every
 * so many seconds until it ends.
 */
void stats_watch(pid_t pid, unsigned int seconds);

#endif /* STATS_H */
