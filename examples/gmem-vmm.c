// SPDX-License-Identifier: GPL-2.0
/*
 * gmem-vmm: a small VMM whose guest makes its memory private and shared again.
 *
 * vm.c is the VMM.  This file is what can be done with it: run the small guest,
 * run Linux, or look at another VMM that is running.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "experiment.h"
#include "linux.h"
#include "report.h"
#include "stats.h"
#include "trace.h"

#define MIB		(1ULL << 20)
#define MAX_COMPARE	4

struct options {
	struct experiment_options experiment;
	const char *save;
	const char *compare[MAX_COMPARE];
	int nr_compare;

	struct linux_options linux_guest;

	pid_t stats_pid;	/* 0: do not watch */
};

/* Before the run: it would be a pity to find out afterwards. */
static void load_earlier_runs(struct numbers *runs, const struct options *options)
{
	int i;

	for (i = 0; i < options->nr_compare; i++) {
		numbers_load(&runs[i], options->compare[i]);
		if (runs[i].size != options->experiment.size)
			die("%s is about a guest of %.0f MiB, this run about one of %.0f MiB\n"
			    "  use the same --size for both", options->compare[i],
			    mib(runs[i].size), mib(options->experiment.size));
	}
}

static void usage(FILE *to)
{
	fputs("usage: gmem-vmm [options]\n"
	      "Run a guest that converts its memory to private and back, and check what happens.\n"
	      "\n"
	      "  --mode MODE     in-place: guest_memfd converts its pages (needs the series)\n"
	      "                  per-vm: two backings and a copy, as before the series\n"
	      "                  auto: whichever the kernel has (default)\n"
	      "  --size SIZE     memory of the guest (default 256M, with --kernel 128M)\n"
	      "  --vcpus N       1 to 4 (default 2)\n"
	      "  --chunk SIZE    how much a vCPU converts by one request (default: all of its\n"
	      "                  part; per-vm holds that much twice)\n"
	      "  --rounds N      conversions there and back (default 3)\n"
	      "  --save FILE     keep the numbers for a later --compare\n"
	      "  --compare FILE  show them beside this run's; up to 4 times\n"
	      "  --trace FILE    record what happens to the memory, and when\n"
	      "\n"
	      "  --kernel FILE   the guest is Linux, in private memory: a vmlinux for x86-64\n"
	      "  --initrd FILE   and its initramfs, whose /init is guest-linux\n"
	      "  --append TEXT   further arguments for the kernel\n"
	      "  --seconds N     it has to be done by then (default 240)\n"
	      "\n"
	      "  --stats PID     watch the guest_memfds of another process, once a second\n"
	      "  --help          this text\n"
	      "\n"
	      "SIZE is in bytes, or has one of the suffixes K, M, G.\n"
	      "Exit status: 0 all checks held, 1 some did not, 2 could not run.\n", to);
}

static void bad_usage(const char *option, const char *value, const char *wanted)
{
	die("--%s %s: wanted %s; see --help", option, value, wanted);
}

static __u64 parse_number(const char *text, bool is_size, bool *valid)
{
	static const char suffixes[] = "KMG";
	const char *suffix;
	__u64 number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 0);
	*valid = !errno && end != text && *text != '-';
	if (is_size && *end) {
		suffix = strchr(suffixes, *end++);
		*valid &= suffix && number <= 1ULL << 33;
		number <<= suffix ? 10 * (suffix - suffixes + 1) : 0;
	}
	*valid &= !*end;
	return number;
}

static __u64 parse_size(const char *option, const char *text, __u64 least, __u64 unit,
			const char *wanted)
{
	bool valid;
	__u64 size = parse_number(text, true, &valid);

	if (!valid || size < least || size > 64 * 1024 * MIB || size % unit)
		bad_usage(option, text, wanted);
	return size;
}

static unsigned int parse_count(const char *option, const char *text, __u64 most)
{
	bool valid;
	__u64 count = parse_number(text, false, &valid);
	char wanted[32];

	snprintf(wanted, sizeof(wanted), "1 to %llu", most);
	if (!valid || !count || count > most)
		bad_usage(option, text, wanted);
	return count;
}

static enum mode parse_mode(const char *text)
{
	enum mode mode;

