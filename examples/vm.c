// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm_para.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

#define MAX_CPUID	256
#define BUSY_MS		2000	/* see convert_in_place() */
#define MAX_BACK_OFF	6

#define CR0_PE		(1UL << 0)
#define CR0_NE		(1UL << 5)
#define CR0_WP		(1UL << 16)
#define CR0_PG		(1UL << 31)
#define CR4_PAE		(1UL << 5)
#define EFER_LME	(1UL << 8)
#define EFER_LMA	(1UL << 10)

#define CPUID_TOPOLOGY	0xb
#define CPUID_AMD_TOPOLOGY 0x8000001e

const char *mode_name(enum mode mode)
{
	static const char * const names[] = {
		[MODE_AUTO]	= "auto",
		[MODE_IN_PLACE]	= "in-place",
		[MODE_PER_VM]	= "per-vm",
	};

	return names[mode];
}

/*
 * The kernel's answer to "who tracks what is private", asked of the VM: the
 * type of the VM matters.  At most one of the two is ever on.
 */
static bool has_attribute_private(struct vm *vm, int capability)
{
	int mask = ioctl(vm->fd, KVM_CHECK_EXTENSION, capability);

	return mask > 0 && (mask & KVM_MEMORY_ATTRIBUTE_PRIVATE);
}

static bool supports(struct vm *vm, enum mode mode)
{
	return has_attribute_private(vm, mode == MODE_IN_PLACE ?
				     KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES :
				     KVM_CAP_MEMORY_ATTRIBUTES);
}

static void pick_mode(struct vm *vm, enum mode wanted)
{
	if (wanted != MODE_PER_VM && supports(vm, MODE_IN_PLACE))
		vm->mode = MODE_IN_PLACE;
	else if (wanted != MODE_IN_PLACE && supports(vm, MODE_PER_VM))
		vm->mode = MODE_PER_VM;
	else if (wanted == MODE_IN_PLACE)
		die("this kernel does not convert guest_memfd in place\n"
		    "  needed: a kernel with the series, kvm loaded with gmem_in_place_conversion=1\n"
		    "  (see /sys/module/kvm/parameters/); or try --mode per-vm");
	else if (wanted == MODE_PER_VM)
		die("this kernel does not track private memory per VM\n"
		    "  needed: kvm loaded with gmem_in_place_conversion=0 and, if the kernel has\n"
		    "  the series, CONFIG_KVM_VM_MEMORY_ATTRIBUTES=y; or try --mode in-place");
	else
		die("this kernel does not track what is private, neither in guest_memfd nor per VM\n"
		    "  needed: kvm loaded with gmem_in_place_conversion=1 on a kernel with the series,\n"
		    "  or a kernel built with CONFIG_KVM_VM_MEMORY_ATTRIBUTES=y");
}

static void open_kvm(struct vm *vm)
{
	int types;

	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		die("cannot open /dev/kvm: %m\n"
		    "  needed: kvm_amd or kvm_intel loaded, and permission to use the device");

	types = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES);
	if (types < 0 || !(types & (1 << KVM_X86_SW_PROTECTED_VM)))
		die("this kernel has no software-protected VMs\n"
		    "  needed: CONFIG_KVM_SW_PROTECTED_VM=y, and nested paging (NPT or EPT) enabled");

	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
	if (vm->fd < 0)
		die("cannot create a software-protected VM: %m");

	/* Optional: only for statistics. */
	vm->stats_fd = ioctl(vm->fd, KVM_GET_STATS_FD, NULL);
}

static void create_guest_memfd(struct vm *vm, __u64 flags)
{
	struct kvm_create_guest_memfd args = { .size = vm->size, .flags = flags };
	int known = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS);

	if (known < 0 || (known & flags) != flags)
		die("guest_memfd of this VM has flags %#x, needed are %#llx\n"
		    "  needed: a kernel that has all of the series", known, flags);

	vm->gmem_fd = ioctl(vm->fd, KVM_CREATE_GUEST_MEMFD, &args);
	if (vm->gmem_fd < 0)
		die("cannot create a guest_memfd of %llu bytes: %m", vm->size);
}

