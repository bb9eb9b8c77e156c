// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"
#include "vm.h"

/* SIGBUS comes to the thread that made the access. */
static __thread sigjmp_buf sigbus_return;
static __thread volatile sig_atomic_t sigbus_expected;

static void handle_sigbus(int signal_number)
{
	if (sigbus_expected)
		siglongjmp(sigbus_return, 1);

	/* A bug then: fault again and die of it. */
	signal(signal_number, SIG_DFL);
}

void probe_init(void)
{
	struct sigaction action = { .sa_handler = handle_sigbus };

	if (sigaction(SIGBUS, &action, NULL))
		die("cannot handle SIGBUS: %m");
}

bool probe_read(const __u64 *word, __u64 *value)
{
	bool reached = false;

	if (!sigsetjmp(sigbus_return, 1)) {
		sigbus_expected = 1;
		*value = *(const volatile __u64 *)word;
		reached = true;
	}
	sigbus_expected = 0;
	return reached;
}

bool probe_write(__u64 *word, __u64 value)
{
	bool reached = false;

	if (!sigsetjmp(sigbus_return, 1)) {
		sigbus_expected = 1;
		*(volatile __u64 *)word = value;
		reached = true;
	}
	sigbus_expected = 0;
	return reached;
}

int probe_syscall(const __u64 *word)
{
	int fds[2], error;

	if (pipe2(fds, O_CLOEXEC))
		die("cannot create a pipe: %m");
	error = write(fds[1], word, sizeof(*word)) < 0 ? errno : 0;
	close(fds[0]);
	close(fds[1]);
	return error;
}

/*
 * Pages of guest_memfd and of a memfd are page cache of that file and nothing
 * else, whether mapped or not, and neither can be written back and dropped.  So
 * cachestat() counts exactly the memory they hold.  It also works for a
 * guest_memfd that cannot be mapped, where mincore() does not, and unlike
 * /proc/meminfo it is not disturbed by the rest of the machine.  (st_blocks of
 * guest_memfd is always 0.)
 */
__u64 probe_file_memory(int fd)
{
	struct cachestat_range all = { };
	struct cachestat stat;

	if (syscall(__NR_cachestat, fd, &all, &stat, 0))
		die("cannot count the pages of a file: cachestat: %m\n"
		    "  needed: CONFIG_CACHESTAT_SYSCALL=y");
	return stat.nr_cache * PAGE_SIZE;
}

/* The sum of all lines of /proc/meminfo that begin with one of @keys. */
static __u64 meminfo(const char * const *keys)
{
	unsigned long long kib, sum = 0;
	const char * const *key;
	char line[128];
	FILE *file;

	file = fopen("/proc/meminfo", "re");
	if (!file)
		die("cannot open /proc/meminfo: %m\n  needed: /proc mounted");
	while (fgets(line, sizeof(line), file)) {
		for (key = keys; *key; key++) {
			if (!strncmp(line, *key, strlen(*key)) &&
			    sscanf(line + strlen(*key), "%llu", &kib) == 1)
				sum += kib;
		}
	}
	fclose(file);
	return sum * 1024;
}

/*
 * Not MemFree: that leaves out what is on the free lists of each CPU, which can
 * be an eighth of all memory.
 */
__u64 probe_machine_memory(void)
{
	static const char * const keys[] = {
		"Cached:", "AnonPages:", "Slab:", "KernelStack:", "PageTables:",
		"SecPageTables:", NULL
	};

	return meminfo(keys);
}

__u64 probe_available_memory(void)
{
	static const char * const keys[] = { "MemAvailable:", NULL };

	return meminfo(keys);
}

void probe_page_table(const void *start, size_t nr_pages, __u64 *entries)
{
	off_t offset = (__u64)start / PAGE_SIZE * sizeof(*entries);
	size_t size = nr_pages * sizeof(*entries), done = 0;
	ssize_t n;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("cannot open /proc/self/pagemap: %m\n  needed: CONFIG_PROC_PAGE_MONITOR=y");
	while (done < size) {
		n = pread(fd, (char *)entries + done, size - done, offset + done);
		if (n <= 0)
			die("cannot read /proc/self/pagemap: %m");
		done += n;
	}
	close(fd);
}

__u64 probe_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}
