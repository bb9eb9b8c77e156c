// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <string.h>

#include "small.h"

#define GIB		(1UL << 30)
#define HUGE_SIZE	0x200000UL

#define PTE_TABLE	0x3UL	/* present, writable */
#define PTE_2M_PAGE	0x83UL

/* guest-image.S */
extern const char guest_image[], guest_image_end[];

struct guest_mailbox *small_mailbox(struct vcpu *vcpu)
{
	return vm_host_address(vcpu->vm, MAILBOX_GPA + vcpu->id * PAGE_SIZE, PAGE_SIZE);
}

/*
 * The data is one range for the guest and two slots, as memory often is, and
 * what comes first in one need not in the other:
 *
 *	guest:		low	      first	second
 *	guest_memfd:	low	second		       first
 */
static void add_slots(struct small_guest *guest)
{
	struct vm *vm = &guest->vm;
	__u64 first = guest->data_size / 4 / HUGE_SIZE * HUGE_SIZE;
	__u64 second = guest->data_size - first;

	vm_add_slot(vm, LOW_GPA, LOW_SIZE, 0, NULL);
	if (first)
		vm_add_slot(vm, DATA_GPA, first, LOW_SIZE + second, NULL);
	vm_add_slot(vm, DATA_GPA + first, second, LOW_SIZE, NULL);

	if (vm->mode == MODE_IN_PLACE)
		return;

	/*
	 * The guest has to copy what it converts, as only it can read private
	 * memory.  A second view of the shared side lets it do so with one
	 * copy.  That is the best case for this mode: a guest that sees a page
	 * either private or shared needs a bounce buffer and two copies.
	 */
	guest->window = (guest->data_size + GIB - 1) / GIB * GIB;
	vm_add_alias(vm, DATA_GPA + guest->window, guest->data_size, DATA_GPA);
}

static void load_guest(struct small_guest *guest)
{
	size_t size = guest_image_end - guest_image;

	if (size > GUEST_MAX_SIZE)
		die("the guest's image of %zu bytes is too large", size);
	memcpy(vm_host_address(&guest->vm, GUEST_GPA, size), guest_image, size);
}

/* Map all guest physical memory at its own address, with 2 MiB pages. */
static void build_page_tables(struct small_guest *guest)
{
	__u64 end = DATA_GPA + guest->window + guest->data_size;
	__u64 nr_gib = (end + GIB - 1) / GIB, i;
	__u64 *pml4, *pdpt, *pd;

	if (nr_gib > 512 || PAGE_TABLES_GPA + (2 + nr_gib) * PAGE_SIZE > LOW_SIZE)
		die("no room for page tables of a guest of %llu bytes\n  try a smaller --size",
		    guest->vm.size);

	pml4 = vm_host_address(&guest->vm, PAGE_TABLES_GPA, (2 + nr_gib) * PAGE_SIZE);
	pdpt = pml4 + 512;
	pd = pdpt + 512;
	pml4[0] = (PAGE_TABLES_GPA + PAGE_SIZE) | PTE_TABLE;
	for (i = 0; i < nr_gib; i++)
		pdpt[i] = (PAGE_TABLES_GPA + (2 + i) * PAGE_SIZE) | PTE_TABLE;
	for (i = 0; i < nr_gib * 512; i++)
		pd[i] = i << 21 | PTE_2M_PAGE;
}

static bool serve_io(struct vcpu *vcpu, __u16 port, void *data, int size, bool is_write)
{
	struct guest_mailbox *mailbox = small_mailbox(vcpu);
	struct small_guest *guest = vcpu->vm->owner;

	(void)data;
	(void)size;
	if (is_write && port == PORT_DONE)
		return false;
	if (is_write && port == PORT_PREPARE) {
		vcpu_prefault(vcpu, mailbox->side_gpa + guest->window, mailbox->side_size);
	} else if (is_write && port == PORT_RELEASE) {
		vm_release_shared(vcpu->vm, mailbox->side_gpa, mailbox->side_size);
		/* This has unmapped the private side as well: it is at the same gpa. */
		vcpu_prefault(vcpu, mailbox->side_gpa, mailbox->side_size);
	} else {
		die("guest used port %#x", port);
	}
	return true;
}