	for (mode = MODE_AUTO; mode <= MODE_PER_VM; mode++) {
		if (!strcmp(text, mode_name(mode)))
			return mode;
	}
	bad_usage("mode", text, "in-place, per-vm or auto");
	return MODE_AUTO;
}

static void add_compare(struct options *options, const char *path)
{
	if (options->nr_compare == MAX_COMPARE)
		die("--compare can be given %d times", MAX_COMPARE);
	options->compare[options->nr_compare++] = path;
}

static void parse_options(struct options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{ "mode",	required_argument,	NULL, 'm' },
		{ "size",	required_argument,	NULL, 's' },
		{ "vcpus",	required_argument,	NULL, 'v' },
		{ "chunk",	required_argument,	NULL, 'c' },
		{ "rounds",	required_argument,	NULL, 'r' },
		{ "save",	required_argument,	NULL, 'S' },
		{ "compare",	required_argument,	NULL, 'C' },
		{ "trace",	required_argument,	NULL, 't' },
		{ "kernel",	required_argument,	NULL, 'k' },
		{ "initrd",	required_argument,	NULL, 'i' },
		{ "append",	required_argument,	NULL, 'a' },
		{ "seconds",	required_argument,	NULL, 'n' },
		{ "stats",	required_argument,	NULL, 'w' },
		{ "help",	no_argument,		NULL, 'h' },
		{ }
	};
	struct experiment_options *experiment = &options->experiment;
	struct linux_options *linux_guest = &options->linux_guest;
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'm':
			experiment->mode = parse_mode(optarg);
			break;
		case 's':
			experiment->size = parse_size("size", optarg, 4 * MIB, 2 * MIB,
						      "4M to 64G, a multiple of 2M");
			linux_guest->size = experiment->size;
			break;
		case 'v':
			experiment->nr_vcpus = parse_count("vcpus", optarg, MAX_VCPUS);
			linux_guest->nr_vcpus = experiment->nr_vcpus;
			break;
		case 'c':
			experiment->request_size = parse_size("chunk", optarg, MIB, PAGE_SIZE,
							      "1M to 64G, a multiple of 4K");
			break;
		case 'r':
			experiment->rounds = parse_count("rounds", optarg, 1000);
			break;
		case 'S':
			options->save = optarg;
			break;
		case 'C':
			add_compare(options, optarg);
			break;
		case 't':
			experiment->trace = linux_guest->trace = optarg;
			break;
		case 'k':
			linux_guest->kernel = optarg;
			break;
		case 'i':
			linux_guest->initrd = optarg;
			break;
		case 'a':
			linux_guest->arguments = optarg;
			break;
		case 'n':
			linux_guest->seconds = parse_count("seconds", optarg, 86400);
			break;
		case 'w':
			options->stats_pid = parse_count("stats", optarg, 1 << 22);
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			exit(2);
		}
	}
	if (optind < argc)
		die("'%s' is not an option; see --help", argv[optind]);
	if (!linux_guest->kernel != !linux_guest->initrd)
		die("--kernel and --initrd go together; see --help");
	if (linux_guest->kernel && experiment->mode == MODE_PER_VM)
		die("--mode per-vm cannot run Linux in private memory: nothing but the guest\n"
		    "  itself could load it there");
}

static void run_experiment(const struct options *options)
{
	struct numbers runs[MAX_COMPARE + 1], *run = &runs[options->nr_compare];

	load_earlier_runs(runs, options);
	experiment_run(&options->experiment, run);
	if (options->save)
		numbers_save(run, options->save);
	if (options->nr_compare)
		numbers_compare(runs, options->nr_compare + 1);
}

int main(int argc, char **argv)
{
	struct options options = {
		.experiment = { .size = 256 * MIB, .rounds = 3, .nr_vcpus = 2 },
		.linux_guest = { .size = 128 * MIB, .nr_vcpus = 2, .seconds = 240 },
	};

	parse_options(&options, argc, argv);
	if (options.stats_pid) {
		stats_watch(options.stats_pid, 1);
		return 0;
	}

	if (options.linux_guest.kernel)
		linux_run(&options.linux_guest);
	else
		run_experiment(&options);

	printf("\n%s\n", report_all_ok() ? "All checks held." : "Some checks FAILED.");
	return report_all_ok() ? 0 : 1;
}
