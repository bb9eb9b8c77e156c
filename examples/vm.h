/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A software-protected VM with one vCPU whose memory the guest can make private
 * and shared: the part of the example to start a VMM from.
 */
#ifndef VM_H
#define VM_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/kvm.h>
#include <linux/types.h>

#include "guest-abi.h"

#define PAGE_SIZE	4096UL

/* Who keeps track of what is private. */
enum mode {
	MODE_AUTO,
	MODE_IN_PLACE,	/* guest_memfd, page by page; it is both kinds of memory */
	MODE_PER_VM,	/* the VM, gfn by gfn; guest_memfd is only private memory */
};

struct memslot {
	__u64 gpa;
	__u64 size;
	__u64 offset;		/* in both backings */
	bool convertible;	/* has guest_memfd */
};

struct vm {
	enum mode mode;
	__u64 size;		/* of all guest memory */

	int kvm_fd;
	int fd;
	int vcpu_fd;
	int gmem_fd;		/* guest_memfd */
	int shared_fd;		/* memfd for shared memory, -1 in MODE_IN_PLACE */

	void *ram;		/* shared memory as the host sees it */
	struct memslot slots[3];
	int nr_slots;
	__u64 window;		/* see struct guest_mailbox */

	struct kvm_run *run;
	struct guest_mailbox *mailbox;

	/* Called at every exit to the VMM before it is served. */
	void (*on_exit)(struct vm *vm);
	/* Called while @offset of guest_memfd is in use and cannot become private. */
	void (*on_busy)(struct vm *vm, __u64 offset);
	void *owner;		/* for the callbacks */

	__u64 requests;		/* conversions the guest asked for */
	__u64 retries;		/* after EAGAIN */
};

const char *mode_name(enum mode mode);

/* These exit with a message if the VM cannot be made or run. */
void vm_create(struct vm *vm, enum mode wanted, __u64 size);
void vm_destroy(struct vm *vm);

/* Have the guest carry out a command on a range; returns its result. */
__u64 vm_command(struct vm *vm, enum guest_command command, __u64 gpa, __u64 size);

/* Host address of shared guest memory. */
void *vm_host_address(struct vm *vm, __u64 gpa);

/* Map memory into the guest at once instead of page by page when it is used. */
void vm_prefault(struct vm *vm, __u64 gpa, __u64 size);

/* MODE_PER_VM: free the shared side of a range which has become private. */
void vm_release_shared(struct vm *vm, __u64 gpa, __u64 size);

/* Print what failed (%m is errno) and what to do next; exit status 2. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif /* VM_H */
