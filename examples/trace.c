// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>

#include "probe.h"
#include "trace.h"
#include "vm.h"

static FILE *file;
static __u64 started;
static __u64 gmem_before, other_before;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double now(void)
{
	return (probe_clock_ns() - started) / 1e9;
}

void trace_open(const char *path, const char *name, __u64 size)
{
	file = fopen(path, "we");
	if (!file)
		die("cannot write %s: %m", path);
	started = probe_clock_ns();
	gmem_before = other_before = ~0ULL;
	fprintf(file, "file %s %llu\n", name, size);
}

void trace_close(void)
{
	if (file && (fprintf(file, "end %.4f\n", now()) < 0 || fclose(file)))
		die("cannot write the trace: %m");
	file = NULL;
}

void trace_convert(__u64 offset, __u64 size, bool to_private)
{
	if (file)
		fprintf(file, "map %.4f %llu %llu %s\n", now(), offset, size,
			to_private ? "private" : "shared");
}

void trace_memory(__u64 gmem, __u64 other)
{
	pthread_mutex_lock(&lock);
	if (file && (gmem != gmem_before || other != other_before))
		fprintf(file, "memory %.4f %llu %llu\n", now(), gmem, other);
	gmem_before = gmem;
	other_before = other;
	pthread_mutex_unlock(&lock);
}

void trace_phase(const char *text)
{
	if (file)
		fprintf(file, "phase %.4f %s\n", now(), text);
}