/*
 * One backing.  MMAP lets the host map the pages that are shared; INIT_SHARED
 * makes that all of them at first, so that the VMM can load the guest by
 * writing to memory.  Without it every page starts private, out of reach.
 */
static void create_memory_in_place(struct vm *vm)
{
	create_guest_memfd(vm, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED);
	vm->shared_fd = -1;
}

/*
 * Two backings of the full size: one for what is shared, one for what is
 * private.  A page takes memory in one of them, or in both while it is being
 * carried over.  Per-VM attributes start out as shared.
 */
static void create_memory_per_vm(struct vm *vm)
{
	create_guest_memfd(vm, 0);

	vm->shared_fd = memfd_create("gmem-vmm-shared", MFD_CLOEXEC);
	if (vm->shared_fd < 0 || ftruncate(vm->shared_fd, vm->size))
		die("cannot create a memfd of %llu bytes for shared memory: %m\n"
		    "  needed: CONFIG_TMPFS=y", vm->size);
}

/*
 * Must come before the guest is told in CPUID that it has the hypercall: until
 * then KVM itself answers it with ENOSYS.
 */
static void enable_conversion_exits(struct vm *vm)
{
	struct kvm_enable_cap cap = {
		.cap	 = KVM_CAP_EXIT_HYPERCALL,
		.args[0] = 1 << KVM_HC_MAP_GPA_RANGE,
	};

	if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap))
		die("cannot have KVM_HC_MAP_GPA_RANGE exit to the VMM: %m");
}

void vm_create(struct vm *vm, enum mode wanted, __u64 size)
{
	vm->size = size;
	open_kvm(vm);
	pick_mode(vm, wanted);
	if (vm->mode == MODE_IN_PLACE)
		create_memory_in_place(vm);
	else
		create_memory_per_vm(vm);

	/* A place for all slots, one after another as they are added. */
	vm->ram = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	vm->states = calloc(1, size / PAGE_SIZE);
	if (vm->ram == MAP_FAILED || !vm->states)
		die("cannot map %llu bytes of guest memory: %m\n  try a smaller --size", size);

	pthread_mutex_init(&vm->convert_lock, NULL);
	pthread_mutex_init(&vm->state_lock, NULL);
	enable_conversion_exits(vm);
}

void vm_destroy(struct vm *vm)
{
	int run_size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), i;

	for (i = 0; i < vm->nr_vcpus; i++) {
		munmap(vm->vcpus[i].run, run_size);
		close(vm->vcpus[i].fd);
	}
	munmap(vm->ram, vm->size);
	free(vm->states);
	close(vm->gmem_fd);
	if (vm->shared_fd >= 0)
		close(vm->shared_fd);
	if (vm->stats_fd >= 0)
		close(vm->stats_fd);
	close(vm->fd);
	close(vm->kvm_fd);
}

static void set_slot(struct vm *vm, const struct memslot *slot, __u32 flags, void *view)
{
	struct kvm_userspace_memory_region2 region = {
		.slot			= vm->nr_slots,
		.flags			= flags,
		.guest_phys_addr	= slot->gpa,
		.memory_size		= slot->size,
		.userspace_addr		= (__u64)view,
		.guest_memfd_offset	= flags & KVM_MEM_GUEST_MEMFD ? slot->offset : 0,
		.guest_memfd		= flags & KVM_MEM_GUEST_MEMFD ? vm->gmem_fd : 0,
	};

	if (vm->nr_slots == MAX_SLOTS ||
	    ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &region))
		die("cannot add memslot %d (gpa %#llx, %llu bytes): %m", vm->nr_slots,
		    slot->gpa, slot->size);
	vm->slots[vm->nr_slots++] = *slot;
}

/*
 * Any number of slots can show parts of one guest_memfd, in any order, but no
 * part of it twice.
 *
 * In place, userspace_addr usually is where guest_memfd itself is mapped.  The
 * guest's faults do not need it, but KVM's own accesses to guest memory
 * (instruction emulation, steal time, ...) go through it and must find the same
 * pages.  Per VM it is also where the guest's shared memory comes from.
 */
