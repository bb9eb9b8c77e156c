// SPDX-License-Identifier: GPL-2.0
/*
 * gmem-vmm: a small VMM whose guest makes its memory private and shared again.
 *
 * vm.c is the VMM.  This file is what is done with it: have the guest convert
 * all of its data there and back a few times, look from both sides at what
 * became of it, and report that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "probe.h"
#include "report.h"
#include "vm.h"

#define MIB		(1ULL << 20)
#define MAX_COMPARE	4
#define TOUCH_STEP	MIB	/* the host tries one page of so many bytes */

struct options {
	enum mode mode;
	__u64 size;
	__u64 request_size;	/* 0: all of the data */
	unsigned int rounds;
	const char *save;
	const char *compare[MAX_COMPARE];
	int nr_compare;
};

/* Somebody in the host who holds a page: I/O in flight, in miniature. */
struct device {
	int pipe[2];
	int polls_left;		/* until the I/O is done; 0: idle */
	__u64 busy_offset;	/* where KVM said the page in use is */
};

/* Sums over all rounds. */
struct findings {
	__u64 words;		/* compared by each side */
	__u64 guest_bad;
	__u64 host_bad;
	__u64 first_bad_gpa;
	__u64 touches;		/* of private memory by the host */
	__u64 sigbus;
	__u64 efault;
	__u64 leaked;		/* touches that saw the guest's data */
	__u64 wasted;		/* bytes of shared memory that touches allocated */
	__u64 mapped;		/* private pages in the host's page table */
	__u64 frames;		/* page frames compared with those before */
	__u64 frames_same;
	bool frames_hidden;
};

struct experiment {
	struct vm vm;
	struct device device;
	struct findings found;
	struct numbers numbers;
	__u64 data_size;
	__u64 least;		/* memory in the backings: like numbers.peak */
	__u64 machine_before;	/* memory of the whole machine */
	__u64 sampling_ns;	/* time spent on measuring, not on converting */
	__u64 *words;		/* the data, as the host sees it */
	size_t nr_pages;
	__u64 *page_table;	/* the host's page table entries before */
	__u64 *page_table_now;
};

/* Memory the VM's backings hold together. */
static __u64 backing_memory(struct vm *vm)
{
	__u64 bytes = probe_file_memory(vm->gmem_fd);

	if (vm->shared_fd >= 0)
		bytes += probe_file_memory(vm->shared_fd);
	return bytes;
}

/*
 * Called at every exit before it is served.  The only thing that makes backings
 * shrink is serving an exit, so this sees the peak, whatever requests there are.
 *
 * The machine's memory is there to show that nothing big has been left out, like
 * page tables.  It is everybody's, so no check depends on it.
 */
static void sample_memory(struct vm *vm)
{
	struct experiment *e = vm->owner;
	__u64 start = probe_clock_ns();
	__u64 held = backing_memory(vm);
	__u64 machine = probe_machine_memory();

	if (held > e->numbers.peak)
		e->numbers.peak = held;
	if (held < e->least)
		e->least = held;
	if (machine > e->machine_before + e->numbers.machine_rise)
		e->numbers.machine_rise = machine - e->machine_before;
	e->sampling_ns += probe_clock_ns() - start;
}

static void sample_before(struct experiment *e)
{
	e->numbers.before = backing_memory(&e->vm);
	e->numbers.peak = e->numbers.before;
	e->least = e->numbers.before;
	e->machine_before = probe_machine_memory();
	e->numbers.machine_rise = 0;
}

/* Have the guest do something with its data; if it cannot there is no going on. */
static void guest(struct experiment *e, enum guest_command command, __u64 seed)
{
	__u64 result;

	e->vm.mailbox->seed = seed;
	result = vm_command(&e->vm, command, DATA_GPA, e->data_size);
	if (result == GUEST_NO_HYPERCALL)
		die("CPUID does not offer KVM_HC_MAP_GPA_RANGE to the guest");
	if (result) {
		report_check(false, "conversion of the guest's data", "done", "%s",
			     strerror(result));
		exit(1);
	}
}

