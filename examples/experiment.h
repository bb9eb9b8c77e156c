/* SPDX-License-Identifier: GPL-2.0 */
/* What is done with the small guest: rounds of conversions, and checks. */
#ifndef EXPERIMENT_H
#define EXPERIMENT_H

#include "report.h"

struct experiment_options {
	enum mode mode;
	__u64 size;
	__u64 request_size;	/* 0: all of a vCPU's part of the data */
	unsigned int rounds;
	int nr_vcpus;
	const char *trace;	/* file, or NULL */
};

void experiment_run(const struct experiment_options *options, struct numbers *numbers);

#endif /* EXPERIMENT_H */
