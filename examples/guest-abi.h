/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the example VMM and its guests have agreed on: where things are in guest
 * memory, how a guest is told what to do, how it asks the VMM for something, and
 * what the test data looks like.
 */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H

#include <linux/types.h>

/*
 * The low slot is never converted.  It has what a guest needs in order to run
 * at all, and what the VMM and KVM must be able to read.
 */
#define LOW_GPA			0x0UL
#define LOW_SIZE		0x200000UL

/* ----- The small guest (guest.c) ----- */

/* Mailbox and stack are one page for each vCPU, and it finds its mailbox in RDI. */
#define MAILBOX_GPA		0x1000UL
#define GUEST_GPA		0x8000UL	/* also in guest.lds */
#define GUEST_MAX_SIZE		0x8000UL
#define GUEST_STACKS_GPA	0x10000UL
#define PAGE_TABLES_GPA		0x20000UL	/* up to LOW_SIZE */

/* The rest of the guest's memory, which it converts: two slots, but one range. */
#define DATA_GPA		0x100000000UL

/* Ports the guest writes to; the value does not matter. */
#define PORT_DONE		0x500	/* command carried out, see mailbox */
/* The same, if the guest has to copy, about the shared memory of side_*: */
#define PORT_PREPARE		0x504	/* it will be written next */
#define PORT_RELEASE		0x508	/* it has been copied and may be freed */

enum guest_command {
	GUEST_TO_PRIVATE,	/* convert the range, in requests of request_size */
	GUEST_TO_SHARED,
	GUEST_TOUCH,		/* read one word of every page */
	GUEST_FILL,		/* write the pattern of seed */
	GUEST_CHECK,		/* compare with the pattern of seed */
};

/* Guest's answer if not the result of a failed hypercall. */
#define GUEST_OK		0
#define GUEST_NO_HYPERCALL	1000	/* CPUID does not offer KVM_HC_MAP_GPA_RANGE */

struct guest_mailbox {
	/* From the VMM. */
	__u64 command;
	__u64 gpa;		/* what to work on */
	__u64 size;
	__u64 request_size;	/* bytes to convert by one hypercall */
	__u64 seed;
	/*
	 * 0 if contents survive a conversion.  Otherwise they do not, and the
	 * guest has to carry them over: the shared memory behind any gpa of the
	 * data is then always visible at gpa + window as well.
	 */
	__u64 window;

	/* From the guest. */
	__u64 result;
	__u64 bad_words;	/* GUEST_CHECK: how many, and where the first is */
	__u64 first_bad_gpa;
	__u64 copied;		/* bytes copied for conversions since the start */
	__u64 side_gpa;		/* PORT_PREPARE, PORT_RELEASE */
	__u64 side_size;
};

/* ----- Linux, whose first process is guest-linux.c ----- */

/*
 * Conversion.  This stands in for KVM_HC_MAP_GPA_RANGE, which is for kernels:
 * user space of the guest has ports only.  Write address and number of pages,
 * then 1 for private or 0 for shared, and read the result, 0 or an errno.  One
 * at a time, which is up to the guest.
 */
#define PORT_CONVERT_PFN	0x510
#define PORT_CONVERT_PAGES	0x514
#define PORT_CONVERT		0x518

/* The ring is at this page frame from now on.  The result reads as above. */
#define PORT_RING		0x51c
/* There are new requests in the ring. */
#define PORT_KICK		0x520
/* The end; the value is the number of errors that the guest has found. */
#define PORT_EXIT		0x524

/*
 * The ring is in one page, as are virtqueues: requests that the guest makes, in
 * memory that both sides can write.  Nothing here points to anything, all
 * addresses are physical, and both sides had better read everything just once.
 */
#define RING_ENTRIES		32U

enum ring_operation {
	RING_READ,		/* read sector of the disk to the buffer */
	RING_FILL,		/* host writes the pattern of seed to the buffer */
	RING_CHECK,		/* host compares with the pattern of seed */
	RING_INTRUDE,		/* host tries to touch the buffer, which is private */
};

/* Answers: */
#define RING_OK			0
#define RING_REFUSED		1	/* the buffer is not shared memory, or no request */
#define RING_BAD		2	/* not the pattern; could touch private memory */

struct ring_entry {
	__u64 gpa;		/* the buffer */
	__u32 size;
	__u16 operation;
	__u16 result;		/* from the host */
	__u64 seed;		/* or sector */
};

struct ring {
	__u32 posted;		/* entries, by the guest since the start */
	__u32 done;		/* by the host */
	struct ring_entry entries[RING_ENTRIES];
};

#define SECTOR_SIZE		4096UL
#define DISK_SEED		0xd15cULL	/* sector n is this pattern at n * SECTOR_SIZE */

/* ----- Test data ----- */

/*
 * Every word is different, and depends on where it is, so that a page that is
 * lost, stale, or in the wrong place does not go unnoticed.
 */
static inline __u64 pattern(__u64 gpa, __u64 seed)
{
	return (gpa ^ (seed << 48)) * 0x9e3779b97f4a7c15ULL;
}

static inline void fill_pattern(__u64 *words, __u64 gpa, __u64 size, __u64 seed)
{
	__u64 i;

	for (i = 0; i < size / 8; i++)
		words[i] = pattern(gpa + i * 8, seed);
}

/* Returns the number of words that are not as fill_pattern() left them. */
static inline __u64 check_pattern(const __u64 *words, __u64 gpa, __u64 size, __u64 seed,
				  __u64 *first_bad_gpa)
{
	__u64 i, bad = 0;

	for (i = 0; i < size / 8; i++) {
		if (words[i] == pattern(gpa + i * 8, seed))
			continue;
		if (!bad++)
			*first_bad_gpa = gpa + i * 8;
	}
	return bad;
}

#endif /* GUEST_ABI_H */