static void host_use_every_page(struct experiment *e)
{
	size_t i;

	for (i = 0; i < e->data_size / 8; i += PAGE_SIZE / 8)
		(void)*(volatile __u64 *)&e->words[i];
}

/*
 * A conversion leaves page faults behind for whoever uses the memory next, and
 * a copy has already taken them.  Only with these is the time comparable.
 */
static void convert(struct experiment *e, enum guest_command direction)
{
	__u64 start = probe_clock_ns(), middle, sampling = e->sampling_ns;

	guest(e, direction, 0);
	middle = probe_clock_ns();
	e->numbers.convert_ns += middle - start - (e->sampling_ns - sampling);

	sampling = e->sampling_ns;
	if (direction == GUEST_TO_PRIVATE)
		guest(e, GUEST_TOUCH, 0);
	else
		host_use_every_page(e);
	e->numbers.touch_ns += probe_clock_ns() - middle - (e->sampling_ns - sampling);
	e->numbers.conversions++;
}

/*
 * vmsplice() puts a reference to the page itself into the pipe, where it stays
 * until the other end is read.
 */
static void device_start(struct device *device, void *page, int polls)
{
	struct iovec iov = { .iov_base = page, .iov_len = PAGE_SIZE };

	if (pipe2(device->pipe, O_CLOEXEC))
		die("cannot create a pipe: %m");
	if (vmsplice(device->pipe[1], &iov, 1, 0) != PAGE_SIZE)
		die("cannot refer to a page of guest memory: vmsplice: %m");
	device->polls_left = polls;
}

/* The VMM is waiting for a page: give the devices a chance to finish. */
static void device_poll(struct vm *vm, __u64 offset)
{
	struct experiment *e = vm->owner;
	struct device *device = &e->device;
	char page[PAGE_SIZE];

	device->busy_offset = offset;
	if (!device->polls_left || --device->polls_left)
		return;
	if (read(device->pipe[0], page, sizeof(page)) != sizeof(page))
		die("cannot read from a pipe: %m");
	close(device->pipe[0]);
	close(device->pipe[1]);
}

static void show_busy_page(struct experiment *e)
{
	const int polls = 3;
	__u64 page = e->nr_pages / 2;
	__u64 offset = LOW_SIZE + page * PAGE_SIZE;

	report_heading("while a device uses a page");
	device_start(&e->device, (void *)e->words + page * PAGE_SIZE, polls);
	guest(e, GUEST_TO_PRIVATE, 0);
	report_check(e->device.busy_offset == offset && e->vm.retries == polls,
		     "conversion to private waits for it", "3 x EAGAIN, there",
		     "%llu x EAGAIN, %s", e->vm.retries,
		     e->device.busy_offset == offset ? "there" : "elsewhere");
	guest(e, GUEST_TO_SHARED, 0);
	e->vm.requests = 0;		/* these do not belong to the rounds */
}

/*
 * Try to read and to change what the guest has made private.  In place that is
 * SIGBUS.  With two backings nothing stops the host: it gets another page,
 * which costs memory and is not the guest's.
 */
static void host_touches_private(struct experiment *e, __u64 seed)
{
	__u64 before = backing_memory(&e->vm), offset, value;
	size_t i;

	probe_page_table(e->words, e->nr_pages, e->page_table_now);
	for (i = 0; i < e->nr_pages; i++)
		e->found.mapped += probe_mapped(e->page_table_now[i]);

	for (offset = 0; offset < e->data_size; offset += TOUCH_STEP) {
		__u64 *word = &e->words[offset / 8];

		e->found.touches++;
		if (!probe_read(word, &value))
			e->found.sigbus++;
		else if (value == pattern(DATA_GPA + offset, seed))
			e->found.leaked++;

		e->found.touches++;
		if (!probe_write(word, ~0ULL))
			e->found.sigbus++;

		e->found.efault += probe_syscall(word) == EFAULT;
	}

	e->found.wasted += backing_memory(&e->vm) - before;
	if (e->vm.mode == MODE_IN_PLACE)
		return;
	for (offset = 0; offset < e->data_size; offset += TOUCH_STEP)
		vm_release_shared(&e->vm, DATA_GPA + offset, PAGE_SIZE);
}