/* One command after another. */
static void *vcpu_thread(void *argument)
{
	struct vcpu *vcpu = argument;

	for (;;) {
		sem_wait(&vcpu->go);
		if (vcpu->vm->stopping)
			return NULL;
		vcpu_run(vcpu);
		sem_post(&vcpu->idle);
	}
}

static void create_vcpus(struct small_guest *guest, int nr)
{
	struct vcpu *vcpu;

	vm_create_vcpus(&guest->vm, nr);
	for (vcpu = guest->vm.vcpus; vcpu < guest->vm.vcpus + nr; vcpu++) {
		struct kvm_regs regs = {
			.rip	= GUEST_GPA,
			.rsp	= GUEST_STACKS_GPA + (vcpu->id + 1) * PAGE_SIZE - 8,
			.rdi	= MAILBOX_GPA + vcpu->id * PAGE_SIZE,	/* guest_main()'s argument */
			.rflags	= 0x2,
		};

		vcpu_set_long_mode(vcpu, &regs, PAGE_TABLES_GPA);
	}
	vm_start_vcpus(&guest->vm, vcpu_thread);
}

void small_create(struct small_guest *guest, enum mode wanted, __u64 size, int nr_vcpus)
{
	struct vm *vm = &guest->vm;

	vm->owner = guest;
	vm->on_io = serve_io;
	vm_create(vm, wanted, size);
	guest->data_size = size - LOW_SIZE;
	guest->request_size = guest->data_size;
	add_slots(guest);
	guest->data = vm_host_address(vm, DATA_GPA, PAGE_SIZE);
	load_guest(guest);
	build_page_tables(guest);
	create_vcpus(guest, nr_vcpus);
}

void small_destroy(struct small_guest *guest)
{
	struct vcpu *vcpu;

	vm_stop(&guest->vm);
	for (vcpu = guest->vm.vcpus; vcpu < guest->vm.vcpus + guest->vm.nr_vcpus; vcpu++)
		sem_post(&vcpu->go);
	vm_join_vcpus(&guest->vm);
	vm_destroy(&guest->vm);
}

__u64 small_command(struct small_guest *guest, enum guest_command command, __u64 seed)
{
	struct vm *vm = &guest->vm;
	__u64 share = guest->data_size / vm->nr_vcpus / PAGE_SIZE * PAGE_SIZE, result = GUEST_OK;
	struct vcpu *vcpu, *last = vm->vcpus + vm->nr_vcpus - 1;

	for (vcpu = vm->vcpus; vcpu <= last; vcpu++) {
		struct guest_mailbox *mailbox = small_mailbox(vcpu);

		mailbox->command = command;
		mailbox->gpa = DATA_GPA + vcpu->id * share;
		mailbox->size = vcpu == last ? guest->data_size - vcpu->id * share : share;
		mailbox->request_size = guest->request_size;
		mailbox->seed = seed;
		mailbox->window = guest->window;
		sem_post(&vcpu->go);
	}
	for (vcpu = vm->vcpus; vcpu <= last; vcpu++) {
		sem_wait(&vcpu->idle);
		result = result ?: small_mailbox(vcpu)->result;
	}
	return result;
}

__u64 small_copied(struct small_guest *guest)
{
	__u64 bytes = 0;
	int i;

	for (i = 0; i < guest->vm.nr_vcpus; i++)
		bytes += small_mailbox(&guest->vm.vcpus[i])->copied;
	return bytes;
}

__u64 small_file_offset(struct small_guest *guest, __u64 offset)
{
	struct memslot *slot = guest->vm.slots;

	while (slot->host + slot->size <= (void *)guest->data + offset)
		slot++;
	return slot->offset + ((void *)guest->data + offset - slot->host);
}
