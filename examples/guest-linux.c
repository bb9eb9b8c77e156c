// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of Linux as the guest, and the only one.  All memory is
 * private.  One thread for each CPU makes some of it shared and private again,
 * and has the host look at it, change it, and try to when it must not; another
 * one reads a disk through the ring meanwhile.
 *
 * A real guest's kernel does all that, in its DMA code.  Doing it in a process
 * takes huge pages, which stay where they are and are contiguous.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "guest-abi.h"

#define PAGE_SIZE	4096UL
#define HUGE_SIZE	0x200000UL
#define MAX_THREADS	4
#define COM1		0x3f8
#define ANSWER_SECONDS	30

struct huge_page {
	__u64 *words;
	__u64 gpa;
};

struct worker {
	pthread_t thread;
	int id;
	struct huge_page *pages;
	int nr_pages;
	unsigned int random;
	__u64 conversions;
};

static pthread_mutex_t port_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t ring_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ring *ring;
static __u64 bounce_gpa;
static __u64 *bounce;
static unsigned int nr_errors;
static bool workers_done;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	char text[160];
	va_list args;
	char *c;

	va_start(args, format);
	vsnprintf(text, sizeof(text) - 1, format, args);
	va_end(args);
	strcat(text, "\n");
	pthread_mutex_lock(&port_lock);
	for (c = text; *c; c++)
		outb(*c, COM1);
	pthread_mutex_unlock(&port_lock);
}

static void __attribute__((noreturn)) leave(void)
{
	outl(nr_errors, PORT_EXIT);
	for (;;)
		pause();
}

/* There is nobody to clean up after, and no use in going on. */
static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	char text[128];
	va_list args;
	int error = errno;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	say("FAILED: %s (errno %d)", text, error);
	__atomic_add_fetch(&nr_errors, 1, __ATOMIC_SEQ_CST);
	leave();
}

static void expect(bool ok, const char *what, __u64 gpa)
{
	if (ok)
		return;
	if (__atomic_add_fetch(&nr_errors, 1, __ATOMIC_SEQ_CST) <= 10)
		say("WRONG: %s, gpa %#llx", what, gpa);
}

/* Returns 0, EINVAL or EAGAIN. */
static int convert(__u64 gpa, __u64 size, bool to_private)
{
	int result;

	pthread_mutex_lock(&port_lock);
	outl(gpa / PAGE_SIZE, PORT_CONVERT_PFN);
	outl(size / PAGE_SIZE, PORT_CONVERT_PAGES);
	outl(to_private, PORT_CONVERT);
	result = inl(PORT_CONVERT);
	pthread_mutex_unlock(&port_lock);
	return result;
}

static void must_convert(__u64 gpa, __u64 size, bool to_private)
{
	int result = convert(gpa, size, to_private);

	if (result)
		fail("conversion of %#llx bytes at gpa %#llx: %s", size, gpa, strerror(result));
}

/* Have the host do something, and wait until it has. */
static int request(enum ring_operation operation, __u64 gpa, __u64 size, __u64 seed)
{
	struct timespec delay = { .tv_nsec = 200000 };
	struct ring_entry *entry;
	time_t deadline;
	int result;

	/* One at a time, although there is room for more. */
	pthread_mutex_lock(&ring_lock);
	entry = &ring->entries[ring->posted % RING_ENTRIES];
	entry->gpa = gpa;
	entry->size = size;
	entry->operation = operation;
	entry->seed = seed;
	__atomic_store_n(&ring->posted, ring->posted + 1, __ATOMIC_RELEASE);
	outl(0, PORT_KICK);
	deadline = time(NULL) + ANSWER_SECONDS;
	while (__atomic_load_n(&ring->done, __ATOMIC_ACQUIRE) != ring->posted) {
		if (time(NULL) > deadline)
			fail("no answer from the device, is the ring shared?");
		nanosleep(&delay, NULL);
	}
	result = entry->result;
	pthread_mutex_unlock(&ring_lock);
	return result;
}

static __u64 address_of(const void *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry;

	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)page / PAGE_SIZE * 8) != 8 ||
	    !(entry >> 63))
		fail("cannot find a page's physical address");
	close(fd);
	return (entry & ((1ULL << 55) - 1)) * PAGE_SIZE;
}

static void get_huge_page(struct huge_page *page)
{
	page->words = mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (page->words == MAP_FAILED)
		fail("no huge page");
	page->gpa = address_of(page->words);
}

static void expect_pattern(const struct huge_page *page, __u64 offset, __u64 size, __u64 seed)
{
	__u64 bad_gpa = 0;

	expect(!check_pattern(page->words + offset / 8, page->gpa + offset, size, seed, &bad_gpa),
	       "guest reads what was written", bad_gpa);
}

/*
 * Part of a page there and back: what the guest wrote is there for the host,
 * what the host wrote is there for the guest, and is out of the host's reach.
 */