static void guest_checks(struct experiment *e, __u64 seed)
{
	struct guest_mailbox *mailbox = e->vm.mailbox;

	guest(e, GUEST_CHECK, seed);
	if (mailbox->bad_words && !e->found.first_bad_gpa)
		e->found.first_bad_gpa = mailbox->first_bad_gpa;
	e->found.guest_bad += mailbox->bad_words;
}

static void host_checks(struct experiment *e, __u64 seed)
{
	__u64 bad, first_bad_gpa = 0;

	bad = check_pattern(e->words, DATA_GPA, e->data_size, seed, &first_bad_gpa);
	if (bad && !e->found.first_bad_gpa)
		e->found.first_bad_gpa = first_bad_gpa;
	e->found.host_bad += bad;
}

static void compare_frames(struct experiment *e)
{
	size_t i;

	probe_page_table(e->words, e->nr_pages, e->page_table_now);
	for (i = 0; i < e->nr_pages; i++) {
		__u64 before = probe_frame(e->page_table[i]);
		__u64 now = probe_frame(e->page_table_now[i]);

		e->found.frames++;
		e->found.frames_same += before && before == now;
		e->found.frames_hidden |= probe_mapped(e->page_table[i]) && !before;
	}
}

static void do_round(struct experiment *e, unsigned int round)
{
	__u64 from_host = 2 * round + 1, from_guest = 2 * round + 2;

	fill_pattern(e->words, DATA_GPA, e->data_size, from_host);
	convert(e, GUEST_TO_PRIVATE);
	host_touches_private(e, from_host);
	guest_checks(e, from_host);		/* also that the host changed nothing */

	guest(e, GUEST_FILL, from_guest);
	convert(e, GUEST_TO_SHARED);
	compare_frames(e);
	host_checks(e, from_guest);

	e->found.words += e->data_size / 8;
}

static void report_contents(struct experiment *e)
{
	struct findings *found = &e->found;
	char words[32];

	snprintf(words, sizeof(words), "%llu words", found->words);
	report_heading("contents");
	report_check(!found->guest_bad, "host writes, guest reads it in private", words,
		     "%llu words", found->words - found->guest_bad);
	report_check(!found->host_bad, "guest writes, host reads it in shared", words,
		     "%llu words", found->words - found->host_bad);
	if (found->first_bad_gpa)
		report_note("first wrong word", "gpa %#llx", found->first_bad_gpa);
}

static void report_protection_in_place(struct findings *found)
{
	char wanted[32];

	snprintf(wanted, sizeof(wanted), "%llu x SIGBUS", found->touches);
	report_check(found->sigbus == found->touches, "host reads and writes private memory",
		     wanted, "%llu x SIGBUS", found->sigbus);
	snprintf(wanted, sizeof(wanted), "%llu x EFAULT", found->touches / 2);
	report_check(found->efault == found->touches / 2, "system calls on private memory",
		     wanted, "%llu x EFAULT", found->efault);
	report_check(!found->mapped, "private pages mapped by the host", "0 pages",
		     "%llu pages", found->mapped);
}

static void report_protection(struct experiment *e)
{
	struct findings *found = &e->found;

	report_heading("the host and private memory");
	if (e->vm.mode == MODE_IN_PLACE)
		report_protection_in_place(found);
	else
		report_note("host reads and writes private memory",
			    "%llu x SIGBUS, %.1f MiB wasted", found->sigbus, mib(found->wasted));
	report_check(!found->leaked, "guest's words seen by the host", "0 words",
		     "%llu words", found->leaked);
}

/*
 * While a page is private, no host mapping can name its frame.  That it is the
 * same one then follows from the rest: frames are the same before and after,
 * the data is there, and the file had exactly one page per offset all the time,
 * that is, none was allocated to move anything to, and none freed.
 */