void vm_add_slot(struct vm *vm, __u64 gpa, __u64 size, __u64 offset, void *view)
{
	int fd = vm->mode == MODE_IN_PLACE ? vm->gmem_fd : vm->shared_fd;
	struct memslot slot = {
		.gpa = gpa, .size = size, .offset = offset, .host = vm->ram + vm->ram_used,
		.convertible = gpa != LOW_GPA,
	};

	if (size > vm->size - vm->ram_used ||
	    mmap(slot.host, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		 offset) == MAP_FAILED)
		die("cannot map %llu bytes of guest memory: %m\n  try a smaller --size", size);
	vm->ram_used += size;
	set_slot(vm, &slot, KVM_MEM_GUEST_MEMFD, view ?: slot.host);
}

static struct memslot *find_slot(struct vm *vm, __u64 gpa)
{
	struct memslot *slot;

	for (slot = vm->slots; slot < vm->slots + vm->nr_slots; slot++) {
		if (gpa >= slot->gpa && gpa - slot->gpa < slot->size)
			return slot;
	}
	return NULL;
}

void *vm_find(struct vm *vm, __u64 gpa, __u64 size)
{
	struct memslot *slot = find_slot(vm, gpa);

	if (!slot || size > slot->size - (gpa - slot->gpa))
		return NULL;
	return slot->host + (gpa - slot->gpa);
}

void *vm_host_address(struct vm *vm, __u64 gpa, __u64 size)
{
	void *host = vm_find(vm, gpa, size);

	if (!host)
		die("no memslot has %llu bytes at gpa %#llx", size, gpa);
	return host;
}

void vm_add_alias(struct vm *vm, __u64 gpa, __u64 size, __u64 of)
{
	struct memslot slot = { .gpa = gpa, .size = size, .host = vm_find(vm, of, PAGE_SIZE) };

	set_slot(vm, &slot, 0, slot.host);
}

/* What of [gpa, gpa + left) is in the memslot of gpa; false if none can be converted. */
struct piece {
	__u64 gpa;
	__u64 offset;	/* in guest_memfd */
	__u64 size;
};

static bool first_piece(struct vm *vm, __u64 gpa, __u64 left, struct piece *piece)
{
	struct memslot *slot = find_slot(vm, gpa);

	if (!slot || !slot->convertible)
		return false;
	piece->gpa = gpa;
	piece->offset = slot->offset + (gpa - slot->gpa);
	piece->size = slot->size - (gpa - slot->gpa);
	if (piece->size > left)
		piece->size = left;
	return true;
}

#define for_each_piece(vm, start, end, piece)					\
	for ((piece)->gpa = (start);						\
	     (piece)->gpa < (end) &&						\
	     first_piece(vm, (piece)->gpa, (end) - (piece)->gpa, piece);	\
	     (piece)->gpa += (piece)->size)

static void replace_states(struct vm *vm, __u64 gpa, __u64 end, enum page_state from,
			   enum page_state to)
{
	struct piece piece;
	__u64 page;

	pthread_mutex_lock(&vm->state_lock);
	for_each_piece(vm, gpa, end, &piece) {
		for (page = 0; page < piece.size / PAGE_SIZE; page++) {
			unsigned char *state = &vm->states[piece.offset / PAGE_SIZE + page];

			if (*state == from)
				*state = to;
		}
	}
	pthread_mutex_unlock(&vm->state_lock);
}

void *vm_get_shared(struct vm *vm, __u64 gpa, __u64 size)
{
	struct piece piece;
	__u64 page;

	pthread_mutex_lock(&vm->state_lock);
	if (!size || size > vm->size || !first_piece(vm, gpa, size, &piece) || piece.size < size)
		goto refuse;
	for (page = piece.offset / PAGE_SIZE; page * PAGE_SIZE < piece.offset + size; page++) {
		if (vm->states[page] != PAGE_SHARED)
			goto refuse;
	}
	return vm_find(vm, gpa, size);

refuse:
	pthread_mutex_unlock(&vm->state_lock);
	return NULL;
}

void vm_put_shared(struct vm *vm)
{
	pthread_mutex_unlock(&vm->state_lock);
}

