/* SPDX-License-Identifier: GPL-2.0 */
/* The device behind the ring of guest-abi.h. */
#ifndef DEVICE_H
#define DEVICE_H

#include "vm.h"

struct device {
	struct vm *vm;
	int kick_fd;		/* an eventfd that KVM signals for PORT_KICK */
	pthread_t thread;
	bool stopping;
	__u64 ring_gpa;		/* 0: none yet */

	/* What it has done. */
	__u64 requests;
	__u64 refused;		/* buffer not shared, or nonsense */
	__u64 bytes_read;
	__u64 bytes_exchanged;	/* by RING_FILL and RING_CHECK */
	__u64 bad_words;	/* RING_CHECK */
	__u64 touches;		/* RING_INTRUDE: accesses, and what became of them */
	__u64 sigbus;
	__u64 efault;
};

void device_create(struct device *device, struct vm *vm);
void device_destroy(struct device *device);

/* The guest says where the ring is.  Returns 0 or EINVAL. */
int device_set_ring(struct device *device, __u64 gpa);

#endif /* DEVICE_H */