static void report_frames(struct experiment *e)
{
	struct findings *found = &e->found;
	char wanted[32];

	report_heading("pages");
	if (found->frames_hidden) {
		report_note("page frames, before and after", "hidden: run as root to compare");
	} else if (e->vm.mode == MODE_PER_VM) {
		report_note("page frames, before and after", "%llu of %llu the same",
			    found->frames_same, found->frames);
	} else {
		snprintf(wanted, sizeof(wanted), "%llu the same", found->frames);
		report_check(found->frames_same == found->frames, "page frames, before and after",
			     wanted, "%llu the same", found->frames_same);
	}

	if (e->vm.mode == MODE_PER_VM)
		return;
	snprintf(wanted, sizeof(wanted), "%llu", e->numbers.before / PAGE_SIZE);
	report_check(e->least == e->numbers.before && e->numbers.peak == e->numbers.before,
		     "pages in guest_memfd all the time", wanted, "%llu to %llu",
		     e->least / PAGE_SIZE, e->numbers.peak / PAGE_SIZE);
}

static void report_costs(struct experiment *e)
{
	struct numbers *n = &e->numbers;
	__u64 limit = n->before, copies = 0;
	char wanted[32];

	/* What is carried over is there twice until all of a request is. */
	if (e->vm.mode == MODE_PER_VM) {
		limit += n->request_size;
		copies = n->conversions * e->data_size;
	}

	report_heading("costs");
	report_note("memory before", "%.1f MiB", mib(n->before));
	snprintf(wanted, sizeof(wanted), "at most %.1f MiB", mib(limit));
	report_check(n->peak <= limit, "memory at the peak", wanted, "%.1f MiB = %.2fx",
		     mib(n->peak), (double)n->peak / n->before);
	report_note("  all memory of the machine, peak", "%.0f MiB above before",
		    mib(n->machine_rise));
	snprintf(wanted, sizeof(wanted), "%.1f MiB", mib(n->before));
	report_check(n->after == n->before, "memory after", wanted, "%.1f MiB", mib(n->after));
	snprintf(wanted, sizeof(wanted), "%.0f MiB", mib(copies));
	report_check(n->copied == copies, "copied", wanted, "%.0f MiB", mib(n->copied));
	report_note("time per conversion", "%.0f ms (%.0f + %.0f first use)",
		    (n->convert_ns + n->touch_ns) / 1e6 / n->conversions,
		    n->convert_ns / 1e6 / n->conversions, n->touch_ns / 1e6 / n->conversions);
}

static void describe(struct experiment *e, const struct options *options)
{
	printf("gmem-vmm: guest of %.0f MiB, converts %.0f MiB there and back %u times,\n"
	       "%.0f MiB by one request\n", mib(options->size), mib(e->data_size),
	       options->rounds, mib(e->numbers.request_size));
	if (e->vm.mode == MODE_IN_PLACE)
		printf("mode in-place: guest_memfd is private and shared memory, page for page\n");
	else
		printf("mode per-vm: guest_memfd is private, a memfd is shared memory; the guest\n"
		       "copies what it converts, the VMM punches out the side left behind\n");
}

static void set_up(struct experiment *e, const struct options *options)
{
	struct vm *vm = &e->vm;

	probe_init();
	vm->owner = e;
	vm->on_exit = sample_memory;
	vm->on_busy = device_poll;
	vm_create(vm, options->mode, options->size);

	e->data_size = options->size - LOW_SIZE;
	e->nr_pages = e->data_size / PAGE_SIZE;
	e->words = vm_host_address(vm, DATA_GPA);
	e->page_table = calloc(e->nr_pages, sizeof(*e->page_table));
	e->page_table_now = calloc(e->nr_pages, sizeof(*e->page_table_now));
	if (!e->page_table || !e->page_table_now)
		die("no memory to record %zu page frames\n  try a smaller --size", e->nr_pages);

	e->numbers.mode = vm->mode;
	e->numbers.size = options->size;
	e->numbers.request_size = e->data_size;
	if (options->request_size && options->request_size < e->data_size)
		e->numbers.request_size = options->request_size;
	vm->mailbox->request_size = e->numbers.request_size;
}

/* Memory of a VM cannot be swapped out: better say so than be killed. */
static void check_available(struct experiment *e)
{
	__u64 needed = e->numbers.size, available = probe_available_memory();

	if (e->vm.mode == MODE_PER_VM)
		needed += e->numbers.request_size;
	if (needed > available)
		die("this takes %.0f MiB of memory and %.0f MiB are available\n"
		    "  try a smaller --size, or in mode per-vm a smaller --chunk",
		    mib(needed), mib(available));
}

