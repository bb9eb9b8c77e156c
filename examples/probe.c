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

static sigjmp_buf sigbus_return;
static volatile sig_atomic_t sigbus_expected;

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

__u64 probe_meminfo(const char *key)
{
	size_t length = strlen(key);
	unsigned long long kib;
	bool found = false;
	char line[128];
	FILE *file;

	file = fopen("/proc/meminfo", "re");
	if (!file)
		die("cannot open /proc/meminfo: %m\n  needed: /proc mounted");
	while (!found && fgets(line, sizeof(line), file))
		found = !strncmp(line, key, length) &&
			sscanf(line + length, ": %llu kB", &kib) == 1;
	fclose(file);
	if (!found)
		die("/proc/meminfo has no line %s", key);
	return kib * 1024;
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
