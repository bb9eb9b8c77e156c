// SPDX-License-Identifier: GPL-2.0
/*
 * Have the small guest convert all of its data there and back a few times, look
 * from both sides at what became of it, and report that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "experiment.h"
#include "probe.h"
#include "small.h"
#include "stats.h"
#include "trace.h"

#define MIB		(1ULL << 20)
#define TOUCH_STEP	MIB	/* the host tries one page of so many bytes */

/* Somebody in the host who holds a page: I/O in flight, in miniature. */
struct pin {
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
	struct small_guest guest;
	struct pin pin;
	struct findings found;
	struct numbers numbers;
	pthread_mutex_t sampling;
	__u64 least;		/* memory in the backings: like numbers.peak */
	__u64 machine_before;	/* memory of the whole machine */
	__u64 sampling_ns;	/* time spent on measuring, not on converting */
	size_t nr_pages;
	__u64 *page_table;	/* the host's page table entries before */
	__u64 *page_table_now;
};

/* For callbacks: vm->owner is the small guest. */
static struct experiment *experiment_of(struct vm *vm)
{
	return vm->owner - offsetof(struct experiment, guest);
}

/* Memory the VM's backings hold together. */
static __u64 backing_memory(struct vm *vm)
{
	__u64 gmem = probe_file_memory(vm->gmem_fd), other = 0;

	if (vm->shared_fd >= 0)
		other = probe_file_memory(vm->shared_fd);
	trace_memory(gmem, other);
	return gmem + other;
}

/*
 * Called at every exit before it is served.  The only thing that makes backings
 * shrink is serving an exit, so this sees the peak, whatever requests there are.
 *
 * The machine's memory is there to show that nothing big has been left out, like
 * page tables.  It is everybody's, so no check depends on it.
 */
static void sample_memory(struct vcpu *vcpu)
{
	struct experiment *e = experiment_of(vcpu->vm);
	__u64 start = probe_clock_ns(), held, machine;

	pthread_mutex_lock(&e->sampling);
	held = backing_memory(vcpu->vm);
	machine = probe_machine_memory();
	if (held > e->numbers.peak)
		e->numbers.peak = held;
	if (held < e->least)
		e->least = held;
	if (machine > e->machine_before + e->numbers.machine_rise)
		e->numbers.machine_rise = machine - e->machine_before;
	/* All vCPUs do this at the same time. */
	e->sampling_ns += (probe_clock_ns() - start) / vcpu->vm->nr_vcpus;
	pthread_mutex_unlock(&e->sampling);
}

static void sample_before(struct experiment *e)
{
	e->numbers.before = backing_memory(&e->guest.vm);
	e->numbers.peak = e->numbers.before;
	e->least = e->numbers.before;
	e->machine_before = probe_machine_memory();
	e->numbers.machine_rise = 0;
}