__u64 vm_private_bytes(struct vm *vm)
{
	__u64 bytes = 0, page;

	pthread_mutex_lock(&vm->convert_lock);
	for (page = 0; page < vm->size / PAGE_SIZE; page++)
		bytes += vm->states[page] == PAGE_PRIVATE ? PAGE_SIZE : 0;
	pthread_mutex_unlock(&vm->convert_lock);
	return bytes;
}

static void punch_hole(int fd, __u64 offset, __u64 size)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size))
		die("cannot free %llu bytes of memory at offset %#llx: %m", size, offset);
}

/* 1 ms, then twice as long each time, up to 64 ms. */
static void back_off(int try)
{
	int shift = try < MAX_BACK_OFF ? try : MAX_BACK_OFF;
	struct timespec delay = { .tv_nsec = 1000000L << shift };

	nanosleep(&delay, NULL);
}

static __u64 milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

/*
 * Attributes belong to the memory, so the ioctl is one of guest_memfd and takes
 * offsets in the file, not guest addresses.
 *
 * EAGAIN: somebody in the host still holds a reference to the page at
 * error_offset (O_DIRECT, io_uring, vhost, VFIO, ...), and nothing has been
 * changed.  Most of these are I/O in flight and go away by themselves, hence
 * the retries.  But the guest decides what it converts and when, so they must
 * be bounded: a page that is mapped for DMA stays in use for good, and a vCPU
 * must not hang in the VMM because of it.  The bound is a time, as the ioctl
 * itself waits a moment before it fails.
 *
 * To find who it is, turn error_offset into a guest address and look it up
 * among the requests that the VMM's own devices have in flight and in its DMA
 * mappings: device back-ends have to let go before memory becomes private, as
 * they do before memory is unplugged.  For references from elsewhere, take the
 * page frame number from /proc/self/pagemap and trace page_ref:* for it.
 */
static bool convert_in_place(struct vm *vm, __u64 offset, __u64 size, __u64 attributes)
{
	__u64 deadline = milliseconds() + BUSY_MS;
	int try;

	for (try = 0; ; try++) {
		struct kvm_memory_attributes2 args = {
			.offset		= offset,
			.size		= size,
			.attributes	= attributes,
		};

		if (!ioctl(vm->gmem_fd, KVM_SET_MEMORY_ATTRIBUTES2, &args))
			return true;
		if (errno != EAGAIN)
			die("cannot convert %llu bytes at offset %#llx of guest_memfd: %m",
			    size, offset);
		vm->retries++;
		if (milliseconds() >= deadline || vm->stopping)
			return false;
		if (vm->on_busy)
			vm->on_busy(vm, args.error_offset);
		back_off(try);
	}
}

/*
 * Here attributes belong to the VM's address space, and memory is another
 * matter.  What has become shared has been copied by the guest before: free the
 * private side.  What has become private it copies next: the shared side must
 * stay until it asks for release.
 */
static void convert_per_vm(struct vm *vm, const struct piece *piece, __u64 attributes)
{
	struct kvm_memory_attributes args = {
		.address	= piece->gpa,
		.size		= piece->size,
		.attributes	= attributes,
	};

	if (ioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &args))
		die("cannot convert %llu bytes at gpa %#llx: %m", piece->size, piece->gpa);
	if (!attributes)
		punch_hole(vm->gmem_fd, piece->offset, piece->size);
}

/* How many pages do not have the state yet.  (LEAVING to SHARED is undo().) */
static __u64 count_changes(struct vm *vm, const struct piece *piece, bool to_private)
{
	unsigned char *states = &vm->states[piece->offset / PAGE_SIZE];
	__u64 page, changes = 0;

	for (page = 0; page < piece->size / PAGE_SIZE; page++)
		changes += to_private ? states[page] != PAGE_PRIVATE : states[page] != PAGE_SHARED;
	return changes;
}