static void exchange(struct worker *worker, struct huge_page *page, __u64 offset, __u64 size,
		     bool and_back)
{
	__u64 gpa = page->gpa + offset, seed = worker->conversions % 0x7000;

	fill_pattern(page->words + offset / 8, gpa, size, seed);
	must_convert(gpa, size, false);
	expect(request(RING_CHECK, gpa, size, seed) == RING_OK, "host reads the guest's", gpa);
	expect(request(RING_FILL, gpa, size, seed + 1) == RING_OK, "host writes", gpa);
	expect_pattern(page, offset, size, seed + 1);
	worker->conversions++;
	if (!and_back)
		return;

	must_convert(gpa, size, true);
	worker->conversions++;
	expect(request(RING_CHECK, gpa, size, seed + 1) == RING_REFUSED,
	       "device refuses a private buffer", gpa);
	expect(request(RING_INTRUDE, gpa, size, 0) == RING_OK, "private is private", gpa);
	expect_pattern(page, offset, size, seed + 1);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	cpu_set_t cpus;
	int i;

	CPU_ZERO(&cpus);
	CPU_SET(worker->id, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		fail("cannot run on CPU %d", worker->id);

	/* All of its memory, more and more of it shared. */
	for (i = 0; i < worker->nr_pages; i++)
		exchange(worker, &worker->pages[i], 0, HUGE_SIZE, false);
	while (i--) {
		must_convert(worker->pages[i].gpa, HUGE_SIZE, true);
		worker->conversions++;
	}

	/* Small parts, anywhere. */
	for (i = 0; i < 64; i++) {
		struct huge_page *page = &worker->pages[rand_r(&worker->random) % worker->nr_pages];
		__u64 pages = 1 + rand_r(&worker->random) % 16;
		__u64 first = rand_r(&worker->random) % (HUGE_SIZE / PAGE_SIZE - pages);

		exchange(worker, page, first * PAGE_SIZE, pages * PAGE_SIZE, true);
	}
	return NULL;
}

/* Returns how much has been read, into private memory by way of a shared buffer. */
static __u64 read_disk(void)
{
	static __u64 sector[SECTOR_SIZE / 8];
	__u64 n, first;

	for (n = 0; !__atomic_load_n(&workers_done, __ATOMIC_SEQ_CST); n++) {
		expect(request(RING_READ, bounce_gpa, SECTOR_SIZE, n) == RING_OK,
		       "device reads the disk", bounce_gpa);
		memcpy(sector, bounce, SECTOR_SIZE);
		expect(!check_pattern(sector, n * SECTOR_SIZE, SECTOR_SIZE, DISK_SEED, &first),
		       "disk has what it should", bounce_gpa);
	}
	return n * SECTOR_SIZE;
}

static void *disk_thread(void *bytes)
{
	*(__u64 *)bytes = read_disk();
	return NULL;
}

/* One page for the ring and one for the buffer, which stay shared. */
static void start_ring(struct huge_page *page)
{
	ring = (struct ring *)page->words;
	bounce = page->words + PAGE_SIZE / 8;
	bounce_gpa = page->gpa + PAGE_SIZE;
	must_convert(page->gpa, 2 * PAGE_SIZE, false);
	memset(ring, 0, sizeof(*ring));

	outl(page->gpa / PAGE_SIZE, PORT_RING);
	if (inl(PORT_RING))
		fail("the device does not take the ring");
}

static void expect_refusals(struct huge_page *page)
{
	expect(convert(0, PAGE_SIZE, true) == EINVAL, "low memory is not converted", 0);
	expect(convert(0xfee00000, PAGE_SIZE, false) == EINVAL, "a hole is not converted", 0);
	expect(convert(page->gpa, 0, false) == EINVAL, "nothing is not converted", page->gpa);
	expect(request(RING_READ, page->gpa + 2 * PAGE_SIZE, SECTOR_SIZE, 0) == RING_REFUSED,
	       "device refuses a private buffer", page->gpa);
	expect(request(RING_READ, 0, SECTOR_SIZE, 0) == RING_REFUSED,
	       "device refuses the low slot", 0);
}

int main(void)
{
	static struct worker workers[MAX_THREADS];
	static struct huge_page pages[16];
	int nr_cpus, nr_pages = 15, i;
	pthread_t disk;
	struct utsname uts;
	__u64 bytes_read = 0, conversions = 0;

	if (iopl(3))
		_exit(1);	/* the kernel panics: its init is gone */
	mkdir("/proc", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL))
		fail("cannot mount /proc");
	uname(&uts);
	nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (nr_cpus > MAX_THREADS)
		nr_cpus = MAX_THREADS;

	for (i = 0; i <= nr_pages; i++)
		get_huge_page(&pages[i]);
	start_ring(&pages[nr_pages]);
	expect_refusals(&pages[nr_pages]);
	say("%s %s, %d CPUs: user space runs", uts.sysname, uts.release, nr_cpus);

	pthread_create(&disk, NULL, disk_thread, &bytes_read);
	for (i = 0; i < nr_cpus; i++) {
		struct worker *worker = &workers[i];

		worker->id = worker->random = i;
		worker->nr_pages = nr_pages / nr_cpus;
		worker->pages = &pages[i * worker->nr_pages];
		pthread_create(&worker->thread, NULL, work, worker);
	}
	for (i = 0; i < nr_cpus; i++) {
		pthread_join(workers[i].thread, NULL);
		conversions += workers[i].conversions;
	}
	__atomic_store_n(&workers_done, true, __ATOMIC_SEQ_CST);
	pthread_join(disk, NULL);

	say("%llu conversions, %llu KiB of disk read, %u errors", conversions,
	    bytes_read / 1024, nr_errors);
	leave();
}
