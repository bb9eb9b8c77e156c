// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "report.h"
#include "stats.h"

#define MAX_TRIES	5	/* until there is a guest_memfd */

bool stats_state(pid_t pid, int fd, struct gmem_state *state)
{
	static const struct {
		const char *key;
		size_t offset;
	} keys[] = {
		{ "gmem_size:",		offsetof(struct gmem_state, size) },
		{ "gmem_allocated:",	offsetof(struct gmem_state, allocated) },
		{ "gmem_private:",	offsetof(struct gmem_state, private) },
		{ "gmem_shared:",	offsetof(struct gmem_state, shared) },
		{ "gmem_ranges:",	offsetof(struct gmem_state, ranges) },
	};
	char path[64], line[128];
	FILE *file;
	size_t i;

	memset(state, 0, sizeof(*state));
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
			if (!strncmp(line, keys[i].key, strlen(keys[i].key)))
				*(__u64 *)((void *)state + keys[i].offset) =
					strtoull(line + strlen(keys[i].key), NULL, 0);
		}
	}
	if (file)
		fclose(file);
	return state->size;
}

/*
 * The file describes itself: a header, then a descriptor and the name of each
 * counter, then the counters.
 */
bool stats_counter(int fd, const char *name, __u64 *value)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc *desc;
	bool found = false;
	size_t size;
	__u32 i;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return false;
	size = sizeof(*desc) + header.name_size;
	desc = malloc(size);
	if (!desc)
		die("no memory for a statistics descriptor");
	for (i = 0; i < header.num_desc && !found; i++) {
		if (pread(fd, desc, size, header.desc_offset + i * size) != (ssize_t)size)
			break;
		found = !strncmp(desc->name, name, header.name_size) &&
			pread(fd, value, sizeof(*value), header.data_offset + desc->offset) ==
			sizeof(*value);
	}
	free(desc);
	return found;
}

void stats_report(struct vm *vm)
{
	__u64 private = vm_private_bytes(vm), to_private, to_shared, busy;
	struct gmem_state state;
	char wanted[32];

	report_heading("what the kernel tells (see --stats)");
	stats_state(getpid(), vm->gmem_fd, &state);
	snprintf(wanted, sizeof(wanted), "%.2f MiB", mib(private));
	report_check(state.private == private && state.shared == vm->size - private,
		     "fdinfo: private in the end", wanted, "%.2f MiB, %llu ranges",
		     mib(state.private), state.ranges);

	if (!stats_counter(vm->stats_fd, "gmem_pages_to_private", &to_private) ||
	    !stats_counter(vm->stats_fd, "gmem_pages_to_shared", &to_shared) ||
	    !stats_counter(vm->stats_fd, "gmem_busy", &busy)) {
		report_check(false, "KVM's statistics", "there", "not there");
		return;
	}
	snprintf(wanted, sizeof(wanted), "%llu pages", vm->pages_changed);
	report_check(to_private + to_shared == vm->pages_changed, "statistics: converted",
		     wanted, "%llu + %llu", to_private, to_shared);
	snprintf(wanted, sizeof(wanted), "%llu", vm->retries);
	report_check(busy == vm->retries, "statistics: EAGAIN", wanted, "%llu", busy);
}

/*
 * Another process's statistics are had by way of its own descriptor, if it has
 * one.  (The VM itself answers only to the process that created it.)
 */
static int borrow_stats_fd(pid_t pid, const char *fds)
{
	char path[320], target[64];
	int pidfd, fd = -1;
	struct dirent *entry;
	ssize_t length;
	DIR *dir;

	dir = opendir(fds);
	while (dir && fd < 0 && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", fds, entry->d_name);
		length = readlink(path, target, sizeof(target) - 1);
		if (length < 0)
			continue;
		target[length] = 0;
		if (!strstr(target, "kvm-vm-stats"))
			continue;
		pidfd = syscall(SYS_pidfd_open, pid, 0);
		fd = syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);
		close(pidfd);
	}
	if (dir)
		closedir(dir);
	return fd;
}

static void print_counter(int stats_fd, const char *name)
{
	__u64 value;

	if (stats_fd >= 0 && stats_counter(stats_fd, name, &value))
		printf(" %10llu", value);
	else
		printf(" %10s", "-");
}

static unsigned int print_states(pid_t pid, const char *fds, int stats_fd)
{
	struct gmem_state state;
	struct dirent *entry;
	unsigned int lines = 0;
	DIR *dir = opendir(fds);

	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || !stats_state(pid, atoi(entry->d_name), &state))
			continue;
		printf("stats| %3s %8.1f %10.1f %10.2f %10.2f %7llu", entry->d_name,
		       mib(state.size), mib(state.allocated), mib(state.private),
		       mib(state.shared), state.ranges);
		print_counter(stats_fd, "gmem_to_private");
		print_counter(stats_fd, "gmem_to_shared");
		print_counter(stats_fd, "gmem_busy");
		putchar('\n');
		lines++;
	}
	if (dir)
		closedir(dir);
	fflush(stdout);
	return lines;
}

void stats_watch(pid_t pid, unsigned int seconds)
{
	unsigned int lines = 0, tries, now;
	int stats_fd = -1;
	char fds[32];

	snprintf(fds, sizeof(fds), "/proc/%d/fd", pid);
	if (access(fds, R_OK))
		die("cannot look at process %d: %m", pid);

	printf("stats| %3s %8s %10s %10s %10s %7s %10s %10s %10s\n", "fd", "MiB",
	       "allocated", "private", "shared", "ranges", "to-private", "to-shared", "EAGAIN");
	for (tries = 0; tries < MAX_TRIES || lines; tries++) {
		if (stats_fd < 0)
			stats_fd = borrow_stats_fd(pid, fds);
		now = print_states(pid, fds, stats_fd);
		if (lines && !now)
			break;
		lines += now;
		sleep(seconds);
	}
	if (!lines)
		die("process %d has no guest_memfd, or its fdinfo does not tell about it\n"
		    "  needed: a kernel that has all of the series", pid);
	if (stats_fd >= 0)
		close(stats_fd);
}