/* All memory exists, is shared, and is mapped by both sides: that is "before". */
static void start(struct experiment *e)
{
	fill_pattern(e->words, DATA_GPA, e->data_size, 0);
	vm_prefault(&e->vm, DATA_GPA, e->data_size);
	if (e->vm.window)
		vm_prefault(&e->vm, DATA_GPA + e->vm.window, e->data_size);
	guest(e, GUEST_TOUCH, 0);

	probe_page_table(e->words, e->nr_pages, e->page_table);
	sample_before(e);
}

static void run(struct experiment *e, const struct options *options)
{
	unsigned int round;

	set_up(e, options);
	check_available(e);
	describe(e, options);

	start(e);

	if (e->vm.mode == MODE_IN_PLACE)
		show_busy_page(e);
	for (round = 0; round < options->rounds; round++)
		do_round(e, round);

	e->numbers.after = backing_memory(&e->vm);
	e->numbers.requests = e->vm.requests;
	e->numbers.copied = e->vm.mailbox->copied;

	report_contents(e);
	report_protection(e);
	report_frames(e);
	report_costs(e);

	vm_destroy(&e->vm);
	free(e->page_table);
	free(e->page_table_now);
}

/* Before the run: it would be a pity to find out afterwards. */
static void load_earlier_runs(struct numbers *runs, const struct options *options)
{
	int i;

	for (i = 0; i < options->nr_compare; i++) {
		numbers_load(&runs[i], options->compare[i]);
		if (runs[i].size != options->size)
			die("%s is about a guest of %.0f MiB, this run about one of %.0f MiB\n"
			    "  use the same --size for both", options->compare[i],
			    mib(runs[i].size), mib(options->size));
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
	      "  --size SIZE     memory of the guest (default 256M)\n"
	      "  --chunk SIZE    how much the guest converts by one request (default: everything;\n"
	      "                  per-vm holds that much twice)\n"
	      "  --rounds N      conversions there and back (default 3)\n"
	      "  --save FILE     keep the numbers for a later --compare\n"
	      "  --compare FILE  show them beside this run's; up to 4 times\n"
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

static unsigned int parse_rounds(const char *text)
{
	bool valid;
	__u64 rounds = parse_number(text, false, &valid);

	if (!valid || !rounds || rounds > 1000)
		bad_usage("rounds", text, "1 to 1000");
	return rounds;
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
		{ "chunk",	required_argument,	NULL, 'c' },
		{ "rounds",	required_argument,	NULL, 'r' },
		{ "save",	required_argument,	NULL, 'S' },
		{ "compare",	required_argument,	NULL, 'C' },
		{ "help",	no_argument,		NULL, 'h' },
		{ }
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'm':
			options->mode = parse_mode(optarg);
			break;
		case 's':
			options->size = parse_size("size", optarg, 4 * MIB, PAGE_SIZE,
						   "4M to 64G, a multiple of 4K");
			break;
		case 'c':
			options->request_size = parse_size("chunk", optarg, MIB, PAGE_SIZE,
							   "1M to 64G, a multiple of 4K");
			break;
		case 'r':
			options->rounds = parse_rounds(optarg);
			break;
		case 'S':
			options->save = optarg;
			break;
		case 'C':
			add_compare(options, optarg);
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
}

int main(int argc, char **argv)
{
	static struct experiment experiment;
	struct options options = { .size = 256 * MIB, .rounds = 3 };
	struct numbers runs[MAX_COMPARE + 1];

	parse_options(&options, argc, argv);
	load_earlier_runs(runs, &options);
	run(&experiment, &options);

	if (options.save)
		numbers_save(&experiment.numbers, options.save);
	if (options.nr_compare) {
		runs[options.nr_compare] = experiment.numbers;
		numbers_compare(runs, options.nr_compare + 1);
	}

	printf("\n%s\n", report_all_ok() ? "All checks held." : "Some checks FAILED.");
	return report_all_ok() ? 0 : 1;
}
