// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

static int nr_failed;

void die(const char *format, ...)
{
	int error = errno;
	va_list args;

	fflush(stdout);
	fputs("gmem-vmm: ", stderr);
	errno = error;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

void report_heading(const char *text)
{
	printf("\n%-42s %-20s %s\n", text, "wanted", "came");
}

static void report_line(const char *what, const char *wanted, const char *verdict,
			const char *format, va_list args)
{
	char came[64];

	vsnprintf(came, sizeof(came), format, args);
	printf("  %-40s %-20s %-30s %s\n", what, wanted, came, verdict);
	fflush(stdout);
}

void report_check(bool ok, const char *what, const char *wanted, const char *format, ...)
{
	va_list args;

	nr_failed += !ok;
	va_start(args, format);
	report_line(what, wanted, ok ? "ok" : "FAILED", format, args);
	va_end(args);
}

void report_note(const char *what, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	report_line(what, "", "", format, args);
	va_end(args);
}

bool report_all_ok(void)
{
	return !nr_failed;
}

/* The file is lines of key=value, mode first. */
static const struct field {
	const char *key;
	size_t offset;
} fields[] = {
	{ "size",		offsetof(struct numbers, size) },
	{ "request_size",	offsetof(struct numbers, request_size) },
	{ "conversions",	offsetof(struct numbers, conversions) },
	{ "requests",		offsetof(struct numbers, requests) },
	{ "before",		offsetof(struct numbers, before) },
	{ "peak",		offsetof(struct numbers, peak) },
	{ "after",		offsetof(struct numbers, after) },
	{ "machine_rise",	offsetof(struct numbers, machine_rise) },
	{ "copied",		offsetof(struct numbers, copied) },
	{ "convert_ns",		offsetof(struct numbers, convert_ns) },
	{ "touch_ns",		offsetof(struct numbers, touch_ns) },
};

#define NR_FIELDS	(sizeof(fields) / sizeof(fields[0]))

static __u64 *field_of(struct numbers *numbers, const struct field *field)
{
	return (void *)numbers + field->offset;
}

void numbers_save(const struct numbers *numbers, const char *path)
{
	struct numbers copy = *numbers;
	FILE *file = fopen(path, "we");
	size_t i;

	if (!file)
		die("cannot write %s: %m", path);
	fprintf(file, "mode=%s\n", mode_name(numbers->mode));
	for (i = 0; i < NR_FIELDS; i++)
		fprintf(file, "%s=%llu\n", fields[i].key, *field_of(&copy, &fields[i]));
	if (ferror(file) | fclose(file))
		die("cannot write %s: %m", path);
}

static bool load_mode(struct numbers *numbers, const char *line)
{
	for (numbers->mode = MODE_IN_PLACE; numbers->mode <= MODE_PER_VM; numbers->mode++) {
		if (!strcmp(line, mode_name(numbers->mode)))
			return true;
	}
	return false;
}

void numbers_load(struct numbers *numbers, const char *path)
{
	FILE *file = fopen(path, "re");
	char mode[16];
	size_t i;

	if (!file)
		die("cannot read %s: %m\n  make it with --save, in an earlier run", path);
	if (fscanf(file, "mode=%15s", mode) != 1 || !load_mode(numbers, mode))
		die("%s does not start with a known mode; make it anew with --save", path);
	for (i = 0; i < NR_FIELDS; i++) {
		char key[32];

		if (fscanf(file, " %31[^=]=%llu", key, field_of(numbers, &fields[i])) != 2 ||
		    strcmp(key, fields[i].key))
			die("%s has no %s where it should be; make it anew with --save",
			    path, fields[i].key);
	}
	fclose(file);
}

/* Times are given as multiples of converting in place, if that is there. */
static const struct numbers *reference(const struct numbers *runs, int nr_runs)
{
	const struct numbers *run = runs;

	while (run < runs + nr_runs - 1 && run->mode != MODE_IN_PLACE)
		run++;
	return run;
}

static double per_conversion_ms(const struct numbers *run)
{
	return (run->convert_ns + run->touch_ns) / 1e6 / run->conversions;
}

/* One line of the comparison: a value of each @run of @runs. */
#define print_row(title, format, value)					\
do {									\
	const struct numbers *run;					\
									\
	printf("%-26s", title);						\
	for (run = runs; run < runs + nr_runs; run++)			\
		printf(" " format, value);				\
	putchar('\n');							\
} while (0)

void numbers_compare(const struct numbers *runs, int nr_runs)
{
	double reference_ms = per_conversion_ms(reference(runs, nr_runs));

	putchar('\n');
	print_row("comparison", "%18s", mode_name(run->mode));
	print_row("  converted by one request", "%14.0f MiB", mib(run->request_size));
	print_row("  requests by the guest", "%18llu", run->requests);
	print_row("  memory before", "%14.1f MiB", mib(run->before));
	print_row("  memory at the peak", "%14.1f MiB", mib(run->peak));
	print_row("    of that before", "%17.2fx", (double)run->peak / run->before);
	print_row("  copied per conversion", "%14.0f MiB", mib(run->copied / run->conversions));
	print_row("  time per conversion", "%15.0f ms", per_conversion_ms(run));
	print_row("    relative", "%17.2fx", per_conversion_ms(run) / reference_ms);
	printf("\n"
	       "A conversion is all of the guest's data, one way, until each page was used again.\n"
	       "Times are wall clock; on emulated hardware only their ratio says anything, roughly.\n"
	       "per-vm holds the data of a request twice until it is copied: smaller requests lower\n"
	       "the peak to memory before + one request, but all of the data is still copied.\n");
}