/* Have the guest do something with its data; if it cannot there is no going on. */
static void guest(struct experiment *e, enum guest_command command, __u64 seed)
{
	__u64 result = small_command(&e->guest, command, seed);

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

	for (i = 0; i < e->guest.data_size / 8; i += PAGE_SIZE / 8)
		(void)*(volatile __u64 *)&e->guest.data[i];
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
static void pin_page(struct pin *pin, void *page, int polls)
{
	struct iovec iov = { .iov_base = page, .iov_len = PAGE_SIZE };

	if (pipe2(pin->pipe, O_CLOEXEC))
		die("cannot create a pipe: %m");
	if (vmsplice(pin->pipe[1], &iov, 1, 0) != PAGE_SIZE)
		die("cannot refer to a page of guest memory: vmsplice: %m");
	pin->polls_left = polls;
}

static void unpin_page(struct pin *pin)
{
	char page[PAGE_SIZE];

	if (read(pin->pipe[0], page, sizeof(page)) != sizeof(page))
		die("cannot read from a pipe: %m");
	close(pin->pipe[0]);
	close(pin->pipe[1]);
}

/* The VMM is waiting for a page: give the devices a chance to finish. */
static void poll_pin(struct vm *vm, __u64 offset)
{
	struct pin *pin = &experiment_of(vm)->pin;

	pin->busy_offset = offset;
	if (pin->polls_left && !--pin->polls_left)
		unpin_page(pin);
}

static __u64 private_in_kernel(struct experiment *e)
{
	struct gmem_state state;

	if (!stats_state(getpid(), e->guest.vm.gmem_fd, &state))
		die("/proc/self/fdinfo does not tell about guest_memfd\n"
		    "  needed: a kernel that has all of the series");
	return state.private;
}

/*
 * The page is in the request of the first vCPU, and in its second part, as two
 * memslots make it two conversions.  The other vCPUs do not notice.
 */
static void show_pinned_page(struct experiment *e)
{
	__u64 at = e->guest.data_size / 8 * 3 / PAGE_SIZE * PAGE_SIZE, others, result;
	__u64 offset = small_file_offset(&e->guest, at);
	void *page = (void *)e->guest.data + at;
	struct vm *vm = &e->guest.vm;
	struct pin *pin = &e->pin;

	report_heading("while a device uses a page");
	trace_phase("page in use");
	pin_page(pin, page, 2);
	guest(e, GUEST_TO_PRIVATE, 0);
	report_check(pin->busy_offset == offset && vm->retries == 2,
		     "conversion to private waits for it", "2 x EAGAIN, there",
		     "%llu x EAGAIN, %s", vm->retries,
		     pin->busy_offset == offset ? "there" : "elsewhere");
	guest(e, GUEST_TO_SHARED, 0);

	/* For good. */
	pin_page(pin, page, 0);
	result = small_command(&e->guest, GUEST_TO_PRIVATE, 0);
	others = e->guest.data_size - small_mailbox(&vm->vcpus[0])->size;
	report_check(result == EAGAIN && vm->given_up == 1, "but not forever",
		     "guest is told EAGAIN", "%s, after %llu x", result == EAGAIN ? "EAGAIN" :
		     result ? strerror(result) : "done", vm->retries);
	report_check(private_in_kernel(e) == others, "and nothing of the request is done",
		     "0 MiB private", "%.0f MiB private", mib(private_in_kernel(e) - others));
	unpin_page(pin);
	guest(e, GUEST_TO_SHARED, 0);
	vm->requests = 0;		/* these do not belong to the rounds */
}

/*
 * Try to read and to change what the guest has made private.  In place that is
 * SIGBUS.  With two backings nothing stops the host: it gets another page,
 * which costs memory and is not the guest's.
 */
static void host_touches_private(struct experiment *e, __u64 seed)
{
	__u64 before = backing_memory(&e->guest.vm), offset, value;
	size_t i;

	probe_page_table(e->guest.data, e->nr_pages, e->page_table_now);
	for (i = 0; i < e->nr_pages; i++)
		e->found.mapped += probe_mapped(e->page_table_now[i]);

	for (offset = 0; offset < e->guest.data_size; offset += TOUCH_STEP) {
		__u64 *word = &e->guest.data[offset / 8];

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

	e->found.wasted += backing_memory(&e->guest.vm) - before;
	if (e->guest.vm.mode == MODE_IN_PLACE)
		return;
	for (offset = 0; offset < e->guest.data_size; offset += TOUCH_STEP)
		vm_release_shared(&e->guest.vm, DATA_GPA + offset, PAGE_SIZE);
}

static void guest_checks(struct experiment *e, __u64 seed)
{
	int i;

	guest(e, GUEST_CHECK, seed);
	for (i = 0; i < e->guest.vm.nr_vcpus; i++) {
		struct guest_mailbox *mailbox = small_mailbox(&e->guest.vm.vcpus[i]);

		if (mailbox->bad_words && !e->found.first_bad_gpa)
			e->found.first_bad_gpa = mailbox->first_bad_gpa;
		e->found.guest_bad += mailbox->bad_words;
	}
}

static void host_checks(struct experiment *e, __u64 seed)
{
	__u64 bad, first_bad_gpa = 0;

	bad = check_pattern(e->guest.data, DATA_GPA, e->guest.data_size, seed, &first_bad_gpa);
	if (bad && !e->found.first_bad_gpa)
		e->found.first_bad_gpa = first_bad_gpa;
	e->found.host_bad += bad;
}

static void compare_frames(struct experiment *e)
{
	size_t i;

	probe_page_table(e->guest.data, e->nr_pages, e->page_table_now);
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

	fill_pattern(e->guest.data, DATA_GPA, e->guest.data_size, from_host);
	convert(e, GUEST_TO_PRIVATE);
	host_touches_private(e, from_host);
	guest_checks(e, from_host);		/* also that the host changed nothing */

	guest(e, GUEST_FILL, from_guest);
	convert(e, GUEST_TO_SHARED);
	compare_frames(e);
	host_checks(e, from_guest);

	e->found.words += e->guest.data_size / 8;
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
	if (e->guest.vm.mode == MODE_IN_PLACE)
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
	} else if (e->guest.vm.mode == MODE_PER_VM) {
		report_note("page frames, before and after", "%llu of %llu the same",
			    found->frames_same, found->frames);
	} else {
		snprintf(wanted, sizeof(wanted), "%llu the same", found->frames);
		report_check(found->frames_same == found->frames, "page frames, before and after",
			     wanted, "%llu the same", found->frames_same);
	}

	if (e->guest.vm.mode == MODE_PER_VM)
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
	if (e->guest.vm.mode == MODE_PER_VM) {
		limit += n->request_size * e->guest.vm.nr_vcpus;
		copies = n->conversions * e->guest.data_size;
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

static void describe(struct experiment *e, const struct experiment_options *options)
{
	printf("gmem-vmm: guest of %.0f MiB, %d vCPUs, converts %.0f MiB there and back %u times,\n"
	       "each vCPU its part of it, %.0f MiB by one request\n", mib(options->size),
	       options->nr_vcpus, mib(e->guest.data_size), options->rounds,
	       mib(e->numbers.request_size));
	if (e->guest.vm.mode == MODE_IN_PLACE)
		printf("mode in-place: guest_memfd is private and shared memory, page for page\n");
	else
		printf("mode per-vm: guest_memfd is private, a memfd is shared memory; the guest\n"
		       "copies what it converts, the VMM punches out the side left behind\n");
}

static void trace_conversion(struct vm *vm, __u64 offset, __u64 size, bool to_private)
{
	(void)vm;
	trace_convert(offset, size, to_private);
}

static void set_up(struct experiment *e, const struct experiment_options *options)
{
	struct small_guest *guest = &e->guest;
	__u64 share;

	probe_init();
	pthread_mutex_init(&e->sampling, NULL);
	guest->vm.on_exit = sample_memory;
	guest->vm.on_busy = poll_pin;
	guest->vm.on_converted = trace_conversion;
	small_create(guest, options->mode, options->size, options->nr_vcpus);

	e->nr_pages = guest->data_size / PAGE_SIZE;
	e->page_table = calloc(e->nr_pages, sizeof(*e->page_table));
	e->page_table_now = calloc(e->nr_pages, sizeof(*e->page_table_now));
	if (!e->page_table || !e->page_table_now)
		die("no memory to record %zu page frames\n  try a smaller --size", e->nr_pages);

	share = guest->data_size / options->nr_vcpus;
	if (options->request_size && options->request_size < share)
		guest->request_size = options->request_size;
	e->numbers.mode = guest->vm.mode;
	e->numbers.size = options->size;
	e->numbers.request_size = guest->request_size < share ? guest->request_size : share;
}

/* Memory of a VM cannot be swapped out: better say so than be killed. */
static void check_available(struct experiment *e)
{
	__u64 needed = e->numbers.size, available = probe_available_memory();

	if (e->guest.vm.mode == MODE_PER_VM)
		needed += e->numbers.request_size * e->guest.vm.nr_vcpus;
	if (needed > available)
		die("this takes %.0f MiB of memory and %.0f MiB are available\n"
		    "  try a smaller --size, or in mode per-vm a smaller --chunk",
		    mib(needed), mib(available));
}

/* All memory exists, is shared, and is mapped by both sides: that is "before". */
static void start(struct experiment *e, const char *trace)
{
	struct small_guest *small = &e->guest;

	fill_pattern(small->data, DATA_GPA, small->data_size, 0);
	vcpu_prefault(small->vm.vcpus, DATA_GPA, small->data_size);
	if (small->window)
		vcpu_prefault(small->vm.vcpus, DATA_GPA + small->window, small->data_size);
	guest(e, GUEST_TOUCH, 0);

	probe_page_table(small->data, e->nr_pages, e->page_table);
	if (trace)
		trace_open(trace, mode_name(small->vm.mode), small->vm.size);
	sample_before(e);
}

void experiment_run(const struct experiment_options *options, struct numbers *numbers)
{
	static struct experiment experiment;
	struct experiment *e = &experiment;
	unsigned int round;
	char phase[32];

	set_up(e, options);
	check_available(e);
	describe(e, options);

	start(e, options->trace);

	if (e->guest.vm.mode == MODE_IN_PLACE)
		show_pinned_page(e);
	for (round = 0; round < options->rounds; round++) {
		snprintf(phase, sizeof(phase), "round %u", round + 1);
		trace_phase(phase);
		do_round(e, round);
	}

	e->numbers.after = backing_memory(&e->guest.vm);
	e->numbers.requests = e->guest.vm.requests;
	e->numbers.copied = small_copied(&e->guest);
	trace_close();

	report_contents(e);
	report_protection(e);
	report_frames(e);
	report_costs(e);
	if (e->guest.vm.mode == MODE_IN_PLACE)
		stats_report(&e->guest.vm);

	small_destroy(&e->guest);
	free(e->page_table);
	free(e->page_table_now);
	*numbers = e->numbers;
}
