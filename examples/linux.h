/* SPDX-License-Identifier: GPL-2.0 */
/* Linux as the guest, with all of its memory private but what it asks for. */
#ifndef LINUX_H
#define LINUX_H

#include <linux/types.h>

struct linux_options {
	const char *kernel;	/* vmlinux */
	const char *initrd;
	const char *arguments;	/* to the kernel, besides what it needs here */
	const char *trace;	/* file, or NULL */
	__u64 size;
	int nr_vcpus;
	unsigned int seconds;	/* it has to be done by then */
};

/* Boot, serve, report. */
void linux_run(const struct linux_options *options);

#endif /* LINUX_H */
