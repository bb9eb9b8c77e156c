/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the example VMM and its guest have agreed on: where things are in guest
 * memory, how the guest is told what to do, and what the test data looks like.
 */
#ifndef GUEST_ABI_H
#define GUEST_ABI_H

#include <linux/types.h>

/*
 * The low slot: everything the guest needs in order to run at all.  It is
 * never converted, so that the VMM can load it and talk through it in both
 * modes.  (A confidential guest keeps only the mailbox shared.)
 */
#define LOW_GPA			0x0UL
#define LOW_SIZE		0x200000UL
#define MAILBOX_GPA		0x1000UL
#define GUEST_GPA		0x2000UL	/* also in guest.lds */
#define GUEST_STACK_TOP		0x10000UL	/* the stack grows down to the image */
#define PAGE_TABLES_GPA		0x10000UL	/* up to LOW_SIZE */

/* The data slot: the rest of the guest's memory, which it converts. */
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
	 * data slot is then always visible at gpa + window as well.
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
