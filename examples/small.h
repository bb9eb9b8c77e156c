/* SPDX-License-Identifier: GPL-2.0 */
/* The small guest (guest.c): a VM that does what mailboxes in its memory say. */
#ifndef SMALL_H
#define SMALL_H

#include "vm.h"

struct small_guest {
	struct vm vm;
	__u64 data_size;
	__u64 *data;		/* as the host sees it */
	__u64 window;		/* see struct guest_mailbox */
	__u64 request_size;
	enum guest_command command;
	__u64 seed;
};

void small_create(struct small_guest *guest, enum mode wanted, __u64 size, int nr_vcpus);
void small_destroy(struct small_guest *guest);

struct guest_mailbox *small_mailbox(struct vcpu *vcpu);

/*
 * Have the guest carry out a command on its data, each vCPU on its part of it,
 * at the same time.  Returns the first result that is not GUEST_OK.
 */
__u64 small_command(struct small_guest *guest, enum guest_command command, __u64 seed);

/* Bytes that the guest has copied. */
__u64 small_copied(struct small_guest *guest);

/* Where in guest_memfd the data at @offset is. */
__u64 small_file_offset(struct small_guest *guest, __u64 offset);

#endif /* SMALL_H */