static bool convert_piece(struct vm *vm, const struct piece *piece, bool to_private)
{
	__u64 attributes = to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;

	if (vm->mode == MODE_PER_VM)
		convert_per_vm(vm, piece, attributes);
	else if (!convert_in_place(vm, piece->offset, piece->size, attributes))
		return false;

	vm->pages_changed += count_changes(vm, piece, to_private);
	if (vm->on_converted)
		vm->on_converted(vm, piece->offset, piece->size, to_private);
	return true;
}

/*
 * A later piece could not become private: those before it must not stay so.
 * What of them was private already must, though, hence the look at the states.
 */
static void undo(struct vm *vm, __u64 gpa, __u64 end)
{
	struct piece piece, run = { };
	unsigned char *states;
	__u64 page, nr;

	for_each_piece(vm, gpa, end, &piece) {
		states = &vm->states[piece.offset / PAGE_SIZE];
		nr = piece.size / PAGE_SIZE;
		for (page = 0; page <= nr; page++) {
			if (page < nr && states[page] == PAGE_LEAVING) {
				run.size += PAGE_SIZE;
				continue;
			}
			run.gpa = piece.gpa + page * PAGE_SIZE - run.size;
			run.offset = piece.offset + page * PAGE_SIZE - run.size;
			if (run.size)
				convert_piece(vm, &run, false);
			run.size = 0;
		}
	}
}

/*
 * Each ioctl is all or nothing, and so is the whole of what the guest asked
 * for, although it takes one for each memslot.  Devices lose their access
 * before memory becomes private, and get it after it has become shared.
 */
static bool convert(struct vm *vm, __u64 gpa, __u64 end, bool to_private)
{
	struct piece piece;

	if (to_private)
		replace_states(vm, gpa, end, PAGE_SHARED, PAGE_LEAVING);
	for_each_piece(vm, gpa, end, &piece) {
		if (convert_piece(vm, &piece, to_private))
			continue;
		undo(vm, gpa, piece.gpa);
		replace_states(vm, gpa, end, PAGE_LEAVING, PAGE_SHARED);
		return false;
	}
	if (to_private)
		replace_states(vm, gpa, end, PAGE_LEAVING, PAGE_PRIVATE);
	else
		replace_states(vm, gpa, end, PAGE_PRIVATE, PAGE_SHARED);
	return true;
}

/* All of this is the guest's word and may be anything. */
static bool can_convert(struct vm *vm, __u64 gpa, __u64 nr_pages)
{
	__u64 end = gpa + nr_pages * PAGE_SIZE;
	struct piece piece = { .gpa = gpa };

	if (gpa % PAGE_SIZE || !nr_pages || nr_pages > vm->size / PAGE_SIZE || end < gpa)
		return false;
	for_each_piece(vm, gpa, end, &piece)
		;
	return piece.gpa == end;
}

/*
 * EINVAL and EAGAIN are, besides 0, the only values KVM accepts for every type
 * of VM.  They are positive: KVM translates them to the ABI of SNP and TDX
 * guests; others see them as they are.
 *
 * Two vCPUs may ask for contradictory conversions of the same memory: one lock
 * for all is the simplest way to serialize them.
 */
int vcpu_convert(struct vcpu *vcpu, __u64 gpa, __u64 nr_pages, bool to_private)
{
	__u64 size = nr_pages * PAGE_SIZE;
	struct vm *vm = vcpu->vm;
	bool valid, done = false;

	pthread_mutex_lock(&vm->convert_lock);
	valid = can_convert(vm, gpa, nr_pages);
	if (valid)
		done = convert(vm, gpa, gpa + size, to_private);
	vm->requests += done;
	vm->refused += !valid;
	vm->given_up += valid && !done;
	pthread_mutex_unlock(&vm->convert_lock);
	if (!done)
		return valid ? EAGAIN : EINVAL;

	/*
	 * The guest has no mappings of the range left.  It asked for private
	 * memory in order to use it: spare it an exit for every page.
	 */
	if (to_private)
		vcpu_prefault(vcpu, gpa, size);
	return 0;
}

void vm_make_private(struct vm *vm, __u64 gpa, __u64 size)
{
	bool done;

	pthread_mutex_lock(&vm->convert_lock);
	done = can_convert(vm, gpa, size / PAGE_SIZE) && convert(vm, gpa, gpa + size, true);
	pthread_mutex_unlock(&vm->convert_lock);
	if (!done)
		die("cannot make %llu bytes at gpa %#llx private", size, gpa);
}

