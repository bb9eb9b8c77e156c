/* SPDX-License-Identifier: GPL-2.0 */
/* The report: lines of wanted and came, and the comparison of several runs. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <linux/types.h>

#include "vm.h"

/* What a run leaves for the comparison.  Sizes are in bytes. */
struct numbers {
	enum mode mode;
	__u64 size;		/* of the guest */
	__u64 request_size;
	__u64 conversions;	/* of the whole data slot, either way */
	__u64 requests;		/* hypercalls that took */
	__u64 before;		/* memory in the backings */
	__u64 peak;
	__u64 after;
	__u64 machine_rise;	/* of the whole machine's memory, to its peak */
	__u64 copied;
	__u64 convert_ns;	/* until the guest's requests were done */
	__u64 touch_ns;		/* until every page had been used again */
};

void report_heading(const char *text);

/* One line: what was looked at, wanted, came, and if that is ok. */
void report_check(bool ok, const char *what, const char *wanted, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* One line that nothing depends on. */
void report_note(const char *what, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* True if no report_check() has failed. */
bool report_all_ok(void);

void numbers_save(const struct numbers *numbers, const char *path);
void numbers_load(struct numbers *numbers, const char *path);

/* A column for each run. */
void numbers_compare(const struct numbers *runs, int nr_runs);

static inline double mib(__u64 bytes)
{
	return bytes / 1048576.0;
}

#endif /* REPORT_H */
