/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A software-protected VM whose memory the guest can make private and shared:
 * the part of the example to start a VMM from.
 */
#ifndef VM_H
#define VM_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <linux/kvm.h>
#include <linux/types.h>

#include "guest-abi.h"

#define PAGE_SIZE	4096UL
#define MAX_SLOTS	4
#define MAX_VCPUS	4

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
	void *host;		/* shared memory as the host sees it */
	bool convertible;	/* has guest_memfd */
};

/* The VMM's own record for each page of guest_memfd; the kernel has none to read. */
enum page_state {
	PAGE_SHARED,
	PAGE_PRIVATE,
	PAGE_LEAVING,		/* shared, but about to become private: hands off */
};

struct vcpu {
	struct vm *vm;
	int id;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	sem_t go, idle;		/* for threads that do one thing after another */
};

struct vm {
	enum mode mode;
	__u64 size;		/* of all guest memory */

	int kvm_fd;
	int fd;
	int gmem_fd;		/* guest_memfd */
	int shared_fd;		/* memfd for shared memory, -1 in MODE_IN_PLACE */
	int stats_fd;		/* see stats.c */

	void *ram;		/* shared memory, slot after slot */
	__u64 ram_used;		/* by slots so far */
	struct memslot slots[MAX_SLOTS];
	int nr_slots;

	struct vcpu vcpus[MAX_VCPUS];
	int nr_vcpus;
	bool stopping;

	pthread_mutex_t convert_lock;	/* one conversion at a time */
	pthread_mutex_t state_lock;	/* inside of it, for a short time */
	unsigned char *states;		/* enum page_state */

	/* Called at every exit to the VMM before it is served. */
	void (*on_exit)(struct vcpu *vcpu);
	/* Serves a port; false if the vCPU is to leave vcpu_run(). */
	bool (*on_io)(struct vcpu *vcpu, __u16 port, void *data, int size, bool is_write);
	/* KVM could not emulate an instruction; false if the VMM cannot either. */
	bool (*on_emulation_failure)(struct vcpu *vcpu);
	/* Called while @offset of guest_memfd is in use and cannot become private. */
	void (*on_busy)(struct vm *vm, __u64 offset);
	/* A range of guest_memfd has changed. */
	void (*on_converted)(struct vm *vm, __u64 offset, __u64 size, bool to_private);
	void *owner;		/* for the callbacks */

	__u64 requests;		/* conversions the guest asked for */
	__u64 refused;		/* of these, with EINVAL */
	__u64 pages_changed;	/* by conversions, undone ones included */
	__u64 retries;		/* after EAGAIN */
	__u64 given_up;		/* EAGAIN to the guest */
};

const char *mode_name(enum mode mode);

/* These exit with a message if something cannot be made. */
void vm_create(struct vm *vm, enum mode wanted, __u64 size);
void vm_destroy(struct vm *vm);

/*
 * Show [offset, offset + size) of the memory to the guest at @gpa.  @view is
 * what KVM's own accesses to it are to find, or NULL for the memory itself.
 */
void vm_add_slot(struct vm *vm, __u64 gpa, __u64 size, __u64 offset, void *view);

/* MODE_PER_VM: show the shared side of memory in a second place. */
void vm_add_alias(struct vm *vm, __u64 gpa, __u64 size, __u64 of);

void vm_create_vcpus(struct vm *vm, int nr);
/* A thread for each. */
void vm_start_vcpus(struct vm *vm, void *(*thread)(void *vcpu));
/* Make all vCPUs leave vcpu_run(); may be called by one of their threads. */
void vm_stop(struct vm *vm);
void vm_join_vcpus(struct vm *vm);

/* Into 64-bit mode, as if firmware and loader had run. */
void vcpu_set_long_mode(struct vcpu *vcpu, const struct kvm_regs *regs, __u64 cr3);
/* Run the vCPU, and serve what it wants, until on_io() or vm_stop() end it. */
void vcpu_run(struct vcpu *vcpu);

/* Convert for the guest.  Returns what to tell it: 0, EINVAL or EAGAIN. */
int vcpu_convert(struct vcpu *vcpu, __u64 gpa, __u64 nr_pages, bool to_private);

/* Convert memory that nobody uses, to launch the VM. */
void vm_make_private(struct vm *vm, __u64 gpa, __u64 size);

/*
 * Host address of guest memory of one slot, in whatever state it is.  If there is
 * no such memory the first returns NULL, the second is for where there must be.
 */
void *vm_find(struct vm *vm, __u64 gpa, __u64 size);
void *vm_host_address(struct vm *vm, __u64 gpa, __u64 size);

/*
 * For devices: host address of [gpa, gpa + size) if all of it is shared memory,
 * else NULL.  It cannot become private until it is given back, soon.
 */
void *vm_get_shared(struct vm *vm, __u64 gpa, __u64 size);
void vm_put_shared(struct vm *vm);

/* Bytes of guest_memfd that are private, as the VMM thinks. */
__u64 vm_private_bytes(struct vm *vm);

/* Map memory into the guest at once instead of page by page when it is used. */
void vcpu_prefault(struct vcpu *vcpu, __u64 gpa, __u64 size);

/* MODE_PER_VM: free the shared side of a range which has become private. */
void vm_release_shared(struct vm *vm, __u64 gpa, __u64 size);

/* Print what failed (%m is errno) and what to do next; exit status 2. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif /* VM_H */