/* What cannot be mapped now is mapped when it is used, or fails then. */
void vcpu_prefault(struct vcpu *vcpu, __u64 gpa, __u64 size)
{
	struct kvm_pre_fault_memory range = { .gpa = gpa, .size = size };

	while (range.size) {
		if (ioctl(vcpu->fd, KVM_PRE_FAULT_MEMORY, &range) && errno != EINTR)
			return;
	}
}

void vm_release_shared(struct vm *vm, __u64 gpa, __u64 size)
{
	struct piece piece;

	if (vm->mode != MODE_PER_VM || !can_convert(vm, gpa, size / PAGE_SIZE))
		die("guest released shared memory that it does not have: gpa %#llx, %llu bytes",
		    gpa, size);
	for_each_piece(vm, gpa, gpa + size, &piece)
		punch_hole(vm->shared_fd, piece.offset, piece.size);
}

/*
 * What KVM supports, plus the hypercall, which only the VMM can offer, and minus
 * all else of KVM's own: what is paravirtual about it, like its clock, is memory
 * that KVM writes, through userspace_addr, and that is not the guest's if it is
 * private.
 */
static void set_cpuid(struct vcpu *vcpu)
{
	struct kvm_cpuid2 *cpuid;
	struct kvm_cpuid_entry2 *entry;

	cpuid = calloc(1, sizeof(*cpuid) + MAX_CPUID * sizeof(cpuid->entries[0]));
	if (!cpuid)
		die("no memory for CPUID");

	cpuid->nent = MAX_CPUID;
	if (ioctl(vcpu->vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid))
		die("cannot get the supported CPUID: %m");

	for (entry = cpuid->entries; entry < cpuid->entries + cpuid->nent; entry++) {
		if (entry->function == KVM_CPUID_FEATURES)
			entry->eax = 1 << KVM_FEATURE_HC_MAP_GPA_RANGE;
		else if (entry->function == 1)
			entry->ebx = (entry->ebx & 0xffff) | vcpu->id << 24 | 1 << 16;
		else if (entry->function == CPUID_TOPOLOGY)
			entry->edx = vcpu->id;
		else if (entry->function == CPUID_AMD_TOPOLOGY)
			entry->eax = vcpu->id;
	}
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid))
		die("cannot set the vCPU's CPUID: %m");
	free(cpuid);
}

void vcpu_set_long_mode(struct vcpu *vcpu, const struct kvm_regs *regs, __u64 cr3)
{
	const struct kvm_segment code = {
		.limit = ~0U, .selector = 0x10, .type = 0xb,
		.present = 1, .s = 1, .l = 1, .g = 1,
	};
	const struct kvm_segment data = {
		.limit = ~0U, .selector = 0x18, .type = 0x3,
		.present = 1, .s = 1, .db = 1, .g = 1,
	};
	struct kvm_sregs sregs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
		die("cannot get the vCPU's registers: %m");

	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = CR0_PE | CR0_NE | CR0_WP | CR0_PG;
	sregs.cr3 = cr3;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;

	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) || ioctl(vcpu->fd, KVM_SET_REGS, regs))
		die("cannot set the vCPU's registers: %m");
}

static void create_vcpu(struct vcpu *vcpu)
{
	int run_size = ioctl(vcpu->vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	vcpu->fd = ioctl(vcpu->vm->fd, KVM_CREATE_VCPU, vcpu->id);
	if (vcpu->fd < 0 || run_size < 0)
		die("cannot create a vCPU: %m");

	vcpu->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		die("cannot map the vCPU's run structure: %m");

	set_cpuid(vcpu);
	sem_init(&vcpu->go, 0, 0);
	sem_init(&vcpu->idle, 0, 0);
}

void vm_create_vcpus(struct vm *vm, int nr)
{
	for (vm->nr_vcpus = 0; vm->nr_vcpus < nr; vm->nr_vcpus++) {
		struct vcpu *vcpu = &vm->vcpus[vm->nr_vcpus];

		vcpu->vm = vm;
		vcpu->id = vm->nr_vcpus;
		create_vcpu(vcpu);
	}
}

/* Only there so that the signal interrupts KVM_RUN. */
static void handle_stop(int signal_number)
{
	(void)signal_number;
}

void vm_start_vcpus(struct vm *vm, void *(*thread)(void *vcpu))
{
	struct sigaction action = { .sa_handler = handle_stop };
	int i;

	sigaction(SIGUSR1, &action, NULL);
	for (i = 0; i < vm->nr_vcpus; i++) {
		if (pthread_create(&vm->vcpus[i].thread, NULL, thread, &vm->vcpus[i]))
			die("cannot create a thread for vCPU %d", i);
	}
}

/*
 * The signal alone could come just before KVM_RUN: immediate_exit makes that
 * return, too.
 */
void vm_stop(struct vm *vm)
{
	int i;

	__atomic_store_n(&vm->stopping, true, __ATOMIC_SEQ_CST);
	for (i = 0; i < vm->nr_vcpus; i++) {
		vm->vcpus[i].run->immediate_exit = 1;
		pthread_kill(vm->vcpus[i].thread, SIGUSR1);
	}
}

void vm_join_vcpus(struct vm *vm)
{
	int i;

	for (i = 0; i < vm->nr_vcpus; i++)
		pthread_join(vm->vcpus[i].thread, NULL);
}

static void serve_hypercall(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	__u64 flags = run->hypercall.args[2];

	if (run->hypercall.nr != KVM_HC_MAP_GPA_RANGE)
		die("guest made hypercall %llu, which was not asked for", run->hypercall.nr);
	run->hypercall.ret = flags >> 5 ? EINVAL :
		vcpu_convert(vcpu, run->hypercall.args[0], run->hypercall.args[1],
			     flags & KVM_MAP_GPA_RANGE_ENCRYPTED);
}

/* False if the VM is being stopped. */
static bool enter_guest(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	while (!__atomic_load_n(&vcpu->vm->stopping, __ATOMIC_SEQ_CST)) {
		if (!ioctl(vcpu->fd, KVM_RUN, 0))
			return true;
		if (errno == EINTR || errno == EAGAIN)
			continue;
		/*
		 * The guest used memory in the state that it does not have.  A
		 * guest that relies on the VMM to convert what it touches would
		 * be served here; this one always asks.
		 */
		if (errno == EFAULT && run->exit_reason == KVM_EXIT_MEMORY_FAULT)
			die("guest fault on %s memory at gpa %#llx cannot be resolved",
			    run->memory_fault.flags & KVM_MEMORY_EXIT_FLAG_PRIVATE ?
			    "private" : "shared", run->memory_fault.gpa);
		die("cannot run the guest: %m");
	}
	return false;
}

static void die_of_exit(struct vcpu *vcpu)
{
	struct kvm_regs regs = { };

	ioctl(vcpu->fd, KVM_GET_REGS, &regs);
	die("guest stopped with exit reason %u%s, vCPU %d, RIP %#llx", vcpu->run->exit_reason,
	    vcpu->run->exit_reason == KVM_EXIT_SHUTDOWN ? " (triple fault)" : "",
	    vcpu->id, regs.rip);
}

void vcpu_run(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct vm *vm = vcpu->vm;

	while (enter_guest(vcpu)) {
		if (vm->on_exit)
			vm->on_exit(vcpu);

		switch (run->exit_reason) {
		case KVM_EXIT_HYPERCALL:
			serve_hypercall(vcpu);
			break;
		case KVM_EXIT_IO:
			if (!vm->on_io(vcpu, run->io.port, (void *)run + run->io.data_offset,
				       run->io.size, run->io.direction == KVM_EXIT_IO_OUT))
				return;
			break;
		case KVM_EXIT_INTERNAL_ERROR:
			if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
			    vm->on_emulation_failure && vm->on_emulation_failure(vcpu))
				break;
			die_of_exit(vcpu);
			break;
		default:
			die_of_exit(vcpu);
		}
	}
}
